"""Inpainting of a correlated Gaussian pair, whose conditional law is known: and the bias of all.

Truth: p(x_2 | x_1 = y) = N(rho y, 1 - rho**2) for unit variances. In a basis: what is known of
turned data is known of the pixels of the data turned back.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxdiff import exact, grids, schedules
from jaxdiff.samplers import (
    annealed_langevin,
    colorisation,
    colour_basis,
    ddim,
    ddpm,
    dpmpp_2m,
    grey_known,
    langevin,
    linear_basis,
    linear_known,
    linear_measurement,
    predictor_corrector,
    repaint,
    replacement,
    replacement_corrector,
    restart,
    sample,
    unipc,
)
from jaxdiff.typing import Denoised
from tests.samplers.linear import moments

pytestmark = pytest.mark.usefixtures("strict", "x64")

RHO, Y = 0.8, 1.5
KNOWN, MASK = jnp.array([Y, jnp.nan]), jnp.array([1, 0])


def pair():
    return exact.gaussian(jnp.zeros(2), jnp.array([[1.0, RHO], [RHO, 1.0]]))


def law(make, steps=20):
    mean, cov = moments(pair(), grids.uniform(schedules.linear_vp(), steps), make, 2)
    return mean[1], cov[1, 1]


def noise_of_known(sampler, grid, direction=(1, 0), **more):
    """Mean and deviation of (direction . x_t - alpha_t y) / sigma_t at every call of the model."""
    seen, seek = [], lambda x: x @ jnp.asarray(direction, float)

    def denoise(x, level):
        z = (seek(x) - level.alpha * Y) / level.sigma
        jax.debug.callback(lambda *v: seen.append(v), jnp.mean(z), jnp.std(z))
        return pair().denoise(x, level)

    x = sample(jax.random.key(1), denoise, grid, (4000, 2), sampler=sampler, **more)
    np.testing.assert_allclose(seek(x), Y, rtol=0 if direction == (1, 0) else 1e-14)
    jax.effects_barrier()
    return np.asarray(seen)


@pytest.mark.slow
@pytest.mark.parametrize("inner", [ddim(), unipc()], ids=["ddim", "unipc"])
@pytest.mark.parametrize("schedule", [schedules.linear_vp(), schedules.edm(0.01, 50.0)])
def test_model_sees_known_pixels_at_their_noise(schedule, inner):
    """Standard Gaussian at every call, to 5 standard errors of 4000 draws; at the end, y itself.

    Also where x_T is no noise, and for a solver that corrects what it is given.
    """
    grid = grids.karras(schedule, 5)
    found = noise_of_known(replacement(inner, KNOWN, MASK), grid)
    signal = jnp.full((4000, 2), 7.0)
    found = np.concatenate(
        [found, noise_of_known(replacement(inner, KNOWN, MASK), grid, x_T=signal)]
    )
    assert len(found) == 10
    np.testing.assert_allclose(found[:, 0], 0, atol=5 / np.sqrt(4000))
    np.testing.assert_allclose(found[:, 1], 1, atol=5 / np.sqrt(8000))


@pytest.mark.slow
def test_restart_around_inpainting_keeps_the_known_pixels():
    """The same within each pass of a stretch, which begins at a level of its own."""
    inner = replacement(ddim(), KNOWN, MASK)
    sampler = restart(inner, low=1.0, high=3.0, steps=2, repeats=2)
    found = noise_of_known(sampler, grids.uniform(schedules.linear_vp(), 6))
    assert len(found) == 6 + 2 * 2
    np.testing.assert_allclose(found[:, 0], 0, atol=5 / np.sqrt(4000))
    np.testing.assert_allclose(found[:, 1], 1, atol=5 / np.sqrt(8000))


@pytest.mark.slow
def test_bias_of_replacement_and_what_repaint_mends():
    """Exact laws, no sampling: replacement's mean is two thirds of rho y, and more steps do not
    mend it; RePaint's repeats bring both moments nearer to the truth. The large variance, since
    the small one's own error at 20 steps is as large.
    """
    mean, var = RHO * Y, 1 - RHO**2
    plain = law(replacement(ddpm("large"), KNOWN, MASK))
    finer = law(replacement(ddpm("large"), KNOWN, MASK), 80)
    again = law(repaint(ddpm("large"), KNOWN, MASK, jump=1, repeats=10))
    longer = law(repaint(ddpm("large"), KNOWN, MASK, jump=5, repeats=5))
    for found in (plain, finer):
        assert 0.5 < found[0] / mean < 0.7, found
    assert again[0] / mean > 0.85
    for found in (again, longer):
        assert abs(found[0] - mean) < abs(plain[0] - mean), (found, plain)
        assert abs(found[1] - var) < abs(plain[1] - var), (found, plain)


@pytest.mark.slow
def test_one_repeat_is_replacement(key):
    """By any sampler, with or without memory."""
    grid = grids.uniform(schedules.linear_vp(), 6)
    for sampler in (ddpm(), dpmpp_2m()):
        once = repaint(sampler, KNOWN, MASK, jump=3, repeats=1)
        a, b = (
            sample(key, pair(), grid, (4, 2), sampler=s)
            for s in (once, replacement(sampler, KNOWN, MASK))
        )
        np.testing.assert_array_equal(a, b)


def test_stretches_are_counted_from_the_clean_end():
    """K = 7 with a clean end: 6 steps between noisy levels, jump 4: steps 2..5 are walked again,
    so model calls are 7 + 4 (repeats - 1)."""
    calls = []

    def denoise(x, level):
        jax.debug.callback(lambda t: calls.append(float(t)), level.t)
        return pair().denoise(x, level)

    grid = grids.uniform(schedules.linear_vp(), 7)
    sampler = repaint(ddpm(), KNOWN, MASK, jump=4, repeats=3)
    jax.block_until_ready(sample(jax.random.key(0), denoise, grid, (1, 2), sampler=sampler))
    jax.effects_barrier()
    times = np.asarray(grid.levels.t[:-1])
    walked = [*times[:6], *times[2:6], *times[2:6], times[6]]
    np.testing.assert_allclose(calls, walked)


@pytest.mark.slow
def test_known_part_is_new_after_each_predictor_and_each_corrector():
    """At every call, the corrector's and the predictor's: as in
    `test_model_sees_known_pixels_at_their_noise`. Only the first Langevin step sees x_T itself.
    In a basis that is not the pixels', and with several steps a level."""
    grid, direction = grids.uniform(schedules.linear_vp(), 5), (0.6, 0.8)
    part = linear_known(jnp.array([Y]), np.array([direction]))
    inner = replacement(ddpm(), *part)
    found = noise_of_known(predictor_corrector(inner, langevin()), grid, direction)
    assert len(found) == 2 * 5
    every = predictor_corrector(inner, replacement_corrector(langevin(), *part, repeats=2))
    again = noise_of_known(every, grid, direction, x_T=jnp.full((4000, 2), 7.0))
    assert len(again) == 3 * 5
    for seen in (found, again):
        np.testing.assert_allclose(seen[:, 0], 0, atol=5 / np.sqrt(4000))
        np.testing.assert_allclose(seen[:, 1], 1, atol=5 / np.sqrt(8000))


