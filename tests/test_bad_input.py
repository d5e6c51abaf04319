"""Bad input: one row a case. Each raises before anything large is compiled, and the message names
the argument, what was given and what was wanted. Readers, metrics, networks, checkpoints and the
command line have rows of their own beside their tests.
"""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxdiff import grids, losses, schedules
from jaxdiff import parametrization as P
from jaxdiff.data import check_images
from jaxdiff.denoiser import clip_x0, dynamic_threshold, make_denoiser
from jaxdiff.exact import gaussian_mixture
from jaxdiff.samplers import ddim, ddim_encode, ddpm, heun, make_sampler, sample, slerp
from jaxdiff.samplers.base import _run
from jaxdiff.typing import Denoised, NoiseLevel

VP, CHAIN = schedules.linear_vp(), schedules.from_betas(schedules.linear_betas())
ZERO_SNR = schedules.from_betas(schedules.rescale_to_zero_terminal_snr(schedules.linear_betas()))
GRID = grids.uniform(VP, 4)
KEY = jax.random.key(0)
SHAPE = (2, 3)
IMAGES = np.random.default_rng(0).uniform(-1, 1, (4, 8, 8, 1)).astype(np.float32)


def network(params, x, feature):
    return params * x


def model(**kwargs):
    kwargs = {"parametrization": "eps", "time_feature": "clock"} | kwargs
    return make_denoiser(network, jnp.asarray(0.5), **kwargs)


def wide():
    apply = lambda params, x, feature: jnp.concatenate([x, x], axis=-1)  # noqa: E731
    return make_denoiser(apply, 0.0, parametrization="v", time_feature="clock")


def conditional():
    apply = lambda params, x, feature, cond: x  # noqa: E731
    return make_denoiser(apply, 0.0, parametrization="v", time_feature="clock")


def draw(denoise=lambda x, level: Denoised(x, x), grid=GRID, shape=SHAPE, key=KEY, **kwargs):
    return sample(key, denoise, grid, shape, **kwargs)


def loss(x0=IMAGES, **kwargs):
    return losses.denoising(KEY, model(), jnp.asarray(x0), VP, **kwargs)


def levels(sigma, alpha=None):
    sigma = jnp.asarray(sigma)
    return NoiseLevel(sigma, jnp.ones_like(sigma) if alpha is None else alpha, sigma)


