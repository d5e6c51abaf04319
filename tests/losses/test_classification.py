"""Truth: two Gaussians on a line: their exact classifier, its entropy and accuracy are known."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.integrate import quad
from scipy.stats import norm

from jaxdiff import losses, models, schedules
from jaxdiff.guidance import make_classifier

STD, SCHEDULE = 0.3, schedules.cosine()


def apply(params, x, feature):
    """log p(y | x_t) of x_0 ~ N(+-1, STD^2): log-odds 2 alpha x / (alpha^2 STD^2 + sigma^2)."""
    level = SCHEDULE(feature)
    half = level.alpha * x[:, 0] / ((level.alpha * STD) ** 2 + level.sigma**2)
    return jnp.stack([-half, half], axis=-1)


def test_the_exact_classifier_scores_the_entropy_left(key):
    """H(y | x_t) by quadrature, and Bayes' accuracy Phi(alpha / spread), within 4 errors."""
    n, t = 20_000, 0.6
    level = SCHEDULE(jnp.asarray(t))
    alpha, spread = float(level.alpha), float(np.hypot(level.alpha * STD, level.sigma))
    y = np.arange(n) % 2
    x0 = (2 * y - 1 + STD * np.random.default_rng(0).normal(size=n))[:, None].astype(np.float32)
    fixed = lambda key, count, schedule: (jnp.full(count, t), jnp.ones(count))  # noqa: E731
    model = make_classifier(apply, {}, 2, time_feature="clock")
    loss, seen = losses.classification(key, model, jnp.asarray(x0), y, SCHEDULE, times=fixed)

    def surprise(x):
        odds = 2 * alpha * x / spread**2
        return norm.pdf(x, alpha, spread) * np.logaddexp(0, -odds)

    entropy = quad(surprise, -10, 10)[0]
    error = np.std(seen["per_example"]) / np.sqrt(n)
    np.testing.assert_allclose(loss, entropy, atol=4 * error)
    right = norm.cdf(alpha / spread)
    wanted = right, 4 * np.sqrt(right * (1 - right) / n)
    np.testing.assert_allclose(np.mean(seen["accuracy"]), wanted[0], atol=wanted[1])


def test_importance_weighs_and_dropout_is_on(key):
    """Twice the importance is twice the loss; another key drops other features."""
    net = models.Classifier(2, channels=4, multipliers=(1,), groups=2, dropout=0.5)
    x, y = jnp.ones((3, 2, 2, 1)), jnp.asarray([0, 1, 0])
    shapes, generator = jax.eval_shape(net.init, key, x, jnp.zeros(3)), np.random.default_rng(0)
    params = jax.tree.map(lambda a: generator.normal(size=a.shape).astype(a.dtype), shapes)
    model = make_classifier(net.apply, params, 2)
    level = SCHEDULE(jnp.full(3, 0.5))
    ask = jax.jit(lambda seed: model.logits(x, level, key=jax.random.key(seed), train=True))
    assert np.abs(ask(0) - ask(1)).max() > 1e-3
    weighed = lambda w: lambda key, n, schedule: (jnp.full(n, 0.5), jnp.full(n, w))  # noqa: E731
    score = jax.jit(
        lambda w: losses.classification(key, model, x, y, SCHEDULE, times=weighed(w))[0]
    )
    found = score(1.0), score(2.0)
    np.testing.assert_allclose(found[1], 2 * found[0], rtol=1e-6)


@pytest.mark.parametrize(
    ("x0", "labels", "message"),
    [
        (np.zeros((2, 3), np.uint8), [0, 1], "x0 must be float.*uint8"),
        (np.zeros((2, 3), np.float32), [0.0, 1.0], "labels must be whole numbers, got float32"),
        (np.zeros((2, 1), np.float32), [0, 1, 1], r"labels must be \[2\].*got \[3\]"),
    ],
)
def test_bad_input(x0, labels, message, key):
    model = make_classifier(apply, {}, 2, time_feature="clock")
    with pytest.raises(ValueError, match=message):
        losses.classification(key, model, jnp.asarray(x0), jnp.asarray(labels), SCHEDULE)
