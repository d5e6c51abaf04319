"""The samplers by name: what the command line offers and the test battery runs.

A new sampler is one row.
"""

import inspect
from collections.abc import Callable
from typing import NamedTuple

from jaxdiff.samplers.ancestral import ddim, ddpm
from jaxdiff.typing import Sampler

__all__ = ["SAMPLERS", "Row", "make_sampler"]


class Row(NamedTuple):
    """One sampler.

    Attributes:
        factory: makes the sampler; its keywords and defaults are the hyperparameters.
        paper: where it comes from.
        refuses: what it cannot run on, in words; "" if nothing.
    """

    factory: Callable[..., Sampler]
    paper: str
    refuses: str = ""


SAMPLERS: dict[str, Row] = {
    "ddpm": Row(ddpm, "Ho et al. 2020, arXiv:2006.11239"),
    "ddim": Row(ddim, "Song et al. 2021, arXiv:2010.02502"),
}


def make_sampler(name: str, **hyperparameters) -> Sampler:
    """A sampler by name.

    Args:
        name: a key of `SAMPLERS`.
        hyperparameters: what its factory takes.

    Returns:
        A Sampler.

    Raises:
        ValueError: an unknown sampler, or a hyperparameter it does not have.
    """
    if name not in SAMPLERS:
        raise ValueError(f"sampler must be one of {', '.join(SAMPLERS)}, got {name!r}")
    factory = SAMPLERS[name].factory
    known = list(inspect.signature(factory).parameters)
    for unknown in set(hyperparameters) - set(known):
        raise ValueError(f"{name} takes {', '.join(known)}, got {unknown!r}")
    return factory(**hyperparameters)
