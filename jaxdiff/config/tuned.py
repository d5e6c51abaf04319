"""Methods of tuning by name: what a configuration makes of a network that is trained already."""

from collections.abc import Callable
from typing import Any

import jax

from jaxdiff.config.fields import TuningConfig
from jaxdiff.models import tuning

__all__ = ["tuned"]


def _ladder(net: Any, part: TuningConfig, inputs: tuple[Any, ...]) -> tuning.Ladder:
    side = tuning.narrow(net, part.ratio)
    return tuning.Ladder(net, side, tuning.find_blocks(net, *inputs))


def _head(net: Any, part: TuningConfig, inputs: tuple[Any, ...]) -> tuple[str, ...]:
    return part.head or (tuning.find_last(net, *inputs),)


_METHODS: dict[str, Callable[[Any, TuningConfig, tuple[Any, ...]], Any]] = {
    "lst": _ladder,
    "full": lambda net, part, inputs: tuning.full(net),
    "lora": lambda net, part, inputs: tuning.LoRA(net, part.layers, part.rank, part.alpha),
    "adapter": lambda net, part, inputs: tuning.Adapters(net, width=part.width),
    "bitfit": lambda net, part, inputs: tuning.bitfit(net, _head(net, part, inputs)),
    "head": lambda net, part, inputs: tuning.head(net, _head(net, part, inputs)),
}


def tuned(net: Any, part: TuningConfig, shape: tuple[int, ...]) -> Any:
    """The network under the configured method.

    Args:
        net: the network.
        part: the configuration, with a method.
        shape: of an example.

    Raises:
        ValueError: the method's numbers do not fit the network.
    """
    floats = [jax.ShapeDtypeStruct((1, *s), "float32") for s in (shape, ())]
    label = jax.ShapeDtypeStruct((1,), "int32")
    inputs = (*floats, label) if part.classes else tuple(floats)
    return _METHODS[part.method](net, part, inputs)
