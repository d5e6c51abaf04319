"""Truth: the papers' definitions, the exact score by autodiff, the unit variances EDM asks for."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxdiff import exact, parametrization
from jaxdiff.parametrization import to_denoised
from jaxdiff.typing import NoiseLevel
from tests import battery

pytestmark = pytest.mark.usefixtures("strict")

PAIRS = [
    (first, second) for first in battery.PARAMETRIZATIONS for second in battery.PARAMETRIZATIONS
]
SILENT_AT_NOISE = {"eps", "score"}  # what these say at alpha = 0 holds nothing of x_0
SILENT_AT_DATA = {"x0", "score"}

# float64: a 2x2 solve whose determinant is above .01 at the inner levels
close = functools.partial(np.testing.assert_allclose, rtol=1e-12, atol=1e-12)


def levels(*pairs):
    alpha, sigma = (jnp.asarray(v) for v in zip(*pairs, strict=True))
    return NoiseLevel(t=sigma, alpha=alpha, sigma=sigma)


def inner():
    """Variance preserving, exploding and neither; one level an example."""
    return levels((0.99, 0.141), (0.6, 0.8), (0.1, 0.995), (1.0, 0.02), (1.0, 80.0), (0.5, 0.5))


def states(level, dim=3):
    x0, noise = np.random.default_rng(1).normal(size=(2, len(level.t), dim))
    return (
        jnp.asarray(x0),
        jnp.asarray(noise),
        level.alpha[:, None] * x0 + level.sigma[:, None] * noise,
    )


@pytest.mark.usefixtures("x64")
@battery.each_parametrization
def test_the_target_is_solved_for_both(parametrized):
    level = inner()
    x0, noise, x_t = states(level)
    y = parametrization.target(parametrized, x0, noise, level)
    out = to_denoised(parametrized, y, x_t, level, heads={"eps2": noise})
    # at sigma = 80 x_0 is 1 in 80: two digits
    close(out.x0, x0, atol=1e-11)
    close(out.eps, noise)
    assert out.heads["eps2"] is noise
    close(level.alpha[:, None] * out.x0 + level.sigma[:, None] * out.eps, x_t)


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize(("first", "second"), PAIRS)
def test_there_and_back(first, second):
    first, second = (battery.PARAMETRIZATIONS[name] for name in (first, second))
    level = inner()
    x_t, y = states(level)[2], states(level)[1]  # an output that no data explain
    there = to_denoised(first, y, x_t, level)
    other = parametrization.target(second, there.x0, there.eps, level)
    back = to_denoised(second, other, x_t, level)
    scale = 1 + np.abs(np.asarray(y)).max() + np.abs(np.asarray(other)).max()
    ours = parametrization.target(first, back.x0, back.eps, level)
    close(ours, y, atol=1e-12 * scale)


@pytest.mark.usefixtures("x64")
def test_outputs_are_what_the_papers_define():
    weights, means = [0.3, 0.7], [[-0.5, 0.2], [0.6, 0.0]]
    mixture = exact.gaussian_mixture(
        weights, means, [[[0.2, 0.1], [0.1, 0.3]], [[0.1, 0], [0, 0.4]]]
    )
    level = levels((0.6, 0.8), (1.0, 3.0))
    x_t = states(level, 2)[2]
    x0, eps, _ = mixture.denoise(x_t, level)
    alpha, sigma = level.alpha[:, None], level.sigma[:, None]
    score = jax.grad(lambda x: mixture.log_prob(x, level).sum())(x_t)
    said = {
        name: parametrization.target(parametrization.resolve(name), x0, eps, level)
        for name in ("eps", "x0", "v", "score", "flow")
    }
    close(said["eps"], (x_t - alpha * x0) / sigma)
    close(said["x0"], (x_t + sigma**2 * score) / alpha)  # Tweedie
    close(said["v"], alpha * eps - sigma * x0)
    close(said["score"], score)
    close(said["flow"], eps - x0)


@pytest.mark.usefixtures("x64")
def test_flow_is_the_velocity_of_the_straight_path_and_v_of_the_circle():
    x0, noise = jnp.asarray([[0.4, -1.0]]), jnp.asarray([[0.3, 2.0]])
    one = jnp.ones(())
    t = jnp.asarray(0.3)
    velocity = jax.jvp(lambda t: (1 - t) * x0 + t * noise, (t,), (one,))[1]
    level = NoiseLevel(t, 1 - t, t)
    close(parametrization.target(parametrization.flow(), x0, noise, level), velocity)
    velocity = jax.jvp(lambda t: jnp.cos(t) * x0 + jnp.sin(t) * noise, (t,), (one,))[1]
    level = NoiseLevel(t, jnp.cos(t), jnp.sin(t))  # Salimans and Ho 2022, appendix D
    close(parametrization.target(parametrization.v(), x0, noise, level), velocity)


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("sigma_data", [0.5, 1.3])
def test_edm_is_table_1(sigma_data):
    sigma = jnp.asarray([0.002, 0.3, 80.0])
    level = NoiseLevel(sigma, jnp.ones(3), sigma)
    edm = parametrization.edm(sigma_data)
    x_t, f = states(level)[:2]
    total = np.asarray(sigma**2 + sigma_data**2)[:, None]
    c_skip, c_out = sigma_data**2 / total, np.asarray(sigma)[:, None] * sigma_data / total**0.5
    out = to_denoised(edm, f, x_t, level)
    close(out.x0, c_skip * x_t + c_out * f)
    close(edm.scale_in(level), total[:, 0] ** -0.5)
    # the two conditions the table is derived from, at any alpha: Var(input) = Var(target) = 1
    level = inner()
    a, b = edm.coefficients(level)
    close((a * sigma_data) ** 2 + b**2, 1)
    var = (level.alpha * sigma_data) ** 2 + level.sigma**2
    close(edm.scale_in(level) ** 2 * var, 1)
    # and the target does not correlate with the input, so that the error is least amplified
    close(a * level.alpha * sigma_data**2 + b * level.sigma, 0)


@pytest.mark.usefixtures("x64")
@battery.each_parametrization
def test_errors_convert_by_the_determinant(parametrized):
    # dy = (det / alpha) deps = -(det / sigma) dx_0 at fixed x_t
    level = inner()
    _, y, x_t = states(level)
    d_y = jnp.ones_like(y)
    solve = lambda y: to_denoised(parametrized, y, x_t, level)[:2]  # noqa: E731
    d_x0, d_eps = jax.jvp(solve, (y,), (d_y,))[1]
    det = parametrization.determinant(parametrized, level)[:, None]
    close(det / level.alpha[:, None] * d_eps, d_y)
    close(-det / level.sigma[:, None] * d_x0, d_y)


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("name", battery.PARAMETRIZATIONS)
def test_both_ends_are_exact_where_the_output_says_enough(name):
    parametrized = battery.PARAMETRIZATIONS[name]
    for alpha, sigma, silent in [(0.0, 2.0, SILENT_AT_NOISE), (0.5, 0.0, SILENT_AT_DATA)]:
        level = levels((alpha, sigma), (alpha, sigma))
        x0, noise, x_t = states(level)
        y = parametrization.target(parametrized, x0, noise, level)
        out = to_denoised(parametrized, y, x_t, level)
        close(alpha * out.x0 + sigma * out.eps, x_t)
        if name not in silent:
            close(out.x0, x0)
            close(out.eps, noise)
        elif alpha == 0:  # x_t alone gives eps and nothing gives x_0
            close(out.eps, noise)
            close(out.x0, 0)
        else:
            close(out.x0, x0)
            close(out.eps, 0)
        assert (parametrization.determinant(parametrized, level) == 0).all() == (name in silent)


@pytest.mark.usefixtures("x64")
@battery.each_parametrization
def test_gradients_are_finite_at_both_ends(parametrized):
    def total(y, x_t, alpha, sigma):
        level = NoiseLevel(sigma, alpha, sigma)
        out = to_denoised(parametrized, y, x_t, level)
        return sum(jnp.sum(jnp.sin(leaf)) for leaf in out[:2]) + parametrized.scale_in(level).sum()

    level = levels((0.0, 1.0), (1.0, 0.0), (0.6, 0.8))
    _, y, x_t = states(level)
    gradients = jax.grad(total, range(4))(y, x_t, level.alpha, level.sigma)
    assert all(np.isfinite(g).all() for g in gradients)


@battery.each_parametrization
def test_shared_and_single_levels_agree_and_stay_float32(parametrized):
    level = jax.tree.map(jnp.asarray, NoiseLevel(0.5, 0.6, 0.8))
    many = jax.tree.map(lambda a: jnp.full(4, a), level)
    x = jax.random.normal(jax.random.key(0), (2, 4, 2, 3, 1))
    one = to_denoised(parametrized, *x, level)
    for a, b in zip(one[:2], to_denoised(parametrized, *x, many)[:2], strict=True):
        assert a.dtype == jnp.float32
        np.testing.assert_array_equal(a, b)


def test_names_resolve_and_others_are_refused():
    for name, factory in parametrization.PARAMETRIZATIONS.items():
        kind = type(factory())
        assert isinstance(parametrization.resolve(name), kind)
        assert isinstance(parametrization.resolve(factory), kind)
        assert isinstance(parametrization.resolve(factory()), kind)
    with pytest.raises(ValueError, match="one of eps, x0, v, score, flow, edm, got 'epsilon'"):
        parametrization.resolve("epsilon")
    with pytest.raises(TypeError, match="must be a Parametrization"):
        parametrization.resolve(3)
    with pytest.raises(ValueError, match="sigma_data"):
        parametrization.edm(0.0)
