"""The mixture of the SDE experiments, and what is known of it without any solver.

A law along each of four directions, its entropy by Monte Carlo, and the partial differential
equations that its density obeys under each SDE.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np
from scipy import stats

from jaxdiff import exact, schedules, sde
from jaxdiff.schedules import cleanest_time
from jaxdiff.typing import Schedule

__all__ = ["KINDS", "entropy", "ks_distance", "mixture", "residuals"]

KINDS = {
    "VP": schedules.linear_vp(),
    "sub-VP": schedules.sub_vp(),
    "VE": schedules.ve(sigma_min=0.01, sigma_max=10.0),
}
DIRECTIONS = np.array([[1, 0], [0, 1], [1, 1], [1, -1]]) / np.sqrt([[1], [1], [2], [2]])


def mixture() -> exact.GaussianMixture:
    """Three Gaussians in the plane, two of them elongated."""
    turn = lambda angle: np.array(  # noqa: E731
        [[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]]
    )
    stds = np.array([[0.4, 0.15], [0.5, 0.2], [0.25, 0.25]])
    covs = [turn(a) @ np.diag(s**2) @ turn(a).T for a, s in zip((0.6, -0.9, 0), stds, strict=True)]
    means = np.array([[1.0, 0.3], [-0.8, 0.6], [0.1, -1.0]])
    return exact.gaussian_mixture(np.array([0.3, 0.45, 0.25]), means, np.stack(covs))


def ks_distance(x: np.ndarray) -> float:
    """The largest Kolmogorov-Smirnov distance to the mixture over the directions."""
    model = mixture()
    weights, means, covs = (
        np.asarray(a, np.float64) for a in (model.weights, model.means, model.covs)
    )
    found = []
    for u in DIRECTIONS:
        std = np.sqrt(np.einsum("i,mij,j->m", u, covs, u))
        law = lambda y, u=u, std=std: stats.norm.cdf(y[:, None], means @ u, std) @ weights  # noqa: E731
        found.append(stats.kstest(np.asarray(x, np.float64) @ u, law).statistic)
    return float(np.max(found))


def entropy(draws: int) -> tuple[float, float]:
    """Of the mixture, by Monte Carlo, with its standard error."""
    model = mixture()
    log_p = np.asarray(model.log_prob(model.sample(jax.random.key(3), draws)), np.float64)
    return -float(log_p.mean()), float(log_p.std(ddof=1) / np.sqrt(draws))


def residuals(schedule: Schedule, count: int = 200) -> dict[str, float]:
    """How far log p_t is from solving each equation, over the largest |d log p / dt|.

        d log p / dt + div b + b' s - c (laplace log p + |s|**2) = 0

    with b the drift and c half the squared diffusion, negative where time runs backwards.
    """
    with jax.enable_x64(True):
        model = mixture()
        low, high = float(cleanest_time(schedule)), float(schedule.t_max)
        times = jnp.linspace(low + 0.02 * (high - low), high, 20)
        forward, flow = sde.forward(schedule), sde.probability_flow(model, schedule)
        family = {lam: sde.reverse(model, schedule, lam) for lam in (0.5, 1.0)}
        found = {
            "forward SDE": (forward.drift, lambda t: forward.diffusion(t) ** 2 / 2),
            "probability flow": (flow, jnp.zeros_like),
            **{
                f"reverse, lambda {lam:g}": (r.drift, lambda t, r=r: -(r.diffusion(t) ** 2) / 2)
                for lam, r in family.items()
            },
        }
        return {
            name: float(_residual(model, schedule, times, count, *terms))
            for name, terms in found.items()
        }


def _residual(model, schedule, times, count, drift, half):
    def log_p(t, x):
        return model.log_prob(x[None], schedule(t))[0]

    def at(t, x):
        b = lambda x: drift(t, x[None])[0]  # noqa: E731
        s, curved = jax.grad(log_p, 1)(t, x), jax.hessian(log_p, 1)(t, x)
        change = jax.grad(log_p)(t, x)
        moved = jnp.trace(jax.jacfwd(b)(x)) + b(x) @ s
        return jnp.stack([change + moved - half(t) * (jnp.trace(curved) + s @ s), change])

    def one_time(t):
        level = schedule(t)
        states = jax.random.normal(jax.random.key(0), (count, 2)) * (level.alpha + level.sigma)
        return jax.vmap(functools.partial(at, t))(states)

    values = jax.jit(lambda: jax.lax.map(one_time, times))()
    return jnp.max(jnp.abs(values[..., 0])) / jnp.max(jnp.abs(values[..., 1]))
