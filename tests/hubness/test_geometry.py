"""Closed forms against quadrature, scipy and published values."""

import jax
import numpy as np
import pytest
from scipy import integrate, special, stats

from jaxdiff.hubness import geometry

pytestmark = pytest.mark.usefixtures("x64")


@pytest.mark.parametrize(("dim", "ratio"), [(2, 0.7854), (10, 2.49e-3), (20, 2.46e-8)])
def test_ball_in_its_cube(dim, ratio):
    """The values of the article, to their three digits; pi / 4 for the circle."""
    np.testing.assert_allclose(np.exp(geometry.ball_cube_log_ratio(dim)), ratio, rtol=2e-3)


def test_shells():
    np.testing.assert_allclose(geometry.shell_share(3, 0.1), 1 - 0.9**3, rtol=1e-12)
    np.testing.assert_allclose(geometry.shell_share(1000, 0.01), 1 - 0.99**1000, rtol=1e-12)


@pytest.mark.parametrize("dim", [1, 2, 17, 512])
def test_norms_are_chi(dim):
    np.testing.assert_allclose(geometry.norm_mean(dim), stats.chi(dim).mean(), rtol=1e-10)
    np.testing.assert_allclose(geometry.norm_std(dim), stats.chi(dim).std(), rtol=1e-8)


@pytest.mark.parametrize("dim", [1, 15, 16, 50, 999, 1000, 10**6])
def test_norms_in_single_precision(dim):
    """Differences of log Gamma, and of squares, lose all digits in float32 at d = 1000.

    Truth: 1/2 - 1/(8 d) - 1/(16 d^2) from d = 50 on, whose next term is 5/(128 d^3).
    """
    with jax.enable_x64(False):
        mean, std = geometry.norm_mean(dim), geometry.norm_std(dim)
    var = stats.chi(dim).var() if dim < 50 else 0.5 - 1 / (8 * dim) - 1 / (16 * dim**2)
    assert mean.dtype == np.float32
    np.testing.assert_allclose(mean, np.sqrt(dim - var), rtol=1e-6)
    np.testing.assert_allclose(std, np.sqrt(var), rtol=3e-5)  # at 15: d eps 15 / (2 var)


@pytest.mark.parametrize("dim", [2, 3, 50])
def test_angles(dim):
    density = lambda a: np.exp(geometry.angle_log_density(a, dim))  # noqa: E731
    total, _ = integrate.quad(density, 0, np.pi)
    np.testing.assert_allclose(total, 1, rtol=1e-8)
    square, _ = integrate.quad(lambda a: density(a) * np.cos(a) ** 2, 0, np.pi)
    np.testing.assert_allclose(np.sqrt(square), geometry.cosine_std(dim), rtol=1e-8)


def test_limit_of_antihubs_is_poisson():
    np.testing.assert_allclose(geometry.antihub_share_limit(5), stats.poisson(5).pmf(0), rtol=1e-12)


def test_ball_by_its_gamma_function():
    np.testing.assert_allclose(
        geometry.ball_cube_log_ratio(np.arange(1, 40)),
        [np.log(np.pi ** (d / 2) / special.gamma(d / 2 + 1) / 2.0**d) for d in range(1, 40)],
        rtol=1e-12,
        atol=1e-12,
    )
