"""Inpainting by any sampler: what is known is put in at the level's noise, anew at each step.

    z = V x_t;    z <- alpha_t known + sigma_t V noise   where mask,   z elsewhere;    x_t = V^T z

and then the sampler's step. V is the identity for pixels, or any orthonormal basis (`bases`), so
that colorisation and linear measurements are inpainting too.

Replacement alone does not draw from p(x | known): the unknown part never sees the known part's
consequences at the noisier levels. RePaint walks each stretch several times and Langevin steps
stay at a level, so that the two parts agree better; still no exact method (see `guidance` for
those that weigh the measurement).
"""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from jaxdiff import arrays
from jaxdiff.arrays import check_count, safe_sqrt
from jaxdiff.gaussian import q_transition
from jaxdiff.samplers.ancestral import ddpm
from jaxdiff.samplers.bases import Basis, Part, grey_known, known_part, linear_known
from jaxdiff.samplers.langevin import Corrector, check_corrector, langevin
from jaxdiff.samplers.steps import check_sampler, without_memory
from jaxdiff.typing import Denoise, Grid, NoiseLevel, Sampler

__all__ = [
    "colorisation",
    "linear_measurement",
    "repaint",
    "replacement",
    "replacement_corrector",
]


@arrays.pytree
class Inpainting:
    """See `replacement` and `repaint`."""

    sampler: Sampler
    part: Part
    jump: int = arrays.static()
    repeats: int = arrays.static()

    @property
    def noises(self) -> int:
        """Those of a step, and of the stretches walked again."""
        each = self.sampler.noises + 1
        return each + (self.repeats - 1) * (1 + self.jump * each)

    def init(self, x_T: Array, denoise: Any, grid: Grid) -> Any:
        """The sampler's own memory."""
        self.part.check(x_T)
        if self.repeats > 1:
            return without_memory("repaint", self.sampler, x_T, denoise, grid)
        return self.sampler.init(x_T, denoise, grid)

    def step(self, x, memory, denoise, noise, *, k, t, s, grid):
        """One visit; at the end of a stretch, back to its beginning and down again."""
        visit, more = jnp.split(noise, [self.sampler.noises + 1])
        x, memory = self._visit(x, memory, denoise, visit, k, t, s, grid)
        if self.repeats == 1:
            return x, memory
        noisy = jnp.sum(grid.levels.sigma[1:] > 0)  # steps whose end is noisy
        ends = ((noisy - 1 - k) % self.jump == 0) & (k >= self.jump - 1) & (s.sigma > 0)
        again = lambda x: self._again(x, denoise, more, jnp.where(ends, k, self.jump - 1), grid)  # noqa: E731
        return jax.lax.cond(ends, again, lambda x: x, x), memory

    def _visit(self, x, memory, denoise, noise, k, t, s, grid):
        """The sampler's step, with the known part put in at its beginning and at its end."""
        x, own = self.part.put(x, noise[-1], t), noise[:-1]
        x, memory = self.sampler.step(x, memory, denoise, own, k=k, t=t, s=s, grid=grid)
        return self.part.put(x, noise[-1], s), memory

    def _again(self, x: Array, denoise: Any, noise: Array, k: Array, grid: Grid) -> Array:
        """The steps k - jump + 1 to k, `repeats - 1` times, each after the way up to them."""
        first = k - self.jump + 1
        cut = lambda a: jax.lax.dynamic_slice_in_dim(a, first, self.jump)  # noqa: E731
        t, s = (jax.tree.map(cut, level) for level in grid.pairs)
        # padding is never walked, but under vmap it is computed
        t, s = (
            level._replace(sigma=jnp.where(level.sigma > 0, level.sigma, 1)) for level in (t, s)
        )
        top, bottom = jax.tree.map(lambda a: a[0], t), jax.tree.map(lambda a: a[-1], s)
        noise = noise.reshape(self.repeats - 1, -1, *x.shape)

        def pass_(x: Array, draws: Array) -> tuple[Array, None]:
            mean, var = q_transition(x, s=bottom, t=top)
            x = mean + safe_sqrt(var) * draws[0]
            down = draws[1:].reshape(self.jump, -1, *x.shape)

            def body(x, inputs):
                return self._visit(x, (), denoise, inputs[3], *inputs[:3], grid)[0], None

            return jax.lax.scan(body, x, (first + jnp.arange(self.jump), t, s, down))[0], None

        return jax.lax.scan(pass_, x, noise)[0]

    def check(self, grid: Grid) -> None:
        """Raises ValueError for a jump beyond the grid, and what the sampler refuses."""
        if hasattr(self.sampler, "check"):
            self.sampler.check(grid)
        sigma = arrays.concrete(grid.levels.sigma)
        if self.repeats == 1 or sigma is None:
            return
        most = int(np.sum(sigma[1:] > 0))
        if self.jump > most:
            raise ValueError(
                f"jump must be at most {most}, the steps of the grid between noisy levels, got"
                f" {self.jump}"
            )


