"""Truth: the literature's integer steps written out, EDM's equation 5, the named coordinate."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxdiff import grids, schedules
from jaxdiff.typing import CLEAN, NoiseLevel
from tests import battery

pytestmark = pytest.mark.usefixtures("strict")

CHAIN = schedules.from_betas(schedules.linear_betas())
N = 1000
# a divisor, a whole chain, and counts that meet exact halves, where products must be exact too
COUNTS = [10, 27, 240]


def steps(grid):
    """The whole steps visited, the clean end apart."""
    assert float(grid.levels.sigma[-1]) == 0
    assert float(grid.levels.alpha[-1]) == 1
    t = np.asarray(grid.levels.t)
    assert grid.num_steps == len(t) - 1
    return t[:-1].astype(int).tolist()


def equal_trees(a, b, rtol):
    jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, rtol=rtol, atol=1e-14), a, b)


# -- whole steps of a chain


@pytest.mark.parametrize("count", [10, 250])
def test_leading_is_ddims_range(count):
    assert steps(grids.leading(CHAIN, count)) == list(range(1, N + 1, N // count))[::-1]


def test_leading_counts_from_the_clean_side():
    # Stable Diffusion: arange(K) * (N // K) plus its offset of 1, zero-based, K any number
    literature = [i * (N // 30) + 1 + 1 for i in range(30)][::-1]
    assert steps(grids.leading(CHAIN, 30, offset=1)) == literature
    assert steps(grids.leading(CHAIN, N)) == list(range(N, 0, -1))


@pytest.mark.parametrize("count", COUNTS)
def test_trailing_is_lins_rounding(count):
    # k N / K by whole numbers: halves are exact, and Python rounds them to even
    assert steps(grids.trailing(CHAIN, count)) == [round(N - k * N / count) for k in range(count)]


@pytest.mark.parametrize("count", COUNTS)
def test_linspace_is_baos_rounding(count):
    a = (N - 1) / (count - 1)
    literature = [round(1 + a * (k - 1)) for k in range(count, 0, -1)]
    assert steps(grids.linspace(CHAIN, count)) == literature


@pytest.mark.parametrize("count", [10, 50])
def test_quadratic_is_ddims_quad(count):
    literature = [int(v) + 1 for v in np.linspace(0, np.sqrt(0.8 * N), count) ** 2]
    # from 30 steps on the first ones coincide; from a step to itself their code moves nothing
    assert steps(grids.quadratic(CHAIN, count)) == sorted(set(literature), reverse=True)


def test_one_step_begins_at_the_noisy_end():
    for make in (grids.trailing, grids.linspace, grids.quadratic, grids.uniform, grids.karras):
        assert steps(make(CHAIN, 1)) == [N]


def test_published_tables_of_steps():
    assert steps(grids.leading(CHAIN, 10)) == [901, 801, 701, 601, 501, 401, 301, 201, 101, 1]
    assert steps(grids.trailing(CHAIN, 10)) == [1000, 900, 800, 700, 600, 500, 400, 300, 200, 100]
    assert steps(grids.linspace(CHAIN, 10)) == [1000, 889, 778, 667, 556, 445, 334, 223, 112, 1]


def test_levels_of_a_chain_are_the_schedules():
    grid = grids.trailing(CHAIN, 7)
    level = CHAIN(jnp.asarray(steps(grid)))
    for ours, theirs in zip(grid.levels, level, strict=True):
        np.testing.assert_array_equal(ours[:-1], theirs)
    assert grid.schedule is CHAIN
    assert grid.prior_std == 1


# -- the coordinate that a grid names


@pytest.mark.usefixtures("x64")
@battery.each_schedule
def test_uniform_is_even_in_the_clock(schedule):
    for end in (CLEAN, None):
        grid = grids.uniform(schedule, 5, end=end)
        last = schedules.cleanest_time(schedule) if end is None else schedule.t_min
        even = jnp.asarray(np.linspace(float(schedule.t_max), float(last), 6))
        kept = np.s_[:-1] if end is CLEAN else np.s_[:]
        for ours, theirs in zip(grid.levels, schedule(even), strict=True):
            np.testing.assert_allclose(ours[kept], theirs[kept], rtol=1e-12, atol=1e-14)
        assert grid.num_steps == 5
        assert (float(grid.levels.sigma[-1]) > 0) == (end is None)


def assert_even(grid, schedule, forward):
    """The coordinate is evenly spaced over the noisy levels; from just inside zero SNR."""
    last = schedule(schedules.cleanest_time(schedule)).log_snr
    log_snr = np.append(grid.levels.log_snr[:-2], last)
    if np.isneginf(log_snr[0]):
        log_snr[0] = schedule(0.999 * jnp.asarray(schedule.t_max)).log_snr
    gaps = np.diff(forward(log_snr))
    # what the schedule's inverse loses near zero SNR, where its clock is flat
    np.testing.assert_allclose(gaps, gaps.mean(), rtol=1e-7)
    np.testing.assert_allclose(grid.levels.log_snr[-2], last, rtol=1e-12)
    np.testing.assert_array_equal(grid.levels.alpha[0], schedule(schedule.t_max).alpha)


@pytest.mark.usefixtures("x64")
@battery.each_schedule
def test_uniform_log_snr_is_even_in_it(schedule):
    assert_even(grids.uniform_log_snr(schedule, 5), schedule, lambda y: y)


@pytest.mark.usefixtures("x64")
@battery.each_schedule
def test_karras_is_even_in_the_root_of_the_ratio(schedule):
    for rho in (1.0, 7.0):
        root = lambda y, rho=rho: np.exp(-y / 2 / rho)  # noqa: E731
        assert_even(grids.karras(schedule, 5, rho=rho), schedule, root)


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("count", [1, 2, 18])
def test_karras_is_edms_equation_5(count):
    low, high, rho = 0.002, 80.0, 7.0
    i = np.arange(count) / max(count - 1, 1)
    sigma = (high ** (1 / rho) + i * (low ** (1 / rho) - high ** (1 / rho))) ** rho
    grid = grids.karras(schedules.edm(low, high), count)
    np.testing.assert_allclose(grid.levels.sigma, np.append(sigma, 0), rtol=1e-12)
    np.testing.assert_array_equal(grid.levels.alpha, 1)
    np.testing.assert_array_equal(grid.levels.t, grid.levels.sigma)
    assert grid.prior_std == high


@pytest.mark.usefixtures("x64")
def test_quadratic_is_even_in_the_root_of_the_clock():
    schedule = schedules.linear_vp()
    t = np.asarray(grids.quadratic(schedule, 7, fraction=0.5).levels.t[:-1])
    first = float(schedules.cleanest_time(schedule))
    roots = np.sqrt(t - first)
    np.testing.assert_allclose(np.diff(roots), np.diff(roots).mean(), rtol=1e-12)
    np.testing.assert_allclose(t[[0, -1]], [first + 0.5, first], rtol=1e-12)
    whole = grids.quadratic(schedule, 7, fraction=1.0)  # the clock is not overrun
    assert float(whole.levels.t[0]) == 1.0


# -- grids of given levels, and what lies between two of them


def vp_levels(log_snr):
    return NoiseLevel(
        jnp.arange(len(log_snr), 0.0, -1),
        jnp.sqrt(jax.nn.sigmoid(log_snr)),
        jnp.sqrt(jax.nn.sigmoid(-log_snr)),
    )


@pytest.mark.usefixtures("x64")
@battery.each_schedule
def test_between_is_linear_in_log_snr_and_on_the_schedule(schedule):
    t, s = grids.uniform(schedule, 5, end=None).pairs
    fraction = jnp.asarray([0.0, 0.3, 0.5, 0.9, 1.0])  # on the second pair, above zero SNR
    t, s = (jax.tree.map(lambda a: jnp.full(5, a[1]), level) for level in (t, s))
    middle = grids.uniform(schedule, 5).between(t, s, fraction)
    wanted = (1 - fraction) * t.log_snr + fraction * s.log_snr
    np.testing.assert_allclose(middle.log_snr, wanted, rtol=1e-10, atol=1e-12)
    base = getattr(schedule, "base", schedule)  # a shift keeps to the path of its base
    equal_trees(middle, base(middle.t), rtol=1e-12)
    for k, level in ((0, t), (4, s)):
        equal_trees(*(jax.tree.map(lambda a, k=k: a[k], v) for v in (middle, level)), rtol=1e-9)


@pytest.mark.usefixtures("x64")
def test_between_given_levels_is_exact_where_the_path_is_known():
    log_snr = jnp.asarray([-6.0, -1.0, 2.5])
    ve = NoiseLevel(log_snr, jnp.ones(3), jnp.exp(-log_snr / 2))
    fraction = jnp.asarray(0.35)
    for levels in (vp_levels(log_snr), ve):
        grid = grids.from_levels(levels)
        for k in (0, 1):
            t, s = (jax.tree.map(lambda a, i=i: a[i], levels) for i in (k, k + 1))
            middle = grid.between(t, s, fraction)
            wanted = (1 - fraction) * log_snr[k] + fraction * log_snr[k + 1]
            np.testing.assert_allclose(middle.log_snr, wanted, rtol=1e-12)
            np.testing.assert_allclose(middle.t, 0.65 * levels.t[k] + 0.35 * levels.t[k + 1])
            if levels is ve:
                assert float(middle.alpha) == 1
            else:
                np.testing.assert_allclose(middle.alpha**2 + middle.sigma**2, 1, rtol=1e-12)


@pytest.mark.usefixtures("x64")
def test_between_takes_batches_and_has_finite_gradients():
    log_snr = jnp.asarray([-6.0, -1.0, 2.5])
    levels = vp_levels(log_snr)
    grid = grids.from_levels(levels)
    t, s = grids.from_levels(levels, end=None).pairs
    together = grid.between(t, s, jnp.asarray([0.2, 0.7]))
    for k, fraction in enumerate((0.2, 0.7)):
        pair = (jax.tree.map(lambda a, k=k: a[k], level) for level in (t, s))
        alone = grid.between(*pair, fraction)
        equal_trees(jax.tree.map(lambda a, k=k: a[k], together), alone, rtol=1e-14)
    same = jax.tree.map(lambda a: a[0], levels)  # an empty interval
    gradient = jax.grad(lambda f: grid.between(same, same, f).alpha)(0.5)
    assert float(gradient) == pytest.approx(0, abs=1e-12)


def test_from_levels_appends_the_clean_end_once():
    levels = vp_levels(jnp.asarray([-3.0, 0.0, 3.0]))
    grid = grids.from_levels(levels, prior_std=2.0)
    assert grid.num_steps == 3
    assert grid.prior_std == 2
    np.testing.assert_array_equal(grid.levels.alpha, np.append(levels.alpha, 1))
    again = grids.from_levels(grid.levels)
    equal_trees(again.levels, grid.levels, rtol=0)
    assert grids.from_levels(levels, end=None).num_steps == 2
    t, s = grid.pairs
    np.testing.assert_array_equal(t.sigma, levels.sigma)
    np.testing.assert_array_equal(s.sigma, np.append(levels.sigma[1:], 0))


def test_pad_repeats_the_clean_end():
    grid = grids.uniform(schedules.cosine(), 4)
    longer = grids.pad(grid, 7)
    assert longer.num_steps == 7
    for old, new in zip(grid.levels, longer.levels, strict=True):
        np.testing.assert_array_equal(new[:5], old)
        np.testing.assert_array_equal(new[5:], np.repeat(old[-1:], 3))
    stacked = jax.tree.map(lambda *a: jnp.stack(a), longer, grids.uniform(schedules.cosine(), 7))
    assert stacked.levels.alpha.shape == (2, 8)
    equal_trees(grids.pad(grid, 4), grid, rtol=0)


# -- vmap over anything, jit


def vp(value):
    return schedules.linear_vp(0.1, value)


def chain(value):
    return schedules.from_betas(value * jnp.asarray(schedules.linear_betas(100)))


FACTORIES = {
    "uniform": (vp, lambda schedule: grids.uniform(schedule, 5)),
    "uniform_log_snr": (vp, lambda schedule: grids.uniform_log_snr(schedule, 5)),
    "karras": (vp, lambda schedule: grids.karras(schedule, 5)),
    "quadratic": (vp, lambda schedule: grids.quadratic(schedule, 5)),
    "from_steps": (vp, lambda schedule: grids.from_steps(schedule, [0.9, 0.4, 0.1])),
    "karras_ve": (lambda v: schedules.ve(0.01, v), lambda schedule: grids.karras(schedule, 5)),
    "karras_edm": (lambda v: schedules.edm(0.01, v), lambda schedule: grids.karras(schedule, 5)),
    "uniform_shifted": (
        lambda v: schedules.shifted(schedules.cosine(), v),
        lambda schedule: grids.uniform(schedule, 5),
    ),
    "leading": (chain, lambda schedule: grids.leading(schedule, 5)),
    "trailing": (chain, lambda schedule: grids.trailing(schedule, 5)),
    "linspace": (chain, lambda schedule: grids.linspace(schedule, 5)),
    "quadratic_chain": (chain, lambda schedule: grids.quadratic(schedule, 5)),
}


@pytest.mark.slow
@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("name", FACTORIES)
def test_vmap_over_a_schedules_parameter_equals_a_loop(name):
    schedule_of, make = FACTORIES[name]
    centre, step = (1.2, 1e-6) if schedule_of is chain else (20.0, 1e-5)
    values = centre + step * np.asarray([-1, 0, 1])

    def levels_and_slopes(value):
        levels = lambda v: make(schedule_of(v)).levels  # noqa: E731
        return jax.jvp(levels, (value,), (jnp.ones_like(value),))

    together, slopes = jax.jit(jax.vmap(levels_and_slopes))(jnp.asarray(values))
    alone = [make(schedule_of(float(value))).levels for value in values]
    for i in range(3):
        # the same formulas through a fused program and an inverse
        equal_trees(jax.tree.map(lambda a, i=i: a[i], together), alone[i], rtol=1e-9)
    for slope, low, high in zip(slopes, alone[0], alone[2], strict=True):
        # central differences: roundings of 1e-13 or so over a step of 1e-6
        np.testing.assert_allclose(slope[1], (high - low) / (2 * step), rtol=1e-5, atol=1e-6)


@pytest.mark.usefixtures("x64")
def test_vmap_over_given_levels_equals_a_loop():
    log_snr = jnp.asarray([[-3.0, 0.0, 3.0], [-4.0, 0.5, 2.0]])
    together = jax.vmap(lambda y: grids.from_levels(vp_levels(y)))(log_snr)
    for i in range(2):
        alone = grids.from_levels(vp_levels(log_snr[i]))
        equal_trees(jax.tree.map(lambda a, i=i: a[i], together.levels), alone.levels, rtol=1e-15)


# -- bad input


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: grids.uniform(CHAIN, 0), "num_steps must be a whole number >= 1, got 0"),
        (lambda: grids.uniform(CHAIN, 2.5), "num_steps"),
        (lambda: grids.uniform(CHAIN, True), "num_steps"),
        (lambda: grids.leading(CHAIN, 1001), "at most the chain's 1000, got 1001"),
        (lambda: grids.leading(CHAIN, 1000, offset=1), "steps must lie in"),
        (lambda: grids.trailing(schedules.cosine(), 5), "from_betas"),
        (lambda: grids.linspace(schedules.edm(), 5), "from_betas"),
        (lambda: grids.quadratic(CHAIN, 1001), "at most the chain's 1000"),
        (lambda: grids.quadratic(CHAIN, 5, fraction=0.0), "fraction"),
        (lambda: grids.karras(CHAIN, 5, rho=0.0), "rho"),
        (lambda: grids.from_steps(CHAIN, []), "shape"),
        (lambda: grids.from_steps(CHAIN, [[3.0, 1.0]]), "shape"),
        (lambda: grids.from_steps(CHAIN, [1.0, 3.0]), r"\[1\] = 3 after \[0\] = 1"),
        (lambda: grids.from_steps(CHAIN, [3.0, 3.0]), "must fall"),
        (lambda: grids.from_steps(CHAIN, [1001.0, 1.0]), "steps must lie in"),
        (lambda: grids.from_steps(CHAIN, [3.0, -1.0]), "steps must lie in"),
        (lambda: grids.from_steps(CHAIN, [np.nan, 1.0]), "must fall"),
        (lambda: grids.from_steps(CHAIN, [0.0]), "at least one step"),
        (lambda: grids.from_steps(CHAIN, [5.0], end=None), "at least one step"),
        (lambda: grids.from_levels(NoiseLevel(1.0, [0.5, 0.6], [0.8, 0.7])), "equal shapes"),
        (lambda: grids.from_levels(NoiseLevel([2.0, 1.0], [0.6, 0.5], [0.7, 0.8])), "fall"),
        (lambda: grids.from_levels(NoiseLevel([2.0, 1.0], [0.5, -0.6], [0.8, 0.7])), "alpha"),
        (lambda: grids.from_levels(NoiseLevel([2.0, 1.0], [0.5, 0.6], [np.nan, 0.7])), "sigma"),
        (lambda: grids.from_levels(NoiseLevel([2.0, 1.0], [1.0, 0.6], [0.0, 0.7])), "clean"),
        (lambda: grids.from_levels(NoiseLevel([2.0, 1.0], [0.0, 0.6], [0.0, 0.7])), "got"),
        (lambda: grids.pad(grids.uniform(CHAIN, 5), 4), "at least the grid's 5, got 4"),
        (lambda: grids.pad(grids.uniform(CHAIN, 5, end=None), 6), "clean end"),
    ],
)
def test_bad_input_is_refused(make, message):
    with pytest.raises(ValueError, match=message):
        make()