CASES = {
    # schedules
    "signal left at the end": (lambda: schedules.linear_vp(0.1, 2.0), "signal left.*alpha"),
    "chain too short": (lambda: schedules.from_betas(schedules.su_betas(100)), "signal left"),
    "negative beta_min": (lambda: schedules.linear_vp(-1.0), "beta_min.*got -1"),
    "falling betas": (lambda: schedules.linear_vp(5.0, 1.0), "beta_max.*got 1"),
    "beta above one": (lambda: schedules.from_betas([0.5, 1.5, 0.9]), r"betas.*\(0, 1\).*1.5"),
    "beta of zero": (lambda: schedules.from_betas([0.0, 0.9]), "betas.*got 0"),
    "beta NaN": (lambda: schedules.from_betas([np.nan, 0.9]), "betas.*nan"),
    "betas of rank two": (lambda: schedules.from_betas(np.ones((2, 2)) / 2), r"\[N\].*\[2, 2\]"),
    "no betas": (lambda: schedules.from_betas([]), r"\[N\].*\[0\]"),
    "Ho's betas on 20 steps": (lambda: schedules.linear_betas(20), "num_steps.*20.*got 20"),
    "half a step": (lambda: schedules.cosine_betas(2.5), "num_steps.*got 2.5"),
    "sigmas the wrong way": (lambda: schedules.ve(1.0, 0.5), "sigma_max.*got 0.5"),
    "sigma_min zero": (lambda: schedules.edm(0.0), "sigma_min.*got 0"),
    "shift zero": (lambda: schedules.shifted(VP, 0.0), "shift.*got 0"),
    "shift beyond a chain": (lambda: schedules.shifted(CHAIN, 3.0), "shift.*got 3"),
    "cosine offset": (lambda: schedules.cosine(-0.1), "offset.*got -0.1"),
    "time beyond the chain": (lambda: CHAIN(1200.0), "t must lie.*1000.*got 1200"),
    "time below zero": (lambda: VP(-0.1), "t must lie.*got -0.1"),
    "time beyond the path": (lambda: schedules.rectified()(1.5), "t must lie.*got 1.5"),
    "time NaN": (lambda: VP(np.nan), "t must lie.*nan"),
    # grids
    "zero steps": (lambda: grids.uniform(VP, 0), "num_steps.*>= 1.*got 0"),
    "fractional steps": (lambda: grids.karras(VP, 2.5), "num_steps.*got 2.5"),
    "K > N": (lambda: grids.leading(CHAIN, 1001), "num_steps.*1000.*1001"),
    "whole steps of no chain": (lambda: grids.trailing(VP, 10), "trailing.*from_betas.*LinearVP"),
    "offset off the chain": (lambda: grids.leading(CHAIN, 1000, offset=1), "steps.*1000.*1001"),
    "rising steps": (lambda: grids.from_steps(CHAIN, [1, 500]), r"steps must fall.*\[1\] = 500"),
    "repeated steps": (lambda: grids.from_steps(CHAIN, [5, 5]), "steps must fall"),
    "step off the clock": (lambda: grids.from_steps(CHAIN, [1001, 3]), "steps.*1000.*1001"),
    "no steps at all": (lambda: grids.from_steps(CHAIN, []), r"steps.*\[K\].*\[0\]"),
    "rising levels": (lambda: grids.from_levels(levels([0.1, 1.0])), "levels.*must fall"),
    "negative sigma": (lambda: grids.from_levels(levels([1.0, -0.5])), "sigma.*got -0.5"),
    "unequal levels": (
        lambda: grids.from_levels(levels([1.0, 0.5], jnp.ones(3))),
        r"equal shapes.*\[3\]",
    ),
    "one level": (lambda: grids.from_levels(levels([1.0]), end=None), "two levels, got one"),
    "rho zero": (lambda: grids.karras(VP, 5, rho=0), "rho.*got 0"),
    "quadratic fraction": (lambda: grids.quadratic(VP, 5, fraction=1.5), "fraction.*got 1.5"),
    "pad to less": (lambda: grids.pad(GRID, 2), "num_steps.*4.*got 2"),
    "pad a noisy end": (lambda: grids.pad(grids.uniform(VP, 4, end=None), 6), "clean end"),
    # samplers
    "negative eta": (lambda: ddim(-0.1), "eta.*got -0.1"),
    "eta beyond the noise": (lambda: draw(sampler=ddim(3.0)), "eta.*got 3"),
    "many etas without vmap": (lambda: draw(sampler=ddim(jnp.ones(2))), r"eta.*\(2,\).*vmap"),
    "zero SNR in the clock sigma / alpha": (
        lambda: draw(sampler=heun(), grid=grids.uniform(schedules.cosine(), 4)),
        "heun.*alpha = 0.*t_first",
    ),
    "many last_stds without vmap": (
        lambda: draw(sampler=ddpm(last_std=jnp.ones(2))),
        r"last_std.*\(2,\).*vmap",
    ),
    "unknown variance": (lambda: ddpm("huge"), "variance.*small, large.*'huge'"),
    "last_noise": (lambda: ddpm("large", last_noise=2.0), "last_noise.*got 2"),
    "unknown sampler": (lambda: make_sampler("euler9"), "sampler.*ddim.*'euler9'"),
    "unknown hyperparameter": (lambda: make_sampler("ddim", etta=1), "ddim takes eta.*'etta'"),
    "shape of one number": (lambda: draw(shape=4), r"shape must be \(B, ...\).*got 4"),
    "empty batch": (lambda: draw(shape=(0, 3)), r"shape.*>= 1.*\(0, 3\)"),
    "x_T of another shape": (lambda: draw(x_T=jnp.zeros((3, 3))), r"x_T.*\(2, 3\).*\(3, 3\)"),
    "x_T in half precision": (
        lambda: draw(x_T=jnp.zeros(SHAPE, jnp.bfloat16)),
        "x_T.*float32.*bfloat16",
    ),
    "noise of another shape": (lambda: draw(noise=jnp.zeros((4, 2, 3))), "noise.*K, noises, B"),
    "no key": (lambda: draw(key=None), "key must be given.*None"),
    "keys of another batch": (lambda: draw(key=jax.random.split(KEY, 5)), r"\[2\] keys.*\[?\(?5"),
    "eps at zero terminal SNR": (
        lambda: draw(model(), grids.trailing(ZERO_SNR, 5)),
        "predicts eps.*alpha = 0.*step 0",
    ),
    "eps at zero SNR under a wrapper": (
        lambda: draw(clip_x0(model()), grids.trailing(ZERO_SNR, 5)),
        "predicts eps.*alpha = 0",
    ),
    "stacked grids without vmap": (
        lambda: draw(grid=jax.tree.map(lambda a: jnp.stack([a, a]), GRID)),
        r"\[K\+1\].*vmap",
    ),
    "encode integers": (
        lambda: ddim_encode(model(), GRID, jnp.zeros(SHAPE, jnp.int32)),
        "x_0.*float.*int32",
    ),
    "slerp of zero": (lambda: slerp(jnp.zeros(SHAPE), jnp.ones(SHAPE), 0.5), "nonzero"),
    "slerp of opposites": (lambda: slerp(jnp.ones(SHAPE), -jnp.ones(SHAPE), 0.5), "antipodal"),
    "slerp beyond": (lambda: slerp(jnp.ones(SHAPE), jnp.ones(SHAPE), 1.5), "fraction.*got 1.5"),
    # denoisers and losses
    "unknown parametrization": (
        lambda: model(parametrization="noise"),
        "parametrization.*eps, x0.*'noise'",
    ),
    "unknown time feature": (lambda: model(time_feature="t"), "time_feature.*clock.*'t'"),
    "labels for an unconditional net": (
        lambda: model(cond=jnp.zeros(2, jnp.int32)),
        "cond.*unconditional",
    ),
    "batch normalisation": (
        lambda: make_denoiser(
            network, {"params": {}, "batch_stats": {}}, parametrization="eps", time_feature="clock"
        ),
        "batch_stats.*group normalisation",
    ),
    "sigma_data": (lambda: P.edm(-1.0), "sigma_data.*got -1"),
    "clip upside down": (lambda: clip_x0(model(), 1.0, -1.0), "low.*got 1"),
    "quantile": (lambda: dynamic_threshold(model(), 99.5), "quantile.*got 99.5"),
    "integer images in the loss": (lambda: loss(np.zeros((2, 4), np.uint8)), "x0.*float.*uint8"),
    "empty batch in the loss": (lambda: loss(np.zeros((0, 4), np.float32)), r"x0.*\[0, 4\]"),
    "half precision in the loss": (lambda: loss(jnp.ones((2, 4), jnp.bfloat16)), "x0.*bfloat16"),
    "network of another width": (
        lambda: losses.denoising(KEY, wide(), jnp.asarray(IMAGES), VP),
        r"apply must return \[4, 8, 8, 1\].*got \[4, 8, 8, 2\]",
    ),
    "one label for a batch": (
        lambda: losses.denoising(KEY, conditional(), IMAGES, VP, cond=jnp.zeros(1, jnp.int32)),
        r"cond.*4.*\(1,\)",
    ),
    "cond_dropout": (lambda: loss(cond_dropout=1.5), "cond_dropout.*got 1.5"),
    "gamma": (lambda: losses.min_snr(0.0), "gamma.*got 0"),
    "log_normal std": (lambda: losses.log_normal(0.0, -1.0), "std.*got -1"),
    "no bins": (lambda: losses.loss_history(0), "bins.*got 0"),
    # data
    "0..255 as floats": (lambda: check_images(IMAGES * 127.5 + 127.5), r"images.*\[-1, 1\]"),
    "[0, 1] images": (lambda: check_images(IMAGES / 2 + 0.5), r"images.*\[-1, 1\]"),
    "NaN pixels": (lambda: check_images(np.where(IMAGES > 0.9, np.nan, IMAGES)), "images.*NaN"),
    "channels first": (lambda: check_images(np.zeros((4, 3, 8, 8)) - 0.5), "images.*channel"),
    "rank five": (lambda: check_images(IMAGES[None]), "images.*shape"),
    "mixture weights": (
        lambda: gaussian_mixture(jnp.ones(2), jnp.zeros((2, 1)), jnp.ones((2, 1, 1))),
        "weights.*sum",
    ),
}


