"""One of several schedules, by a number: kinds of schedule as a hyperparameter of one program."""

from collections.abc import Sequence
from typing import Any

from jax import Array

from jaxdiff import arrays
from jaxdiff.schedules.clock import whole_steps
from jaxdiff.typing import NoiseLevel, Schedule

__all__ = ["one_of"]


@arrays.pytree
class OneOf:
    """The schedule at `index`; see `one_of`."""

    schedules: tuple[Schedule, ...]
    index: Any

    def _chosen(self, answer: Any) -> Any:
        return arrays.choose(self.index, [answer(schedule) for schedule in self.schedules])

    @property
    def t_min(self):
        """That of the chosen one."""
        return self._chosen(lambda schedule: schedule.t_min)

    @property
    def t_max(self):
        """That of the chosen one."""
        return self._chosen(lambda schedule: schedule.t_max)

    @property
    def prior_std(self):
        """That of the chosen one."""
        return self._chosen(lambda schedule: schedule.prior_std)

    @property
    def num_steps(self) -> int | None:
        """Equal of all, None where their clocks are continuous."""
        return whole_steps(self.schedules[0])

    def __call__(self, t) -> NoiseLevel:
        """The chosen one's level."""
        return self._chosen(lambda schedule: schedule(t))

    def time(self, log_snr) -> Array:
        """The chosen one's inverse."""
        return self._chosen(lambda schedule: schedule.time(log_snr))


def one_of(schedules: Sequence[Schedule], index) -> OneOf:
    """One of several schedules, by a number that may be traced: `vmap` goes through their kinds.

    All are computed, and one is taken: they are formulas of one number, a network is not.

    Args:
        schedules: those to choose from, at least one; chains must have equal numbers of steps.
        index: [] int, which one, in 0..len(schedules) - 1.

    Returns:
        A schedule.

    Raises:
        ValueError: none to choose from, chains beside continuous clocks or of other lengths, or
            no such index.
    """
    lengths = {whole_steps(schedule) for schedule in schedules}
    if len(lengths) != 1:
        given = ", ".join(sorted(map(str, lengths))) or "none"
        raise ValueError(f"schedules must be of one number of steps, got {given}")
    arrays.check_index("index", index, len(schedules))
    return OneOf(tuple(schedules), index)
