"""Which order has each solver, and what is left of it after its own start?

    python experiments/solver_orders.py [--out orders.png] [--finest 256]

Deterministic solvers: five points of a mixture of three Gaussians in the plane are carried along
the probability flow of `linear_vp`, from t = .8 to t = .02, over levels evenly spaced in log SNR.
Truth is SciPy's DOP853 at rtol 1e-13 on

    d(x / alpha) / d rho = E[eps | x],    rho = sigma / alpha

with the mixture's density written out here in numpy. A slope is the log2 of the ratio of the errors
at K and 2K steps. Multistep solvers are run twice: with exact states for as many steps as they
remember answers ("exact start"), where the slope is the order their papers claim, and from their
own lower-order first steps ("own start").

Stochastic solvers: on N(m, c) in one dimension every one of them is affine in x_T and its noise, so
that the law of what it draws is computed, not sampled. Its weak errors are that of the deviation,
and for solvers of the reverse SDE that of the mean given x_T, over levels down to t = .02. (The
mean over x_T is exact for all: the model is affine.) Restart's passes take a quarter of K steps.

Expected (float64, 2 CPU cores, 4 minutes): with an exact start the claimed orders within .15 (.45
for "unic 3 on deis 3", whose leading terms partly cancel); "dpmpp_3m ported", as other libraries
carry it, is of order 2. From their own start those of order 3 and 4 fall up to .5 short. Weakly,
ancestral sampling is of order 1, the second- and third-order SDE solvers of order 2.
"""

import itertools
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import tyro
from rich.console import Console
from rich.table import Table
from scipy.integrate import solve_ivp

from jaxdiff import exact, grids, plots, samplers, schedules
from jaxdiff.samplers import sample
from jaxdiff.samplers.unipc import UniC
from jaxdiff.typing import Grid, Sampler

__all__ = ["DETERMINISTIC", "SDE", "Row", "carried", "flow", "main", "slopes", "weak_errors"]

WEIGHTS = np.array([0.3, 0.45, 0.25])
MEANS = np.array([[1.0, 0.3], [-0.8, 0.6], [0.1, -1.0]])
STDS = np.array([0.25, 0.4, 0.3])
STARTS = np.array([[0.9, 0.4], [-1.1, 0.5], [0.2, -1.3], [1.6, -0.7], [-0.3, 0.1]])
T_FIRST, T_LAST = 0.8, 0.02


class Row(NamedTuple):
    """A solver, the order its paper claims, and how many answers it remembers beside the newest."""

    make: Callable[[], Sampler]
    order: float
    remembers: int = 0


DETERMINISTIC = {
    "euler (DDIM)": Row(samplers.euler, 1),
    "heun": Row(samplers.heun, 2),
    "dpm2": Row(samplers.dpm2, 2),
    "dpm_solver 2": Row(lambda: samplers.dpm_solver(2), 2),
    "dpm_solver 3": Row(lambda: samplers.dpm_solver(3), 3),
    "dpm_solver_2m": Row(samplers.dpm_solver_2m, 2, 1),
    "dpm_solver_3m": Row(samplers.dpm_solver_3m, 3, 2),
    "dpmpp_2s": Row(samplers.dpmpp_2s, 2),
    "dpmpp_3s": Row(samplers.dpmpp_3s, 3),
    "dpmpp_2m midpoint": Row(samplers.dpmpp_2m, 2, 1),
    "dpmpp_2m heun": Row(lambda: samplers.dpmpp_2m("heun"), 2, 1),
    "dpmpp_3m ported": Row(lambda: samplers.dpmpp_3m("ported"), 2, 2),
    "dpmpp_3m corrected": Row(samplers.dpmpp_3m, 3, 2),
    "unip 2": Row(lambda: samplers.unipc(2, corrector=False), 2, 1),
    "unip 3": Row(lambda: samplers.unipc(3, corrector=False), 3, 2),
    "unipc 1": Row(lambda: samplers.unipc(1), 2, 0),
    "unipc 2 bh1": Row(lambda: samplers.unipc(2, "bh1"), 3, 1),
    "unipc 2 bh2": Row(lambda: samplers.unipc(2, "bh2"), 3, 1),
    "unipc 3": Row(lambda: samplers.unipc(3), 4, 2),
    "unic 2 on dpmpp_2m": Row(lambda: samplers.unic(samplers.dpmpp_2m()), 3, 1),
    "unic 3 on deis 3": Row(lambda: samplers.unic(samplers.deis(3), 3), 4, 2),
    "deis 2": Row(lambda: samplers.deis(2), 2, 1),
    "deis 3": Row(lambda: samplers.deis(3), 3, 2),
    "deis 3 log_rho": Row(lambda: samplers.deis(3, clock="log_rho"), 3, 2),
    "lms 3": Row(lambda: samplers.lms(3), 3, 2),
    "lms 4": Row(lambda: samplers.lms(4), 4, 3),
}

