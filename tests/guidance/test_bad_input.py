"""Bad input to guidance: one row a case. Each raises when it is built, or where the shape of the
samples decides while `sample` is traced, so before XLA sees it; and the message names the argument,
what was given and what was wanted.
"""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxdiff import grids, guidance, sample, schedules
from jaxdiff.guidance import measurement as M
from jaxdiff.typing import Denoised
from tests.guidance.models import labels, model, reader

GRID = grids.uniform(schedules.linear_vp(), 4)
IMAGES = (2, 8, 8, 3)
SEEN = jnp.zeros((2, 3))


def plain(x, level):
    return Denoised(x, x)


def draw(denoise, shape=(2, 3)):
    return sample(jax.random.key(0), denoise, GRID, shape)


def given(operator, y=SEEN, method=guidance.pigdm, std=0.1, **options):
    return method(plain, y, operator, std, **options)


CASES = {
    # two models
    "guidance without a label": (
        lambda: guidance.cfg(model(), 2.0),
        "guidance without a label: denoiser.cond is None",
    ),
    "labels of another batch": (
        lambda: draw(guidance.cfg(model(3), 2.0)),
        r"cond.*one entry an example, 2, got shape \(3,\)",
    ),
    "infinite scale": (lambda: guidance.cfg(model(2), np.inf), "scale must be finite, got inf"),
    "scale an image": (
        lambda: guidance.cfg(model(2), jnp.ones((2, 1))),
        r"scale must be \[\] or \[B\], got shape \[2, 1\]",
    ),
    "scales of another batch": (
        lambda: draw(guidance.cfg(model(2), jnp.ones(3))),
        r"scale must be \[\] or \[2\].*got \[3\]",
    ),
    "a function's scale of another batch": (
        lambda: draw(guidance.cfg(model(2), lambda level: jnp.ones(3))),
        r"scale must be \[\] or \[2\].*got \[3\]",
    ),
    "rescale": (
        lambda: guidance.cfg(model(2), 2.0, rescale=1.5),
        r"rescale must lie in \[0, 1\], got 1.5",
    ),
    "null of another shape": (
        lambda: draw(guidance.cfg(model(2), 2.0, jnp.zeros(3, int))),
        r"null_cond must be \[2\] or \[\].*got \[3\]",
    ),
    "interval upside down": (lambda: guidance.limited(2.0, 3.0, 1.0), r"high.*\(3, inf\], got 1"),
    "negative noise": (lambda: guidance.limited(2.0, -1.0, 1.0), "low.*got -1"),
    "infinite scale in an interval": (
        lambda: guidance.limited(np.nan, 0.1, 1.0),
        "scale must be finite, got nan",
    ),
    # classifiers
    "one class": (lambda: guidance.make_classifier(plain, {}, 1), "num_classes.*2, got 1"),
    "unknown feature": (
        lambda: guidance.make_classifier(plain, {}, 2, time_feature="time"),
        "time_feature must be one of.*got 'time'",
    ),
    "network of other classes": (
        lambda: draw(
            guidance.classifier(
                model(), guidance.make_classifier(reader().apply, reader().params, 3), labels(2)
            )
        ),
        r"apply must return \[2, 3\].*got \[2, 4\]",
    ),
    "label past the classes": (
        lambda: guidance.classifier(model(), reader(), np.array([1, 4])),
        r"labels must lie in 0\.\.3, got 4",
    ),
    "negative label": (
        lambda: guidance.classifier(plain, plain, np.array([1, -1])),
        r"labels must lie in 0\.\..*got -1",
    ),
    "labels that are floats": (
        lambda: guidance.classifier(model(), reader(), np.array([1.0, 0.0])),
        "labels must be whole numbers, got float64",
    ),
    "classifier with too few labels": (
        lambda: draw(guidance.classifier(model(), reader(), labels(1))),
        r"labels must be \[2\].*got \[1\]",
    ),
    "classes without labels": (
        lambda: draw(guidance.classifier(model(), reader())),
        r"log_prob must return \[2\] without labels, got \[2, 4\]",
    ),
    "labels without classes": (
        lambda: draw(guidance.classifier(model(), lambda x, level: x[:, 0], labels(2))),
        r"log_prob must return \[2, classes\] with labels, got \[2\]",
    ),
    # measurements
    "mask of another shape": (
        lambda: draw(given(M.mask(np.ones(4)))),
        r"mask must be \[3\], one example.*got \[4\]",
    ),
    "mask of greys": (lambda: M.mask(np.array([0.5, 1.0])), "mask must hold 0 and 1.*got 0.5"),
    "mask in [-1, 1]": (lambda: M.mask(np.array([-1.0, 1.0])), "mask must hold 0 and 1.*got -1"),
    "blind mask": (lambda: M.mask(np.zeros(3)), "mask must see something"),
    "sizes that do not divide": (
        lambda: draw(given(M.downsample(3), jnp.zeros((2, 2, 2, 3))), IMAGES),
        "factor 3 must divide.*got 8 x 8",
    ),
    "factor 1": (lambda: M.downsample(1), "factor.*at least 2, got 1"),
    "points, not images": (lambda: draw(given(M.downsample(2))), r"images.*got \[2, 3\]"),
    "even kernel": (lambda: M.blur(np.ones((4, 4))), r"kernel.*odd k, got \[4, 4\]"),
    "kernel without width": (lambda: M.gaussian_kernel(0.0, 3), "std.*got 0"),
    "kernel without radius": (lambda: M.gaussian_kernel(1.0, 0), "radius.*got 0"),
    "matrix of other data": (
        lambda: draw(given(M.matrix(np.ones((2, 5))))),
        r"matrix.*column.*3 numbers.*got \[2, 5\]",
    ),
    "no matrix": (lambda: M.matrix(np.ones(3)), r"matrix must be \[m, D\], got \[3\]"),
    "y of another shape": (
        lambda: draw(given(M.matrix(np.ones((2, 3))))),
        r"y must be \[2, 2\].*got \[2, 3\]",
    ),
    "y of one example": (lambda: given(plain, jnp.zeros(3)), r"y must be \[B, ...\].*\[3\]"),
    "y with NaN": (lambda: given(plain, SEEN + jnp.nan), "y must be finite where it is measured"),
    "integer y": (lambda: given(plain, np.zeros((2, 3), np.uint8)), "y must be float.*got uint8"),
    "negative std": (lambda: given(plain, std=-0.1), "std.*got -0.1"),
    "dps of an exact measurement": (
        lambda: given(plain, std=0.0, method=guidance.dps),
        r"std must lie in \(0, inf\), got 0",
    ),
    "no iterations": (
        lambda: given(plain, method=guidance.mmps, iterations=0),
        "iterations.*at least 1, got 0",
    ),
    "data without spread": (lambda: given(plain, data_std=0.0), "data_std.*got 0"),
}


@pytest.mark.parametrize("case", CASES)
def test_bad_input(case):
    """A ValueError with all three facts."""
    call, message = CASES[case]
    with pytest.raises(ValueError, match=f"(?s){message}"):
        call()


WRONG_KINDS = {
    "cfg of what wraps a network": (
        lambda: guidance.cfg(plain, 2.0),
        "cfg guides a Denoiser.*got function",
    ),
    "null of another structure": (
        lambda: guidance.cfg(model(2), 2.0, {"label": -1}),
        "null_cond must be a pytree like cond",
    ),
    "no weaker model": (lambda: guidance.autoguidance(plain, 2.0, 2.0), "function, got 2.0"),
    "log_prob of numbers": (lambda: guidance.classifier(plain, SEEN), "function, got"),
    "operator of numbers": (lambda: given(np.ones((2, 3))), "function, got"),
}


@pytest.mark.parametrize("case", WRONG_KINDS)
def test_wrong_kinds(case):
    """Another kind of thing altogether is a TypeError."""
    call, message = WRONG_KINDS[case]
    with pytest.raises(TypeError, match=f"(?s){message}"):
        call()
