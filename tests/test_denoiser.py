"""Truth: exact denoisers said in every parametrization, numpy's quantile, DDIM's own formula."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxdiff import exact, gaussian, grids, parametrization, samplers, schedules
from jaxdiff.denoiser import TIME_FEATURES, clip_x0, dynamic_threshold, make_denoiser
from jaxdiff.reverse import p_reverse
from jaxdiff.typing import Denoised, NoiseLevel
from tests import battery

pytestmark = pytest.mark.usefixtures("strict")

VP = schedules.linear_vp()


def images(n, *shape):
    return jax.random.normal(jax.random.key(9), (n, *shape))


def constant(value):
    """A denoise that always says the same x_0; eps makes up x_t."""

    def denoise(x_t, level):
        x0 = jnp.broadcast_to(jnp.asarray(value, x_t.dtype), x_t.shape)
        return Denoised(x0, (x_t - level.alpha * x0) / level.sigma)

    return denoise


# -- from a network's output to both estimates


@pytest.mark.usefixtures("x64")
@battery.each_parametrization
def test_a_network_that_says_the_truth_denoises_exactly(parametrized):
    mixture = exact.gaussian_mixture(
        [0.3, 0.7], [[-1.0, 0.5], [1.0, 0.0]], [0.2 * np.eye(2), np.diag([0.1, 0.4])]
    )
    asked = []

    def apply(params, x, t):
        asked.append(x)
        level = VP(t)
        x_t = x / parametrized.scale_in(level)[:, None]
        said = mixture.denoise(x_t, level)
        return parametrization.target(parametrized, said.x0, said.eps, level)

    denoiser = make_denoiser(apply, (), parametrization=parametrized, time_feature="clock")
    x_t = images(4, 2)
    for level in (VP(jnp.asarray([0.05, 0.3, 0.7, 1.0])), VP(0.4)):
        said, truth = denoiser(x_t, level), mixture.denoise(x_t, level)
        # the 2x2 solve loses what its determinant, some .05 at the least, divides by
        np.testing.assert_allclose(said.x0, truth.x0, rtol=1e-9, atol=1e-11)
        np.testing.assert_allclose(said.eps, truth.eps, rtol=1e-9, atol=1e-11)
        alpha, sigma = (jnp.broadcast_to(a, 4)[:, None] for a in (level.alpha, level.sigma))
        np.testing.assert_allclose(alpha * said.x0 + sigma * said.eps, x_t, rtol=1e-10)
    if isinstance(parametrized, parametrization.Edm):
        # EDM scales its input to variance 1 for data of deviation sigma_data
        level, std = VP(0.4), parametrized.sigma_data
        wanted = x_t / np.sqrt((level.alpha * std) ** 2 + level.sigma**2)
        np.testing.assert_allclose(asked[-1], wanted, rtol=1e-12)
    else:
        np.testing.assert_array_equal(asked[-1], x_t)


def test_heads_are_the_further_channels():
    def apply(params, x, t):
        return jnp.concatenate([x, 2 * x, 3 * x], axis=-1)

    denoiser = make_denoiser(
        apply, (), parametrization="eps", time_feature="clock", heads=("eps2", "residual2")
    )
    x, level = images(2, 4, 4, 3), VP(jnp.asarray([0.2, 0.9]))
    said = denoiser(x, level)
    assert said.eps.shape == x.shape
    np.testing.assert_allclose(said.eps, x, rtol=1e-5)
    assert set(said.heads) == {"eps2", "residual2"}
    np.testing.assert_array_equal(said.heads["eps2"], 2 * x)
    np.testing.assert_array_equal(said.heads["residual2"], 3 * x)
    assert denoiser.raw(x, level).shape == (2, 4, 4, 9)


FEATURES = {  # of the level t = 5 with alpha = .6, sigma = .8
    "clock": 5.0,
    "thousandths": 5000.0,
    "steps": 4.0,
    "rounded_steps": 4.0,
    "log_snr": 2 * np.log(0.75),
    "quarter_log_sigma": np.log(4 / 3) / 4,  # EDM's c_noise
    "unit_steps": 4995.0,
    "log_half_sigma": np.log(2 / 3),
}


@pytest.mark.parametrize("name", TIME_FEATURES)
def test_time_features_are_what_their_names_say(name):
    seen = []

    def apply(params, x, t):
        seen.append(t)
        return x

    denoiser = make_denoiser(apply, (), parametrization="x0", time_feature=name)
    level = NoiseLevel(*(jnp.asarray(v, jnp.float32) for v in (5.0, 0.6, 0.8)))
    denoiser(images(3, 2), level)
    assert seen[0].shape == (3,)
    np.testing.assert_allclose(seen[0], FEATURES[name], rtol=1e-5)
    clean = TIME_FEATURES[name](NoiseLevel(*(jnp.float32(v) for v in (0.0, 1.0, 0.0))))
    assert np.isfinite(clean)


def test_half_precision_networks_answer_in_float32():
    denoiser = make_denoiser(
        lambda params, x, t: x.astype(jnp.bfloat16), (), parametrization="v", time_feature="clock"
    )
    said = denoiser(images(2, 3), VP(0.5))
    assert said.x0.dtype == said.eps.dtype == jnp.float32


# -- what networks are taken


class Net(nn.Module):
    """A linen network in the library's form."""

    @nn.compact
    def __call__(self, x, t, cond=None, *, train=False):
        if cond is not None:
            x = x + cond.astype(x.dtype)[:, None]
        x = nn.Dropout(0.5, deterministic=not train)(x)
        return x + 0 * nn.Dense(x.shape[-1], name="dense")(x)


