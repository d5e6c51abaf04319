"""Halving and doubling against SciPy's upfirdn: insert zeros, filter, keep every nth."""

import jax.numpy as jnp
import numpy as np
import pytest
from scipy import signal

from jaxdiff.models import resample

X = np.random.default_rng(0).normal(size=(2, 6, 8, 3))
TAPS = [(1, 1), (1, 3, 3, 1), (1, 2, 5, 3), (1, 0, 2, 4, -1, 3)]


def both_axes(function, x):
    return np.apply_along_axis(function, 2, np.apply_along_axis(function, 1, x))


@pytest.mark.parametrize("taps", TAPS)
def test_down_and_up_are_filters(taps, x64):
    f, p = np.array(taps) / sum(taps), (len(taps) - 1) // 2

    def halved(row):
        # upfirdn convolves; a correlation has the filter turned round
        full = signal.upfirdn(f[::-1], np.pad(row, p), 1, 1)[len(f) - 1 :]
        return full[: len(row) : 2]

    def doubled(row):
        return signal.upfirdn(2 * f, row, 2, 1)[p : p + 2 * len(row)]

    # upfirdn leaves out the zero that follows the last sample
    wide = np.pad(X, ((0, 0), (0, 1), (0, 1), (0, 0)))
    got = resample.up(jnp.asarray(X), taps)
    wanted = both_axes(doubled, wide)[:, : 2 * X.shape[1], : 2 * X.shape[2]]
    np.testing.assert_allclose(got, wanted, atol=1e-12)
    np.testing.assert_allclose(
        resample.down(jnp.asarray(X), taps), both_axes(halved, X), atol=1e-12
    )


def test_down_of_an_image_with_its_own_margin():
    taps = (1, 3, 3, 1)
    x = jnp.asarray(X, jnp.float32)
    wide = jnp.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0)))
    got = resample.down(wide, taps, padded=False)
    np.testing.assert_array_equal(got, resample.down(x, taps))


def test_half_precision_is_rounded_once():
    # bfloat16 in, float32 sums, one rounding: what float64 rounded to bfloat16 is.
    half = jnp.asarray(X, jnp.bfloat16)
    for function in (resample.down, resample.up):
        got = function(half, (1, 3, 3, 1))
        assert got.dtype == jnp.bfloat16
        exact = function(half.astype(jnp.float32), (1, 3, 3, 1))
        np.testing.assert_array_equal(got, exact.astype(jnp.bfloat16))


@pytest.mark.parametrize("taps", [(), (1,), (1, 2, 1), (1, -1)])
def test_bad_taps(taps):
    with pytest.raises(ValueError, match="taps must be of even length"):
        resample.check_taps(taps)
