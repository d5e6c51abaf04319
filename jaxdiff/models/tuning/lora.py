"""LoRA: the change of a linear layer as a product of two thin matrices."""

import fnmatch
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax import Array

from jaxdiff import arrays
from jaxdiff.models.tuning import calls, paths

__all__ = ["LoRA"]

_ATTENTION = ("*/query", "*/value", "*/qkv")

_UNIFORM = nn.initializers.variance_scaling(1 / 3, "fan_in", "uniform")  # +- 1 / sqrt(inputs)


@dataclass(frozen=True)
class LoRA:
    """A network that stays as it is, with low-rank changes of some of its linear layers.

        y = x kernel + bias + (alpha / rank) (x down) up

    `up` starts as zero: the untuned network is the network itself. The kernel's gradient is never
    formed. Not a module: equal fields make equal values, and its variables are {"params":
    {"backbone": those of the network, "lora": {layer: {"down", "up"}}}}.

    Attributes:
        backbone: any network.
        layers: patterns of the layers, dense or convolutions of 1x1, as `paths` has them; () for
            "query" and "value" of every attention, or "qkv" where one layer makes all three.
        rank: of the change, >= 1.
        alpha: what the change is scaled with, times rank.
        trained: patterns of what is trained of the network itself, such as its last layer.

    Raises:
        ValueError: a rank that is no positive number, or alpha that is not finite and positive.

    Source: Hu et al. 2022, arXiv:2106.09685, eq. 3, table 9 (rank and alpha 8), and the released
    code for the start of `down`.
    """

    backbone: nn.Module
    layers: tuple[str, ...] = ()
    rank: int = 8
    alpha: float = 8.0
    trained: tuple[str, ...] = ()

    def __post_init__(self):
        arrays.check_count("rank", self.rank)
        arrays.check_range("alpha", self.alpha, 0, math.inf, "()")

    def init(self, key: Array, *args: Any, backbone: Any = None, **kwargs: Any) -> dict[str, Any]:
        """The variables at the start, at which the output is the network's own.

        Args:
            key: a PRNG key.
            *args, **kwargs: what the network takes; only shapes and dtypes count.
            backbone: its trained parameters, None for new ones.

        Raises:
            ValueError: parameters of another network, or a pattern that names no layer.
        """
        key, key_lora = jax.random.split(key)
        params = calls.start(self.backbone, key, backbone, args, kwargs)
        paths.labels(params, self.trained)
        kernels = {
            path.removesuffix("/kernel"): leaf.shape
            for path, leaf in paths.flat(params).items()
            if path.endswith("/kernel") and math.prod(leaf.shape[:-2]) == 1
        }
        made: dict[str, Array] = {}
        usual = tuple(p for p in _ATTENTION if fnmatch.filter(kernels, p)) or _ATTENTION
        names = paths.matching("layers", self.layers or usual, kernels)
        for i, name in enumerate(names):
            *_, inputs, outputs = kernels[name]
            draw = jax.random.fold_in(key_lora, i)
            made[f"{name}/down"] = _UNIFORM(draw, (inputs, self.rank), arrays.float_dtype())
            made[f"{name}/up"] = jnp.zeros((self.rank, outputs), arrays.float_dtype())
        return {"params": {"backbone": params, "lora": paths.nested(made)}}

    def apply(
        self,
        variables: dict[str, Any],
        *args: Any,
        key: Array | None = None,
        train: bool = False,
        **kwargs: Any,
    ) -> Any:
        """The changed network's output.

        Args:
            variables: as `init` made them.
            *args, **kwargs: what the network takes.
            key: for its dropout.
            train: static, whether dropout is on.
        """
        params, lora = variables["params"]["backbone"], paths.flat(variables["params"]["lora"])

        def call(path: str, module: Callable, args: tuple, kwargs: dict[str, Any]) -> Any:
            y = module(*args, **kwargs)
            if f"{path}/down" not in lora:
                return y
            down, up = (lora[f"{path}/{name}"].astype(y.dtype) for name in ("down", "up"))
            change = (args[0].astype(y.dtype) @ down) @ up
            return y + jnp.asarray(self.alpha / self.rank, y.dtype) * change

        with calls.instead(call):
            held = paths.hold(params, self.trained)
            return calls.run(self.backbone, held, args, kwargs, key, train)

    def labels(self, variables: dict[str, Any]) -> Any:
        """What of the variables is "trained" and what "frozen", as a tree like them."""
        params = variables["params"]
        return {
            "params": {
                "backbone": paths.labels(params["backbone"], self.trained),
                "lora": paths.labels(params["lora"], ("*",)),
            }
        }

    def merge(self, variables: dict[str, Any]) -> dict[str, Any]:
        """The variables of the plain network that says the same, for use without LoRA.

            kernel <- kernel + (alpha / rank) down up

        Args:
            variables: as `init` made them.

        Returns:
            {"params": those of the network}.
        """
        leaves, lora = (paths.flat(variables["params"][part]) for part in ("backbone", "lora"))
        for path in lora:
            if path.endswith("/down"):
                name = path.removesuffix("/down")
                change = self.alpha / self.rank * (lora[path] @ lora[f"{name}/up"])
                kernel = leaves[f"{name}/kernel"]
                leaves[f"{name}/kernel"] = kernel + change.reshape(kernel.shape)
        return {"params": paths.nested(leaves)}
