"""Predictor-corrector: Langevin steps at a level, then a sampler's step to the next.

    x <- x + d score + sqrt(2 d) noise,    score = -eps / sigma,    d = 2 (alpha snr size)**2
    size = |noise| / |score|                                                  langevin
    size = sigma                                                              annealed_langevin

A corrector is a frozen pytree with `noises` and `correct(x, denoise, noise, level)`.
"""

from typing import Any, Protocol

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from jaxdiff import arrays
from jaxdiff.arrays import check_count, check_range, event_sum, expand_to, safe_divide, safe_sqrt
from jaxdiff.samplers.ancestral import ddpm
from jaxdiff.samplers.steps import check_pytree, check_sampler
from jaxdiff.typing import Denoise, Grid, NoiseLevel, Sampler

__all__ = [
    "Corrector",
    "annealed_langevin",
    "check_corrector",
    "langevin",
    "predictor_corrector",
]


class Corrector(Protocol):
    """What moves a state at one level without leaving it: a frozen pytree.

    Attributes:
        noises: static, how many standard Gaussian draws it uses.
    """

    noises: int

    def correct(self, x: Array, denoise: Denoise, noise: Array, level: NoiseLevel) -> Array:
        """x [B, ...] at `level` moved, deterministic given noise [noises, B, ...]."""
        ...


@arrays.pytree
class Langevin:
    """See `langevin`."""

    snr: Any
    steps: int = arrays.static()
    over_batch: bool = arrays.static()

    @property
    def noises(self) -> int:
        """One a step."""
        return self.steps

    def correct(self, x: Array, denoise: Denoise, noise: Array, level: NoiseLevel) -> Array:
        """`steps` Langevin steps."""
        return _walk(self._size, self.snr, x, denoise, noise, level)

    def _size(self, z: Array, score: Array, level: NoiseLevel) -> Array:
        return safe_divide(self._norm(z), self._norm(score))

    def _norm(self, a: Array) -> Array:
        norm = safe_sqrt(event_sum(a**2))
        return jnp.mean(norm) if self.over_batch else norm


@arrays.pytree
class AnnealedLangevin:
    """See `annealed_langevin`."""

    snr: Any
    steps: int = arrays.static()

    @property
    def noises(self) -> int:
        """One a step."""
        return self.steps

    def correct(self, x: Array, denoise: Denoise, noise: Array, level: NoiseLevel) -> Array:
        """`steps` Langevin steps."""
        return _walk(lambda z, score, level: level.sigma, self.snr, x, denoise, noise, level)


def _walk(size, snr, x, denoise, noise, level):
    """A Langevin step for each draw; size(z, score, level) is that of the noise over the score."""

    def body(x: Array, z: Array) -> tuple[Array, None]:
        score = -denoise(x, level).eps / expand_to(level.sigma, x)
        root = 2**0.5 * level.alpha * snr * size(z, score, level)
        x = x + expand_to(root**2, x) * score + 2**0.5 * expand_to(root, x) * z
        return x, None

    return jax.lax.scan(body, x, noise)[0]


@arrays.pytree
class PredictorCorrector:
    """See `predictor_corrector`."""

    predictor: Sampler
    corrector: Corrector

    @property
    def noises(self) -> int:
        """The corrector's, then the predictor's."""
        return self.corrector.noises + self.predictor.noises

    def init(self, x_T: Array, denoise: Any, grid: Grid) -> Any:
        """The predictor's own memory."""
        return self.predictor.init(x_T, denoise, grid)

    def step(self, x, memory, denoise, noise, *, k, t, s, grid):
        """Corrects at t, then predicts s."""
        first = self.corrector.noises
        x = self.corrector.correct(x, denoise, noise[:first], t)
        return self.predictor.step(x, memory, denoise, noise[first:], k=k, t=t, s=s, grid=grid)

    def check(self, grid: Grid) -> None:
        """Raises what the predictor refuses."""
        if hasattr(self.predictor, "check"):
            self.predictor.check(grid)


def langevin(snr=0.16, steps: int = 1, *, over_batch: bool = False) -> Langevin:
    """Langevin dynamics whose step follows from a signal-to-noise ratio.

    An example's own step depends on its state and noise, which a small step does not mend: where
    p(x_t) is Gaussian in D dimensions, the variance at rest is 1 + 4 / D times the level's, and
    more as snr grows (D = 64: 1.07 at snr 0.16; D = 2: beyond all use). In few dimensions take
    `over_batch` or `annealed_langevin`, which err by the step alone: at most 1 / (1 - snr**2).

    Args:
        snr: [], >= 0, the ratio of the norms of drift and noise, over alpha.
        steps: static, how many.
        over_batch: static, takes norms as means over the batch, as score_sde's code does; an
            example then depends on its batch. Else each example has a step of its own.

    Returns:
        A Corrector.

    Raises:
        ValueError: negative snr, or steps below 1.

    Source: Song et al. 2021, arXiv:2011.13456, algorithms 4 and 5, where alpha_i is the cumulative
        one; the authors' code takes that of the single step, and has none for sub-VP.
    """
    check_range("snr", snr, 0, np.inf, "[)")
    check_count("steps", steps)
    return Langevin(snr, steps, over_batch)


def annealed_langevin(snr=0.16, steps: int = 1) -> AnnealedLangevin:
    """Langevin dynamics whose step follows from the level's noise alone.

        d = 2 (alpha snr sigma)**2

    Each example has this step whatever its state, so there is no bias but the step's own error.

    Args:
        snr: [], >= 0.
        steps: static, how many.

    Returns:
        A Corrector.

    Raises:
        ValueError: negative snr, or steps below 1.

    Source: Song and Ermon 2019, arXiv:1907.05600, algorithm 1, whose step also goes with
        sigma**2; in this form the corrector "ald" of Song et al. 2021, with alpha as in `langevin`.
    """
    check_range("snr", snr, 0, np.inf, "[)")
    check_count("steps", steps)
    return AnnealedLangevin(snr, steps)


def check_corrector(corrector: Any) -> None:
    """Raises TypeError unless `corrector` has a corrector's methods and passes through jit."""
    if not (hasattr(corrector, "correct") and hasattr(corrector, "noises")):
        raise TypeError(f"corrector must be a Corrector such as langevin(), got {corrector!r}")
    check_pytree("corrector", corrector)


def predictor_corrector(
    predictor: Sampler | None = None, corrector: Corrector | None = None
) -> PredictorCorrector:
    """A corrector at each noisy level, then a sampler's step to the next.

    As in the authors' code the corrector comes first; the last step is the predictor's, so that
    no noise is left. The paper's predictors are `reverse_diffusion()`, `ddpm()` (ancestral) and
    `euler_maruyama()`.

    Args:
        predictor: any sampler; `ddpm()`, the paper's ancestral predictor, if None.
        corrector: a Corrector; `langevin()` if None.

    Returns:
        A Sampler.

    Raises:
        TypeError: something else than a sampler or a corrector.

    Source: Song et al. 2021, arXiv:2011.13456, algorithm 1.
    """
    predictor = ddpm() if predictor is None else predictor
    corrector = langevin() if corrector is None else corrector
    check_sampler(predictor)
    check_corrector(corrector)
    return PredictorCorrector(predictor, corrector)
