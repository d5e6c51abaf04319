"""Adapters: small residual perceptrons between the layers of a network that stays as it is."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import flax.linen as nn
import jax
from jax import Array

from jaxdiff import arrays
from jaxdiff.models import layers
from jaxdiff.models.tuning import calls, linear, paths

__all__ = ["Adapters"]


@dataclass(frozen=True)
class Adapters:
    """A network that stays as it is, with an adapter after each of some modules.

        y <- y + up(gelu(down(y))),    down to `width` channels, up starts as zero

    On pixels and tokens alike it is over the channels. Not a module: equal fields make equal
    values, and its variables are {"params": {"backbone": those of the network, "adapters":
    {module: {"down", "up"}}}}.

    Attributes:
        backbone: any network.
        modules: patterns of the modules, as `paths` has them; () for all of `find_blocks`. As
            published, ("*/attention", "*/perceptron") of a transformer: before they are added.
        width: of an adapter, >= 1.
        trained: patterns of what is trained of the network itself, such as its last layer.

    Raises:
        ValueError: a width that is no positive number.

    Source: Houlsby et al. 2019, arXiv:1902.00751, section 2.1, who train the norms as well, and
    the head.
    """

    backbone: nn.Module
    modules: tuple[str, ...] = ()
    width: int = 64
    trained: tuple[str, ...] = ()

    def __post_init__(self):
        arrays.check_count("width", self.width)

    def init(self, key: Array, *args: Any, backbone: Any = None, **kwargs: Any) -> dict[str, Any]:
        """The variables at the start, at which the output is the network's own.

        Args:
            key: a PRNG key.
            *args, **kwargs: what the network takes; only shapes and dtypes count.
            backbone: its trained parameters, None for new ones.

        Raises:
            ValueError: parameters of another network, or a pattern that names no module.
        """
        key, key_adapters = jax.random.split(key)
        params = calls.start(self.backbone, key, backbone, args, kwargs)
        paths.labels(params, self.trained)
        found = calls.shapes(self.backbone, args, kwargs)
        del found[""]
        made: dict[str, Array] = {}
        usual = calls.find_blocks(self.backbone, *args, **kwargs)
        for i, name in enumerate(paths.matching("modules", self.modules or usual, found)):
            features, draw = found[name][1][-1], jax.random.fold_in(key_adapters, i)
            down = linear.start(draw, features, self.width)
            up = linear.start(draw, self.width, features, layers.ZEROS)
            made |= {f"{name}/down/{part}": leaf for part, leaf in down.items()}
            made |= {f"{name}/up/{part}": leaf for part, leaf in up.items()}
        return {"params": {"backbone": params, "adapters": paths.nested(made)}}

    def apply(
        self,
        variables: dict[str, Any],
        *args: Any,
        key: Array | None = None,
        train: bool = False,
        **kwargs: Any,
    ) -> Any:
        """The output of the network with its adapters.

        Args:
            variables: as `init` made them.
            *args, **kwargs: what the network takes.
            key: for its dropout.
            train: static, whether dropout is on.
        """
        params = variables["params"]["backbone"]
        adapters = paths.flat(variables["params"]["adapters"])

        def part(path: str) -> dict[str, Array]:
            return {name: adapters[f"{path}/{name}"] for name in ("kernel", "bias")}

        def call(path: str, module: Callable, args: tuple, kwargs: dict[str, Any]) -> Any:
            y = module(*args, **kwargs)
            if f"{path}/down/kernel" not in adapters:
                return y
            hidden = nn.gelu(linear.dense(part(f"{path}/down"), y))
            return y + linear.dense(part(f"{path}/up"), hidden)

        with calls.instead(call):
            held = paths.hold(params, self.trained)
            return calls.run(self.backbone, held, args, kwargs, key, train)

    def labels(self, variables: dict[str, Any]) -> Any:
        """What of the variables is "trained" and what "frozen", as a tree like them."""
        params = variables["params"]
        return {
            "params": {
                "backbone": paths.labels(params["backbone"], self.trained),
                "adapters": paths.labels(params["adapters"], ("*",)),
            }
        }
