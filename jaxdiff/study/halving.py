"""Successive halving: the worse members are dropped early, so that the better ones get the time.

With a factor f, M members and N steps, after N / f**(K - k) steps the best M / f**(k + 1) stay,
k = 0..K-1, K = floor(log_f M): every rung costs as many steps as the next.

Source: Jamieson and Talwalkar 2016, arXiv:1502.07943, algorithm 1.
"""

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

__all__ = ["Rung", "rungs", "survivors"]


class Rung(NamedTuple):
    """When members are compared, and how many stay.

    Attributes:
        step: after how many steps.
        members: how many are left from then on.
    """

    step: int
    members: int


def rungs(members: int, steps: int, factor: int = 2) -> list[Rung]:
    """The rungs of a study, in order; none where there are fewer members than the factor.

    Args:
        members: how many begin, >= 1.
        steps: how many the last ones make, >= 1.
        factor: what part stays, 1 / factor; >= 2.

    Raises:
        ValueError: naming what does not fit.
    """
    for name, value, least in (("members", members, 1), ("steps", steps, 1), ("factor", factor, 2)):
        if type(value) is not int or value < least:
            raise ValueError(f"{name} must be a whole number >= {least}, got {value!r}")
    count = 0
    while factor ** (count + 1) <= members:
        count += 1
    found: dict[int, int] = {}
    for k in range(count):
        step = max(1, round(steps / factor ** (count - k)))
        found[step] = members // factor ** (k + 1)  # a later rung at the same step takes its place
    return [Rung(step, left) for step, left in found.items() if step < steps]


def survivors(scores: Sequence[float], members: int) -> list[int]:
    """The places of the best, which have the lowest scores, in their old order.

    A score that is not finite is that of a training that failed: worse than any other. Of equal
    ones the first stay.
    """
    values = np.asarray(scores, np.float64)
    values = np.where(np.isfinite(values), values, math.inf)
    return sorted(np.argsort(values, kind="stable")[:members].tolist())
