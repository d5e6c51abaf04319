"""Truth: SciPy's cubic spline at the places that the published matrices give; numpy's own flips and
quarter turns; binomial, normal and uniform laws. The published pipeline: EDM, appendix F.2."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.ndimage
import scipy.stats

from jaxdiff import data
from jaxdiff.data import from_uint8
from jaxdiff.data.augment import LABELS, Distortion, augment, distort, draw, label, resample
from tests.data import written

pytestmark = pytest.mark.usefixtures("strict")

resample, distort = jax.jit(resample), jax.jit(distort)
X = from_uint8(written.random_bytes(9, 7, 2))
SQUARE = from_uint8(written.random_bytes(6, 6, 3))


def scipy_resample(x, matrix, shift):
    """y(p) = x(matrix (p - shift)) in float64, p = (right, down) from the middle."""
    height, width = x.shape[:2]
    middle = np.array([width - 1, height - 1]) / 2
    right, down = np.meshgrid(np.arange(width), np.arange(height))
    places = (np.stack([right, down], -1) - middle - shift) @ np.asarray(matrix, float).T + middle
    where = [places[..., 1], places[..., 0]]
    channels = np.moveaxis(x.astype(float), -1, 0)
    return np.stack(
        [scipy.ndimage.map_coordinates(c, where, order=3, mode="mirror") for c in channels], -1
    )


def turn(angle):
    return np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])


@pytest.mark.parametrize("scale", [0.3, 1.0, 2.5])
def test_resampling_is_scipys_spline(scale):
    for angle, shift in [(0.4, (1.3, -2.1)), (-2.0, (0.0, 9.7)), (np.pi, (-30.2, 0.5))]:
        matrix = scale * turn(angle)
        ours = resample(*(jnp.asarray(a, jnp.float32) for a in (X, matrix, np.array(shift))))
        # places of up to 60 pixels in float32 (4e-6), slopes of up to 3 a pixel
        np.testing.assert_allclose(ours, scipy_resample(X, matrix, shift), atol=5e-5)


def test_quarter_turns_and_whole_shifts_are_exact():
    for k in range(4):
        matrix = np.rint(turn(k * np.pi / 2))
        # y(p) = x(R p): with the second axis down, R turns the places clockwise, the image not
        turned = resample(jnp.asarray(SQUARE), jnp.asarray(matrix, jnp.float32), jnp.zeros(2))
        np.testing.assert_array_equal(turned, np.rot90(SQUARE, k))
    for right, down in [(1, 0), (-2, 3), (7, -13)]:
        shift = jnp.asarray([right, down], jnp.float32)
        shifted = resample(jnp.asarray(X), jnp.eye(2), shift)
        padded = np.pad(X, ((20, 20), (20, 20), (0, 0)), mode="reflect")
        np.testing.assert_array_equal(
            shifted, padded[20 - down : 29 - down, 20 - right : 27 - right]
        )


NOTHING = Distortion(jnp.zeros(2, bool), *(jnp.zeros(s) for s in ((), (), (2,), (2,))))


@pytest.mark.parametrize("flip", [(False, False), (True, False), (False, True), (True, True)])
def test_flips_alone_are_exact(flip):
    drawn = NOTHING._replace(flip=jnp.array(flip))
    flipped = X[:: -1 if flip[1] else 1, :: -1 if flip[0] else 1]
    np.testing.assert_array_equal(distort(jnp.asarray(X), drawn), flipped)
    np.testing.assert_array_equal(label(drawn), [*flip, 0, 0, 0, 0, 0, 0, 0])


CASES = [
    {"scale": 1.7},
    {"scale": -0.9},
    {"rotation": 2.3},
    {"aniso": (1.2, 0.0)},
    {"aniso": (-0.8, 0.7)},
    {"shift": (0.6, -1.4)},
    {"scale": 0.5, "rotation": -1.1, "aniso": (0.9, 2.0), "shift": (-0.3, 0.8)},
]


@pytest.mark.parametrize("case", CASES)
def test_image_and_label_of_each_distortion(case):
    """EDM's inverse matrices, from the output's place to the input's, one after the other:
    S(1/s), R(angle), R(-r) S(1/a, a) R(r), T(-shift); s = 2**(.2 w), shift = w side / 8."""
    scale, rotation = case.get("scale", 0.0), case.get("rotation", 0.0)
    (w, r), shift = case.get("aniso", (0.0, 0.0)), np.array(case.get("shift", (0.0, 0.0)))
    s, a = 2 ** (0.2 * scale), 2 ** (0.2 * w)
    matrix = np.eye(2) / s @ turn(rotation) @ turn(-r) @ np.diag([1 / a, a]) @ turn(r)
    drawn = NOTHING._replace(**{k: jnp.asarray(v, jnp.float32) for k, v in case.items()})
    wanted = scipy_resample(X, matrix, shift * [7 / 8, 9 / 8])
    # rounding of places up to 10 pixels, times slopes of up to 3 a pixel
    np.testing.assert_allclose(distort(jnp.asarray(X), drawn), wanted, atol=1e-5)
    told = [0, 0, scale, np.cos(rotation) - 1, np.sin(rotation), w * np.cos(r), w * np.sin(r)]
    np.testing.assert_allclose(label(drawn), [*told, *shift], atol=1e-6)  # float32


def test_what_the_label_calls_untouched_is_bit_equal():
    x, program = from_uint8(written.random_bytes(64, 6, 5, 1)), jax.jit(data.augment)
    y, labels = map(np.asarray, program(jax.random.key(1), x, 0.3))
    assert (labels.shape, labels.dtype, y.dtype) == ((64, LABELS), np.float32, np.float32)
    still = (labels == 0).all(axis=1)
    only_x = (labels[:, 0] == 1) & (labels[:, 1:] == 0).all(axis=1)
    assert still.sum() > 3  # of 64, each with chance .5 * .85 * .7**4 = .10
    np.testing.assert_array_equal(y[still], x[still])
    np.testing.assert_array_equal(y[only_x], x[only_x][:, :, ::-1])
    assert (y[~still] != x[~still]).any(axis=(1, 2, 3)).all()
    same, none = program(jax.random.key(1), x, 0.0)  # traced: the same program
    np.testing.assert_array_equal(same, x)
    assert not none.any()
    assert program._cache_size() == 1
    # an example depends on its own key alone, not on how many there are
    few, told = jax.jit(data.augment)(jax.random.key(1), x[:3], 0.3)
    np.testing.assert_array_equal(told, labels[:3])
    np.testing.assert_allclose(few, y[:3], atol=1e-5)  # another program, other roundings


def test_laws_of_what_is_drawn():
    n, p = 20_000, 0.12
    keys = jax.random.split(jax.random.key(0), n)
    drawn = jax.tree.map(np.asarray, jax.jit(jax.vmap(draw, (0, None)))(keys, p))
    w, r = drawn.aniso.T
    shares = {
        "flip x": (drawn.flip[:, 0], 0.5),
        "flip y": (drawn.flip[:, 1], p / 2),
        "scale": (drawn.scale != 0, p),
        "rotation": (drawn.rotation != 0, p),
        "aniso": (w != 0, p),
        "inclined": ((r != 0) & (w != 0), p / 2),
        "shift": ((drawn.shift != 0).all(1), p),
        "scale and aniso": ((drawn.scale != 0) & (w != 0), p * p),
        "rotation and shift": ((drawn.rotation != 0) & (drawn.shift[:, 0] != 0), p * p),
        "both flips": (drawn.flip.all(axis=1), p / 4),
    }
    for name, (happened, chance) in shares.items():
        # fixed keys; a true law fails one of ten with chance 1e-3
        assert scipy.stats.binomtest(int(happened.sum()), n, chance).pvalue > 1e-4, name
    normal = [drawn.scale, w, *drawn.shift.T]
    uniform = [drawn.rotation, r]
    for values in normal:
        assert scipy.stats.kstest(values[values != 0], "norm").pvalue > 1e-4
    for values in uniform:
        law = scipy.stats.uniform(-np.pi, 2 * np.pi)
        assert scipy.stats.kstest(values[values != 0], law.cdf).pvalue > 1e-4
    both = drawn.shift[drawn.shift[:, 0] != 0]
    assert abs(np.corrcoef(both.T)[0, 1]) < 4 / np.sqrt(len(both))  # four standard errors


def test_bad_arguments():
    key, x = jax.random.key(0), jnp.zeros((2, 4, 4, 1))
    for call, says in [
        (lambda: data.augment(key, x, 1.5), r"probability must lie in \[0, 1\], got 1.5"),
        (lambda: data.augment(key, x, -0.1), "probability"),
        (lambda: data.augment(key, x, np.nan), "probability"),
        (lambda: data.augment(key, jnp.zeros((2, 4)), 0.1), r"x must be images .*got \[2, 4\]"),
        (lambda: data.augment(key, jnp.zeros((2, 1, 4, 1)), 0.1), "2 x 2 or more"),
    ]:
        with pytest.raises(ValueError, match=says):
            call()


@pytest.mark.slow
def test_half_precision_images_are_placed_as_wide_ones_are():
    """Coordinates of a half-precision image would be off by a quarter of a pixel at 64 pixels."""
    x = jax.random.uniform(jax.random.key(1), (4, 16, 16, 1), minval=-1)
    half, labels = augment(jax.random.key(0), x.astype(jnp.bfloat16), 1.0)
    wide, same = augment(jax.random.key(0), x.astype(jnp.bfloat16).astype(jnp.float32), 1.0)
    np.testing.assert_array_equal(labels, same)
    assert half.dtype == jnp.bfloat16
    # Rounded once, at the end: 8 bits of numbers up to 1 and a little over.
    np.testing.assert_allclose(half.astype(jnp.float32), wide, atol=2**-7)


@pytest.mark.parametrize(
    ("key", "x", "words"),
    [
        (jax.random.key(0), jnp.zeros((2, 4, 4, 1), jnp.uint8), "x must be floats"),
        (jax.random.split(jax.random.key(0)), jnp.zeros((2, 4, 4, 1)), "key must be one key"),
    ],
)
def test_refuses_bytes_and_many_keys(key, x, words):
    with pytest.raises(ValueError, match=words):
        augment(key, x, 0.1)
