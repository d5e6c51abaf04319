"""The classifier of texts. Truth: means by numpy, and what padding and freezing must not do."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxdiff.models import tuning
from jaxdiff.models.sentence import POOLING, SentenceClassifier
from jaxdiff.models.transformer import Transformer

NET = Transformer(vocab=11, width=8, depth=2, heads=2, length=12, norm="post")
IDS = jnp.array([[1, 5, 2, 0, 0], [1, 7, 8, 9, 2]])
MASK = jnp.array([[1, 1, 1, 0, 0], [1, 1, 1, 1, 1]], bool)


def ladder(net):
    blocks = ("block_0", "block_1")
    side = tuning.narrow(net, 4)
    return tuning.Ladder(net, side, blocks, first=("tokens",), output="up")


METHODS = {
    "full": tuning.full,
    "head": lambda net: tuning.head(net, ()),
    "bitfit": lambda net: tuning.bitfit(net, ()),
    "lora": lambda net: tuning.LoRA(net, rank=2),
    "adapter": lambda net: tuning.Adapters(net, ("*/attention", "*/perceptron"), 3),
    "prompt": lambda net: tuning.Prompts(net, 4),
    "lst": ladder,
}


def filled(classifier, key):
    """The variables, the last layer not zero."""
    variables = jax.jit(classifier.init)(key, IDS, MASK)
    head = jax.random.normal(key, variables["params"]["head"]["kernel"].shape)
    variables["params"]["head"]["kernel"] = head
    return variables


@pytest.mark.slow
@pytest.mark.parametrize("pooling", POOLING)
def test_pooling(pooling, key):
    """By hand: the mean over three and five tokens, or the first of each."""
    net = tuning.full(NET)
    classifier = SentenceClassifier(net, 3, pooling)
    variables = filled(classifier, key)
    h = np.asarray(jax.jit(net.apply)({"params": variables["params"]["net"]}, IDS, MASK))
    wanted = h[:, 0] if pooling == "cls" else np.stack([h[0, :3].mean(0), h[1].mean(0)])
    wanted = wanted @ np.asarray(variables["params"]["head"]["kernel"])
    np.testing.assert_allclose(jax.jit(classifier.apply)(variables, IDS, MASK), wanted, atol=1e-5)


each_method = pytest.mark.parametrize(
    "method",
    [m if m in ("lst", "prompt") else pytest.param(m, marks=pytest.mark.slow) for m in METHODS],
)


@pytest.mark.slow
@each_method
def test_padding_changes_nothing(method, key):
    """Neither what stands there nor how much of it: float32 sums in another order."""
    classifier = SentenceClassifier(METHODS[method](NET), 2)
    variables = filled(classifier, key)
    apply = jax.jit(classifier.apply)
    known = apply(variables, IDS, MASK)
    other = apply(variables, jnp.where(MASK, IDS, 4), MASK)
    np.testing.assert_array_equal(known, other)
    ids, mask = (jnp.pad(a, ((0, 0), (0, 2))) for a in (IDS, MASK))
    np.testing.assert_allclose(apply(variables, ids, mask), known, atol=1e-5)


@pytest.mark.slow
@each_method
def test_at_the_start_classes_are_equally_likely_and_only_trained_leaves_have_gradients(
    method, key
):
    classifier = SentenceClassifier(METHODS[method](NET), 2)
    started = jax.jit(classifier.init)(key, IDS, MASK)
    np.testing.assert_array_equal(jax.jit(classifier.apply)(started, IDS, MASK), np.zeros((2, 2)))
    variables = filled(classifier, key)

    def loss(variables):
        return jnp.sum(classifier.apply(variables, IDS, MASK) ** 2)

    grads = jax.jit(jax.grad(loss))(variables)
    marks = classifier.labels(variables)
    assert jax.tree.structure(marks) == jax.tree.structure(variables)
    for grad, mark in zip(jax.tree.leaves(grads), jax.tree.leaves(marks), strict=True):
        assert mark in ("trained", "frozen")
        if mark == "frozen":
            np.testing.assert_array_equal(grad, np.zeros_like(grad))
    assert all(np.any(g != 0) for g in jax.tree.leaves(grads["params"]["head"]))


def test_mistakes():
    with pytest.raises(ValueError, match=r"classes must be a whole number of at least 2, got 1"):
        SentenceClassifier(tuning.full(NET), 1)
    with pytest.raises(ValueError, match=r"pooling must be one of mean, cls, got 'max'"):
        SentenceClassifier(tuning.full(NET), 2, "max")
