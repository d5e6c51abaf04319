"""Truth: Bayes. With the exact p(y | x_t) of a mixture, guidance turns the model of all the data
into the exact model of one class.
"""

import jax.numpy as jnp
import numpy as np
import pytest

from jaxdiff import arrays, guidance, schedules
from jaxdiff.guidance.classifier import ClassifierGuidance
from jaxdiff.typing import Denoised, NoiseLevel
from tests.guidance import mixture
from tests.guidance.mixture import LABELS, WEIGHTS, X, ask, denoiser, score, true_scores, whole

pytestmark = pytest.mark.usefixtures("x64", "strict")
EACH = np.arange(len(LABELS))


def joint(x, level):
    """log p(y, x_t), [B, classes]: logits of the exact p(y | x_t), not normalised."""
    parts = zip(WEIGHTS, mixture.components(), strict=True)
    return jnp.stack([np.log(w) + part.log_prob(x, level) for w, part in parts], axis=-1)


def test_scale_1_gives_exactly_the_conditional_model():
    d = ask(guidance.classifier(whole(), joint, jnp.asarray(LABELS)))
    of_class = ask(denoiser())
    # gradients of a log-density against a solve; x0 carries sigma^2 / alpha, up to 150 here
    np.testing.assert_allclose(d.eps, of_class.eps, atol=1e-12)
    np.testing.assert_allclose(d.x0, of_class.x0, atol=1e-10)


def test_scale_w_extrapolates_the_score():
    """score + w grad log p(y | x_t), with that gradient the difference of two exact scores."""
    scales, of = np.array([0.0, 0.5, 1.0, 2.0, 5.0, -1.0, 3.0, 9.0]), true_scores()
    found = score(guidance.classifier(whole(), joint, jnp.asarray(LABELS), jnp.asarray(scales)))
    wanted = of[0] + scales[:, None] * (of[LABELS + 1, EACH] - of[0])
    np.testing.assert_allclose(found, wanted, atol=1e-10)


def noise(x, level):
    """A model that takes all of x_t for noise."""
    return Denoised(jnp.zeros_like(x), x / arrays.expand_to(level.sigma, x))


def tilt(x, level):
    """A log-density without labels: b . x, b = (.3, -.2)."""
    return jnp.sum(jnp.asarray([[0.3, -0.2]]) * x, axis=-1)


def test_any_log_density_guides_without_labels():
    """Tilting by exp(b . x_t) shifts the score by b."""
    shift = score(guidance.classifier(noise, tilt, scale=2.0)) - score(noise)
    np.testing.assert_allclose(shift, np.tile([0.6, -0.4], (8, 1)), rtol=1e-9)


def test_noise_alone_passes_unguided():
    level = NoiseLevel(*(jnp.asarray(a) for a in (1.0, 0.0, 1.0)))
    d = guidance.classifier(noise, tilt, scale=3.0)(jnp.asarray(X), level)
    np.testing.assert_array_equal(d.x0, 0)
    np.testing.assert_array_equal(d.eps, X)


def test_limited_is_off_outside():
    """Outside the interval the scale that changes nothing is 0 here."""
    level = NoiseLevel(*(jnp.asarray(a) for a in (0.5, 1.0, [0.5] * 4 + [2.0] * 4)))
    d = guidance.classifier(noise, tilt, scale=guidance.limited(2.0, 1.0, 9.0))
    shift = d(jnp.asarray(X), level).x0
    np.testing.assert_array_equal(shift[:4], 0)
    np.testing.assert_allclose(shift[4:], np.tile([2.4, -1.6], (4, 1)), rtol=1e-12)


def network(params, x, feature):
    return jnp.concatenate([x @ params, feature[:, None]], axis=-1)


def test_a_classifier_serves_on_every_schedule():
    """At one SNR, x_t of different schedules differ by a factor that the network does not see."""
    params = np.random.default_rng(0).normal(size=(2, 3))
    net = guidance.make_classifier(network, jnp.asarray(params), 4)
    found = []
    for schedule in (schedules.linear_vp(), schedules.edm(), schedules.rectified()):
        level = schedule(schedule.time(jnp.asarray(-1.0)))
        found.append(net(jnp.asarray(X) * jnp.hypot(level.alpha, level.sigma), level))
    # inverting a schedule's clock costs some 1e-12
    np.testing.assert_allclose(found[1], found[0], atol=1e-9)
    np.testing.assert_allclose(found[2], found[0], atol=1e-9)
    np.testing.assert_allclose(jnp.sum(jnp.exp(found[0]), axis=-1), 1, rtol=1e-12)
    logits = np.concatenate([X @ params, np.full((8, 1), 0.125)], axis=-1)  # log(sigma / alpha) / 4
    np.testing.assert_allclose(
        found[0], logits - np.log(np.exp(logits).sum(axis=-1, keepdims=True)), atol=1e-9
    )


def test_labels_that_are_none_give_nan():
    """Where they are traced and cannot be looked at, a wrong class must not pass for another."""
    labels = np.array([-1, 3, 0, 1, 2, 0, 1, 2])
    logits = lambda x, level: jnp.concatenate([x, x[:, :1] ** 2], axis=-1)  # noqa: E731
    level = NoiseLevel(*(jnp.asarray(a) for a in (0.5, 0.6, 0.8)))
    x0 = ClassifierGuidance(noise, logits, jnp.asarray(labels), 1.0)(jnp.asarray(X), level).x0
    np.testing.assert_array_equal(np.isnan(x0).all(axis=1), (labels < 0) | (labels > 2))
