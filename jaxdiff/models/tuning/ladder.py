"""Ladder side-tuning: a narrow network beside a frozen one, which reads its activations.

    h_i = block_i(... x)                            the backbone, forward alone
    z <- side_i(mu_i z + (1 - mu_i) D_i h_i)        mu_i = sigmoid(a_i / T), 1/2 at the start

No gradient goes through the backbone, so that none of its activations are kept.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax import Array

from jaxdiff import arrays
from jaxdiff.models.tuning import calls, linear, paths

__all__ = ["MIXES", "OUTPUTS", "Ladder", "narrow"]

MIXES = ("gate", "sum")
OUTPUTS = ("sum", "up")

_WIDTHS = ("width", "channels", "hidden", "inner", "head_channels")


@dataclass(frozen=True)
class Ladder:
    """A frozen network and a side network whose blocks read the outputs of the frozen ones.

    At each of `blocks` of the side network its activation is mixed with what the block of the
    same name of the backbone returned. D_i is a linear layer over the channels; a_i starts as 0.

        gate    z <- side_i(mu_i z + (1 - mu_i) D_i h_i)
        sum     z <- side_i(z) + D_i h_i        no gates: the simpler form

    And at the end

        sum     y = backbone(x) + side(x)       the backbone's own output at the start, where the
                                                side network starts as zero, as most here do
        up      y = U side(x)                   U a linear layer to the backbone's channels

    Not a module: equal fields make equal values, and its variables are {"params": {"backbone":
    ..., "ladder": {"side": ..., "rungs": {block: {"kernel", "bias", "gate"}}, "up": ...}}}, gates
    where there are any. The gradient by the backbone's parameters is exactly 0, its dropout off;
    gradients by x flow on.

    Attributes:
        backbone: any network.
        side: a network whose blocks have the same names, such as `narrow(backbone, 8)`; it is
            given the same arguments, masks included.
        blocks: the paths of the blocks that read, one or more.
        dropped: those of blocks that the side network leaves out: the identity in their place.
        first: the paths of modules in whose place the side network has D_0 of what the backbone's
            returned, such as ("tokens",), the embedding; () where it has all of its own.
        output: "sum" or "up".
        temperature: T of the gates, > 0.
        mix: "gate" or "sum".

    Raises:
        ValueError: no blocks, one named twice, an unknown output or mix, or T that is not positive.

    Source: Sung et al. 2022, arXiv:2206.06522, section 3, and the released code (the outputs of
    blocks are read, T = 0.1); there `up` is before a frozen head. Output by sum: Zhang et al.
    2020, arXiv:1912.13503 (side-tuning). Mix by sum: Su 2022, https://kexue.fm/archives/9138 and
    its released code, whose D_i have no bias, and whose side network has a block for every third.
    """

    backbone: nn.Module
    side: nn.Module
    blocks: tuple[str, ...]
    dropped: tuple[str, ...] = ()
    first: tuple[str, ...] = ()
    output: str = "sum"
    temperature: float = 0.1
    mix: str = "gate"

    def __post_init__(self):
        for name in ("blocks", "dropped", "first"):
            if not isinstance(getattr(self, name), tuple):
                raise ValueError(
                    f'{name} must be a tuple such as ("block_1",), got {getattr(self, name)!r}'
                )
        every = (*self.blocks, *self.dropped, *self.first)
        if not self.blocks or len(set(every)) < len(every):
            raise ValueError(
                "blocks must be one or more, and each in one of blocks, dropped and first, got"
                f" blocks={self.blocks}, dropped={self.dropped}, first={self.first}"
            )
        for name, known in (("output", OUTPUTS), ("mix", MIXES)):
            if getattr(self, name) not in known:
                got = getattr(self, name)
                raise ValueError(f"{name} must be one of {', '.join(known)}, got {got!r}")
        arrays.check_range("temperature", self.temperature, 0, math.inf, "()")

    def init(
        self, key: Array, *args: Any, backbone: Any = None, side: Any = None, **kwargs: Any
    ) -> dict[str, Any]:
        """The variables at the start.

        Args:
            key: a PRNG key.
            *args, **kwargs: what both networks take; only shapes and dtypes count.
            backbone: the trained parameters of the frozen one, None for new ones.
            side: some of the other's, such as `prune` makes; None for new ones. Those in the place
                of which D_0 stands, or nothing, are left out.

        Raises:
            ValueError: parameters of another network; a block that one of the networks does not
                have, or of other pixels or tokens in one than in the other.
        """
        keys = jax.random.split(key, 4)
        params = calls.start(self.backbone, keys[0], backbone, args, kwargs)
        own = calls.shapes(self.backbone, args, kwargs)
        beside = calls.shapes(self.side, args, kwargs)
        self._check(own, beside)
        rungs: dict[str, Array] = {}
        for i, name in enumerate((*self.first, *self.blocks)):
            to = self._place(name, beside)
            made = linear.start(jax.random.fold_in(keys[1], i), own[name][1][-1], to[-1])
            if name in self.blocks and self.mix == "gate":
                made["gate"] = jnp.zeros((), arrays.float_dtype())
            rungs |= {f"{name}/{part}": leaf for part, leaf in made.items()}

        def call(path: str, module: Callable, args: tuple, kwargs: dict[str, Any]) -> Any:
            if path in self.first:
                return jnp.zeros(beside[path][1], arrays.float_dtype())
            return args[0] if path in self.dropped else module(*args, **kwargs)

        with calls.instead(call, (*self.first, *self.dropped)):
            drawn = paths.flat(self.side.init(keys[2], *args, **kwargs)["params"])
        params_side = self._given(drawn, paths.flat(side or {}))
        ladder = {"side": paths.nested(params_side), "rungs": paths.nested(rungs)}
        if self.output == "up":
            ladder["up"] = linear.start(keys[3], beside[""][1][-1], own[""][1][-1])
        return {"params": {"backbone": params, "ladder": ladder}}

    def apply(
        self,
        variables: dict[str, Any],
        *args: Any,
        key: Array | None = None,
        train: bool = False,
        **kwargs: Any,
    ) -> Any:
        """The output of both together.

        Args:
            variables: as `init` made them.
            *args, **kwargs: what both networks take.
            key: for the side network's dropout.
            train: static, whether that is on; the backbone's never is.
        """
        ladder = variables["params"]["ladder"]
        rungs = paths.flat(ladder["rungs"])
        backbone = jax.lax.stop_gradient(variables["params"]["backbone"])
        read = (*self.first, *self.blocks)
        y, told = calls.outputs(self.backbone, backbone, read, args, kwargs)

        def seen(path: str, dtype: Any) -> Array:
            to = {name: rungs[f"{path}/{name}"] for name in ("kernel", "bias")}
            return linear.dense(to, told[path].astype(dtype))

        def call(path: str, module: Callable, args: tuple, kwargs: dict[str, Any]) -> Any:
            if path in self.first:
                return seen(path, told[path].dtype)
            if path in self.dropped:
                return args[0]
            if path not in self.blocks:
                return module(*args, **kwargs)
            z, *more = args
            if self.mix == "sum":
                z = module(z, *more, **kwargs)
                return z + seen(path, z.dtype)
            mu = jax.nn.sigmoid(rungs[f"{path}/gate"] / self.temperature).astype(z.dtype)
            return module(mu * z + (1 - mu) * seen(path, z.dtype), *more, **kwargs)

        with calls.instead(call, (*self.first, *self.dropped)):
            z = calls.run(self.side, ladder["side"], args, kwargs, key, train)
        return y + z if self.output == "sum" else linear.dense(ladder["up"], z)

    def labels(self, variables: dict[str, Any]) -> Any:
        """What of the variables is "trained" and what "frozen", as a tree like them."""
        params = variables["params"]
        return {
            "params": {
                "backbone": paths.labels(params["backbone"], ()),
                "ladder": paths.labels(params["ladder"], ("*",)),
            }
        }

    def _place(self, name: str, beside: dict[str, Any]) -> tuple[int, ...]:
        """The shape of what a rung comes to: a block's input before it, else what is returned."""
        before = name in self.blocks and self.mix == "gate"
        return beside[name][0 if before else 1]

    def _given(self, drawn: dict[str, Array], given: dict[str, Array]) -> dict[str, Array]:
        """The side network's parameters, those that are given instead of those drawn."""
        replaced = tuple(f"{name}/" for name in (*self.first, *self.dropped))
        found = {path: leaf for path, leaf in given.items() if not path.startswith(replaced)}
        for path, leaf in found.items():
            wanted = drawn[path].shape if path in drawn else "none"
            if leaf.shape != wanted:
                raise ValueError(
                    f"side must hold parameters of the side network: {path} is {leaf.shape},"
                    f" wanted {wanted}"
                )
        return {**drawn, **found}

    def _check(self, own: dict[str, Any], beside: dict[str, Any]) -> None:
        """Raises ValueError where blocks are not there, or do not go together."""
        for part in ("blocks", "dropped", "first"):
            for name in getattr(self, part):
                for which, known in (("backbone", own), ("side network", beside)):
                    if name not in known and not (part == "dropped" and which == "backbone"):
                        top = ", ".join(path for path in known if path and "/" not in path)
                        raise ValueError(
                            f"{part} must name modules of the {which}, such as {top}; got {name!r}"
                        )
        for name in self.blocks:
            place, said = self._place(name, beside), own[name][1]
            if place[:-1] != said[:-1]:
                raise ValueError(
                    f"blocks must not hold {name}: the backbone's returns {list(said)}, the side"
                    f" network's has {list(place)} there, which are other pixels or tokens"
                )
        for name in self.dropped:
            if beside[name][0] != beside[name][1]:
                raise ValueError(
                    f"dropped must not hold {name}, which makes {list(beside[name][1])} of"
                    f" {list(beside[name][0])}: the identity cannot stand for it"
                )
        y, z = own[""][1], beside[""][1]
        if not (y == z if self.output == "sum" else y[:-1] == z[:-1]):
            raise ValueError(
                f"side must return what goes with the backbone's output {list(y)} for"
                f" output={self.output!r}, got {list(z)}"
            )


