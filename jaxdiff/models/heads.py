"""Further outputs of a network: heads on its last features, which the reverse variance is made of.

    y, features, emb = backbone(x, t, cond)
    out = [y, head_1(features, emb), head_2(features, emb), ...]        along the channels

Every network here says its features and its conditioning vector by `sow`, before its last norm.
"""

import math
from dataclasses import dataclass
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax import Array

from jaxdiff.models import embeddings, layers, precision
from jaxdiff.models.mlp import MLPBlock

__all__ = ["FORMS", "Head", "WithHeads"]

FORMS = ("simple", "residual")


class Head(nn.Module):
    """One more output of a network, zero at the start.

        simple      conv_0(silu(norm(features)))
        residual    the same of a residual block of the features

    On vectors conv_0 is a dense layer. Features that are smaller than the output, such as tokens
    of patches, give as many channels as make up for it.

    Attributes:
        form: "simple" or "residual".
        dtype: the compute dtype, None for the parameters' own.

    Source: Bao et al. 2022, arXiv:2206.07309, appendix, and their code.
    """

    form: str = "simple"
    dtype: Any = None

    @nn.compact
    def __call__(self, features: Array, emb: Array, shape: tuple[int, ...]) -> Array:
        """[B, ..., F] and [B, E] to [B, *shape], float32; shape is (H, W, C) or (C,)."""
        if features.ndim == 2:
            return precision.output(self._vector(features, emb, shape[0]))
        height, width, channels = shape
        groups = _groups(features.shape[-1])
        h = features
        if self.form == "residual":
            block = layers.ResidualBlock(h.shape[-1], groups, dtype=self.dtype, name="block")
            h = block(h, emb)
        h = nn.silu(layers.group_norm(groups, dtype=self.dtype, name="norm")(h))
        channels *= (height // h.shape[1]) * (width // h.shape[2])
        out = layers.conv(channels, kernel_init=layers.ZEROS, dtype=self.dtype, name="out")
        return precision.output(layers.depth_to_space(out(h), height, width))

    def _vector(self, h: Array, emb: Array, channels: int) -> Array:
        if self.form == "residual":
            h = MLPBlock(dtype=self.dtype, name="block")(h, emb)
        h = nn.silu(layers.layer_norm(dtype=self.dtype, name="norm")(h))
        return layers.dense(channels, kernel_init=layers.ZEROS, dtype=self.dtype, name="out")(h)


class _Seen(NamedTuple):
    """What a backbone says: its output [B, ..., C], features and conditioning vector."""

    y: Array
    features: Array
    emb: Array


@dataclass(frozen=True)
class WithHeads:
    """A network with heads, as functions for `make_denoiser(net.apply, ..., heads=net.names)`.

    Not a module: equal fields make equal values, and its variables are
    {"params": {"backbone": those of the backbone, "heads": {name: ...}}}.

    Attributes:
        backbone: any network of `models` with an output of as many channels as its input.
        names: of the heads, in the order of their channels.
        form: of every head, "simple" or "residual".
        frozen: whether the backbone stays as it is: the gradient by its parameters is exactly 0,
            its dropout off, and heads are trained as a second stage. Gradients by x flow on.

    Raises:
        ValueError: names that are no tuple, none or equal names, or an unknown form.

    Source: Bao et al. 2022, arXiv:2206.07309, section 5 (two stages) and appendix.
    """

    backbone: nn.Module
    names: tuple[str, ...]
    form: str = "simple"
    frozen: bool = True

    def __post_init__(self):
        if not isinstance(self.names, tuple):
            raise ValueError(f'names must be a tuple such as ("residual2",), got {self.names!r}')
        if not self.names or len(set(self.names)) < len(self.names):
            raise ValueError(f"names must be one or more, each once, got {self.names}")
        if self.form not in FORMS:
            raise ValueError(f"form must be one of {', '.join(FORMS)}, got {self.form!r}")

    def init(self, key: Array, x: Array, t: Array, cond: embeddings.Cond = None) -> dict[str, Any]:
        """The variables at the start: those of the backbone, and heads that return 0.

        Args:
            key: a PRNG key.
            x, t, cond: what the backbone takes; only shapes and dtypes count.
        """
        key, *keys = jax.random.split(key, 1 + len(self.names))
        params = self.backbone.init(key, x, t, cond)["params"]
        seen = self._ask(params, x, t, cond, None, False)
        named = zip(self.names, keys, strict=True)
        heads = {name: self._head().init(k, *seen[1:], seen.y.shape[1:]) for name, k in named}
        heads = {name: variables["params"] for name, variables in heads.items()}
        return {"params": {"backbone": params, "heads": heads}}

    def apply(
        self,
        variables: dict[str, Any],
        x: Array,
        t: Array,
        cond: embeddings.Cond = None,
        *,
        key: Array | None = None,
        train: bool = False,
    ) -> Array:
        """The backbone's output and those of the heads.

        Args:
            variables: as `init` made them.
            x, t, cond: what the backbone takes.
            key: for its dropout.
            train: static, whether dropout is on; never in a frozen backbone.

        Returns:
            [B, ..., C (1 + heads)], float32.

        Raises:
            ValueError: a backbone that does not say its features; and what the backbone raises.
        """
        params, heads = variables["params"]["backbone"], variables["params"]["heads"]
        if self.frozen:
            params, train = jax.lax.stop_gradient(params), False
        seen = self._ask(params, x, t, cond, key, train)
        outs = [
            self._head().apply({"params": heads[name]}, *seen[1:], seen.y.shape[1:])
            for name in self.names
        ]
        return jnp.concatenate([seen.y, *outs], axis=-1)

    def _head(self) -> Head:
        return Head(self.form, self.backbone.dtype)

    def _ask(
        self,
        params: Any,
        x: Array,
        t: Array,
        cond: embeddings.Cond,
        key: Array | None,
        train: bool,
    ) -> _Seen:
        y, told = self.backbone.apply(
            {"params": params},
            x,
            t,
            cond,
            train=train,
            rngs=None if key is None else {"dropout": key},
            mutable=["intermediates"],
        )
        told = told.get("intermediates", {})
        if not {"features", "emb"} <= set(told):
            name = type(self.backbone).__name__
            raise ValueError(f"backbone must sow 'features' and 'emb', {name} does not")
        return _Seen(y, told["features"][0], told["emb"][0])


def _groups(channels: int) -> int:
    """The groups of a norm: a divisor, 32 where there are channels enough for 4 in each."""
    return math.gcd(channels, max(1, min(32, channels // 4)))
