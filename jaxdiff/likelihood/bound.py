"""The variational bound, term by term, for any reverse variance, eta and grid.

    log p(x_0) >= -KL(q(x_T | x_0) || N(0, prior_std**2 I))
                  - sum_k E KL(q(x_s | x_t, x_0) || p(x_s | x_t))
                  + E log p(x_0 | x_1)

q(x_s | x_t, x_0) is equation (4) of the data themselves, p(x_s | x_t) that of the model; at
eta = 1 the bound is DDPM's, below it DDIM's.
"""

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.scipy import stats

from jaxdiff import arrays
from jaxdiff.arrays import event_sum, expand_to
from jaxdiff.denoiser import Checked
from jaxdiff.gaussian import discretized_log_prob, normal_kl, q_marginal, q_sample
from jaxdiff.keys import example_keys
from jaxdiff.likelihood.estimate import Estimate
from jaxdiff.likelihood.quantisation import Quantisation, model_units, warn_of_little_noise
from jaxdiff.reverse import resolve, reverse_mean, small
from jaxdiff.samplers import base, ddpm
from jaxdiff.typing import Denoise, Denoised, Grid, NoiseLevel, Normal, ReverseVariance

__all__ = ["elbo"]


def elbo(
    key: Array | None,
    denoise: Denoise,
    x: Array,
    grid: Grid,
    *,
    eta: Any = 1.0,
    variance: ReverseVariance | str = "small",
    last_std: ReverseVariance | Any = None,
    quantisation: Quantisation | None = None,
    draws: int = 1,
    noise: Array | None = None,
) -> Estimate:
    """The variational lower bound of the log-likelihood of examples, on any grid.

    Args:
        key: a PRNG key, or [B] keys, one an example; None if noise is given.
        denoise: the model.
        x: [B, ...], float in the model's units, or whole numbers with a quantisation.
        grid: the grid, with a clean end; fewer steps are a shorter chain and another bound.
        eta: [], in (0, 1]: of the inference process and the model alike.
        variance: that of p(x_s | x_t) at noisy s.
        last_std: that of p(x_0 | x_1): [], > 0, or a ReverseVariance, whose deviation for the step
            onto the data is taken, as Bao et al. do; sigma_1 if None, which is Ho et al.'s beta_1.
        quantisation: what x is where it holds whole numbers: p(x_0 | x_1) is then the
            probability of their bins. None for a density.
        draws: static, P, of the noise: each calls the model once a step. Of one draw the error
            has no split.
        noise: [P, K, B, ...], what each x_t is made with, the noisiest first, to replay a run;
            drawn if None.

    Returns:
        An Estimate with terms "prior" [B, 1, P], "steps" [B, 1, P, K - 1] from the noisiest on,
        and "decoder" [B, 1, P]; each step's noise is drawn by itself.

    Raises:
        ValueError: data that cannot be, a grid without a clean end, eta outside (0, 1], last_std
            not positive, either no single number, draws below 1, or noise of another shape.
        FloatingPointError: the bound is not finite; while it is being traced it is NaN instead.

    Warns:
        UserWarning: the prior is narrower than what is left of these data at t_max.

    Source: Ho et al. 2020, arXiv:2006.11239, eq. 5 and section 3.3; Song et al. 2021,
        arXiv:2010.02502, eq. 11, for eta; Bao et al. 2022, arXiv:2201.06503, eq. 1-4, for
        shorter chains.
    """
    x = model_units(x, quantisation)
    base.check(denoise, grid, x.shape, ddpm(), x)
    variance = resolve(variance)
    if last_std is not None and not arrays.is_number(last_std):
        last_std = resolve(last_std)
    _check(grid, eta, last_std, draws)
    for part in (variance, last_std):
        if hasattr(part, "check"):
            part.check(grid.levels)
    if grid.schedule is not None:
        warn_of_little_noise(grid.schedule, x)
    wanted = (draws, grid.num_steps, *x.shape)
    if noise is not None and noise.shape != wanted:
        raise ValueError(f"noise must have shape [P, K, B, ...] {wanted}, got {noise.shape}")
    keys = None if noise is not None else example_keys(key, x.shape[0])
    trees = (
        Checked(arrays.as_pytree(denoise)),
        grid,
        eta,
        variance,
        last_std,
        quantisation,
    )
    trees = arrays.strong(trees, x.dtype)
    terms = _terms(keys, noise, x, *trees, draws=int(draws))
    estimate = Estimate(terms, x[0].size, dequantised=False, probed=True)
    numbers = None if arrays.is_traced(terms) else np.asarray(estimate.values)
    if numbers is not None and not np.isfinite(numbers).all():
        i = int(np.argmin(np.isfinite(numbers).all(axis=(1, 2))))
        raise FloatingPointError(
            f"the bound is not finite at example {i} of these {len(numbers)}: the model's answer"
            " was not, or p(x_0 | x_1) has no weight there, as where its deviation is 0: a number"
            " for last_std mends that"
        )
    return estimate