@pytest.mark.slow
def test_bias_falls_with_langevin_steps_at_the_known_part():
    """Exact laws at 20 steps, snr 0.5: nearer to the truth in both moments with each step more, and
    with the known part drawn once for all steps of a level no longer."""
    mean, var = RHO * Y, 1 - RHO**2
    inner, walk = replacement(ddpm("large"), KNOWN, MASK), annealed_langevin
    each = lambda n: replacement_corrector(walk(0.5), KNOWN, MASK, repeats=n)  # noqa: E731
    laws = [law(inner)] + [law(predictor_corrector(inner, each(n))) for n in (1, 6)]
    off = np.abs(np.asarray(laws) - [mean, var])
    assert np.all(np.diff(off, axis=0) < 0), laws
    assert laws[-1][0] / mean > 0.8, laws
    once = np.abs(np.asarray(law(predictor_corrector(inner, walk(0.5, 6)))) - [mean, var])
    assert np.all(once > off[-1]), (once, laws)


TURN = np.array([[0.6, 0.8], [-0.8, 0.6]])


@pytest.mark.slow
@pytest.mark.parametrize(
    "way",
    [
        replacement,
        functools.partial(repaint, jump=1, repeats=2),
    ],
    ids=["replacement", "repaint"],
)
def test_a_measurement_is_a_known_pixel_of_turned_data(way):
    """The law of the sample is that of the pixel's, turned: mean and covariance, to 1e-11.

    The measurement is 2.5 times the first coordinate. The large variance, as isotropic as small.
    """
    grid = grids.uniform(schedules.linear_vp(), 6)
    cov = pair().covs[0]
    turned = exact.gaussian(jnp.zeros(2), jnp.asarray(TURN) @ cov @ jnp.asarray(TURN).T)
    pixel = moments(turned, grid, way(ddpm("large"), KNOWN, MASK), 2)
    part = linear_known(jnp.array([2.5 * Y]), 2.5 * TURN[:1])
    found = moments(pair(), grid, way(ddpm("large"), *part), 2)
    np.testing.assert_allclose(found[0], TURN.T @ pixel[0], atol=1e-11)
    np.testing.assert_allclose(found[1], TURN.T @ pixel[1] @ TURN, atol=1e-11)


