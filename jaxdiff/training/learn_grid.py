"""Learned grids: where a few steps should be, found by gradient through the whole sampler.

    log_snr_k = log_snr_first + (log_snr_last - log_snr_first) sum_{i<=k} softmax(gaps)_i

for the levels k = 1..K-1 between the first and the end, which stay. Levels thereby fall in order
whatever the gaps. log_snr_last is that of the end, where it is noisy, and else of the schedule's
cleanest noisy time. Beside the grid any number of the sampler or of a guided model can be learned:
eta, a guidance scale.

Source: Watson et al. 2022, arXiv:2202.05830 (differentiating through the sampler); Sabour et al.
2024, arXiv:2404.14507, and Tong et al. 2024, arXiv:2405.15506, for other objectives to the end.
"""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax import Array

from jaxdiff import arrays
from jaxdiff.arrays import check_count, check_range
from jaxdiff.samplers import dpmpp_2m, sample
from jaxdiff.samplers.base import check
from jaxdiff.schedules import cleanest_time
from jaxdiff.training.grid_objectives import Draw
from jaxdiff.typing import Denoise, Grid, NoiseLevel, Sampler

__all__ = [
    "Learned",
    "from_gaps",
    "gaps_of",
    "learn_grid",
    "mean_objective",
    "numbers_of",
]

_LEAST = 1e-4  # the share of the log SNR that no gap falls below when it is read
_BEGIN = 0.03  # and from which it is learned: the gradient by a gap is of the size of its share


class Learned(NamedTuple):
    """What `learn_grid` found.

    Attributes:
        grid: the grid.
        sampler: the sampler, with its learned numbers in it.
        denoise: the model, likewise.
        numbers: the learned numbers by name.
        losses: [iterations made], the objective on the way.
    """

    grid: Grid
    sampler: Sampler
    denoise: Denoise
    numbers: dict[str, Array]
    losses: np.ndarray


def gaps_of(grid: Grid) -> Array:
    """The gaps, [K], of a grid, so that `from_gaps` gives it back.

    Args:
        grid: a grid on a schedule, not padded.

    Returns:
        [K], logarithms of the shares of log SNR; those below 1e-4 are raised to it.

    Raises:
        ValueError: a grid on no schedule, of fewer than two steps, or padded.
    """
    if grid.schedule is None:
        raise ValueError("grid must lie on a schedule to be learned, got levels alone")
    if grid.num_steps < 2:
        raise ValueError(f"grid must have at least two steps to be learned, got {grid.num_steps}")
    if np.sum(np.asarray(grid.levels.sigma) <= 0) > 1:
        raise ValueError("grid must not be padded to be learned, got more than one clean level")
    low, high = _span(grid)
    inner = grid.levels.log_snr[1:-1]
    log_snr = jnp.concatenate([low[None], inner, high[None]])
    shares = jnp.maximum(jnp.diff(log_snr) / (high - low), _LEAST)
    return jnp.log(shares / jnp.sum(shares))


def from_gaps(gaps: Array, grid: Grid) -> Grid:
    """The grid with these gaps: first level and end as in `grid`, the levels between anew.

    Args:
        gaps: [K], any numbers.
        grid: a grid on a schedule, of K steps.

    Returns:
        A Grid of K steps.
    """
    low, high = _span(grid)
    shares = jnp.cumsum(jax.nn.softmax(gaps))[:-1]
    inner = grid.schedule(grid.schedule.time(low + (high - low) * shares))
    ends = zip(grid.levels, inner, strict=True)
    levels = NoiseLevel(*(jnp.concatenate([a[:1], b, a[-1:]]) for a, b in ends))
    return Grid(levels, grid.schedule, grid.prior_std)


def _span(grid: Grid) -> tuple[Array, Array]:
    """log SNR at the first level (from just inside, where alpha = 0), and at the last."""
    t, end = grid.levels.t[0], grid.levels.t[-1]
    t = jnp.where(grid.levels.alpha[0] > 0, t, 0.999 * t)
    cleanest = jnp.asarray(cleanest_time(grid.schedule), t.dtype)
    last = jnp.where(grid.levels.sigma[-1] > 0, end, cleanest)
    return grid.schedule(t).log_snr, grid.schedule(last).log_snr


