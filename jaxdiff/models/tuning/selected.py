"""Some of a network's own parameters trained, the others as they are: full, head only, BitFit."""

from dataclasses import dataclass
from typing import Any

import flax.linen as nn
from jax import Array

from jaxdiff.models.tuning import calls, paths

__all__ = ["Selected", "bitfit", "full", "head"]


@dataclass(frozen=True)
class Selected:
    """A network of which the parameters that patterns name are trained.

    Not a module: equal fields make equal values, and its variables are
    {"params": {"backbone": those of the network}}. Gradients by the others are exactly 0, and are
    not computed.

    Attributes:
        backbone: any network.
        trained: patterns of modules or parameters, as `paths` has them; () trains nothing.
    """

    backbone: nn.Module
    trained: tuple[str, ...]

    def init(self, key: Array, *args: Any, backbone: Any = None, **kwargs: Any) -> dict[str, Any]:
        """The variables at the start.

        Args:
            key: a PRNG key.
            *args, **kwargs: what the network takes; only shapes and dtypes count.
            backbone: its trained parameters, None for new ones.

        Raises:
            ValueError: parameters of another network, or a pattern that names none.
        """
        params = calls.start(self.backbone, key, backbone, args, kwargs)
        paths.labels(params, self.trained)
        return {"params": {"backbone": params}}

    def apply(
        self,
        variables: dict[str, Any],
        *args: Any,
        key: Array | None = None,
        train: bool = False,
        **kwargs: Any,
    ) -> Any:
        """The network's output.

        Args:
            variables: as `init` made them.
            *args, **kwargs: what the network takes.
            key: for dropout.
            train: static, whether dropout is on.
        """
        params = paths.hold(variables["params"]["backbone"], self.trained)
        return calls.run(self.backbone, params, args, kwargs, key, train)

    def labels(self, variables: dict[str, Any]) -> Any:
        """What of the variables is "trained" and what "frozen", as a tree like them."""
        return {"params": {"backbone": paths.labels(variables["params"]["backbone"], self.trained)}}


def full(backbone: nn.Module) -> Selected:
    """All parameters trained, what other methods are compared with.

    Args:
        backbone: any network.
    """
    return Selected(backbone, ("*",))


def head(backbone: nn.Module, trained: tuple[str, ...] = ("out",)) -> Selected:
    """The last layer trained, or whatever stands for it.

    Args:
        backbone: any network.
        trained: patterns of it.
    """
    return Selected(backbone, trained)


def bitfit(backbone: nn.Module, trained: tuple[str, ...] = ("out",)) -> Selected:
    """The biases trained, those of norms too, and the last layer.

    Args:
        backbone: any network.
        trained: patterns of what is trained besides biases.

    Source: Ben Zaken et al. 2022, arXiv:2106.10199, section 3.
    """
    return Selected(backbone, ("*/bias", *trained))
