"""Truth: the papers' formulas on the errors they state, each solved from the network's output by
numpy's 2x2 solve; Kingma et al.'s integral of the bound for Gaussian data in closed form."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxdiff import losses, parametrization, schedules
from jaxdiff.denoiser import make_denoiser
from jaxdiff.typing import NoiseLevel
from tests import battery

pytestmark = [pytest.mark.usefixtures("strict"), pytest.mark.usefixtures("x64")]

VP = schedules.linear_vp()
WEIGHTS = {
    **{name: make() for name, make in losses.WEIGHTS.items()},
    "min_snr_1": losses.min_snr(1.0),
    "p2_half": losses.p2(0.5, 0.25),
    "sigmoid_-1": losses.sigmoid(-1.0),
    "edm_1.3": losses.edm(1.3),
}


def beta_over_var(t):
    """-d log_snr / dt of the VP SDE, in closed form: beta(t) / sigma(t)**2."""
    integral = 0.1 * t + 19.9 * t**2 / 2
    return (0.1 + 19.9 * t) / -np.expm1(-integral)


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


# error they are stated on, and the factor; r is alpha / sigma, n = -d log_snr / dt on a unit clock
PAPERS = {
    "simple": ("eps", lambda r, n: 1),
    "plain": ("output", lambda r, n: 1),
    "snr": ("x0", lambda r, n: r**2),
    "truncated_snr": ("x0", lambda r, n: np.maximum(r**2, 1)),
    "min_snr": ("x0", lambda r, n: np.minimum(r**2, 5)),
    "min_snr_1": ("x0", lambda r, n: np.minimum(r**2, 1)),
    "p2": ("eps", lambda r, n: 1 / (1 + r**2)),
    "p2_half": ("eps", lambda r, n: 1 / np.sqrt(0.25 + r**2)),
    "sigmoid": ("eps", lambda r, n: 0.5 * n * sigmoid(2 - 2 * np.log(r))),
    "sigmoid_-1": ("eps", lambda r, n: 0.5 * n * sigmoid(-1 - 2 * np.log(r))),
    "edm": ("x0", lambda r, n: r**2 * (0.5**2 + r**-2) / 0.5**2),
    "edm_1.3": ("x0", lambda r, n: r**2 * (1.3**2 + r**-2) / 1.3**2),
    "vlb": ("eps", lambda r, n: 0.5 * n),
}


def answer(params, x, t):
    """A network that is wrong, in its own way at every time."""
    return jnp.sin(params["slope"] * x + t[:, None])


def all_weights(key, denoiser, x0, schedule):
    """The losses of each example under every weight by name, in one program."""

    def one(i):
        weight = losses.one_of(list(WEIGHTS.values()), i)
        return losses.denoising(key, denoiser, x0, schedule, weight=weight)[1]["per_example"]

    rows = jax.jit(jax.vmap(one))(jnp.arange(len(WEIGHTS)))
    return dict(zip(WEIGHTS, rows, strict=True))


def asked_and_said(key, denoiser, x0, schedule):
    """(level, x_t, y) of a loss, as its network saw them."""
    seen = []

    def apply(params, x, t):
        seen.append((x, denoiser.apply(params, x, t)))
        return seen[-1][1]

    spy = make_denoiser(
        apply, denoiser.params, parametrization=denoiser.parametrization, time_feature="clock"
    )
    loss, metrics = losses.denoising(key, spy, x0, schedule)
    np.testing.assert_allclose(loss, np.mean(metrics["per_example"]), rtol=1e-12)
    level = schedule(metrics["t"])
    (x, y) = seen[0]
    return level, x / denoiser.parametrization.scale_in(level)[:, None], y


@battery.each_parametrization
def test_weights_are_the_papers_on_the_stated_error(parametrized, key):
    denoiser = make_denoiser(
        answer, {"slope": jnp.asarray(0.7)}, parametrization=parametrized, time_feature="clock"
    )
    x0 = jnp.asarray(np.random.default_rng(0).normal(size=(8, 3)))
    ours = all_weights(key, denoiser, x0, VP)
    level, x, y = asked_and_said(key, denoiser, x0, VP)
    t, alpha, sigma = (np.asarray(field) for field in level)
    a, b = (np.asarray(c) for c in parametrized.coefficients(level))
    eps = (x - alpha[:, None] * x0) / sigma[:, None]
    for i in range(len(t)):
        system = np.asarray([[alpha[i], sigma[i]], [a[i], b[i]]])
        said = np.linalg.solve(system, np.stack([x[i], y[i]]))
        errors = {
            "x0": said[0] - x0[i],
            "eps": said[1] - eps[i],
            "output": y[i] - a[i] * x0[i] - b[i] * eps[i],
        }
        for name, (stated, factor) in PAPERS.items():
            # uniform times run over a clock of length 1 - 0.001
            number = factor(alpha[i] / sigma[i], 0.999 * beta_over_var(t[i]))
            wanted = number * np.mean(errors[stated] ** 2)
            # the 2x2 solve near the clean end: sigma is .01 there
            np.testing.assert_allclose(ours[name][i], wanted, rtol=1e-9, err_msg=name)


def factors(name, parametrized, log_snr):
    """What the squared error of the output counts, at variance-preserving levels."""
    alpha, sigma = jnp.sqrt(jax.nn.sigmoid(log_snr)), jnp.sqrt(jax.nn.sigmoid(-log_snr))
    level = NoiseLevel(log_snr, alpha, sigma)
    weight = WEIGHTS[name](level, jnp.ones_like(log_snr))
    return losses.on_output(weight, parametrization.resolve(parametrized), level)


def test_published_forms_for_each_network():
    log_snr = jnp.asarray([-4.0, -1.0, 0.0, 1.0, 1.7, 4.0])
    snr = np.exp(log_snr)
    published = [  # Hang et al. 2023, section 3.4, for x_0, eps and v
        ("min_snr", "x0", np.minimum(snr, 5)),
        ("min_snr", "eps", np.minimum(5 / snr, 1)),
        ("min_snr", "v", np.minimum(snr, 5) / (snr + 1)),
        # Salimans and Ho 2022: the v loss is SNR + 1 on x_0, L_simple is SNR
        ("simple", "x0", snr),
        ("simple", "v", snr / (snr + 1)),
        ("truncated_snr", "eps", np.maximum(1, 1 / snr)),
        # Choi et al. 2022 for eps
        ("p2", "eps", 1 / (1 + snr)),
        # Karras et al. 2022: the effective weight of F is 1 everywhere
        ("edm", parametrization.edm(0.5), np.ones(6)),
        ("edm_1.3", parametrization.edm(1.3), np.ones(6)),
        # sigma**2 turns a score matching error into that of eps
        ("simple", "score", 1 / (snr + 1)),
    ]
    for name, parametrized, wanted in published:
        np.testing.assert_allclose(factors(name, parametrized, log_snr), wanted, rtol=1e-12)
    v_on_x0 = factors("plain", "v", log_snr) / factors("plain", "x0", log_snr)
    np.testing.assert_allclose(v_on_x0, 1, rtol=1e-12)  # plain is on the output, whatever it is


def agreeing(parametrized, schedule):
    """A network that says in its own terms what the exact denoiser of N(0, .3) says."""

    def apply(params, x, t):
        level = schedule(t)
        alpha, sigma = level.alpha[:, None], level.sigma[:, None]
        x_t = x / parametrized.scale_in(level)[:, None]
        total = 0.3 * alpha**2 + sigma**2
        x_0, eps = 0.3 * alpha * x_t / total, sigma * x_t / total
        return parametrization.target(parametrized, x_0, eps, level)

    return make_denoiser(apply, (), parametrization=parametrized, time_feature="clock")


@pytest.mark.slow
def test_networks_that_agree_have_equal_losses(key):
    schedule = schedules.rectified()  # neither alpha nor alpha**2 + sigma**2 is 1
    x0 = 0.3**0.5 * jax.random.normal(jax.random.key(2), (16, 3))
    found = {
        net: all_weights(key, agreeing(parametrized, schedule), x0, schedule)
        for net, parametrized in battery.PARAMETRIZATIONS.items()
    }
    for values in found.values():
        for weight in set(WEIGHTS) - {"plain"}:
            np.testing.assert_allclose(values[weight], found["eps"][weight], rtol=1e-10)
        np.testing.assert_allclose(values["snr"], values["simple"], rtol=1e-12)
    np.testing.assert_allclose(found["edm"]["edm"], found["edm"]["plain"], rtol=1e-12)
    np.testing.assert_allclose(found["edm_1.3"]["edm_1.3"], found["edm_1.3"]["plain"], rtol=1e-12)


# -- the variational bound


def rates(schedule, t):
    """(level, rate) as the loss hands them to a weight, at given times."""
    seen = []

    def weight(level, rate):
        seen.append((level, rate))
        return losses.plain(level, rate)

    denoiser = make_denoiser(lambda params, x, t: x, (), parametrization="v", time_feature="clock")
    x0, times = jnp.zeros((len(t), 1)), lambda key, n, schedule: (t, jnp.ones(n))
    losses.denoising(jax.random.key(0), denoiser, x0, schedule, times=times, weight=weight)
    return seen[0]


CONTINUOUS = {
    name: schedule
    for name, schedule in battery.SCHEDULES.items()
    if not schedules.whole_steps(getattr(schedule, "base", schedule))
}


@pytest.mark.slow
@pytest.mark.parametrize("name", CONTINUOUS)
def test_the_bound_integrates_to_its_closed_form(name):
    # For data N(0, c) the optimal eps error is c SNR / (1 + c SNR), and the diffusion loss
    #   1/2 int (-d log_snr/dt) c SNR / (1 + c SNR) dt = 1/2 log((1 + c SNR_max) / (1 + c SNR_min))
    # on every schedule alike (Kingma et al. 2021, section 5.1: only the ends matter).
    schedule = CONTINUOUS[name]
    first = schedules.cleanest_time(schedule)
    high = float(schedule(first).log_snr)
    low = max(float(schedule(schedule.t_max).log_snr), -12.0)
    t = schedule.time(jnp.linspace(high, low, 4001))
    level, rate = rates(schedule, t)
    for c in (0.25, 2.0):
        weighted = losses.vlb(level, rate).eps * c * level.snr / (1 + c * level.snr)
        # uniform times have density 1 / span; a trapezoid over nodes even in log SNR
        bound = np.trapezoid(weighted, t) / (float(schedule.t_max) - float(first))
        closed = 0.5 * np.log((1 + c * np.exp(high)) / (1 + c * np.exp(low)))
        np.testing.assert_allclose(bound, closed, rtol=1e-4)


ENDS = ["cosine", "rectified", "ve", "shifted_cosine", "betas_linear", "betas_zero_snr"]


@pytest.mark.slow
@pytest.mark.parametrize("name", ENDS)
def test_rate_is_finite_at_both_ends_of_a_path(name):
    schedule = battery.SCHEDULES[name]
    t = jnp.stack([jnp.asarray(schedules.cleanest_time(schedule)), jnp.asarray(schedule.t_max)])
    _, rate = rates(schedule, t)
    assert np.isfinite(rate).all()
    assert (np.asarray(rate) >= 0).all()


# -- vmap over their numbers, refusals


@pytest.mark.slow
@pytest.mark.parametrize("make", [losses.min_snr, losses.p2, losses.sigmoid, losses.edm])
def test_vmap_over_a_weights_number_equals_a_loop(make):
    denoiser = make_denoiser(
        answer, {"slope": jnp.asarray(0.7)}, parametrization="v", time_feature="clock"
    )
    x0 = jax.random.normal(jax.random.key(2), (16, 3))

    @jax.jit
    @jax.value_and_grad
    def loss(number):
        return losses.denoising(jax.random.key(0), denoiser, x0, VP, weight=make(number))[0]

    numbers = jnp.asarray([0.5, 1 - 1e-5, 1.0, 1 + 1e-5, 5.0])
    together, slopes = jax.vmap(loss)(numbers)
    alone = [loss(number)[0] for number in numbers]
    np.testing.assert_allclose(together, alone, rtol=1e-12)
    assert len(set(np.asarray(together))) == 5
    # central differences of second order: roundings of 1e-15 over a step of 1e-5
    np.testing.assert_allclose(slopes[2], (alone[3] - alone[1]) / 2e-5, rtol=1e-6)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: losses.min_snr(0.0), "gamma"),
        (lambda: losses.p2(-1.0), "gamma"),
        (lambda: losses.p2(1.0, 0.0), "k"),
        (lambda: losses.edm(0.0), "sigma_data"),
        (lambda: losses.edm(np.nan), "sigma_data"),
    ],
)
def test_bad_input_is_refused(make, message):
    with pytest.raises(ValueError, match=message):
        make()