@arrays.pytree
class InpaintingCorrector:
    """See `replacement_corrector`."""

    corrector: Corrector
    part: Part
    repeats: int = arrays.static()

    @property
    def noises(self) -> int:
        """The corrector's and one more, each time."""
        return self.repeats * (self.corrector.noises + 1)

    def correct(self, x: Array, denoise: Denoise, noise: Array, level: NoiseLevel) -> Array:
        """`repeats` times: the known part put in, then the corrector."""
        self.part.check(x)

        def body(x: Array, draws: Array) -> tuple[Array, None]:
            x = self.part.put(x, draws[-1], level)
            return self.corrector.correct(x, denoise, draws[:-1], level), None

        return jax.lax.scan(body, x, noise.reshape(self.repeats, -1, *x.shape))[0]


def replacement(
    sampler: Sampler | None, known: Any, mask: Any, basis: Basis | None = None
) -> Inpainting:
    """Inpainting by replacement: before each step the known part is drawn anew at its level.

    Biased, at any number of steps: of a Gaussian pair with correlation .8 the unknown one's mean
    is .6 of what it should be at 40 steps of `ddpm("large")`, its variance 1.5 times (with
    `repaint`, 10 repeats of jump 1: .94 and 1.1).

    The predictor-corrector form, in which the known part is drawn anew after each predictor and
    each corrector, is `predictor_corrector(replacement(ddpm(), known, mask), langevin())`: the
    sampler that is wrapped puts it in at the beginning of its step, which is after the corrector,
    and at its end. It is less biased, as much as `repaint` with equal calls of the model: see
    `replacement_corrector`, with which several Langevin steps a level go.

    Args:
        sampler: any sampler; `ddpm()` if None. Restart goes around this one, not inside.
        known: [...] or [B, ...], the clean values; anything, also NaN, where the mask is 0.
        mask: of the same shape or that of one example; true or 1 where `known` is known.
        basis: what `known` and `mask` are coordinates of; the examples' own numbers if None.

    Returns:
        A Sampler.

    Raises:
        ValueError: shapes that do not fit, a mask of other values than 0 and 1 or of one value
            alone, or `known` not finite where the mask says that it is known.
        TypeError: no sampler, or no basis.

    Source: Song et al. 2021, arXiv:2011.13456, appendix I.2. Their code builds the mean that it
        returns at the end from noisy pixels; ours ends on `known` itself.
    """
    return repaint(sampler, known, mask, basis, jump=1, repeats=1)


