"""Absolute positions: vectors added to the tokens before the first layer."""

import flax.linen as nn
import jax.numpy as jnp
import numpy as np
from jax import Array

from jaxdiff import arrays
from jaxdiff.models import embeddings
from jaxdiff.models.positions.tables import SMALL

__all__ = ["ABSOLUTE", "Learned", "SinCos", "Sinusoidal"]


class Learned(nn.Module):
    """A learned vector for each place of a grid; a grid beyond it is an error, not a guess.

    Attributes:
        span: as many tokens as there may be, along each axis.

    Source: Devlin et al. 2019, arXiv:1810.04805; on grids Dosovitskiy et al. 2021,
    arXiv:2010.11929.
    """

    span: tuple[int, ...] = (512,)

    @nn.compact
    def __call__(self, shape: tuple[int, ...], width: int) -> Array:
        """The vectors of a grid of tokens, row by row: [1, N, width].

        Raises:
            ValueError: a grid that does not fit.
        """
        places = _places(shape, self.span)
        if any(n > most for n, most in zip(shape, self.span, strict=True)):
            raise ValueError(
                f"learned positions are for at most {_times(self.span)} tokens, got {_times(shape)}"
            )
        size = (int(np.prod(self.span)), width)
        table = self.param("table", SMALL, size, arrays.float_dtype())
        return table[np.ravel_multi_index(tuple(places.T), self.span)][None]


class Sinusoidal(Learned):
    """Sines and cosines of each place; on a grid an equal part of the features for each axis.

    Nothing is learned, and any grid has them.

    Source: Vaswani et al. 2017, arXiv:1706.03762, section 3.5, in the layout of
    `embeddings.sinusoidal`.
    """

    @nn.compact
    def __call__(self, shape: tuple[int, ...], width: int) -> Array:
        """The vectors of a grid of tokens, row by row: [1, N, width].

        Raises:
            ValueError: a width that does not divide by twice the number of axes.
        """
        return self._waves(_places(shape, self.span).T, width, endpoint=True)

    def _waves(self, axes: np.ndarray, width: int, *, endpoint: bool) -> Array:
        """[1, N, width] of the places [A, N] along each axis."""
        count = len(axes)
        if width % (2 * count) or width < 4 * count:
            raise ValueError(
                f"width must divide by {2 * count} and be {4 * count} or more, got {width}"
            )
        waves = [
            embeddings.sinusoidal(jnp.asarray(axis), width // count, endpoint=endpoint)
            for axis in axes
        ]
        return jnp.concatenate(waves, axis=-1)[None]


class SinCos(Sinusoidal):
    """The same in the layout of published DiTs: the last axis first, without the longest period.

    Source: He et al. 2022, arXiv:2111.06377, and the code of Peebles and Xie 2023,
    arXiv:2212.09748.
    """

    @nn.compact
    def __call__(self, shape: tuple[int, ...], width: int) -> Array:
        """The vectors of a grid of tokens, row by row: [1, N, width].

        Raises:
            ValueError: as `Sinusoidal`.
        """
        return self._waves(_places(shape, self.span).T[::-1], width, endpoint=False)


ABSOLUTE: dict[str, type[Learned]] = {
    "learned": Learned,
    "sinusoidal": Sinusoidal,
    "sincos": SinCos,
}
"""By name."""


def _places(shape: tuple[int, ...], span: tuple[int, ...]) -> np.ndarray:
    """[N, axes], int."""
    if len(shape) != len(span):
        raise ValueError(f"positions were made for {len(span)} axes, got a grid {_times(shape)}")
    return np.stack(np.unravel_index(np.arange(int(np.prod(shape))), shape), axis=-1)


def _times(shape: tuple[int, ...]) -> str:
    return " x ".join(str(n) for n in shape)
