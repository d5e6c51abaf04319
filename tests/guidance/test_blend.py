"""Truth: the exact scores of a mixture's components and of all of it; the papers' formulas in
numpy.
"""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxdiff import clip_x0, dynamic_threshold, guidance, losses
from jaxdiff.denoiser import null_cond
from jaxdiff.typing import Denoised, NoiseLevel
from tests.guidance import mixture
from tests.guidance.mixture import LABELS, ask, denoiser, score, true_scores

pytestmark = pytest.mark.usefixtures("x64", "strict")
EACH = np.arange(len(LABELS))


def test_scales_0_and_1_are_the_unconditional_and_the_conditional_model():
    """And any other the extrapolation of the two scores; here w is one for each example."""
    scales = np.array([0.0, 1.0, 3.0, -0.5, 1.0, 0.0, 2.0, 7.5])[:, None]
    of = true_scores()
    found = score(guidance.cfg(denoiser(), jnp.asarray(scales[:, 0])))
    # two ways through one Cholesky solve, of condition below 100
    np.testing.assert_allclose(found, of[0] + scales * (of[LABELS + 1, EACH] - of[0]), rtol=1e-10)


def test_two_models_are_blended_as_two_halves_are():
    """Autoguidance with all of the data as the weaker model is the same extrapolation."""
    of = true_scores()
    found = score(guidance.autoguidance(mixture.components()[1], mixture.whole(), 2.5))
    np.testing.assert_allclose(found, of[0] + 2.5 * (of[2] - of[0]), rtol=1e-10)


def test_the_network_is_asked_once_for_both_halves():
    """And the heads are those of the conditional half, with its own eps."""
    seen = []

    def network(params, x, feature, cond):
        seen.append((x.shape, feature.shape, cond.shape))
        return mixture.exact_network(params, x, feature, cond)

    d = ask(guidance.cfg(denoiser(network=network), 2.0))
    assert seen == [((16, 2), (16,), (16,))]
    np.testing.assert_array_equal(d.heads["label"][:, 0], LABELS)
    np.testing.assert_allclose(d.heads["eps_model"], ask(denoiser()).eps, rtol=1e-12)


def test_the_null_is_what_dropout_writes(key):
    cond = {"label": jnp.arange(3, dtype=jnp.uint8), "vector": jnp.ones((3, 2))}
    dropped, null = losses.drop_cond(key, cond, 1.0), null_cond(cond)
    assert jax.tree.all(jax.tree.map(lambda a, b: bool((a == b).all()), dropped, null))
    assert null["label"].tolist() == [-1] * 3
    assert not null["vector"].any()


def test_another_null_is_a_negative_prompt():
    """One class for all, given as the null of one example."""
    of = true_scores()
    found = score(guidance.cfg(denoiser(), 2.0, jnp.asarray(1)))
    np.testing.assert_allclose(found, 2 * of[LABELS + 1, EACH] - of[2], rtol=1e-9)


def test_limited_guides_inside_its_interval_alone():
    """low < sigma / alpha <= high; outside, the conditional model (w = 1)."""
    ratios = jnp.asarray([0.5, 0.50001, 1.0, 2.0, 2.00001])
    level = NoiseLevel(t=ratios, alpha=jnp.ones(5), sigma=ratios)
    kind = lambda sigma: lambda x, level: Denoised(jnp.full_like(x, sigma), x)  # noqa: E731
    scale = guidance.limited(3.0, 0.5, 2.0)
    guided = guidance.autoguidance(kind(1.0), kind(0.0), scale)
    x0 = guided(jnp.ones((5, 1)), level).x0[:, 0]
    np.testing.assert_array_equal(x0, [1, 3, 3, 3, 1])
    silent = NoiseLevel(jnp.asarray(1.0), jnp.asarray(0.0), jnp.asarray(1.0))
    for high, found in ((2.0, 1.0), (np.inf, 3.0)):
        guided = guidance.autoguidance(kind(1.0), kind(0.0), guidance.limited(3.0, 0.0, high))
        assert guided(jnp.ones((1, 1)), silent).x0[0, 0] == found


def test_a_scale_may_be_a_function_of_the_level():
    level = NoiseLevel(*(jnp.asarray(a) for a in (0.5, 0.6, 0.8)))
    rng = np.random.default_rng(0)
    to, away = (constant(jnp.asarray(rng.normal(size=(4, 6)))) for _ in range(2))
    for scale in (lambda at: 1 + at.sigma, 1.8):
        x0 = guidance.autoguidance(to, away, scale)(jnp.zeros((4, 6)), level).x0
        wanted = 1.8 * to(0, level).x0 - 0.8 * away(0, level).x0
        np.testing.assert_allclose(x0, wanted, rtol=1e-12)


def rescaled(x, reference, phi):
    """Lin et al. 2023, eq. 14-16, in numpy."""
    std = lambda a: a.std(axis=1, keepdims=True)  # noqa: E731
    return phi * (x * std(reference) / std(x)) + (1 - phi) * x


def constant(x0):
    """A model that says x0, whatever it is asked."""
    return lambda x, level: Denoised(x0, (x - level.alpha * x0) / level.sigma)


def test_rescaling_is_the_papers():
    """phi = 1 gives the deviation of the conditional x0; at alpha = 0 that of v, as published."""
    rng = np.random.default_rng(0)
    to, away, x = (rng.normal(size=(4, 6)) for _ in range(3))
    for alpha, sigma in ((0.6, 0.8), (0.0, 1.0)):
        level = NoiseLevel(*(jnp.asarray(a) for a in (0.5, alpha, sigma)))
        for phi in (0.0, 0.7, 1.0):
            models = constant(jnp.asarray(to)), constant(jnp.asarray(away))
            d = guidance.autoguidance(*models, 4.0, rescale=phi)(jnp.asarray(x), level)
            wanted = rescaled(away + 4 * (to - away), to, phi)
            np.testing.assert_allclose(d.x0, wanted, rtol=1e-12)
            np.testing.assert_allclose(alpha * d.x0 + sigma * d.eps, x, atol=1e-12)
            if alpha == 0:
                v_to, v_away = -to, -away  # v = alpha eps - sigma x_0
                of_v = rescaled(v_away + 4 * (v_to - v_away), v_to, phi)
                np.testing.assert_allclose(d.x0, -of_v, rtol=1e-12)


def test_thresholds_stack_around_it():
    """x0 stays in range and x_t = alpha x0 + sigma eps goes on to hold."""
    level = NoiseLevel(*(jnp.asarray(a) for a in (0.5, 0.6, 0.8)))
    to, away, x = (jnp.asarray(a) for a in np.random.default_rng(0).normal(size=(3, 4, 6)))
    guided = guidance.autoguidance(constant(to), constant(away), 8.0)
    assert np.abs(guided(x, level).x0).max() > 2
    for held in (clip_x0(guided), dynamic_threshold(guided, 0.9)):
        d = held(x, level)
        assert np.abs(d.x0).max() <= 1
        np.testing.assert_allclose(0.6 * d.x0 + 0.8 * d.eps, x, atol=1e-12)
        np.testing.assert_allclose(d.heads["eps_model"], (x - 0.6 * to) / 0.8, rtol=1e-12)