def shrink(x, level):
    """The exact model of N(0, I / 4), of any shape."""
    v = level.alpha**2 / 4 + level.sigma**2
    return Denoised(level.alpha / (4 * v) * x, level.sigma / v * x)


def test_what_is_measured_comes_back(key):
    """A x = y and the mean of the channels is grey, to rounding times A's condition (some 5)."""
    grid, images = grids.uniform(schedules.sub_vp(), 3), (2, 2, 2, 3)
    rng = np.random.default_rng(0)
    a, y, grey = (rng.normal(size=shape) for shape in ((4, 2, 2, 3), (2, 4), (2, 2, 2, 1)))
    sampler = predictor_corrector(linear_measurement(ddpm(), y, a), langevin())
    x = sample(key, shrink, grid, images, sampler=sampler)
    np.testing.assert_allclose(np.einsum("mhwc,bhwc->bm", a, x), y, atol=1e-13)
    x = sample(key, shrink, grid, images, sampler=colorisation(None, grey))
    np.testing.assert_allclose(np.mean(x, axis=-1, keepdims=True), grey, atol=1e-14)


@pytest.mark.slow
def test_colours_begin_as_the_prior_and_end_as_the_data(key):
    """White data N(0, I / 4): the colours of the sample have the model's own law, grey or not.

    The first call of the model sees alpha_T grey and noise sigma_T in grey, and x_T itself in the
    colours. Of 30,000 numbers a variance is known to 0.8 %; four standard errors.
    """
    grid, seen = grids.uniform(schedules.linear_vp(), 3), []
    grey = jnp.full((100, 10, 15, 1), 0.3)
    basis = colour_basis()

    def denoise(x, level):
        jax.debug.callback(lambda x: seen.append(np.asarray(x)), x)
        return shrink(x, level)

    x_T = jax.random.normal(key, (100, 10, 15, 3))
    x = sample(key, denoise, grid, x_T.shape, sampler=colorisation(ddpm(), grey), x_T=x_T)
    jax.effects_barrier()
    first, start = basis.to(jnp.asarray(seen[0], float)), basis.to(x_T)
    # a callback is handed float32
    np.testing.assert_allclose(first[..., 1:], start[..., 1:], atol=2e-6)
    noise = (first[..., 0] - grid.levels.alpha[0] * 3**0.5 * 0.3) / grid.levels.sigma[0]
    np.testing.assert_allclose([noise.mean(), noise.std()], [0, 1], atol=4 / np.sqrt(15_000))
    plain = sample(key, shrink, grid, x_T.shape, sampler=ddpm(), x_T=x_T)
    found, wanted = (basis.to(a)[..., 1:].var() for a in (x, plain))
    np.testing.assert_allclose(found, wanted, rtol=4 * 0.008 * np.sqrt(2))


@pytest.mark.parametrize(
    ("basis", "shape"),
    [
        (colour_basis, (1, 3)),
        (lambda: linear_basis(np.random.default_rng(0).normal(size=(3, 2, 3))), (2, 3)),
    ],
    ids=["colour", "linear"],
)
def test_bases_are_orthonormal(basis, shape):
    """Rows of `to` times its transpose are the identity, `back` is the transpose; to 1e-14."""
    size = int(np.prod(shape))
    units = jnp.eye(size).reshape(size, *shape)
    to = np.asarray(basis().to(units)).reshape(size, size).T
    np.testing.assert_allclose(to @ to.T, np.eye(size), atol=1e-14)
    coordinates = basis().to(units).shape[1:]
    back = basis().back(jnp.eye(size).reshape(size, *coordinates))
    np.testing.assert_allclose(np.asarray(back).reshape(size, size), to, atol=1e-14)
    if shape == (1, 3):
        np.testing.assert_array_equal(to[0], 1 / np.sqrt(3))


@pytest.mark.slow
def test_everything_measured_is_traced():
    """jit(vmap(grad)) by y, snr and A of a batch of problems is a loop of central differences.

    By A there is no gradient. Step 1e-6 errs by some 1e-9.
    """
    grid = grids.uniform(schedules.linear_vp(), 4)
    x_T, noise = jnp.ones((1, 3)), jax.random.normal(jax.random.key(2), (4, 3, 1, 3))
    weights = jnp.asarray([[1.0, -2.0, 0.5]])

    def f(y, snr, a):
        sampler = predictor_corrector(linear_measurement(ddpm(), y, a), langevin(snr))
        x = sample(None, shrink, grid, (1, 3), sampler=sampler, x_T=x_T, noise=noise)
        return jnp.sum(weights * x**2)

    rng = np.random.default_rng(1)
    y, a = jnp.asarray(rng.normal(size=(2, 1))), jnp.asarray(rng.normal(size=(2, 1, 3)))
    snr, h = jnp.asarray([0.1, 0.2]), 1e-6
    slopes = jax.jit(jax.vmap(jax.grad(f, (0, 1, 2))))(y, snr, a)
    value = jax.jit(jax.vmap(f))
    of_y = (value(y + h, snr, a) - value(y - h, snr, a)) / (2 * h)
    of_snr = (value(y, snr + h, a) - value(y, snr - h, a)) / (2 * h)
    np.testing.assert_allclose(slopes[0][:, 0], of_y, rtol=1e-6, atol=1e-7)
    np.testing.assert_allclose(slopes[1], of_snr, rtol=1e-6, atol=1e-7)
    np.testing.assert_array_equal(slopes[2], 0)