def repaint(
    sampler: Sampler | None,
    known: Any,
    mask: Any,
    basis: Basis | None = None,
    *,
    jump: int = 10,
    repeats: int = 10,
) -> Inpainting:
    """RePaint: replacement, with each stretch of `jump` steps walked `repeats` times.

    Stretches are counted from the last noisy level; steps above the first whole one are walked
    once. Model calls are some `repeats` times those of `replacement`. A step draws
    repeats (2 jump + 1) noises, of which it keeps the batch's shape each: choose a small jump
    where memory is short.

    Args:
        sampler: a sampler without memory; `ddpm()` if None.
        known, mask, basis: as for `replacement`.
        jump: static, the length of a stretch.
        repeats: static, how often it is walked; 1 is `replacement`.

    Returns:
        A Sampler.

    Raises:
        ValueError: as for `replacement`; jump or repeats below 1; jump beyond the grid; a
            sampler with memory.
        TypeError: no sampler, or no basis.

    Source: Lugmayr et al. 2022, arXiv:2201.09865, algorithm 1 and its code's schedule.
    """
    sampler = ddpm() if sampler is None else sampler
    check_sampler(sampler)
    check_count("jump", jump)
    check_count("repeats", repeats)
    return Inpainting(sampler, known_part(known, mask, basis), jump, repeats)


def replacement_corrector(
    corrector: Corrector | None,
    known: Any,
    mask: Any,
    basis: Basis | None = None,
    *,
    repeats: int = 1,
) -> InpaintingCorrector:
    """A corrector before which the known part is drawn anew at its level, several times.

    Of the pair of `replacement`, at 40 steps with `annealed_langevin(0.5)`, the mean is .76, .87
    and .94 of what it should be with 1, 3 and 10 repeats, the variance 1.28, 1.16 and 1.07 times;
    with 10 steps after one drawing the mean is .82, for they move the known part as well.

    Args:
        corrector: a Corrector, of one step; `langevin()` if None, which wants many dimensions.
        known, mask, basis: as for `replacement`.
        repeats: static, how often both are done at a level.

    Returns:
        A Corrector, to go with a predictor that is wrapped in `replacement`.

    Raises:
        ValueError: as for `replacement`; repeats below 1.
        TypeError: no corrector, or no basis.

    Source: Song et al. 2021, arXiv:2011.13456, appendix I.2, whose code draws the known part once
        for all Langevin steps of a level.
    """
    corrector = langevin() if corrector is None else corrector
    check_corrector(corrector)
    check_count("repeats", repeats)
    return InpaintingCorrector(corrector, known_part(known, mask, basis), repeats)


def colorisation(sampler: Sampler | None, grey: Any) -> Inpainting:
    """Colours for grey images: `replacement` in the colour basis.

    Other ways than replacement take `*grey_known(grey)`, as in `repaint(None, *grey_known(grey))`.

    Args:
        sampler: any sampler of images [B, H, W, 3]; `ddpm()` if None.
        grey: [H, W, 1] or [B, H, W, 1], float, the mean of the three channels.

    Returns:
        A Sampler; the mean of the channels of what it draws is `grey`, to rounding.

    Raises:
        ValueError: grey of another shape, not float or not finite; when sampling, other than 3
            channels.
        TypeError: no sampler.

    Source: Song et al. 2021, arXiv:2011.13456, appendix I.3. Their code masks the prior in RGB;
        ours in the basis, as everything after it.
    """
    return replacement(sampler, *grey_known(grey))


def linear_measurement(sampler: Sampler | None, y: Any, a: Any) -> Inpainting:
    """Samples with A x = y: `replacement` in the basis of the singular vectors of A.

    Other ways than replacement take `*linear_known(y, a)`. For measurements with noise, or where
    replacement's bias matters, see `guidance.posterior`.

    Args:
        sampler: any sampler; `ddpm()` if None.
        y: [m] or [B, m], float, the measurement.
        a: [m, ...], m linear functions of an example; rows independent. An orthonormal basis of
            all D numbers of an example is held, [D, D].

    Returns:
        A Sampler; what it draws satisfies A x = y, to rounding times the condition of A.

    Raises:
        ValueError: as for `linear_known`; m = D, which leaves nothing to draw.
        TypeError: no sampler.

    Source: Song et al. 2022, arXiv:2111.08005, section 3, for any A of full row rank.
    """
    return replacement(sampler, *linear_known(y, a))