def test_a_linen_modules_apply_is_taken_as_it_is(key):
    net, x, level = Net(), images(64, 3), VP(0.5)
    variables = net.init(key, x, jnp.zeros(64))
    denoiser = make_denoiser(net.apply, variables, parametrization="eps", time_feature="clock")
    np.testing.assert_array_equal(denoiser(x, level).eps, x)
    np.testing.assert_array_equal(denoiser.raw(x, level, key=key), x)  # no dropout in sampling
    dropped = [denoiser.raw(x, level, key=k, train=True) for k in (key, key, jax.random.key(1))]
    kept = np.asarray(dropped[0]) != 0
    np.testing.assert_array_equal(dropped[0], np.where(kept, 2 * x, 0))
    assert abs(kept.mean() - 0.5) < 4 * 0.5 / np.sqrt(192)
    np.testing.assert_array_equal(dropped[0], dropped[1])
    assert (np.asarray(dropped[2]) != np.asarray(dropped[0])).any()
    cond = jnp.arange(64, dtype=jnp.int32)
    np.testing.assert_allclose(
        denoiser.with_cond(cond)(x, level).eps, x + cond.astype(jnp.float32)[:, None], rtol=1e-6
    )


def test_plain_functions_of_three_and_four_arguments(key):
    x, level = images(3, 2), VP(0.5)
    three = make_denoiser(
        lambda params, x, t: params * x, jnp.float32(2), parametrization="eps", time_feature="clock"
    )
    np.testing.assert_array_equal(three(x, level).eps, 2 * x)
    np.testing.assert_array_equal(three.raw(x, level, key=key, train=True), 2 * x)
    with pytest.raises(ValueError, match="no fourth argument"):
        three.with_cond(jnp.zeros(3, jnp.int32))
    four = make_denoiser(
        lambda params, x, t, cond=None: x if cond is None else x + cond,
        (),
        parametrization="eps",
        time_feature="clock",
    )
    np.testing.assert_array_equal(four(x, level).eps, x)
    np.testing.assert_array_equal(four.with_cond(10 * x)(x, level).eps, x + 10 * x)
    seen = []

    def keyed(params, x, t, *, key=None, train=False):
        seen.append((key, train))
        return x

    keyed = make_denoiser(keyed, (), parametrization="eps", time_feature="clock")
    keyed(x, level)
    keyed.raw(x, level, key=key, train=True)
    assert seen == [(None, False), (key, True)]


