"""Truth: the loss written out in numpy; Gaussian integrals for the expected loss of the optimum."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.integrate
import scipy.stats
from jax.test_util import check_grads

from jaxdiff import losses, parametrization, schedules
from jaxdiff.denoiser import make_denoiser
from tests import battery

pytestmark = pytest.mark.usefixtures("strict")

VP = schedules.linear_vp()
SLOPE = {"slope": jnp.float32(0.7)}


def answer(params, x, t):
    """A network that is wrong, in its own way at every time."""
    return jnp.sin(params["slope"].astype(x.dtype) * x + t[:, None])


def network(apply=answer, params=SLOPE, parametrized="v", **more):
    return make_denoiser(apply, params, parametrization=parametrized, time_feature="clock", **more)


def images(n, *shape):
    return jax.random.normal(jax.random.key(9), (n, *shape))


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("name", ["linear_vp", "ve", "betas_linear_100"])
@pytest.mark.parametrize("parametrized", ["eps", "edm"])
def test_loss_of_each_example_is_the_formula(name, parametrized, key):
    schedule, seen = battery.SCHEDULES[name], []

    def apply(params, x, t):
        y = jnp.sin(0.7 * x + t[:, None, None, None])
        seen.append((np.asarray(x), np.asarray(t), np.asarray(y)))
        return y

    x0 = images(5, 2, 3, 1)
    loss, metrics = losses.denoising(
        key, network(apply, (), parametrized), x0, schedule, weight=losses.plain
    )
    x, t, y = seen[0]
    np.testing.assert_array_equal(metrics["t"], t)
    level = schedule(jnp.asarray(t))
    kind = parametrization.resolve(parametrized)
    scale, (a, b) = kind.scale_in(level), kind.coefficients(level)
    for i in range(5):
        eps = (x[i] / scale[i] - level.alpha[i] * x0[i]) / level.sigma[i]
        assert np.abs(eps).max() < 5  # standard Gaussian, 30 draws
        wanted = np.mean((y[i] - a[i] * x0[i] - b[i] * eps) ** 2)
        np.testing.assert_allclose(metrics["per_example"][i], wanted, rtol=1e-9)
    np.testing.assert_allclose(loss, np.mean(metrics["per_example"]), rtol=1e-12)


# -- the expected loss of the optimum is a Gaussian integral

C, N = 0.25, 2**16


def optimal(params, x, t):
    """E[eps | x_t] of data N(0, C)."""
    level = VP(t)
    return (level.sigma / (level.alpha**2 * C + level.sigma**2))[:, None] * x


def eps_error(snr):
    """E (eps - E[eps | x_t])**2 of data N(0, C)."""
    return C * snr / (1 + C * snr)


def snr_of(t):
    integral = 0.1 * t + 19.9 * t**2 / 2
    return np.exp(-integral) / -np.expm1(-integral)


def history():
    full = losses.loss_history(6, 2)
    rows = jnp.asarray([9.0, 3.0, 1.0, 1.0, 0.5, 0.5])[:, None]
    return losses.LossHistory(jnp.broadcast_to(rows, full.losses.shape), full.counts + 2)


WEIGHED = {
    "simple": (losses.simple, lambda snr: 1),
    "min_snr": (losses.min_snr(), lambda snr: np.minimum(1, 5 / snr)),
    "p2": (losses.p2(), lambda snr: 1 / (1 + snr)),
}


@pytest.mark.parametrize("weight", WEIGHED)
@pytest.mark.parametrize("times", ["uniform", "stratified", "antithetic", "importance"])
def test_expected_loss_of_the_optimum_is_its_integral(times, weight, key):
    sampler = losses.importance(history(), 0.05) if times == "importance" else losses.TIMES[times]
    given, factor = WEIGHED[weight]
    x0 = C**0.5 * images(N, 2)
    loss, metrics = losses.denoising(
        key, network(optimal, (), "eps"), x0, VP, times=sampler, weight=given
    )
    truth, _ = scipy.integrate.quad(lambda t: factor(snr_of(t)) * eps_error(snr_of(t)), 1e-3, 1)
    truth /= 0.999  # uniform over [0.001, 1]
    error = np.std(metrics["per_example"]) / np.sqrt(N)
    assert error < 0.02 * truth
    # independent or negatively correlated examples; 4 standard errors
    assert abs(float(loss) - truth) < 4 * error
    # the optimum has no gradient: any other slope of the network is worse
    worse = network(lambda params, x, t: 1.1 * optimal(params, x, t), (), "eps")
    assert losses.denoising(key, worse, x0, VP, times=sampler, weight=given)[0] > loss


def test_expected_loss_under_log_normal_times(key):
    edm, sampler = schedules.edm(), losses.log_normal(-1.2, 1.2)

    def optimal(params, x, t):  # the edm network of data N(0, .5**2): F is then 0
        return jnp.zeros_like(x)

    loss, metrics = losses.denoising(
        key,
        network(optimal, (), "edm"),
        0.5 * images(N, 2),
        edm,
        times=sampler,
        weight=losses.edm(),
    )
    # E (y - 0)**2 for y = (sigma x_0 / s - s eps) / sqrt(s**2 + sigma**2) is 1 at every sigma
    assert abs(float(loss) - 1) < 4 * np.std(metrics["per_example"]) / np.sqrt(N)
    log_sigma = np.log(np.asarray(metrics["t"]))
    assert scipy.stats.kstest(log_sigma, scipy.stats.norm(-1.2, 1.2).cdf).pvalue > 0.01


# -- both ends of the path


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "parametrized"),
    [("cosine", "v"), ("cosine", "x0"), ("cosine", "flow"), ("betas_zero_snr", "edm")],
)
def test_zero_terminal_snr_is_finite(name, parametrized, key):
    schedule = battery.SCHEDULES[name]
    ends = jnp.stack([schedules.cleanest_time(schedule), jnp.float32(schedule.t_max)])
    times = lambda key, n, schedule: (ends, jnp.ones(2))  # noqa: E731
    level = schedule(ends)
    assert float(level.alpha[1]) == 0

    @jax.jit
    def run(params):
        denoiser = network(params=params, parametrized=parametrized)

        def loss(params, weight):
            net = denoiser.with_params(params)
            return losses.denoising(key, net, images(2, 3), schedule, times=times, weight=weight)[0]

        rows = {name: make() for name, make in losses.WEIGHTS.items()}
        return {name: jax.value_and_grad(loss)(params, weight) for name, weight in rows.items()}

    for weight, (value, gradient) in run(SLOPE).items():
        assert np.isfinite(value), weight
        assert np.isfinite(gradient["slope"]), weight


# -- transformations


@pytest.mark.usefixtures("x64")
def test_gradients_equal_central_differences(key):
    x0 = images(4, 3)
    start = {"w": jax.random.normal(jax.random.key(1), (3, 3)), "b": jnp.asarray([0.1, -0.2, 0.3])}

    def apply(params, x, t):
        return jnp.tanh(x @ params["w"] + params["b"][None] + t[:, None])

    for parametrized in ("eps", "edm"):
        denoiser = network(apply, start, parametrized)

        @jax.jit
        def loss(params, denoiser=denoiser):
            return losses.denoising(
                key, denoiser.with_params(params), x0, VP, weight=losses.sigmoid()
            )[0]

        check_grads(loss, (start,), 1, ["rev"], rtol=1e-6, atol=1e-8, eps=1e-6)


@pytest.mark.slow
def test_one_compile_serves_all_parameters_and_jit_equals_eager(key):
    traced = []

    @jax.jit
    def loss(denoiser, x0):
        traced.append(None)
        return losses.denoising(key, denoiser, x0, VP, times=losses.stratified)[0]

    x0 = images(4, 3)
    for slope in (0.7, 0.9):
        denoiser = network(params={"slope": jnp.float32(slope)})
        eager = losses.denoising(key, denoiser, x0, VP, times=losses.stratified)[0]
        np.testing.assert_allclose(loss(denoiser, x0), eager, rtol=1e-6)
    assert len(traced) == 1


def test_same_key_same_loss_and_weighted_is_without_importance(key):
    sampler = losses.importance(history())
    runs = [
        losses.denoising(k, network(), images(4, 3), VP, times=sampler)
        for k in (key, key, jax.random.key(1))
    ]
    assert float(runs[0][0]) == float(runs[1][0]) != float(runs[2][0])
    metrics = runs[0][1]
    bins = np.floor((np.asarray(metrics["t"]) - 1e-3) / 0.999 * 6).astype(int)
    factor = 1 / (6 * np.asarray(sampler.probabilities())[bins])
    np.testing.assert_allclose(metrics["per_example"], metrics["weighted"] * factor, rtol=1e-5)


def test_half_precision_networks_give_a_float32_loss(key):
    half = network(lambda params, x, t: answer(SLOPE, x, t).astype(jnp.bfloat16))
    loss, _ = losses.denoising(key, half, images(8, 3), VP)
    full, _ = losses.denoising(key, network(), images(8, 3), VP)
    assert loss.dtype == jnp.float32
    assert float(loss) == pytest.approx(float(full), rel=0.02)  # 3 digits of bfloat16


def test_further_heads_take_no_part(key):
    def apply(params, x, t):
        y = answer(SLOPE, x, t)
        return jnp.concatenate([y, 1e3 * y], axis=-1)

    two = losses.denoising(key, network(apply, heads=("eps2",)), images(4, 3), VP)[0]
    one = losses.denoising(key, network(), images(4, 3), VP)[0]
    assert float(two) == float(one)


class Dropping(nn.Module):
    """A network whose every unit is dropped half the time in training."""

    @nn.compact
    def __call__(self, x, t, cond=None, *, train=False):
        y = nn.Dropout(0.5, deterministic=not train)(jnp.ones_like(x))
        return y + 0 * nn.Dense(x.shape[-1])(x)


def test_dropout_is_on_and_follows_the_key(key):
    net = Dropping()
    variables = net.init(key, jnp.zeros((1, 3)), jnp.zeros(1))
    seen = []

    def apply(params, x, t, *, key, train):
        seen.append(net.apply(params, x, t, rngs={"dropout": key}, train=train))
        return seen[-1]

    x0 = images(64, 3)
    loss, metrics = losses.denoising(key, network(apply, variables), x0, VP, weight=losses.plain)
    losses.denoising(jax.random.key(1), network(apply, variables), x0, VP)
    values, counts = np.unique(seen[0], return_counts=True)
    np.testing.assert_array_equal(values, [0, 2])
    assert abs(counts[0] / 192 - 0.5) < 4 * 0.5 / np.sqrt(192)
    assert (np.asarray(seen[0]) != np.asarray(seen[1])).any()
    # a target of variance 1 and an independent answer with E y**2 = 2
    assert abs(float(loss) - 3) < 4 * np.std(metrics["per_example"]) / np.sqrt(64)
    own = losses.denoising(key, network(net.apply, variables), x0, VP, weight=losses.plain)[0]
    assert float(own) == float(loss)


# -- conditions and their dropout


@pytest.mark.parametrize("rate", [0.0, 0.3, 1.0])
def test_conditions_are_dropped_at_their_rate_all_parts_together(rate, key):
    n = 4000
    cond = {"label": jnp.arange(n, dtype=jnp.int32), "vector": 1 + jnp.ones((n, 2))}
    hidden = losses.drop_cond(key, cond, rate)
    gone = np.asarray(hidden["label"]) == -1
    np.testing.assert_array_equal(hidden["label"], np.where(gone, -1, np.arange(n)))
    np.testing.assert_array_equal(hidden["vector"], np.where(gone, 0.0, 2.0)[:, None] * [1, 1])
    assert abs(gone.mean() - rate) <= 4 * np.sqrt(rate * (1 - rate) / n)
    assert hidden["label"].dtype == jnp.int32


def test_a_part_with_a_rate_of_its_own_is_hidden_by_it(key):
    """What was done to an image stays when its label is hidden."""
    cond = {"label": jnp.arange(4000, dtype=jnp.int32), "vector": jnp.ones((4000, 2))}
    hidden = losses.drop_cond(key, cond, {"label": 0.3, "vector": 0.0})
    both = losses.drop_cond(key, cond, 0.3)
    np.testing.assert_array_equal(hidden["label"], both["label"])
    np.testing.assert_array_equal(hidden["vector"], cond["vector"])
    rates, denoiser = {"label": 0.3, "vector": 1.5}, network(lambda params, x, t, cond: x)
    with pytest.raises(ValueError, match="cond_dropout"):
        losses.denoising(key, denoiser, images(4000, 1), VP, cond=cond, cond_dropout=rates)


@pytest.mark.slow
def test_the_loss_hands_the_hidden_condition_to_the_network(key):
    seen = []

    def apply(params, x, t, cond):
        seen.append(np.asarray(cond))
        return answer(SLOPE, x, t)

    labels = jnp.arange(1000, dtype=jnp.int32)
    denoiser = network(apply)
    losses.denoising(key, denoiser, images(1000, 1), VP, cond=labels, cond_dropout=0.2)
    gone = seen[0] == -1
    np.testing.assert_array_equal(seen[0][~gone], np.arange(1000)[~gone])
    assert abs(gone.mean() - 0.2) < 4 * np.sqrt(0.2 * 0.8 / 1000)
    losses.denoising(key, denoiser, images(1000, 1), VP, cond=labels)
    np.testing.assert_array_equal(seen[1], labels)
    losses.denoising(key, network(apply, cond=labels[:3]), images(3, 1), VP)  # its own, if none
    np.testing.assert_array_equal(seen[2], [0, 1, 2])
    # which examples are hidden says nothing of their times
    t = losses.denoising(key, denoiser, images(1000, 1), VP, cond=labels, cond_dropout=0.2)[1]["t"]
    assert scipy.stats.ks_2samp(np.asarray(t)[gone], np.asarray(t)[~gone]).pvalue > 0.01


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"x0": jnp.ones((4, 3), jnp.int32)}, ValueError, "x0 must be float.*int32"),
        ({"x0": jnp.ones((4, 3), jnp.uint8)}, ValueError, "x0 must be float.*uint8"),
        ({"x0": jnp.ones((0, 3))}, ValueError, r"B >= 1, got \[0, 3\]"),
        ({"x0": jnp.ones(4)}, ValueError, r"shape \[B, ...\]"),
        ({"cond_dropout": -0.1}, ValueError, "cond_dropout"),
        ({"cond_dropout": 1.1}, ValueError, "cond_dropout"),
        ({"cond": jnp.ones(4, jnp.int32)}, ValueError, "cond was given"),
        ({"denoiser": lambda x, level: x}, TypeError, "make_denoiser"),
    ],
)
def test_bad_input_is_refused(arguments, error, message, key):
    given = {"denoiser": network(), "x0": images(4, 3), **arguments}
    with pytest.raises(error, match=message):
        losses.denoising(key, schedule=VP, **given)
