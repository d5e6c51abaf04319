"""Truth: uniform and log-normal laws by SciPy, combs and pairs by counting, importance by sums."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.integrate
import scipy.stats

from jaxdiff import losses, schedules

pytestmark = pytest.mark.usefixtures("strict")

CLOCKS = {
    "linear_vp": schedules.linear_vp(),
    "edm": schedules.edm(),
    "chain": schedules.from_betas(schedules.linear_betas(100)),
}
each_clock = pytest.mark.parametrize("name", CLOCKS)
EVEN = {name: times for name, times in losses.TIMES.items() if name != "uniform_log_snr"}
each_sampler = pytest.mark.parametrize("sampler", list(EVEN.values()), ids=EVEN)


def first_time(schedule):
    return float(schedules.cleanest_time(schedule))


def unit(t, schedule):
    """Where on its clock a time lies, 0..1; on a chain the start of its step's cell."""
    if steps := schedules.whole_steps(schedule):
        return (np.asarray(t) - 1) / steps
    first = first_time(schedule)
    return (np.asarray(t, float) - first) / (float(schedule.t_max) - first)


def assert_uniform(t, schedule):
    """Kolmogorov and Smirnov on a continuous clock, chi-square over the steps of a chain."""
    assert np.isfinite(t).all()
    if steps := schedules.whole_steps(schedule):
        assert set(np.unique(t)) == set(range(1, steps + 1))
        counts = np.bincount(np.asarray(t, int), minlength=steps + 1)[1:]
        assert scipy.stats.chisquare(counts).pvalue > 0.01
    else:
        assert scipy.stats.kstest(unit(t, schedule), "uniform").pvalue > 0.01


@each_clock
@each_sampler
def test_each_time_alone_is_uniform(name, sampler, key):
    schedule = CLOCKS[name]
    # one time of each of many batches: independent, whatever a sampler does within a batch
    draw = jax.vmap(lambda key: sampler(key, 5, schedule)[0])
    t = draw(jax.random.split(key, 5000))
    assert t.shape == (5000, 5)
    for place in (0, 4):
        assert_uniform(np.asarray(t[:, place]), schedule)


@each_clock
@each_sampler
def test_uniform_samplers_leave_the_loss_alone(name, sampler, key):
    t, importance = sampler(key, 7, CLOCKS[name])
    assert t.shape == importance.shape == (7,)
    assert t.dtype == importance.dtype == jnp.float32
    np.testing.assert_array_equal(importance, 1)


@each_clock
def test_stratified_times_cover_every_cell_once(name, key):
    schedule = CLOCKS[name]
    t, _ = losses.stratified(key, 100, schedule)
    cells = np.floor(unit(t, schedule) * 100 + 1e-4)  # rounding of a cell's own edge
    np.testing.assert_array_equal(np.sort(cells), np.arange(100))


def test_stratified_times_share_one_shift(key):
    u = unit(losses.stratified(key, 8, CLOCKS["linear_vp"])[0], CLOCKS["linear_vp"])
    np.testing.assert_allclose((u * 8) % 1, (u[0] * 8) % 1, atol=1e-5)  # 8 float32 roundings
    other = unit(losses.stratified(jax.random.key(1), 8, CLOCKS["linear_vp"])[0], CLOCKS["edm"])
    assert abs((u[0] - other[0]) * 8) > 1e-3


@each_clock
@pytest.mark.parametrize("n", [1, 6, 7])
def test_antithetic_times_mirror_each_other(name, n, key):
    schedule = CLOCKS[name]
    t = np.asarray(losses.antithetic(key, n, schedule)[0])
    assert t.shape == (n,)
    half = (n + 1) // 2
    # on a chain n and N + 1 - n, as in DDIM's code; continuous clocks mirror about the middle
    low = 1.0 if schedules.whole_steps(schedule) else first_time(schedule)
    total = low + float(schedule.t_max)
    np.testing.assert_allclose(t[: n - half] + t[half:], total, rtol=1e-6)


LOG_NORMAL = {
    "edm": (schedules.edm(), -1.2, 1.2),  # EDM's own numbers
    "rectified": (schedules.rectified(), 0.0, 1.0),  # Esser et al.: t is logit-normal
    "linear_vp": (schedules.linear_vp(), 0.0, 1.0),
}


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("name", LOG_NORMAL)
def test_log_normal_times_have_its_quantiles(name, key):
    schedule, mean, std = LOG_NORMAL[name]
    t, importance = losses.log_normal(mean, std)(key, 20000, schedule)
    log_ratio = -schedule(t).log_snr / 2
    # less than 1e-4 of the law lies beyond the clock, where times are held to its ends
    assert scipy.stats.kstest(log_ratio, scipy.stats.norm(mean, std).cdf).pvalue > 0.01
    np.testing.assert_array_equal(importance, 1)
    if name == "rectified":
        assert scipy.stats.kstest(np.log(t / (1 - t)), "norm").pvalue > 0.01