@pytest.mark.parametrize(
    ("more", "error", "message"),
    [
        ({"params": {"params": {}, "batch_stats": {}}}, ValueError, "batch_stats"),
        ({"parametrization": "noise"}, ValueError, "eps, x0, v, score, flow, edm, got 'noise'"),
        ({"parametrization": 3}, TypeError, "parametrization"),
        ({"time_feature": "time"}, ValueError, "clock.*got 'time'"),
        ({"cond": jnp.zeros(3)}, ValueError, "no fourth argument"),
    ],
)
def test_bad_networks_are_refused(more, error, message):
    given = {"params": (), "parametrization": "eps", "time_feature": "clock", **more}
    with pytest.raises(error, match=message):
        make_denoiser(lambda params, x, t: x, **given)


# -- sampling with it: compiles and refusals


def counting(parametrized):
    """A denoiser, and the list that grows each time its network is traced."""
    traced = []

    def apply(params, x, t):
        traced.append(None)
        return params["scale"] * x

    params = {"scale": jnp.float32(0.5)}
    denoiser = make_denoiser(apply, params, parametrization=parametrized, time_feature="clock")
    return denoiser, traced


def test_other_parameters_do_not_compile_again(key):
    denoiser, traced = counting(parametrization.edm(0.5))
    grid = grids.uniform(VP, 3)
    first = samplers.sample(key, denoiser, grid, (2, 3))
    once = len(traced)
    assert once > 0
    other = denoiser.with_params({"scale": jnp.float32(0.9)})
    second = samplers.sample(key, other, grid, (2, 3))
    assert np.abs(first - second).max() > 1e-3
    own_number = make_denoiser(
        denoiser.apply, other.params, parametrization=parametrization.edm(0.7), time_feature="clock"
    )
    assert np.abs(samplers.sample(key, own_number, grid, (2, 3)) - second).max() > 1e-3
    assert len(traced) == once


@pytest.mark.parametrize("wrap", [lambda d: d, clip_x0, dynamic_threshold])
@pytest.mark.parametrize("name", ["eps", "score"])
def test_eps_networks_are_refused_at_zero_snr_before_any_compile(name, wrap, key):
    denoiser, traced = counting(name)
    for schedule in (schedules.cosine(), battery.SCHEDULES["betas_zero_snr"]):
        with pytest.raises(ValueError, match="alpha = 0 at step 0 of the grid"):
            samplers.sample(key, wrap(denoiser), grids.uniform(schedule, 4), (2, 3))
    assert not traced


def test_eps_networks_sample_from_just_below_zero_snr(key):
    below = grids.from_steps(schedules.cosine(), [0.99, 0.5])
    assert np.isfinite(samplers.sample(key, counting("eps")[0], below, (2, 3))).all()


@pytest.mark.parametrize("name", ["v", "x0", "flow", "edm"])
def test_other_networks_sample_from_zero_snr(name, key):
    denoiser, _ = counting(name)
    x = samplers.sample(key, denoiser, grids.uniform(schedules.cosine(), 4), (2, 3))
    assert np.isfinite(x).all()


# -- holding x_0 to the range of the data