def learn_grid(
    key: Array,
    denoise: Denoise,
    grid: Grid,
    shape: tuple[int, ...],
    objective: Callable[[Array, Draw], Array],
    *,
    sampler: Sampler | None = None,
    also: Mapping[str, tuple[float, float]] | None = None,
    iterations: int = 300,
    lr: float = 0.03,
    on_step: Callable[[int, float], bool | None] | None = None,
) -> Learned:
    """Learns where the steps of a sampler should be, by Adam through the sampler itself.

    Args:
        key: for batches and noise.
        denoise: the model, a pytree; its parameters stay.
        grid: where to begin: a grid on a schedule, with the number of steps to learn for.
        shape: (B, ...), the shape of a batch.
        objective: objective(key, draw) -> [], where draw(key, x_T=None) gives x_0 of the shape:
            `to_reference`, `to_data`, or a function.
        sampler: the sampler; `dpmpp_2m()` if None.
        also: numbers to learn beside the grid, by their path in "sampler" or "denoise", with
            their range: {"sampler.eta": (0, 1), "denoise.scale": (0, 5)}.
        iterations: how many gradients.
        lr: Adam's peak learning rate; it falls to 0 on a cosine.
        on_step: called with (iteration, loss) after each; if it returns true, learning ends there.

    Returns:
        A Learned.

    Raises:
        ValueError: a grid that cannot be learned, an unknown number, one outside its range, a
            range that is none, iterations below 1, lr not positive, what `sample` refuses.
        FloatingPointError: the objective is not finite.
    """
    sampler = dpmpp_2m() if sampler is None else sampler
    check(denoise, grid, shape, sampler)
    check_count("iterations", iterations)
    check_range("lr", lr, 0, np.inf, "()")
    parts = {"sampler": sampler, "denoise": arrays.as_pytree(denoise)}
    ranges = dict(also or {})
    begin = jnp.maximum(gaps_of(grid), jnp.log(_BEGIN))
    raw = {"gaps": begin, "numbers": _to_raw(parts, ranges)}
    optimizer = optax.adam(optax.cosine_decay_schedule(lr, iterations))

    def built(raw: Any, parts: Any, grid: Grid) -> tuple[Grid, Any]:
        numbers = _from_raw(raw["numbers"], ranges)
        return from_gaps(raw["gaps"], grid), _replaced(parts, numbers)

    @jax.jit
    def update(raw, state, parts, grid, objective, key):
        def loss(raw):
            now, with_numbers = built(raw, parts, grid)
            draw = _draw(with_numbers["denoise"], now, shape, with_numbers["sampler"])
            return objective(key, draw)

        value, slope = jax.value_and_grad(loss)(raw)
        change, state = optimizer.update(slope, state)
        return optax.apply_updates(raw, change), state, value

    state, losses = optimizer.init(raw), []
    objective = arrays.as_pytree(objective)
    for i in range(iterations):
        raw, state, value = update(raw, state, parts, grid, objective, jax.random.fold_in(key, i))
        losses.append(float(value))
        if not np.isfinite(losses[-1]):
            raise FloatingPointError(f"the objective is {losses[-1]} at iteration {i}")
        if on_step is not None and on_step(i, losses[-1]):
            break
    learned, parts = built(raw, parts, grid)
    numbers = _from_raw(raw["numbers"], ranges)
    return Learned(learned, parts["sampler"], parts["denoise"], numbers, np.asarray(losses))


def mean_objective(
    key: Array,
    denoise: Denoise,
    grid: Grid,
    shape: tuple[int, ...],
    objective: Callable[[Array, Draw], Array],
    *,
    sampler: Sampler,
    batches: int = 16,
) -> float:
    """The mean of an objective over batches, to judge what was learned on fresh noise."""

    @jax.jit
    def one(key, denoise, grid, sampler, objective):
        return objective(key, _draw(denoise, grid, shape, sampler))

    trees = arrays.as_pytree(denoise), grid, sampler, arrays.as_pytree(objective)
    values = [one(jax.random.fold_in(key, i), *trees) for i in range(batches)]
    return float(np.mean(values))


def numbers_of(sampler: Sampler, denoise: Denoise) -> list[str]:
    """The paths of all single numbers of a sampler and a model, as `learn_grid` names them."""
    named = _named({"sampler": sampler, "denoise": arrays.as_pytree(denoise)})
    return [name for name, leaf in named.items() if jnp.ndim(leaf) == 0]


def _draw(denoise: Denoise, grid: Grid, shape: tuple[int, ...], sampler: Sampler) -> Draw:
    """draw(key, x_T=None) -> x_0."""

    def draw(key: Array, x_T: Array | None = None) -> Array:
        return sample(key, denoise, grid, shape, sampler=sampler, x_T=x_T)

    return draw


def _to_raw(parts: Any, ranges: Mapping[str, tuple[float, float]]) -> dict[str, Array]:
    """Numbers in (low, high) as logits: raw = logit((value - low) / (high - low))."""
    named = _named(parts)
    raw = {}
    for name, (low, high) in ranges.items():
        if name not in named:
            known = [n for n, leaf in named.items() if jnp.ndim(leaf) == 0]
            raise ValueError(f"also must name numbers among {', '.join(known)}, got {name!r}")
        if not -np.inf < low < high < np.inf:
            raise ValueError(f"the range of {name} must be finite and rise, got ({low}, {high})")
        value = jnp.asarray(named[name], arrays.float_dtype())
        if value.ndim or not low <= value <= high:
            raise ValueError(f"{name} must be one number in [{low}, {high}], got {value}")
        # from just inside, where the logit is finite and its slope is not lost
        raw[name] = jax.scipy.special.logit(jnp.clip((value - low) / (high - low), 0.05, 0.95))
    return raw


def _from_raw(raw: dict[str, Array], ranges: Mapping[str, tuple[float, float]]) -> dict[str, Array]:
    return {n: lo + (hi - lo) * jax.nn.sigmoid(raw[n]) for n, (lo, hi) in ranges.items()}


def _replaced(parts: Any, numbers: dict[str, Array]) -> Any:
    """`parts` with the named leaves exchanged."""
    return jax.tree_util.tree_map_with_path(
        lambda path, leaf: numbers.get(_name(path), leaf), parts
    )


def _named(parts: Any) -> dict[str, Any]:
    return {_name(path): leaf for path, leaf in jax.tree_util.tree_leaves_with_path(parts)}


def _name(path: Any) -> str:
    return jax.tree_util.keystr(path, simple=True, separator=".")