@pytest.mark.parametrize("case", CASES)
def test_bad_input(case):
    """A ValueError with all three facts, and the sampling program is not compiled."""
    call, message = CASES[case]
    before = _run._cache_size()
    with pytest.raises(ValueError, match=f"(?s){message}"):
        call()
    assert _run._cache_size() == before


WRONG_KINDS = {
    "no grid": (lambda: draw(grid=[1.0, 0.0]), "grid must be a Grid"),
    "sampler by name": (lambda: draw(sampler="ddim"), "sampler must be a Sampler.*'ddim'"),
    "no denoise": (lambda: draw(denoise=3.0), "function, got 3"),
    "denoise returns a tuple": (lambda: draw(lambda x, level: (x, x)), "Denoised, got tuple"),
    "schedule that is no pytree": (
        lambda: grids.uniform(
            type(
                "Own",
                (),
                {"t_min": 0.0, "t_max": 1.0, "prior_std": 1.0, "__call__": lambda self, t: VP(t)},
            )(),
            3,
        ),
        "schedule must be a pytree.*Own",
    ),
    "seed for a key": (lambda: draw(key=0), "key.*PRNG key.*got 0"),
    "loss of a function": (
        lambda: losses.denoising(KEY, lambda x, level: x, jnp.asarray(IMAGES), VP),
        "make_denoiser, got function",
    ),
    "parametrization of a number": (lambda: model(parametrization=1), "Parametrization, got 1"),
    "variance of a number": (lambda: ddpm(0.1), "ReverseVariance, got 0.1"),
    "variance of a number with a std": (lambda: ddpm(np.float64(0.1)), "ReverseVariance, got"),
    "variance of an array": (lambda: ddpm(np.ones(3)), r"ReverseVariance, got array"),
    "word for a number": (lambda: ddim("half"), "eta must be a number, got 'half'"),
    "nothing for a number": (lambda: ddpm(last_std=None), "last_std must be a number, got None"),
}


@pytest.mark.parametrize("case", WRONG_KINDS)
def test_wrong_kinds(case):
    """Another kind of thing altogether is a TypeError."""
    call, message = WRONG_KINDS[case]
    with pytest.raises(TypeError, match=f"(?s){message}"):
        call()


def test_denoise_of_another_shape_is_refused_while_tracing():
    """What a model returns is only known once it is traced; XLA never sees it."""
    with pytest.raises(ValueError, match=r"x0 as float32\[2, 3\].*got float32\[2, 1\]"):
        draw(lambda x, level: Denoised(x[:, :1], x))