SDE = {
    "ddpm small": samplers.ddpm,
    "ddpm large": lambda: samplers.ddpm("large"),
    "dpmpp_2m_sde": samplers.dpmpp_2m_sde,
    "dpmpp_3m_sde": samplers.dpmpp_3m_sde,
    "dpm_solver_2m_sde": samplers.dpm_solver_2m_sde,
    "dpm2_ancestral": samplers.dpm2_ancestral,
}
"""Solvers of the reverse SDE itself, whose law given x_T is known."""


def _others(num_steps: int) -> dict[str, Sampler]:
    """Stochastic solvers of other processes with the same marginals."""
    return {
        "ddim eta .5": samplers.ddim(0.5),
        "heun, churn": samplers.heun(s_churn=20.0),
        "restart (heun)": samplers.restart(low=0.3, high=1.0, steps=num_steps // 4, repeats=2),
    }


def mixture() -> exact.GaussianMixture:
    """The library's own form of the mixture, which the solvers ask."""
    covs = STDS[:, None, None] ** 2 * np.eye(2)
    return exact.gaussian_mixture(*(jnp.asarray(a) for a in (WEIGHTS, MEANS, covs)))


def grid_of(num_steps: int) -> Grid:
    """Levels evenly spaced in log SNR, without a clean end."""
    schedule = schedules.linear_vp()
    return grids.uniform_log_snr(schedule, num_steps, t_first=T_FIRST, t_last=T_LAST, end=None)


def _eps(y: np.ndarray, rho: float) -> np.ndarray:
    """E[eps | x] of the mixture at x / alpha = y, noise rho: x_0 is a mixture, so is x / alpha."""
    var = STDS**2 + rho**2
    gap = y[:, None, :] - MEANS
    log_joint = np.log(WEIGHTS) - np.sum(gap**2, axis=-1) / (2 * var) - np.log(var)
    share = np.exp(log_joint - log_joint.max(axis=1, keepdims=True))
    share /= share.sum(axis=1, keepdims=True)
    return rho * np.einsum("nm,nmd->nd", share / var, gap)


def flow(grid: Grid) -> np.ndarray:
    """The exact states [K+1, 5, 2] at the levels of a grid, from STARTS at the first."""
    alpha, sigma = (np.asarray(a, np.float64) for a in (grid.levels.alpha, grid.levels.sigma))
    rho = sigma / alpha

    def rate(r: float, y: np.ndarray) -> np.ndarray:
        return _eps(y.reshape(STARTS.shape), r).ravel()

    start = STARTS / alpha[0]
    options = {"method": "DOP853", "rtol": 1e-13, "atol": 1e-14, "t_eval": rho}
    found = solve_ivp(rate, (rho[0], rho[-1]), start.ravel(), **options)
    return found.y.T.reshape(-1, *STARTS.shape) * alpha[:, None, None]


def carried(row: Row, grid: Grid, truth: np.ndarray, *, exact_start: bool) -> float:
    """The largest error of a solver at the end of a grid.

    With an exact start the first `remembers` steps stand on the true states, and are told that
    they are the first, so that only their answers are kept; the next begins on a true state, too,
    but for a corrector, which makes a state of its order of what the last of them led to.
    """
    model = mixture()
    sampler, count = row.make(), row.remembers if exact_start else 0
    true = max(count - isinstance(sampler, UniC), 0)  # the last step on a true state

    @jax.jit
    def run(grid: Grid, states: jax.Array) -> jax.Array:
        def body(carry: Any, inputs: Any) -> tuple[Any, None]:
            x, memory = carry
            k, t, s, known = inputs
            x, k = jnp.where(k <= true, known, x), jnp.where(k < count, 0, k)
            noise = jnp.zeros((sampler.noises, *x.shape))
            return sampler.step(x, memory, model.denoise, noise, k=k, t=t, s=s, grid=grid), None

        start = states[0], sampler.init(states[0], model.denoise, grid)
        inputs = jnp.arange(grid.num_steps), *grid.pairs, states[:-1]
        return jax.lax.scan(body, start, inputs)[0][0]

    states = jnp.asarray(truth)
    return float(jnp.max(jnp.abs(run(grid, states) - states[-1])))


def weak_errors(sampler: Sampler, num_steps: int) -> tuple[float, float]:
    """Errors of the mean given x_T, by unit of x_T, and of the deviation, for data N(.7, .25).

    x_0 = a x_T + b noise + c: one run each for c, for a and for every direction of the noise. For
    the reverse SDE, a = (alpha_T / alpha_0) v_0 / v_T with v = alpha**2 .25 + sigma**2.
    """
    model = exact.gaussian(jnp.array([0.7]), jnp.array([[0.25]]))
    grid = grid_of(num_steps)
    first, last = (jax.tree.map(lambda v, i=i: v[i], grid.levels) for i in (0, -1))
    count = num_steps * sampler.noises
    units = np.eye(1 + count)
    rows = np.concatenate([np.zeros((1, 1 + count)), units])
    x_T = jnp.asarray(rows[:, :1])
    noise = jnp.asarray(rows[:, 1:].T.reshape(num_steps, sampler.noises, -1, 1))
    x = sample(None, model.denoise, grid, x_T.shape, sampler=sampler, x_T=x_T, noise=noise)
    by = np.asarray(x[1:, 0] - x[0, 0])
    v_T, v_0 = (float(level.alpha**2 * 0.25 + level.sigma**2) for level in (first, last))
    gain = float(first.alpha / last.alpha) * v_0 / v_T
    std = np.sqrt(by[0] ** 2 * v_T + np.sum(by[1:] ** 2))
    return abs(by[0] - gain), abs(std - np.sqrt(v_0))


def slopes(errors: list[float]) -> list[float]:
    """log2 of the ratio of successive errors; NaN below 1e-12, which is rounding."""
    return [
        float(np.log2(a / b)) if min(a, b) > 1e-12 else np.nan
        for a, b in itertools.pairwise(errors)
    ]


def _table(title: str, columns: list[str], rows: list[list[str]]) -> Table:
    table = Table(title=title)
    for i, column in enumerate(columns):
        table.add_column(column, justify="right" if i else "left")
    for row in rows:
        table.add_row(*row)
    return table


def _last(values: list[float]) -> str:
    """The slope at the finest pair of grids that rounding has left, and how fine."""
    kept = [v for v in values if np.isfinite(v)]
    return f"{kept[-1]:.2f}" if kept else "-"


def main(out: Path | None = None, finest: int = 256) -> None:
    """Prints the tables and draws the picture.

    Args:
        out: a picture of the errors against the number of steps, .png, .pdf or .svg.
        finest: the largest number of steps, a power of 2 of at least 32.
    """
    counts = [2**i for i in range(4, finest.bit_length())]
    console, lines = Console(width=120), {}
    with jax.enable_x64(True):
        truths = {n: (grid_of(n), flow(grid_of(n))) for n in counts}
        rows = []
        for name, row in DETERMINISTIC.items():
            found = {
                warm: [carried(row, *truths[n], exact_start=warm) for n in counts]
                for warm in ((True, False) if row.remembers else (False,))
            }
            own, given = slopes(found[False]), slopes(found.get(True, found[False]))
            errors = [f"{e:.1e}" for e in found[False]]
            rows.append([name, f"{row.order:g}", _last(given), _last(own), *errors])
            lines[name] = (counts, found[False])
        columns = ["solver", "claimed", "exact start", "own start", *(f"K = {n}" for n in counts)]
        console.print(
            _table("largest error on the flow of a mixture, and its order", columns, rows)
        )
        rows = []
        for name in [*SDE, *_others(4)]:
            make = lambda n, name=name: SDE[name]() if name in SDE else _others(n)[name]  # noqa: E731
            means, stds = zip(*(weak_errors(make(n), n) for n in counts[:-1]), strict=True)
            cells = [f"{e:.1e}" for e in stds]
            mean = _last(slopes(list(means))) if name in SDE else "-"
            rows.append([name, mean, _last(slopes(list(stds))), *cells])
        columns = ["sampler", "order, mean", "order, std", *(f"K = {n}" for n in counts[:-1])]
        console.print(
            _table("error of the deviation on a Gaussian, and weak orders", columns, rows)
        )
    if out is not None:
        plots.curves(lines, out, xlabel="steps", ylabel="largest error", title="probability flow")
        console.print(f"picture: {out}")


if __name__ == "__main__":
    tyro.cli(main)