@functools.partial(jax.jit, static_argnames="draws")
def _terms(keys, noise, x, denoise, grid, eta, variance, last_std, quantisation, *, draws):
    last = jnp.sum(grid.levels.sigma > 0) - 1  # the cleanest noisy level
    at = lambda k: jax.tree.map(lambda a: a[k], grid.levels)  # noqa: E731
    first, cleanest = at(0), at(last)
    t, s = (jax.tree.map(lambda a: a[:-1], level) for level in grid.pairs)

    def noised(p: Array, k: Array, level: NoiseLevel) -> tuple[Array, Array]:
        draw = noise[p, k] if keys is None else _draw(keys, p, k, x)
        return draw, q_sample(x, draw, level)

    def one_draw(p: Array) -> tuple[Array, Array]:
        def step(_, inputs):
            k, t, s = inputs
            padding = s.sigma <= 0
            t, s = (_where(padding, at(i), level) for i, level in ((0, t), (1, s)))
            draw, x_t = noised(p, k, t)
            kl = _step_kl(denoise(x_t, t), Denoised(x, draw), x_t, t, s, eta, variance)
            return None, jnp.where(padding, 0, -event_sum(kl))

        _, steps = jax.lax.scan(step, None, (jnp.arange(t.t.shape[0]), t, s))
        _, x_1 = noised(p, last, cleanest)
        d, std = denoise(x_1, cleanest), cleanest.sigma if last_std is None else last_std
        if not arrays.is_number(std):
            std = std.std(d, t=cleanest, s=at(-1), eta=eta)
        return jnp.moveaxis(steps, 0, -1), _decoded(x, d.x0, std, quantisation)

    steps, decoder = jax.lax.map(one_draw, jnp.arange(draws))
    prior = Normal(jnp.zeros_like(x), expand_to(grid.prior_std, x) ** 2)
    prior = -event_sum(normal_kl(q_marginal(x, first), prior))
    return {
        "prior": jnp.broadcast_to(prior[:, None, None], (x.shape[0], 1, draws)),
        "steps": jnp.moveaxis(steps, 0, 1)[:, None],
        "decoder": jnp.moveaxis(decoder, 0, 1)[:, None],
    }


def _draw(keys: Array, p: Array, k: Array, x: Array) -> Array:
    """Noise like x, of draw p and step k; example i's from keys[i]."""

    def one(key: Array) -> Array:
        key = jax.random.fold_in(jax.random.fold_in(key, p), k)
        return jax.random.normal(key, x.shape[1:], x.dtype)

    return jax.vmap(one)(keys)


def _step_kl(d: Denoised, data: Denoised, x_t, t, s, eta, variance) -> Array:
    """KL of each coordinate; the means' difference by the difference of what they are made of."""
    apart = Denoised(data.x0 - d.x0, data.eps - d.eps)
    mean = reverse_mean(apart, t=t, s=s, eta=eta)
    known = expand_to(small().std(data, t=t, s=s, eta=eta), x_t) ** 2
    model = expand_to(variance.std(d, t=t, s=s, eta=eta), x_t) ** 2
    return normal_kl(Normal(mean, known), Normal(jnp.zeros_like(mean), model))


def _decoded(x: Array, mean: Array, std: Any, quantisation: Quantisation | None) -> Array:
    """log p(x_0 | x_1), [B]."""
    std = expand_to(std, x)
    if quantisation is None:
        return event_sum(stats.norm.logpdf(x, mean, std))
    normal = Normal(mean, std**2)
    ends = {"low": quantisation.low, "high": quantisation.high}
    return event_sum(discretized_log_prob(x, normal, bins=quantisation.bins, **ends))


def _where(condition: Array, a: NoiseLevel, b: NoiseLevel) -> NoiseLevel:
    return NoiseLevel(*(jnp.where(condition, u, v) for u, v in zip(a, b, strict=True)))


def _check(grid: Grid, eta: Any, last_std: Any, draws: int) -> None:
    arrays.check_range("eta", eta, 0, 1, "(]")
    arrays.check_count("draws", draws)
    number = last_std if arrays.is_number(last_std) else None
    for name, value in (("eta", eta), ("last_std", number)):
        if value is not None and jnp.ndim(value):
            raise ValueError(f"{name} must be one number, got shape {list(jnp.shape(value))}")
    if number is not None:
        arrays.check_range("last_std", number, 0, np.inf, "()")
    sigma = arrays.concrete(grid.levels.sigma)
    if sigma is not None and sigma[-1] > 0:
        raise ValueError(
            f"grid must end clean, where the decoder takes over, got sigma = {sigma[-1]:g} there"
        )
