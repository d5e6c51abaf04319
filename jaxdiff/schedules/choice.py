"""One of several schedules, by a number: kinds of schedule as a hyperparameter of one program."""

from collections.abc import Sequence
from typing import Any

from jax import Array

from jaxdiff import arrays
from jaxdiff.schedules.clock import of_levels, whole_steps
from jaxdiff.typing import NoiseLevel, Schedule

__all__ = ["one_of"]


@arrays.pytree
class OneOf:
    """The schedule at `index`; see `one_of`."""

    schedules: tuple[Schedule, ...]
    index: Any

    @property
    def t_min(self):
        """That of the chosen one."""
        return arrays.choose(self.index, [lambda s=s: s.t_min for s in self.schedules])

    @property
    def t_max(self):
        """That of the chosen one."""
        return arrays.choose(self.index, [lambda s=s: s.t_max for s in self.schedules])

    @property
    def prior_std(self):
        """That of the chosen one."""
        return arrays.choose(self.index, [lambda s=s: s.prior_std for s in self.schedules])

    @property
    def num_steps(self) -> int | None:
        """Equal of all, None where their clocks are continuous."""
        return whole_steps(self.schedules[0])

    @property
    def of_levels(self) -> Schedule:
        """That of the chosen one."""
        return OneOf(tuple(map(of_levels, self.schedules)), self.index)

    def __call__(self, t) -> NoiseLevel:
        """The chosen one's level."""
        halfway = [((s.t_min + s.t_max) / 2,) for s in self.schedules]
        return arrays.choose(self.index, self.schedules, (t,), halfway)

    def time(self, log_snr) -> Array:
        """The chosen one's inverse."""
        times, even = [s.time for s in self.schedules], [(0.0,)] * len(self.schedules)
        return arrays.choose(self.index, times, (log_snr,), even)


def one_of(schedules: Sequence[Schedule], index) -> OneOf:
    """One of several schedules, by a number that may be traced: `vmap` goes through their kinds.

    Where it is traced all are computed, and one is taken.

    Args:
        schedules: those to choose from, at least one; chains must have equal numbers of steps.
        index: [] int, which one, in 0..len(schedules) - 1; beyond them the nearest, if traced.

    Returns:
        A schedule.

    Raises:
        ValueError: none to choose from, chains beside continuous clocks or of other lengths, or
            no such index.
        TypeError: an index that is no whole number.
    """
    lengths = {whole_steps(schedule) for schedule in schedules}
    if len(lengths) != 1:
        given = ", ".join(sorted(map(str, lengths))) or "none"
        raise ValueError(f"schedules must be of one number of steps, got {given}")
    arrays.check_index("index", index, len(schedules))
    return OneOf(tuple(schedules), index)
