"""Truth: a chain of three steps written out in numpy; `likelihood.elbo`, another path of ours."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.stats

from jaxdiff import grids, losses, schedules
from jaxdiff.denoiser import make_denoiser
from jaxdiff.likelihood import elbo, quantised
from jaxdiff.reverse import learned_range

BETAS = np.array([0.02, 0.5, 0.985])
CHAIN = schedules.from_betas(BETAS)
FLOOR = 1e-3
PARAMS = {"mean": 0.4, "bias": 0.1, "var": 0.3}


def apply(params, x, t):
    """Wrong in mean and variance alike, each in its own way."""
    mean = params["mean"] * x + params["bias"]
    return jnp.concatenate([mean, jnp.tanh(params["var"] * x + 0.2 * t[:, None])], axis=-1)


def network():
    params = jax.tree.map(lambda p: jnp.asarray(p, float), PARAMS)
    return make_denoiser(
        apply,
        params,
        parametrization="eps",
        time_feature="clock",
        heads=("log_var_fraction",),
    )


def every_step(key, n, schedule):
    """One example a step, 1..N."""
    return jnp.arange(1.0, n + 1), jnp.ones(n)


def written_out(x0, noise, bins):
    """The three terms in nats a dimension, Ho et al. 2020, eq. 5-7, and Nichol's eq. 15."""
    kept = np.cumprod(1 - BETAS)
    terms = []
    for n in (1, 2, 3):
        beta, ab, before = BETAS[n - 1], kept[n - 1], kept[n - 2] if n > 1 else 1.0
        x_t = np.sqrt(ab) * x0 + np.sqrt(1 - ab) * noise[n - 1]
        eps = PARAMS["mean"] * x_t + PARAMS["bias"]
        said = (x_t - np.sqrt(1 - ab) * eps) / np.sqrt(ab)
        least = max(beta * (1 - before) / (1 - ab), FLOOR)
        share = (np.tanh(PARAMS["var"] * x_t + 0.2 * n) + 1) / 2
        var = np.exp(share * np.log(beta) + (1 - share) * np.log(least))
        if n == 1:
            normal = scipy.stats.norm(said, np.sqrt(var))
            half = 1 / (bins - 1) if bins else None
            low = np.where(x0 <= -1, -np.inf, x0 - half) if bins else None
            high = np.where(x0 >= 1, np.inf, x0 + half) if bins else None
            log = np.log(normal.cdf(high) - normal.cdf(low)) if bins else normal.logpdf(x0)
            terms.append(-np.mean(log))
            continue
        apart = np.sqrt(before) * beta / (1 - ab) * (x0 - said)  # x_t's share is one of both
        tilde = beta * (1 - before) / (1 - ab)
        terms.append(np.mean(0.5 * (np.log(var / tilde) + (tilde + apart**2) / var - 1)))
    return np.asarray(terms)


@pytest.mark.usefixtures("strict", "x64")
@pytest.mark.parametrize("bins", [pytest.param(None, marks=pytest.mark.slow), 5])
def test_bound_is_that_of_the_chain(bins, key):
    x = np.array([-1.0, 0.5, 0.0, 1.0])
    noise = jax.random.normal(jax.random.split(key, 4)[1], (3, 4))  # as `losses.ask` draws it
    variance = learned_range(FLOOR)
    how = {"variance": variance, "bins": bins, "times": every_step}
    ask = jax.jit(lambda key: losses.chain_bound(key, network(), jnp.tile(x, (3, 1)), CHAIN, **how))
    loss, told = ask(key)
    wanted = written_out(x, np.asarray(noise), bins)
    # float64; the chain's levels are powers of products of three numbers
    np.testing.assert_allclose(told["weighted"] * np.log(2) / 3, wanted, rtol=1e-9)
    np.testing.assert_allclose(loss * np.log(2), wanted.sum(), rtol=1e-9)
    data = jnp.asarray(np.round((x + 1) / 2 * 4), jnp.int32) if bins else jnp.asarray(x)
    estimate = elbo(
        None,
        network(),
        data[None],
        grids.uniform(CHAIN, 3),
        variance=variance,
        last_std=variance,
        quantisation=quantised(5) if bins else None,
        noise=noise[None, ::-1, None],
    )
    both = estimate.terms["steps"].sum() + estimate.terms["decoder"].sum()
    np.testing.assert_allclose(loss * np.log(2) * 4, -both, rtol=1e-9)


def slopes(loss, key, **more):
    x0 = jnp.linspace(-1, 1, 64)[:, None]
    denoiser = network()

    def value(params):
        return loss(key, denoiser.with_params(params), x0, CHAIN, **more)[0]

    return jax.jit(jax.grad(value))(denoiser.params)


def test_the_bound_in_hybrid_moves_the_variance_alone(key):
    mean = slopes(losses.denoising, key)
    hybrid = slopes(losses.hybrid, key)
    for name in ("mean", "bias"):
        assert hybrid[name] == mean[name]  # exactly: what the bound adds is 0
    assert mean["var"] == 0
    assert hybrid["var"] != 0
    bound = slopes(losses.chain_bound, key)
    np.testing.assert_allclose(hybrid["var"], 0.001 * bound["var"], rtol=1e-5)
    assert bound["mean"] != 0


@pytest.mark.slow
def test_hybrid_is_the_sum_of_its_parts(key):
    x0 = jnp.linspace(-1, 1, 64)[:, None]
    ask = lambda loss, **more: jax.jit(lambda k: loss(k, network(), x0, CHAIN, **more))(key)  # noqa: E731
    loss, told = ask(losses.hybrid, bound_weight=0.5)
    mean, _ = ask(losses.denoising)
    bound, _ = ask(losses.chain_bound)
    np.testing.assert_allclose(loss, mean + 0.5 * bound, rtol=1e-6)
    np.testing.assert_allclose(told["bound"].mean(), bound, rtol=1e-6)


def test_a_continuous_clock_is_refused(key):
    for loss in (losses.hybrid, losses.chain_bound):
        with pytest.raises(ValueError, match=r"schedule must be a chain.*see continuous_bound"):
            loss(key, network(), jnp.zeros((2, 1)), schedules.linear_vp())


@pytest.mark.parametrize("bins", [0, 1, 2.5, -1])
def test_bins_are_two_or_more(bins, key):
    for loss in (losses.hybrid, losses.chain_bound):
        with pytest.raises(ValueError, match=f"bins must be.*at least 2, got {bins}"):
            loss(key, network(), jnp.zeros((2, 1)), CHAIN, bins=bins)


def test_the_bound_has_no_negative_weight(key):
    with pytest.raises(ValueError, match=r"bound_weight must lie in.*got -1"):
        losses.hybrid(key, network(), jnp.zeros((2, 1)), CHAIN, bound_weight=-1.0)
