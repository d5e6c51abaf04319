"""One of several formulas by a number. Truth: each of them alone."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxdiff as jd
from jaxdiff import losses, parametrization, schedules
from jaxdiff.typing import NoiseLevel

KINDS = [schedules.linear_vp(), schedules.cosine(), schedules.ve(0.01, 50.0), schedules.edm()]
TIMES = jnp.linspace(0.01, 0.99, 7)


def assert_rows(at, alone):
    """`at(i)` for all i at once is each of `alone`; another order of operations in float32."""
    rows = jax.jit(jax.vmap(at))(jnp.arange(len(alone)))
    for i, one in enumerate(alone):
        for a, b in zip(jax.tree.leaves(rows), jax.tree.leaves(one), strict=True):
            np.testing.assert_allclose(a[i], np.broadcast_to(b, a[i].shape), rtol=1e-5, atol=1e-6)


def test_kinds_of_schedule_are_one_program():
    at = lambda i: schedules.one_of(KINDS, i)  # noqa: E731
    assert_rows(lambda i: at(i)(TIMES), [kind(TIMES) for kind in KINDS])
    ends = lambda s: tuple(jnp.asarray(a, float) for a in (s.t_min, s.t_max, s.prior_std))  # noqa: E731
    assert_rows(lambda i: ends(at(i)), [ends(kind) for kind in KINDS])
    assert_rows(
        lambda i: jd.grids.uniform_log_snr(at(i), 5).levels,
        [jd.grids.uniform_log_snr(kind, 5).levels for kind in KINDS],
    )
    chains = [
        schedules.from_betas(betas(50))
        for betas in (schedules.linear_betas, schedules.cosine_betas)
    ]
    one = schedules.one_of(chains, 1)
    assert schedules.whole_steps(one) == 50
    assert_rows(lambda i: schedules.one_of(chains, i)(3.0), [chain(3.0) for chain in chains])


@pytest.mark.slow
def test_samples_by_kinds_of_schedule():
    """From a Gaussian whose deviation is .5: the flow's end is a multiple of where it begins."""
    model = jd.exact.gaussian(jnp.zeros(2), 0.25 * jnp.eye(2))
    kinds, key = KINDS[:2], jax.random.key(0)

    def drawn(schedule):
        return jd.sample(key, model, jd.grids.uniform(schedule, 10), (4, 2), sampler=jd.ddim())

    assert_rows(lambda i: drawn(schedules.one_of(kinds, i)), [drawn(kind) for kind in kinds])


def test_kinds_of_parametrization_and_of_weight():
    names, level = list(parametrization.PARAMETRIZATIONS), KINDS[1](TIMES)
    assert_rows(
        lambda i: parametrization.one_of(names, i).coefficients(level),
        [parametrization.resolve(name).coefficients(level) for name in names],
    )
    weights = [make() for make in losses.WEIGHTS.values()]
    rate = jnp.ones_like(TIMES)
    assert_rows(
        lambda i: losses.one_of(weights, i)(level, rate),
        [losses.ErrorWeight(*(jnp.asarray(p, float) for p in w(level, rate))) for w in weights],
    )


def test_a_number_that_is_known_asks_the_chosen_one_alone():
    """5 is a time of EDM's and none of the others'; there a shift is allowed, not on all."""
    for make in (lambda s: s(5.0), lambda s: jd.grids.karras(s, 4).levels):
        for a, b in zip(make(schedules.one_of(KINDS, 3)), make(KINDS[3]), strict=True):
            np.testing.assert_array_equal(a, b)
    moved = schedules.shifted(schedules.one_of(KINDS, 0), 3.0)(TIMES)
    for a, b in zip(moved, schedules.shifted(KINDS[0], 3.0)(TIMES), strict=True):
        np.testing.assert_array_equal(a, b)


def test_times_beyond_the_clocks_of_others():
    """Traced, all are asked: those that are not chosen of a time that they have."""
    sigma = lambda t, i: schedules.one_of(KINDS, i)(t).sigma  # noqa: E731
    values = jax.vmap(jax.value_and_grad(sigma), (None, 0))(20.0, jnp.arange(-1, 6))
    np.testing.assert_allclose([v[4:] for v in values], [[20.0] * 3, [1.0] * 3], rtol=1e-6)
    first = jax.jit(sigma)(0.5, -1)  # beyond the ends it is the nearest
    np.testing.assert_allclose(first, KINDS[0](0.5).sigma, rtol=1e-6)


