"""A schedule run with another emphasis: its log-SNR shifted."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from jaxdiff import arrays
from jaxdiff.arrays import check_range, float_dtype, is_traced, wide_float
from jaxdiff.schedules.clock import of_levels, whole_steps
from jaxdiff.typing import NoiseLevel, Schedule

__all__ = ["shifted"]


@arrays.pytree
class Shifted:
    """The path of `base` with its clock bent; see `shifted`."""

    base: Schedule
    shift: Any

    @property
    def t_min(self):
        """The base's."""
        return self.base.t_min

    @property
    def t_max(self):
        """The base's."""
        return self.base.t_max

    @property
    def num_steps(self) -> int | None:
        """The base's, None where its clock is continuous."""
        return whole_steps(self.base)

    @property
    def of_levels(self) -> Schedule:
        """The base's."""
        return of_levels(self.base)

    @property
    def prior_std(self):
        """The base's, scaled by how much further out the path now ends."""
        ends = self(self.t_max), self.base(self.base.t_max)
        scale = [jnp.hypot(level.alpha, level.sigma) for level in ends]
        return self.base.prior_std * scale[0] / scale[1]

    def __call__(self, t) -> NoiseLevel:
        """The base's level with log-SNR lower by 2 log shift; its `t` is the base's clock."""
        t = wide_float(t)
        level = self.base(t)
        end = (level.sigma <= 0) | (level.alpha <= 0)  # infinite log-SNR: stays where it is
        # but alpha, which vanishes in proportion to t_max - t, does so more slowly by the shift
        pace = jnp.where(level.alpha <= 0, 1 / self.shift, 1)
        still = jax.lax.stop_gradient(t)
        passed = self.base(still + pace * (t - still))
        inside = NoiseLevel(*(jnp.where(end, 1, field) for field in level))
        moved = self.base(self.base.time(inside.log_snr - 2 * jnp.log(self.shift)))
        return NoiseLevel(
            *(jnp.where(end, old, new) for old, new in zip(passed, moved, strict=True))
        )

    def time(self, log_snr) -> Array:
        """The base's inverse at the unshifted log-SNR."""
        return self.base.time(log_snr + 2 * jnp.log(self.shift))


def shifted(base: Schedule, shift) -> Shifted:
    """A schedule whose noise is `shift` times the base's at equal time, on the same path.

        log_snr(t) = log_snr_base(t) - 2 log(shift)

    For rectified flow this is sigma(t) = shift t / (1 + (shift - 1) t), the time shift of
    Stable Diffusion 3; for the cosine schedule it is the resolution shift of simple diffusion.
    The returned level carries the clock of the base, so that a network trained on the base can
    be sampled on any shift of it. The way leads through the base's inverse, which in float32
    costs a relative 5e-4 of 1 - r on a grid of 1000 steps.

    Args:
        base: any schedule. A clock that cannot pass t_max (`from_betas` without zero terminal
            SNR) takes only shift <= 1.
        shift: > 0; above 1 spends more time at high noise.

    Returns:
        A schedule on the base's clock.

    Raises:
        ValueError: shift not positive, or above 1 for a chain or a path of one's own that ends
            with signal left: it has no levels beyond its end.

    Source: Hoogeboom et al. 2023, arXiv:2301.11093, eq. 4; Esser et al. 2024,
        arXiv:2403.03206, eq. 23.
    """
    check_range("shift", shift, 0, np.inf, "()")
    schedule = Shifted(base, shift)
    if not is_traced(schedule):
        _check_end(schedule)
    return schedule


def _check_end(schedule: Shifted) -> None:
    """Raises where the base has no level as noisy as the shift asks for at t_max."""
    last = schedule.base(jnp.asarray(schedule.t_max, float_dtype()))
    wanted = last.log_snr - 2 * jnp.log(schedule.shift)
    try:
        reached = schedule(last.t).log_snr
    except ValueError:  # of a clock that cannot pass its end
        reached = jnp.asarray(jnp.inf)
    if bool(jnp.any((last.alpha > 0) & ~(reached < wanted + 0.01))):
        raise ValueError(
            "shift of a schedule that ends with signal left must lie in (0, 1], as it has no levels"
            f" beyond its end, got {schedule.shift}"
        )