def test_log_normal_times_stay_on_the_clock(key):
    for schedule in CLOCKS.values():
        t = np.asarray(losses.log_normal(-1.0, 50.0)(key, 1000, schedule)[0])
        low = first_time(schedule)
        # so broad a law reaches both ends, and is held there; low is 0.001 as float32 has it
        assert t.min() == np.float32(low)
        assert t.max() == np.float32(schedule.t_max)
    t = losses.log_normal()(key, 1000, CLOCKS["chain"])[0]
    np.testing.assert_array_equal(t, np.round(t))


# -- importance


def filled(losses_by_bin, length=4):
    """A full history whose bins hold these values."""
    rows = jnp.asarray(losses_by_bin)
    history = losses.loss_history(rows.shape[0], length)
    return losses.LossHistory(
        jnp.broadcast_to(rows[:, None], history.losses.shape), history.counts + length
    )


def test_history_keeps_the_latest_losses_newest_last():
    schedule = CLOCKS["linear_vp"]
    history = losses.loss_history(2, 3)
    t = jnp.asarray([0.1, 0.9, 0.2, 0.3, 0.4])
    update = jax.jit(lambda history, x: history.update(t, x, schedule))
    history = update(history, jnp.asarray([1.0, 10.0, 2.0, 3.0, 4.0]))
    np.testing.assert_array_equal(history.losses, [[2, 3, 4], [0, 0, 10]])
    np.testing.assert_array_equal(history.counts, [4, 1])
    history = update(history, jnp.asarray([5.0, 20.0, 6.0, 7.0, 8.0]))
    np.testing.assert_array_equal(history.losses, [[6, 7, 8], [0, 10, 20]])


@pytest.mark.parametrize("steps", [50, 100])
def test_history_gives_every_step_of_a_chain_its_own_bin(steps):
    schedule = schedules.from_betas(schedules.linear_betas(steps))
    t = jnp.arange(1.0, steps + 1)
    history = losses.loss_history(steps, 1).update(t, t, schedule)
    np.testing.assert_array_equal(history.losses[:, 0], t)
    coarse = losses.loss_history(10, 1).update(t, t, schedule)
    np.testing.assert_array_equal(coarse.counts, steps // 10)
    np.testing.assert_array_equal(coarse.losses[:, 0], steps // 10 * np.arange(1, 11))


def test_probabilities_follow_the_root_mean_square():
    rows = np.asarray([[1.0, 2, 3], [0, 0, 4], [5, 5, 5], [2, 1, 0]])
    history = losses.LossHistory(jnp.asarray(rows), jnp.full(4, 3))
    root = np.sqrt((rows**2).mean(1))
    for floor in (1e-3, 0.5, 1.0):
        wanted = (1 - floor) * root / root.sum() + floor / 4
        ours = losses.importance(history, floor).probabilities()
        np.testing.assert_allclose(ours, wanted, rtol=1e-6)
    one_short = losses.LossHistory(history.losses, jnp.asarray([3, 3, 2, 3]))
    np.testing.assert_array_equal(losses.importance(one_short).probabilities(), 0.25)


@each_clock
def test_importance_draws_bins_by_probability_and_stays_unbiased(name, key):
    schedule, n = CLOCKS[name], 40000
    sampler = losses.importance(filled([1.0, 0.1, 3.0, 0.5, 2.0]), floor=0.02)
    t, importance = sampler(key, n, schedule)
    u = unit(t, schedule)
    bins = np.floor(u * 5 + 1e-6).astype(int)
    p = np.asarray(sampler.probabilities(), np.float64)
    assert p.sum() == pytest.approx(1, rel=1e-6)
    counts = np.bincount(bins, minlength=5)
    assert scipy.stats.chisquare(counts, n * p / p.sum()).pvalue > 0.01
    np.testing.assert_allclose(importance, 1 / (5 * p[bins]), rtol=1e-6)
    # the weighted mean of f is its mean over uniform times
    f = lambda u: np.exp(-3 * u) + np.sin(7 * u)  # noqa: E731
    cells = np.arange(100) / 100
    whole = f(cells).mean() if name == "chain" else scipy.integrate.quad(f, 0, 1)[0]
    values = np.asarray(importance) * f(u)
    assert abs(values.mean() - whole) < 4 * values.std() / np.sqrt(n)
    assert abs(f(u).mean() - whole) > 4 * f(u).std() / np.sqrt(n)  # and unweighted it is not


@each_clock
def test_importance_is_uniform_until_the_history_is_full(name, key):
    sampler = losses.importance(losses.loss_history(10, 2))
    t, importance = sampler(key, 5000, CLOCKS[name])
    assert_uniform(np.asarray(t), CLOCKS[name])
    np.testing.assert_allclose(importance, 1, rtol=1e-6)


def test_bad_input_is_refused():
    history = losses.loss_history(3, 2)
    for make, message in [
        (lambda: losses.log_normal(0.0, 0.0), "std"),
        (lambda: losses.log_normal(0.0, -1.0), "std"),
        (lambda: losses.importance(history, 0.0), "floor"),
        (lambda: losses.importance(history, 1.5), "floor"),
        (lambda: losses.loss_history(0), "bins"),
        (lambda: losses.loss_history(5, 0), "length"),
    ]:
        with pytest.raises(ValueError, match=message):
            make()
