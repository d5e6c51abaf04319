"""Inpainting by any sampler: known pixels are put in at the level's noise, anew at each step.

    x_t <- alpha_t known + sigma_t noise   where mask,   x_t elsewhere;    then the sampler's step

Replacement alone does not draw from p(x | known): the unknown part never sees the known part's
consequences at the noisier levels. RePaint walks each stretch several times, so that the two agree
better; still no exact method (see `guidance` for those that weigh the measurement).
"""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from jaxdiff import arrays
from jaxdiff.arrays import safe_sqrt
from jaxdiff.gaussian import q_sample, q_transition
from jaxdiff.samplers.ancestral import ddpm
from jaxdiff.samplers.steps import check_count, check_sampler, without_memory
from jaxdiff.typing import Grid, NoiseLevel, Sampler

__all__ = ["repaint", "replacement"]


@arrays.pytree
class Inpainting:
    """See `replacement` and `repaint`."""

    sampler: Sampler
    known: Array
    mask: Array
    jump: int = arrays.static()
    repeats: int = arrays.static()

    @property
    def noises(self) -> int:
        """Those of a step, and of the stretches walked again."""
        each = self.sampler.noises + 1
        return each + (self.repeats - 1) * (1 + self.jump * each)

    def init(self, x_T: Array, denoise: Any, grid: Grid) -> Any:
        """The sampler's own memory."""
        for name, value in (("known", self.known), ("mask", self.mask)):
            if value.shape not in (x_T.shape, x_T.shape[1:]):
                raise ValueError(
                    f"{name} must have the shape of a sample or of the batch,"
                    f" {list(x_T.shape[1:])} or {list(x_T.shape)}, got {list(value.shape)}"
                )
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
        """The sampler's step, with the known pixels at its beginning and at its end."""
        x, own = self._pasted(x, noise[-1], t), noise[:-1]
        x, memory = self.sampler.step(x, memory, denoise, own, k=k, t=t, s=s, grid=grid)
        return self._pasted(x, noise[-1], s), memory

    def _pasted(self, x: Array, noise: Array, level: NoiseLevel) -> Array:
        known = q_sample(jnp.broadcast_to(self.known.astype(x.dtype), x.shape), noise, level)
        return jnp.where(jnp.broadcast_to(self.mask, x.shape), known, x)

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


def replacement(sampler: Sampler | None, known: Any, mask: Any) -> Inpainting:
    """Inpainting by replacement: before each step the known pixels are drawn anew at its level.

    Biased, at any number of steps: of a Gaussian pair with correlation .8 the unknown one's mean
    is .6 of what it should be (with `repaint`, 40 steps and 10 repeats of jump 1, .93).

    Args:
        sampler: any sampler; `ddpm()` if None. Restart goes around this one, not inside.
        known: [...] or [B, ...], the clean values; anything, also NaN, where the mask is 0.
        mask: of the same shape or that of one example; true or 1 where `known` is known.

    Returns:
        A Sampler.

    Raises:
        ValueError: shapes that do not fit, a mask of other values than 0 and 1 or of one value
            alone, or `known` not finite where the mask says that it is known.
        TypeError: no sampler.

    Source: Song et al. 2021, arXiv:2011.13456, appendix I.2. Their code builds the mean that it
        returns at the end from noisy pixels; ours ends on `known` itself.
    """
    return repaint(sampler, known, mask, jump=1, repeats=1)


def repaint(
    sampler: Sampler | None, known: Any, mask: Any, *, jump: int = 10, repeats: int = 10
) -> Inpainting:
    """RePaint: replacement, with each stretch of `jump` steps walked `repeats` times.

    Stretches are counted from the last noisy level; steps above the first whole one are walked
    once. Model calls are some `repeats` times those of `replacement`. A step draws
    repeats (2 jump + 1) noises, of which it keeps the batch's shape each: choose a small jump
    where memory is short.

    Args:
        sampler: a sampler without memory; `ddpm()` if None.
        known, mask: as for `replacement`.
        jump: static, the length of a stretch.
        repeats: static, how often it is walked; 1 is `replacement`.

    Returns:
        A Sampler.

    Raises:
        ValueError: as for `replacement`; jump or repeats below 1; jump beyond the grid; a
            sampler with memory.
        TypeError: no sampler.

    Source: Lugmayr et al. 2022, arXiv:2201.09865, algorithm 1 and its code's schedule.
    """
    sampler = ddpm() if sampler is None else sampler
    check_sampler(sampler)
    check_count("jump", jump)
    check_count("repeats", repeats)
    known, mask = jnp.asarray(known), jnp.asarray(mask)
    if not jnp.issubdtype(known.dtype, jnp.floating):
        raise ValueError(f"known must be float, in the range of the samples, got {known.dtype}")
    _check_mask(known, mask)
    mask = mask.astype(bool)
    return Inpainting(sampler, jnp.where(mask, known, 0), mask, jump, repeats)


def _check_mask(known: Array, mask: Array) -> None:
    if mask.shape not in (known.shape, known.shape[1:]):
        raise ValueError(
            f"mask must have the shape of known, {list(known.shape)}, or of one example of it,"
            f" got {list(mask.shape)}"
        )
    values = arrays.concrete(mask)
    if values is None:
        return
    if not np.all((values == 0) | (values == 1)):
        raise ValueError(
            f"mask must hold 0 and 1 alone, got {values[(values != 0) & (values != 1)].flat[0]}"
        )
    if values.all() or not values.any():
        what = "nothing to draw" if values.all() else "nothing known"
        raise ValueError(f"mask must be 1 where known, 0 where not: it leaves {what}")
    numbers = arrays.concrete(known)
    if (
        numbers is not None
        and not np.isfinite(numbers[np.broadcast_to(values == 1, numbers.shape)]).all()
    ):
        raise ValueError(
            "known must be finite where mask is 1 (1 is known, 0 is to be drawn), got NaN or"
            " infinity there: is the mask the other way round?"
        )
