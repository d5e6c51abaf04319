"""Averages of parameters that were never kept, rebuilt from snapshots of averages that were.

An average by a power has the profile p(t) = (gamma + 1) t**gamma / T**(gamma + 1) on [0, T]. From
snapshots with profiles p_i another one, q, is approached by

    sum_i x_i snapshot_i,    x = argmin |q - sum_i x_i p_i|**2    under    sum_i x_i = 1,

so that the best width is found after the training. Everything here is of numbers on the host.

Source: Karras et al. 2024, arXiv:2312.02696, section 3 and algorithm 3, without the constraint: it
keeps what no step has changed, parameters being far from zero beside what they still move.
"""

from collections.abc import Iterable
from typing import Any

import jax
import numpy as np

__all__ = ["coefficients", "combine", "inner_products", "misfit"]


def inner_products(times_a: Any, gammas_a: Any, times_b: Any, gammas_b: Any) -> np.ndarray:
    """<p_i, p_j> of two sets of profiles.

        (g_i + 1)(g_j + 1) (t_min / t_max)**g_max / ((g_i + g_j + 1) t_max),

    where g_max is the power of the profile that ends later.

    Args:
        times_a: [A], where the first profiles end, > 0.
        gammas_a: [A], their powers.
        times_b: [B], likewise of the second ones.
        gammas_b: [B].

    Returns:
        [A, B].
    """
    ta, ga = (np.asarray(a, np.float64)[:, None] for a in (times_a, gammas_a))
    tb, gb = (np.asarray(b, np.float64)[None, :] for b in (times_b, gammas_b))
    later = np.where(ta < tb, gb, ga)
    ratio = np.minimum(ta, tb) / np.maximum(ta, tb)
    return (ga + 1) * (gb + 1) * ratio**later / ((ga + gb + 1) * np.maximum(ta, tb))


def coefficients(times: Any, gammas: Any, time: float, gamma: float) -> np.ndarray:
    """The best weights of snapshots for the average of another power, or at another time.

        [A 1; 1^T 0] [x; l] = [b; 1],    A_ij = <p_i, p_j>,    b_i = <p_i, q>

    Args:
        times: [n], the steps at which snapshots were taken, > 0.
        gammas: [n], their powers.
        time: the step at which the wanted average ends; snapshots of later ones count as well.
        gamma: its power.

    Returns:
        [n], of sum 1; some are negative.

    Raises:
        ValueError: no snapshots, or lengths that differ.
    """
    times, gammas = _checked(times, gammas)
    a = inner_products(times, gammas, times, gammas)
    b = inner_products(times, gammas, [time], [gamma])[:, 0]
    size = 1 / b.max()  # so that products, which are as 1 / time, are as large as the ones
    system = np.block([[a * size, np.ones((len(b), 1))], [np.ones(len(b)), 0.0]])
    return np.linalg.lstsq(system, np.append(b * size, 1.0), rcond=None)[0][:-1]


def misfit(times: Any, gammas: Any, time: float, gamma: float) -> float:
    """How far the best combination's profile is off: |q - sum_i x_i p_i| / |q|, in [0, 1].

    Args:
        times: [n], as for `coefficients`.
        gammas: [n].
        time: the wanted profile's end.
        gamma: its power.
    """
    times, gammas = _checked(times, gammas)
    x = coefficients(times, gammas, time, gamma)
    a = inner_products(times, gammas, times, gammas)
    b = inner_products(times, gammas, [time], [gamma])[:, 0]
    whole = inner_products([time], [gamma], [time], [gamma])[0, 0]
    return float(np.sqrt(max(0.0, (whole - 2 * x @ b + x @ a @ x) / whole)))


def combine(weights: Any, trees: Iterable[Any]) -> Any:
    """sum_i weights_i trees_i, in float64 and one tree at a time.

    Args:
        weights: [n].
        trees: n trees of arrays of one structure; each is dropped before the next is asked for.

    Returns:
        A tree in the dtypes of the first.
    """
    total = first = None
    for weight, tree in zip(weights, trees, strict=True):
        part = jax.tree.map(lambda a, w=weight: w * np.asarray(a, np.float64), tree)
        total = part if total is None else jax.tree.map(np.add, total, part)
        first = first or jax.tree.map(lambda a: np.asarray(a).dtype, tree)
    return jax.tree.map(lambda a, dtype: a.astype(dtype), total, first)


def _checked(times: Any, gammas: Any) -> tuple[np.ndarray, np.ndarray]:
    times, gammas = np.asarray(times, np.float64), np.asarray(gammas, np.float64)
    if times.ndim != 1 or times.shape != gammas.shape or not times.size:
        raise ValueError(
            f"times and gammas must be [n], n >= 1, got {list(times.shape)}, {list(gammas.shape)}"
        )
    return times, gammas
