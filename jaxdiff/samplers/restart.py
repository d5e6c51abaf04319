"""Restart: one stretch of the path walked several times, with fresh noise on each way back up.

    x_high = (alpha_high / alpha_s) x_s + sigma_high sqrt(1 - r) noise          equation (2)
    x_s    = the sampler from x_high to x_s, over levels of its own             `repeats` times

The noise contracts the errors that the solver has made above the stretch; the solver's steps make
smaller ones than a stochastic sampler would.
"""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from jaxdiff import arrays
from jaxdiff.arrays import check_count, check_range, safe_sqrt
from jaxdiff.gaussian import q_transition
from jaxdiff.samplers.edm import heun
from jaxdiff.samplers.steps import check_sampler, without_memory
from jaxdiff.typing import Grid, NoiseLevel, Sampler

__all__ = ["restart"]

_RHO = 7.0
_ROUNDING = 1e-5  # of a log SNR in float32, so that a level's own sigma / alpha is that level


@arrays.pytree
class Restart:
    """See `restart`."""

    sampler: Sampler
    low: Any
    high: Any
    steps: int = arrays.static()
    repeats: int = arrays.static()

    @property
    def noises(self) -> int:
        """Those of a step, and of each way up and down."""
        each = self.sampler.noises
        return each + self.repeats * (1 + self.steps * each)

    def init(self, x_T: Array, denoise: Any, grid: Grid) -> tuple:
        """No memory: the sampler must have none."""
        return without_memory("restart", self.sampler, x_T, denoise, grid)

    def step(self, x, memory, denoise, noise, *, k, t, s, grid):
        """A step of the sampler; where it has passed `low`, the stretch again and again."""
        own, more = noise[: self.sampler.noises], noise[self.sampler.noises :]
        x, memory = self.sampler.step(x, memory, denoise, own, k=k, t=t, s=s, grid=grid)
        mark = -2 * jnp.log(jnp.asarray(self.low, t.alpha.dtype)) - _ROUNDING
        passed = (t.log_snr < mark) & (s.log_snr >= mark) & (s.sigma > 0)
        # elsewhere the branch is not taken, but under vmap it is computed: from levels in order
        s = NoiseLevel(*(jnp.where(passed, a, b) for a, b in zip(s, grid.at(mark), strict=True)))
        again = lambda x: self._again(x, denoise, more, s, grid)  # noqa: E731
        return jax.lax.cond(passed, again, lambda x: x, x), memory

    def _again(self, x: Array, denoise: Any, noise: Array, s: NoiseLevel, grid: Grid) -> Array:
        """The stretch, `repeats` times up and down."""
        stretch = self._stretch(s, grid)
        high = jax.tree.map(lambda a: a[0], stretch.levels)
        noise = noise.reshape(self.repeats, -1, *x.shape)

        def pass_(x: Array, draws: Array) -> tuple[Array, None]:
            up, down = draws[0], draws[1:].reshape(self.steps, self.sampler.noises, *x.shape)
            mean, var = q_transition(x, s=s, t=high)
            x = mean + safe_sqrt(var) * up

            def body(x: Array, inputs: Any) -> tuple[Array, None]:
                k, t, s, draw = inputs
                return self.sampler.step(x, (), denoise, draw, k=k, t=t, s=s, grid=stretch)[0], None

            steps = jnp.arange(self.steps)
            return jax.lax.scan(body, x, (steps, *stretch.pairs, down))[0], None

        return jax.lax.scan(pass_, x, noise)[0]

    def _stretch(self, s: NoiseLevel, grid: Grid) -> Grid:
        """From `high` to s, spaced as in EDM."""
        high = jnp.log(jnp.asarray(self.high, s.alpha.dtype))
        ends = jnp.exp(jnp.stack([high, -s.log_snr / 2]) / _RHO)
        roots = jnp.linspace(ends[0], ends[1], self.steps + 1)
        levels = jax.vmap(grid.at)(-2 * _RHO * jnp.log(roots))
        levels = NoiseLevel(*(a.at[-1].set(b) for a, b in zip(levels, s, strict=True)))
        return Grid(levels, grid.schedule, grid.prior_std)

    def check(self, grid: Grid) -> None:
        """Raises ValueError where the stretch is not within the grid."""
        if hasattr(self.sampler, "check"):
            self.sampler.check(grid)
        alpha, sigma = (arrays.concrete(a) for a in (grid.levels.alpha, grid.levels.sigma))
        if alpha is None or sigma is None or arrays.is_traced((self.low, self.high)):
            return
        # between a level without signal and the next there is a path on a schedule alone
        noisy = (sigma > 0) & ((alpha > 0) | (grid.schedule is not None))
        with np.errstate(divide="ignore"):
            rho = sigma[noisy] / alpha[noisy]
        for name, value in (("low", self.low), ("high", self.high)):
            check_range(f"restart's {name} (in sigma / alpha)", value, rho[-1], rho[0])
        # stretches may lie apart; whatever else walks must be able to walk the stretch
        if hasattr(self.sampler, "check") and not isinstance(self.sampler, Restart):
            with jax.ensure_compile_time_eval():
                mark = -2 * jnp.log(jnp.asarray(self.low, grid.levels.alpha.dtype))
                stretch = self._stretch(grid.at(mark), grid)
            self.sampler.check(stretch)


def restart(
    sampler: Sampler | None = None, *, low=0.06, high=0.3, steps: int = 3, repeats: int = 4
) -> Restart:
    """Goes back to `high` and down again, `repeats` times, after the step that passes `low`.

    Several stretches: `restart(restart(heun(), low=..., high=...), low=..., high=...)`. Under a
    vmap over grids or `low` the stretch is computed at every step, and dropped at all but one.

    Args:
        sampler: what walks, one without memory (no multistep one); `heun()` if None.
        low: [], in sigma / alpha; the stretch ends at the first level of the grid at or below it.
        high: [], in sigma / alpha, above low.
        steps: static, how many steps a pass takes, spaced as EDM's levels.
        repeats: static, how many passes.

    Returns:
        A Sampler.

    Raises:
        ValueError: a number out of range, low not below high, a sampler with memory.
        TypeError: no sampler.

    Source: Xu et al. 2023, arXiv:2306.14878, algorithm 1; defaults after its CIFAR-10 settings.
    """
    sampler = heun() if sampler is None else sampler
    check_sampler(sampler)
    check_count("steps", steps)
    check_count("repeats", repeats)
    check_range("low", low, 0, np.inf, "()")
    bound = arrays.concrete(low)
    check_range("high", high, 0 if bound is None else float(np.max(bound)), np.inf, "()")
    return Restart(sampler, low, high, steps, repeats)