@pytest.mark.usefixtures("x64")
def test_clipping_recomputes_eps_so_that_eta_one_is_ddpm():
    x_t, denoise = 2 * images(5, 4), constant([-3.0, -0.5, 0.5, 3.0])
    held = jnp.broadcast_to(jnp.asarray([-1.0, -0.5, 0.5, 1.0]), x_t.shape)
    chain = schedules.from_betas(schedules.linear_betas())
    for n_t, n_s in [(1000, 999), (1000, 500), (600, 1), (2, 1)]:
        t, s = chain(n_t), chain(n_s)
        said = clip_x0(denoise)(x_t, t)
        np.testing.assert_array_equal(said.x0, held)
        np.testing.assert_allclose(t.alpha * said.x0 + t.sigma * said.eps, x_t, rtol=1e-12)
        np.testing.assert_array_equal(said.heads["eps_model"], denoise(x_t, t).eps)
        ours = p_reverse(said, x_t, t=t, s=s, eta=1.0)
        truth = gaussian.q_posterior(held, x_t, t=t, s=s)
        # two sums of numbers of size 3 that may cancel
        np.testing.assert_allclose(ours.mean, truth.mean, rtol=1e-10, atol=1e-12)
        np.testing.assert_allclose(ours.var, truth.var, rtol=1e-12)


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("eta", [0.0, 0.5, 1.0])
def test_keeping_eps_is_the_formula_of_ddims_code(eta):
    x_t, denoise = 2 * images(5, 4), constant([-3.0, -0.5, 0.5, 3.0])
    chain = schedules.from_betas(schedules.linear_betas())
    t, s = chain(700), chain(300)
    bar_t, bar_s = t.alpha**2, s.alpha**2
    eps = (x_t - np.sqrt(bar_t) * denoise(x_t, t).x0) / np.sqrt(1 - bar_t)
    x0 = np.clip((x_t - np.sqrt(1 - bar_t) * eps) / np.sqrt(bar_t), -1, 1)
    c1 = eta * np.sqrt((1 - bar_t / bar_s) * (1 - bar_s) / (1 - bar_t))
    c2 = np.sqrt(1 - bar_s - c1**2)
    kept = p_reverse(clip_x0(denoise, keep_eps=True)(x_t, t), x_t, t=t, s=s, eta=eta)
    np.testing.assert_allclose(kept.mean, np.sqrt(bar_s) * x0 + c2 * eps, rtol=1e-11, atol=1e-12)
    np.testing.assert_allclose(kept.var, c1**2, rtol=1e-11)
    # and the two conventions differ where anything was clipped, and only there
    recomputed = p_reverse(clip_x0(denoise)(x_t, t), x_t, t=t, s=s, eta=eta)
    differs = np.abs(recomputed.mean - kept.mean) > 1e-6
    np.testing.assert_array_equal(differs, np.broadcast_to([True, False, False, True], (5, 4)))


@pytest.mark.parametrize(("quantile", "least"), [(0.9, 1.0), (0.5, 0.25), (1.0, 1.0)])
def test_dynamic_threshold_is_imagens(quantile, least):
    x_t, level = images(3, 4, 4, 1), VP(0.3)
    x0 = jnp.asarray([0.2, 1.0, 3.0])[:, None, None, None] * images(3, 4, 4, 1)
    denoise = lambda x_t, level: Denoised(x0, (x_t - level.alpha * x0) / level.sigma)  # noqa: E731
    said = dynamic_threshold(denoise, quantile, least=least)(x_t, level)
    for i in range(3):
        bound = max(np.quantile(np.abs(x0[i]), quantile), least)
        wanted = np.clip(x0[i], -bound, bound) * least / bound
        np.testing.assert_allclose(said.x0[i], wanted, rtol=1e-5)
    assert np.abs(said.x0).max() <= least * (1 + 1e-6)
    np.testing.assert_allclose(level.alpha * said.x0 + level.sigma * said.eps, x_t, atol=1e-5)
    kept = dynamic_threshold(denoise, quantile, least=least, keep_eps=True)(x_t, level)
    np.testing.assert_array_equal(kept.eps, denoise(x_t, level).eps)
    np.testing.assert_array_equal(kept.x0, said.x0)


def test_clipping_takes_levels_of_a_batch_and_the_clean_end():
    x_t = 2 * images(3, 4)
    level = VP(jnp.asarray([0.0, 0.5, 1.0]))
    denoise = lambda x_t, level: Denoised(3 * x_t, jnp.zeros_like(x_t))  # noqa: E731
    for wrap in (clip_x0, dynamic_threshold):
        said = wrap(denoise)(x_t, level)
        for i in (1, 2):
            alone = wrap(denoise)(x_t[i : i + 1], jax.tree.map(lambda a, i=i: a[i], level))
            np.testing.assert_allclose(said.eps[i], alone.eps[0], rtol=1e-6)
        assert np.isfinite(said.eps).all()


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (lambda: clip_x0(constant(0.0), 1.0, 1.0), ValueError, "low"),
        (lambda: clip_x0(constant(0.0), 1.0, -1.0), ValueError, "low"),
        (lambda: clip_x0(3), TypeError, "function"),
        (lambda: dynamic_threshold(constant(0.0), 0.0), ValueError, "quantile"),
        (lambda: dynamic_threshold(constant(0.0), 1.1), ValueError, "quantile"),
        (lambda: dynamic_threshold(constant(0.0), least=0.0), ValueError, "least"),
    ],
)
def test_bad_clipping_is_refused(make, error, message):
    with pytest.raises(error, match=message):
        make()
