"""The variational bound.

Truth: the published figures of a mixture (quadrature), closed forms of a Gaussian, SciPy's
normal distribution, and the inequality itself.
"""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

import jaxdiff as jd
from jaxdiff import likelihood
from jaxdiff.likelihood import elbo
from tests.likelihood.mixture import ENTROPY, mixture, posterior_variance, product_rule

# NELBO in nats by steps: beta-tilde, beta; the s = 0 term with the optimal variance.
TABLE = {
    3: (2394.2, 1.1546),
    5: (1570.7, 1.1080),
    10: (285.23, 0.8639),
    20: (38.879, 0.4968),
    50: (17.266, 0.1444),
    100: (7.2709, -0.0107),
}
CHAIN = jd.schedules.linear_betas(1000)


def even_grid(num_steps):
    return jd.grids.from_steps(
        jd.from_betas(CHAIN), np.round(np.linspace(1, 1000, num_steps))[::-1]
    )


def by_quadrature(num_steps, variance):
    """The NELBO itself: `elbo` at the nodes of a product rule over data and noise."""
    x0, noise, weights = product_rule()
    grid = even_grid(num_steps)
    noise = jnp.broadcast_to(jnp.asarray(noise), (1, num_steps, *noise.shape))
    last_std = posterior_variance(jd.from_betas(CHAIN)(1.0)) ** 0.5
    how = {"variance": variance, "last_std": last_std, "noise": noise}
    found = elbo(None, mixture(), jnp.asarray(x0), grid, **how)
    return -float(np.sum(weights * np.asarray(found.values[:, 0, 0])))


def digits(number):
    """Half a unit of the last printed digit, of five."""
    return 0.51 * 10.0 ** (max(np.floor(np.log10(abs(number))), -1) - 4 + (abs(number) < 1))


@pytest.mark.parametrize("variance", ["small", "large"])
@pytest.mark.parametrize(
    "num_steps", [3, 10, *(pytest.param(k, marks=pytest.mark.slow) for k in (5, 20, 50, 100))]
)
def test_table_of_the_mixture(num_steps, variance, x64):
    want = TABLE[num_steps][variance == "large"]
    assert abs(by_quadrature(num_steps, variance) - want) < max(digits(want), 6e-5)


@pytest.mark.slow
def test_drawn_noise_agrees_within_its_error(key):
    data = mixture()
    last_std = posterior_variance(jd.from_betas(CHAIN)(1.0)) ** 0.5
    x = data.sample(key, 4000)
    found = elbo(key, data, x, even_grid(10), variance="large", last_std=last_std, draws=2)
    assert abs(float(-found.mean) - TABLE[10][1]) < 4 * float(found.errors.total)
    assert -float(found.mean) > ENTROPY


def test_terms_of_a_gaussian(x64):
    """One example, known noise: each term written out for N(0, c) in numpy."""
    c, grid = 0.25, even_grid(4)
    model = jd.exact.gaussian(jnp.zeros(1), jnp.full((1, 1), c))
    x0, noise = 0.3, np.array([0.5, -1.0, 0.2, 0.8])
    found = elbo(
        None, model, jnp.full((1, 1), x0), grid, noise=jnp.asarray(noise).reshape(1, 4, 1, 1)
    )
    alpha, sigma = (np.asarray(a) for a in (grid.levels.alpha, grid.levels.sigma))
    prior = 0.5 * (sigma[0] ** 2 + (alpha[0] * x0) ** 2 - 1 - 2 * np.log(sigma[0]))
    np.testing.assert_allclose(found.terms["prior"], -prior, rtol=1e-10)
    for k in range(3):
        x_t = alpha[k] * x0 + sigma[k] * noise[k]
        x0_hat = alpha[k] * c / (alpha[k] ** 2 * c + sigma[k] ** 2) * x_t
        beta = 1 - (alpha[k] / alpha[k + 1]) ** 2
        coef = alpha[k + 1] * beta / sigma[k] ** 2  # Ho et al. 2020, eq. 7
        var = beta * sigma[k + 1] ** 2 / sigma[k] ** 2
        kl = (coef * (x0 - x0_hat)) ** 2 / (2 * var)
        np.testing.assert_allclose(found.terms["steps"][0, 0, 0, k], -kl, rtol=1e-9)
    x_1 = alpha[3] * x0 + sigma[3] * noise[3]
    x0_hat = alpha[3] * c / (alpha[3] ** 2 * c + sigma[3] ** 2) * x_1
    want = stats.norm.logpdf(x0, x0_hat, sigma[3])
    np.testing.assert_allclose(found.terms["decoder"], want, rtol=1e-10)
    np.testing.assert_allclose(found.mean, sum(jnp.sum(t) for t in found.terms.values()))


