"""How many steps fit into a number of seconds.

A learning rate that decays must know where the run ends. The pace is measured once the first
step is compiled, and again a few times under way, since a machine may have other work; from each
measurement to the next the number of steps is fixed.
"""

import math

__all__ = ["Budget"]

# The first comes early enough to decay by; the later ones bound how far a change of the machine's
# pace can move the end.
_MEASURE_AT = (0.05, 0.25, 0.5, 0.75, 0.9)


class Budget:
    """Turns seconds into steps, by a clock that the caller reads."""

    def __init__(self, seconds: float, now: float):
        """Begins at the clock's `now`; the `seconds` include the compilation."""
        self._end = now + seconds
        self._times = [now + fraction * seconds for fraction in _MEASURE_AT]
        self._mark: tuple[int, float] | None = None

    def is_due(self, now: float) -> bool:
        """Whether `measure` should be called: after the first step, and at set times."""
        return self._mark is None or (bool(self._times) and now >= self._times[0])

    def measure(self, step: int, now: float) -> float:
        """The total number of steps, by the pace since the last call.

        Args:
            step: how many steps are done, and not merely begun, by `now`.
            now: the clock.

        Returns:
            The total, >= step; infinite the first time, which only starts the measurement.
        """
        mark, self._mark = self._mark, (step, now)
        if mark is None:
            return math.inf
        self._times = [time for time in self._times if time > now]
        pace = (step - mark[0]) / max(now - mark[1], 1e-9)
        return step + max(0, round((self._end - now) * pace))
