"""Truth: traces of Jacobians known in closed form, Hutchinson's variance, standard errors."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxdiff import divergence

pytestmark = pytest.mark.usefixtures("strict")

SHAPE = (2, 3)  # of an event
A = np.random.default_rng(0).normal(size=(6, 6)).astype(np.float32)
RANK_TWO = (A[:, :2] @ A[:2]).astype(np.float32)


def linear(matrix, x):
    flat = x.reshape(len(x), -1)
    return jnp.einsum("ij,bj->bi", jnp.asarray(matrix), flat, precision="highest").reshape(x.shape)


def swirl(x):
    """sin(A x) x elementwise and its divergence, sum_i sin(y_i) + x_i cos(y_i) A_ii."""
    return jnp.sin(linear(A, x)) * x


def swirl_divergence(x):
    flat = np.asarray(x, float).reshape(len(x), -1)
    y = flat @ A.T.astype(float)
    return np.sum(np.sin(y) + flat * np.cos(y) * np.diag(A), axis=1)


def states(n=5):
    return jax.random.normal(jax.random.key(3), (n, *SHAPE))


@functools.partial(jax.jit, static_argnames=("estimator", "field"))
def estimate(estimator, field, x, keys):
    return estimator(field, x, estimator.draw(keys, x.shape, x.dtype))


@pytest.mark.parametrize("chunk", [4, 16])
def test_exact_is_the_trace(chunk):
    x = states()
    v, values = estimate(divergence.exact(chunk), swirl, x, None)
    assert values.shape == (5, 1)
    assert values.dtype == jnp.float32
    np.testing.assert_allclose(v, swirl(x), rtol=1e-6)
    # six float32 terms of size 1 to 3
    np.testing.assert_allclose(values[:, 0], swirl_divergence(x), rtol=1e-4, atol=1e-5)


def test_exact_of_a_linear_map():
    _, values = estimate(divergence.exact(), functools.partial(linear, A), states(), None)
    np.testing.assert_allclose(values, np.full((5, 1), np.trace(A)), rtol=1e-5)


@pytest.mark.parametrize(
    "distribution", ["rademacher", pytest.param("gaussian", marks=pytest.mark.slow)]
)
@pytest.mark.parametrize("make", [divergence.hutchinson, divergence.hutchpp])
def test_probes_are_unbiased_within_their_own_standard_error(make, distribution, key):
    n, estimator = 4000, make(2, distribution)
    assert estimator.values == 2
    x = jnp.broadcast_to(states(1), (n, *SHAPE))
    v, values = estimate(estimator, swirl, x, jax.random.split(key, n))
    assert values.shape == (n, 2)
    np.testing.assert_allclose(v, swirl(x), rtol=1e-6)
    truth = swirl_divergence(states(1))[0]
    for each in (np.asarray(values)[:, 0], np.asarray(values)[:, 1], np.mean(values, axis=1)):
        assert abs(each.mean() - truth) < 5 * each.std() / np.sqrt(n)


@pytest.mark.slow
def test_hutchinsons_variance_is_known(key):
    n, field = 20000, functools.partial(linear, A)
    x, keys = jnp.zeros((n, *SHAPE)), jax.random.split(key, n)
    symmetric = (A + A.T) / 2
    off = symmetric - np.diag(np.diag(symmetric))
    for name, variance in (
        ("rademacher", 2 * np.sum(off**2)),
        ("gaussian", 2 * np.sum(symmetric**2)),
    ):
        values = np.asarray(estimate(divergence.hutchinson(1, name), field, x, keys)[1])[:, 0]
        error = np.std((values - values.mean()) ** 2) / np.sqrt(n)
        assert abs(values.var() - variance) < 4 * error
    # of a diagonal Jacobian Rademacher probes see the trace itself
    diagonal = functools.partial(linear, np.diag(np.diag(A)))
    _, values = estimate(divergence.hutchinson(3), diagonal, states(), keys[:5])
    np.testing.assert_allclose(values, np.full((5, 3), np.trace(A)), rtol=1e-5)


@pytest.mark.parametrize(
    ("matrix", "probes"),
    [
        (RANK_TWO, 2),
        *(pytest.param(*row, marks=pytest.mark.slow) for row in ((RANK_TWO, 3), (A, 6))),
    ],
)
def test_hutchpp_is_exact_where_the_sketch_holds_the_range(matrix, probes, key):
    # Gaussian columns: six Rademacher columns may be linearly dependent
    estimator = divergence.hutchpp(probes, "gaussian")
    field = functools.partial(linear, matrix)
    _, values = estimate(estimator, field, states(), jax.random.split(key, 5))
    # the sketch is as well conditioned as random 6 x 6 matrices are, some 1e2, times 6e-8
    np.testing.assert_allclose(values, np.full((5, probes), np.trace(matrix)), rtol=1e-3)


@pytest.mark.slow
def test_hutchpp_gains_where_few_directions_carry_the_jacobian(key):
    matrix, n = RANK_TWO + 0.01 * A, 500
    field, keys = functools.partial(linear, matrix), jax.random.split(key, n)
    x = jnp.zeros((n, *SHAPE))
    spread = [
        np.mean(estimate(make(2 if make is divergence.hutchpp else 6), field, x, keys)[1], 1).std()
        for make in (divergence.hutchpp, divergence.hutchinson)  # at six products each
    ]
    assert spread[0] < 0.2 * spread[1]


@pytest.mark.parametrize(
    "make", [divergence.hutchinson, pytest.param(divergence.hutchpp, marks=pytest.mark.slow)]
)
def test_an_example_is_estimated_alike_in_any_batch(make, key):
    estimator, x = make(2), states()
    keys = jax.vmap(jax.random.fold_in, (None, 0))(key, jnp.arange(5))
    together = estimate(estimator, swirl, x, keys)[1]
    part = estimate(estimator, swirl, x[3:], keys[3:])[1]
    np.testing.assert_allclose(together[3:], part, rtol=1e-4, atol=1e-5)  # rounding alone
    assert len(np.unique(np.asarray(together))) == 10


@pytest.mark.slow
def test_gradients_pass_through_every_estimator(key):
    x, keys = states(), jax.random.split(key, 5)

    def total(scale, estimator):
        field = lambda x: scale * linear(A, x)  # noqa: E731
        return jnp.mean(estimator(field, x, estimator.draw(keys, x.shape, x.dtype))[1])

    for estimator in (divergence.exact(), divergence.hutchinson(2), divergence.hutchpp(2)):
        value, slope = jax.jit(jax.value_and_grad(lambda s, e=estimator: total(s, e)))(1.5)
        np.testing.assert_allclose(slope, value / 1.5, rtol=1e-4)  # linear in the scale


def test_the_table_holds_every_estimator():
    assert set(divergence.DIVERGENCES) == {"exact", "hutchinson", "hutchpp"}
    for make in divergence.DIVERGENCES.values():
        assert make().values >= 1


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: divergence.exact(0), "chunk"),
        (lambda: divergence.hutchinson(0), "probes"),
        (lambda: divergence.hutchinson(1.5), "probes"),
        (lambda: divergence.hutchinson(np.nan), "probes must be a whole number .* got nan"),
        (lambda: divergence.exact(np.inf), "chunk must be a whole number .* got inf"),
        (lambda: divergence.hutchinson(1, "cauchy"), "distribution"),
        (lambda: divergence.hutchpp(-1), "probes"),
        (lambda: divergence.hutchpp(2, "uniform"), "distribution"),
        (lambda: estimate(divergence.hutchpp(7), swirl, states(), keys_of(5)), "probes"),
    ],
)
def test_bad_input_is_refused(make, message):
    with pytest.raises(ValueError, match=message):
        make()


def keys_of(n):
    return jax.random.split(jax.random.key(0), n)