def test_ddim_bound_is_its_own_kernel(x64):
    """eta < 1: KL(q_eta || p_eta) = kept difference of eps and x_0, squared over 2 l**2."""
    c, eta, grid = 0.25, 0.6, even_grid(3)
    model = jd.exact.gaussian(jnp.zeros(1), jnp.full((1, 1), c))
    noise = jnp.array([0.5, -1.0, 0.2]).reshape(1, 3, 1, 1)
    found = elbo(None, model, jnp.full((1, 1), 0.3), grid, noise=noise, eta=eta)
    alpha, sigma = (np.asarray(a) for a in (grid.levels.alpha, grid.levels.sigma))
    x_t = alpha[1] * 0.3 - sigma[1]
    v = alpha[1] ** 2 * c + sigma[1] ** 2
    d_x0, d_eps = 0.3 - alpha[1] * c / v * x_t, -1.0 - sigma[1] / v * x_t
    r = (alpha[1] * sigma[2] / (alpha[2] * sigma[1])) ** 2
    l2 = eta**2 * sigma[2] ** 2 * (1 - r)
    apart = alpha[2] * d_x0 + np.sqrt(sigma[2] ** 2 - l2) * d_eps
    np.testing.assert_allclose(found.terms["steps"][0, 0, 0, 1], -(apart**2) / (2 * l2), rtol=1e-9)


@pytest.mark.slow
def test_decoder_of_whole_numbers(key):
    """The probability of each bin, by SciPy; those of all bins add up to 1."""
    model = jd.exact.gaussian(jnp.zeros(1), jnp.full((1, 1), 0.25))
    q = likelihood.quantised(5)
    x = jnp.arange(5, dtype=jnp.uint8)[:, None]
    grid = even_grid(1)
    noise = jnp.zeros((1, 1, 5, 1))
    found = elbo(None, model, x, grid, quantisation=q, noise=noise, last_std=0.4)
    level = jax.tree.map(lambda a: a[0], grid.levels)
    centres = np.linspace(-1, 1, 5)
    mean = np.asarray(model(level.alpha * jnp.asarray(centres)[:, None], level).x0)[:, 0]
    edges = np.array([-np.inf, -0.75, -0.25, 0.25, 0.75, np.inf])
    want = np.log(np.diff(stats.norm.cdf(edges[None], mean[:, None], 0.4))[range(5), range(5)])
    np.testing.assert_allclose(found.terms["decoder"][:, 0, 0], want, rtol=2e-5)  # float32


@pytest.mark.slow
def test_padding_and_batches_change_nothing(key):
    data, x = mixture(), mixture().sample(jax.random.key(1), 7)
    grid = even_grid(5)
    levels = jax.tree.map(lambda a: jnp.concatenate([a, a[-1:], a[-1:]]), grid.levels)
    padded = jd.typing.Grid(levels, grid.schedule, grid.prior_std)
    whole = elbo(key, data, x, grid, draws=2)
    np.testing.assert_allclose(elbo(key, data, x, padded, draws=2).values, whole.values, rtol=1e-5)
    keys = jd.samplers.example_keys(key, 4, first=3)
    part = elbo(keys, data, x[3:], grid, draws=2)
    np.testing.assert_allclose(part.values, whole.values[3:], rtol=1e-5)  # float32
    both = likelihood.concatenate([elbo(key, data, x[:3], grid, draws=2), part])
    np.testing.assert_allclose(both.mean, whole.mean, rtol=1e-5)