def narrow(net: nn.Module, ratio: int) -> nn.Module:
    """The same network with all widths divided by `ratio`, and as many blocks and heads.

    Groups of norms become as many as still divide the channels. Scores of attention take heads
    N**2 numbers whatever the width: on long sequences fewer heads, `.clone(heads=...)`, save more.

    Args:
        net: any network of `models`, or a pair of such.
        ratio: >= 1; must divide `width` or `channels` of the network, and what else is a width.

    Raises:
        ValueError: it does not divide, or the network has no width.

    Source: Sung et al. 2022, arXiv:2206.06522, section 3.2: ratio 8.
    """
    arrays.check_count("ratio", ratio)
    ratio = int(ratio)
    inside = {name: value for name, value in vars(net).items() if isinstance(value, nn.Module)}
    inside = {name: value for name, value in inside.items() if name != "parent"}
    own = {name: getattr(net, name) for name in _WIDTHS if getattr(net, name, None) is not None}
    if not own and not inside:
        raise ValueError(f"a network with width or channels is wanted, got {type(net).__name__}")
    for name, value in own.items():
        if value % ratio:
            raise ValueError(f"ratio must divide {name} of the network, {value}, got {ratio}")
    changes: dict[str, Any] = {name: value // ratio for name, value in own.items()}
    if hasattr(net, "groups"):
        changes["groups"] = math.gcd(net.groups, changes["channels"])
    changes |= {name: narrow(part, ratio) for name, part in inside.items()}
    return net.clone(**changes)