ROW = np.array([[1.0, 2.0, 0.0]])
GREY = np.full((2, 2, 1), 0.5)
REFUSED = {
    "y of another length": (lambda: linear_known(np.ones(2), ROW), r"y must be.*m = 1.*\[2\]"),
    "y not finite": (lambda: linear_known(np.array([np.nan]), ROW), "y must be finite"),
    "y in whole numbers": (lambda: linear_known(np.array([1]), ROW), "y must be float.*int"),
    "rows that repeat": (
        lambda: linear_known(np.ones(2), np.concatenate([ROW, 2 * ROW])),
        "independent rows, got rank 1 of 2",
    ),
    "a of zeros": (lambda: linear_basis(0 * ROW), "independent rows, got rank 0 of 1"),
    "a not finite": (lambda: linear_basis(np.inf * ROW[:, :2]), "a must be finite"),
    "more rows than numbers": (lambda: linear_basis(np.ones((4, 3))), r"a must be \[m.*\[4, 3\]"),
    "a vector": (lambda: linear_basis(np.ones(3)), r"a must be \[m, .*\[3\]"),
    "all is measured": (
        lambda: linear_measurement(None, np.ones(2), np.eye(2)),
        "mask.*nothing to draw",
    ),
    "grey of three channels": (lambda: grey_known(np.ones((2, 2, 3))), r"grey must.*\[2, 2, 3\]"),
    "grey in bytes": (lambda: colorisation(None, GREY.astype(np.uint8)), "grey.*float.*uint8"),
    "grey not finite": (lambda: colorisation(None, np.nan * GREY), "grey must be finite"),
    "known of another kind": (
        lambda: replacement(None, np.array([1, 2, 3]), MASK, colour_basis()),
        "known must be float.*int",
    ),
    "mask the other way round, in a basis": (
        lambda: replacement_corrector(None, KNOWN, 1 - MASK, linear_basis(ROW[:, :2])),
        "known must be finite where mask is 1.*other way round",
    ),
    "mask of greys, in a basis": (
        lambda: repaint(None, KNOWN, 0.5 * np.asarray(MASK), linear_basis(ROW[:, :2])),
        "mask must hold 0 and 1 alone, got 0.5",
    ),
    "no steps of a corrector": (
        lambda: replacement_corrector(None, KNOWN, MASK, repeats=0),
        "repeats.*at least 1.*got 0",
    ),
    "images of two channels": (
        lambda: draw(colorisation(None, GREY), (1, 2, 2, 2)),
        r"colour basis is of 3 channels.*\[1, 2, 2, 2\]",
    ),
    "images of another size": (
        lambda: draw(colorisation(None, GREY), (1, 4, 4, 3)),
        r"known must have the shape.*\[4, 4, 3\].*got \[2, 2, 3\]",
    ),
    "examples of another size": (
        lambda: draw(linear_measurement(None, np.ones(1), ROW), (1, 4)),
        r"basis is of examples \[3\], got \[4\]",
    ),
    "another known in a corrector": (
        lambda: draw(predictor_corrector(None, replacement_corrector(None, KNOWN, MASK)), (1, 3)),
        r"known must have the shape.*\[3\].*got \[2\]",
    ),
}


def draw(sampler, shape):
    grid = grids.uniform(schedules.linear_vp(), 2)
    return sample(jax.random.key(0), shrink, grid, shape, sampler=sampler)


@pytest.mark.parametrize("case", REFUSED)
def test_refusals(case):
    call, message = REFUSED[case]
    with pytest.raises(ValueError, match=f"(?s){message}"):
        call()


@pytest.mark.parametrize("basis", ["colour", colour_basis, np.eye(2)])
def test_what_is_no_basis(basis):
    """A name, a factory, a matrix."""
    with pytest.raises(TypeError, match="basis must be a Basis such as colour_basis"):
        replacement(None, KNOWN, MASK, basis)