@pytest.mark.slow
def test_jit_vmap_and_gradients(key, x64):
    """By eta, last_std and the data's own width, against central differences."""
    x = mixture().sample(key, 5)
    grid = even_grid(4)

    def value(eta, last_std, width):
        model = jd.exact.GaussianMixture(
            jnp.array([0.5, 0.5]), jnp.array([[-0.7], [0.7]]), jnp.full((2, 1, 1), width)
        )
        return elbo(key, model, x, grid, eta=eta, last_std=last_std).mean

    at = (0.8, 0.05, 0.02)
    got = jax.jit(jax.grad(value, argnums=(0, 1, 2)))(*at)
    for i, derivative in enumerate(got):
        up, down = list(at), list(at)
        up[i], down[i] = at[i] + 1e-5, at[i] - 1e-5
        want = (value(*up) - value(*down)) / 2e-5
        np.testing.assert_allclose(derivative, want, rtol=1e-5)
    many = jax.vmap(value, (0, None, None))(jnp.array([0.5, 1.0]), 0.05, 0.02)
    np.testing.assert_allclose(many[1], value(1.0, 0.05, 0.02), rtol=1e-10)


X = jnp.array([[0.3], [-0.5]])
REFUSED = {
    r"eta must lie in \(0, 1\]": lambda k: elbo(k, mixture(), X, even_grid(3), eta=0.0),
    "last_std must lie in": lambda k: elbo(k, mixture(), X, even_grid(3), last_std=0.0),
    "needs second moments": lambda k: elbo(k, mixture(), X, even_grid(3), last_std="analytic"),
    "draws must be a whole": lambda k: elbo(k, mixture(), X, even_grid(3), draws=0),
    "noise must have shape": lambda k: elbo(k, mixture(), X, even_grid(3), noise=X),
    "grid must end clean": lambda k: elbo(
        k, mixture(), X, jd.grids.from_steps(jd.linear_vp(), [1.0, 0.5], end=None)
    ),
    "variance must be one of": lambda k: elbo(k, mixture(), X, even_grid(3), variance="tiny"),
    "key must be given": lambda k: elbo(None, mixture(), X, even_grid(3)),
    "eta must be one number": lambda k: elbo(k, mixture(), X, even_grid(3), eta=jnp.ones(2)),
    "draws must be a whole number.* got 2.5": lambda k: elbo(
        k, mixture(), X, even_grid(3), draws=2.5
    ),
    "denoise must return eps as": lambda k: elbo(
        k, lambda x, level: jd.Denoised(x, x[:1]), X, even_grid(3)
    ),
}


@pytest.mark.parametrize("message", REFUSED)
def test_bad_input_is_named(message, key):
    with pytest.raises(ValueError, match=message):
        REFUSED[message](key)


def test_a_prior_narrower_than_the_data_is_warned_of(key):
    with pytest.warns(UserWarning, match=r"noise beyond the data's spread.*sigma_max"):
        elbo(key, mixture(), X, jd.grids.uniform(jd.ve(0.01, 0.2), 5))


def test_what_is_not_finite_is_named(key):
    with pytest.raises(FloatingPointError, match="bound is not finite at example 1"):
        elbo(key, mixture(), jnp.array([[0.3], [1e20]]), jd.grids.uniform(jd.ve(), 3))
    with pytest.raises(FloatingPointError, match="deviation is 0: a number for last_std"):
        elbo(key, mixture(), X, even_grid(3), last_std="small")