@pytest.mark.slow
def test_slopes_are_those_of_the_chosen_one():
    """At both ends others are infinite, or their weights are; and at a log-SNR that few reach."""
    kinds = [schedules.cosine(), schedules.linear_vp(), schedules.sub_vp(), schedules.rectified()]
    every = [make() for make in losses.WEIGHTS.values()]
    eps = parametrization.eps()

    def counted(weight, t):
        level = kinds[0](t)
        return losses.on_output(weight(level, jnp.ones_like(t)), eps, level)

    def slope(schedule, t):
        return jax.grad(lambda t: schedule(t).alpha + schedule(t).sigma)(t)

    def by_t(weight, t):
        return jax.grad(lambda t: counted(weight, t))(t)

    for t in (0.0, 0.5):
        one = lambda i, t=t: slope(schedules.one_of(kinds, i), t)  # noqa: E731
        pairs = [(one, [slope(kind, t) for kind in kinds])]
        one = lambda i, t=t: by_t(losses.one_of(every, i), t)  # noqa: E731
        pairs += [(one, [by_t(weight, t) for weight in every])]
        for at, alone in pairs:
            rows = jax.vmap(at)(jnp.arange(len(alone)))
            kept = np.isfinite(alone)
            assert kept.sum() >= 4
            np.testing.assert_allclose(rows[kept], np.asarray(alone)[kept], rtol=1e-4, atol=1e-6)
    back = lambda s: jax.grad(s.time)(-90.0)  # noqa: E731
    assert_rows(lambda i: back(schedules.one_of(kinds, i)), [back(kind) for kind in kinds])


@pytest.mark.slow
def test_drift_of_a_chosen_shifted_schedule():
    """Euler-Maruyama asks it of the clock that levels carry, which is the base's."""
    model, key = jd.exact.gaussian(jnp.zeros(2), 0.25 * jnp.eye(2)), jax.random.key(0)
    kinds = [schedules.shifted(schedules.linear_vp(), 2.0), schedules.cosine()]

    def drawn(schedule):
        grid = jd.grids.uniform(schedule, 10)
        return jd.sample(key, model, grid, (4, 2), sampler=jd.samplers.euler_maruyama())

    for index in (0, 1):
        got = drawn(schedules.one_of(kinds, index))
        np.testing.assert_allclose(got, drawn(kinds[index]), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
    ("make", "error", "words"),
    [
        (lambda: schedules.one_of([], 0), ValueError, "of one number of steps, got none"),
        (
            lambda: schedules.one_of(
                [KINDS[0], schedules.from_betas(schedules.linear_betas(50))], 0
            ),
            ValueError,
            "of one number of steps, got 50, None",
        ),
        (lambda: schedules.one_of(KINDS, 4), ValueError, r"index must lie in \[0, 3\], got 4"),
        (lambda: schedules.one_of(KINDS, -1), ValueError, "index must lie in"),
        (lambda: schedules.one_of(KINDS, 1.0), TypeError, "index must be a whole number, got 1.0"),
        (
            lambda: schedules.one_of(KINDS, jnp.arange(2))(0.3),
            ValueError,
            r"index must be \[\], got \[2\]: vmap over it",
        ),
        (lambda: schedules.one_of(KINDS, "cosine"), TypeError, "index must be a whole number"),
        (lambda: parametrization.one_of([], 0), ValueError, "at least one, got none"),
        (lambda: parametrization.one_of(["w"], 0), ValueError, "must be one of eps"),
        (lambda: losses.one_of([], 0), ValueError, "at least one, got none"),
        (lambda: losses.one_of([losses.snr], 1), ValueError, r"must lie in \[0, 0\], got 1"),
        (lambda: losses.one_of(["snr"], 0), TypeError, "wanted a function"),
    ],
)
def test_refuses(make, error, words):
    with pytest.raises(error, match=words):
        make()


def test_a_level_is_a_level():
    assert isinstance(schedules.one_of(KINDS, 2)(0.5), NoiseLevel)
