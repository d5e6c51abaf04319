"""Tuning classifiers of texts. Truth: the cross entropy and the binomial error by numpy; counts of
parameters by formula; and that what is frozen stays the same to the bit."""

import dataclasses
import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxdiff.config import finetuning
from jaxdiff.config.finetuning import FinetuneConfig, MethodConfig, TextConfig
from jaxdiff.data.text import Batches, Tokens
from jaxdiff.models.transformer import Transformer
from jaxdiff.models.tuning import paths
from jaxdiff.training import finetune, make_train_step, optim

WIDTH, HIDDEN, DEPTH, HEADS, LENGTH, VOCAB = 16, 32, 2, 2, 12, 19
NET = Transformer(
    VOCAB, WIDTH, DEPTH, HEADS, hidden=HIDDEN, length=LENGTH, types=2, norm="post"
)  # fmt: skip


def config_of(method, **numbers):
    data = TextConfig(length=6, classes=("no", "yes", "maybe"))
    part = MethodConfig(ratio=4, rank=2, width=3, prompts=4)
    return FinetuneConfig(name=method, data=data, method=dataclasses.replace(part, **numbers))


def texts(count=24):
    rng = np.random.default_rng(0)
    lengths = rng.integers(3, 7, count)
    mask = np.arange(6) < lengths[:, None]
    ids = np.where(mask, rng.integers(1, VOCAB, (count, 6)), 0).astype(np.int32)
    return Batches(Tokens(ids, mask), (ids[:, 1] % 3).astype(np.int32), 8)


def shapes(method, **numbers):
    """Of the state."""
    config = config_of(method, **numbers)
    classifier = finetuning.build_classifier(config, NET)
    return jax.eval_shape(lambda: finetuning.build_state(config, classifier, 10))


@functools.cache
def begun(method):
    config = config_of(method)
    classifier = finetuning.build_classifier(config, NET)
    return config, classifier, finetuning.build_state(config, classifier, 10)


def dense(inputs, outputs):
    return inputs * outputs + outputs


BLOCK = 4 * dense(WIDTH, WIDTH) + dense(WIDTH, HIDDEN) + dense(HIDDEN, WIDTH) + 4 * WIDTH
ALL = (VOCAB + LENGTH + 2) * WIDTH + 2 * WIDTH + DEPTH * BLOCK
CLASSES = dense(WIDTH, 3)
W, H = WIDTH // 4, HIDDEN // 4  # of the ladder
SIDE = 4 * dense(W, W) + dense(W, H) + dense(H, W) + 4 * W

COUNTS = {
    "full": ALL,
    "head": 0,
    "bitfit": DEPTH * (4 * WIDTH + HIDDEN + WIDTH + 2 * WIDTH) + WIDTH,
    "lora": DEPTH * 2 * 2 * (2 * WIDTH),
    "adapter": DEPTH * 2 * (dense(WIDTH, 3) + dense(3, WIDTH)),
    "prompt": 4 * WIDTH,
    # The side network has positions of its own and no tokens: the ladder's first rung is there.
    "lst": LENGTH * W + 2 * W + DEPTH * (SIDE + dense(WIDTH, W) + 1) + dense(WIDTH, W)
    + dense(W, WIDTH),
}  # fmt: skip


@pytest.mark.parametrize("method", finetuning.METHODS)
def test_how_many_parameters_are_trained(method):
    """And no more than those have moments or an average."""
    state = shapes(method)
    trained = sum(a.size for a in state.params.values())
    assert trained == COUNTS[method] + CLASSES
    assert sum(a.size for a in state.aux.values()) == (0 if method == "full" else ALL) - (
        COUNTS["bitfit"] if method == "bitfit" else 0
    )
    moments = sum(a.size for a in jax.tree.leaves(state.opt_state))
    assert 2 * trained <= moments <= 2 * trained + 2  # and counts of steps


def test_a_ladder_without_a_block():
    """The block that is left out takes its own parameters and its rung with it."""
    state = shapes("lst", dropped=(1,))
    trained = sum(a.size for a in state.params.values())
    assert trained == COUNTS["lst"] + CLASSES - (SIDE + dense(WIDTH, W) + 1)


def test_a_ladder_without_gates():
    """The rungs are as large but for their gates."""
    trained = sum(a.size for a in shapes("lst", mix="sum").params.values())
    assert trained == COUNTS["lst"] + CLASSES - DEPTH


def test_a_ladder_with_fewer_heads_is_as_large():
    """Its width is divided otherwise; a head for each of its four channels."""
    for heads in (1, 4):
        state = shapes("lst", heads=heads)
        assert sum(a.size for a in state.params.values()) == COUNTS["lst"] + CLASSES
    with pytest.raises(ValueError, match=r"heads=3 must divide width=4"):
        shapes("lst", heads=3)


@pytest.mark.slow
@pytest.mark.parametrize("start", ["pruned", "fisher"])
def test_a_ladder_that_starts_from_rows_of_the_network(start):
    """The first block's largest queries, keys and values together, or the most important ones, by
    brute force in numpy."""
    config = config_of("lst", start=start)
    classifier = finetuning.build_classifier(config, NET)
    weights = None
    if start == "fisher":
        shape = shapes("lst").aux
        rng = np.random.default_rng(3)
        weights = {
            p.removeprefix("params/net/backbone/"): rng.exponential(size=v.shape)
            for p, v in shape.items()
        }
    tree = None if weights is None else paths.nested(weights)
    state = finetuning.build_state(config, classifier, 10, importance=tree)
    own = {p.removeprefix("params/net/backbone/"): np.asarray(v) for p, v in state.aux.items()}
    weights = own if weights is None else weights
    side = {p.removeprefix("params/net/ladder/side/"): v for p, v in state.params.items()}

    def best(kernel, count):
        return np.sort(np.argsort(np.abs(kernel).sum(0))[-count:])

    kept = best(weights["tokens/embedding"], W)
    for table in ("positions/table", "norm_in/scale"):
        np.testing.assert_allclose(side[table], own[table][..., kept], rtol=1e-6)
    names = [f"block_0/attention/{name}/kernel" for name in ("query", "key", "value")]
    product = np.prod([weights[name][kept] for name in names], axis=0)
    for name in names:  # the start is drawn twice in the program, with other rounding
        np.testing.assert_allclose(side[name], own[name][kept][:, best(product, W)], rtol=1e-6)
    assert not set(side) & {"tokens/embedding", "types/embedding"}


@pytest.mark.slow
def test_importance_by_the_chain_rule():
    """The last norm's bias moves all tokens, so the text, by as much: -log p_y has the slope
    W (p - y) by it, p the chances that the head W gives, here in numpy."""
    _, classifier, state = begun("lst")
    params = finetune.whole(state.params, state.aux)["params"]["net"]["backbone"]
    batch, key = texts(6), jax.random.key(5)
    found = finetune.importance(key, classifier, params, batch.tokens, batch.labels)
    assert jax.tree.map(jnp.shape, found) == jax.tree.map(jnp.shape, params)
    head = np.asarray(jax.nn.initializers.lecun_normal()(key, (WIDTH, 3)), np.float64)
    h = np.asarray(NET.apply({"params": params}, *batch.tokens), np.float64)
    seen = batch.tokens.mask[..., None]
    logits = ((h * seen).sum(1) / seen.sum(1)) @ head
    chances = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    slopes = (chances - np.eye(3)[batch.labels]) @ head.T
    wanted = np.sum(slopes**2, axis=0)
    got = found["block_1"]["norm_perceptron"]["bias"]
    np.testing.assert_allclose(got, wanted, rtol=1e-4)  # of float32 through two blocks


QUICK = ("lst",)


@pytest.mark.slow
@pytest.mark.parametrize(
    "method", [m if m in QUICK else pytest.param(m, marks=pytest.mark.slow) for m in COUNTS]
)
def test_steps_change_what_is_trained_and_nothing_else(method):
    """Three, since the last layer, which starts as zero, hides the rest from the first, and
    what of LoRA starts as zero hides the rest from the second."""
    config, classifier, state = begun(method)
    optimizer = finetuning.build_optimizer(config)
    step = jax.jit(make_train_step(finetune.text_loss(classifier), optimizer, decay=optim.linear))
    after = state
    for i in range(3):
        after, metrics = step(after, texts().batch_at(i))
    assert np.isfinite(float(metrics["loss"]))
    for path, leaf in state.aux.items():
        np.testing.assert_array_equal(after.aux[path], leaf)
    still = [p for p, leaf in state.params.items() if np.array_equal(after.params[p], leaf)]
    # Keys' biases cancel in the softmax; the others of what does not move have no part in h.
    assert all(path.endswith(("key/bias", "types/embedding")) for path in still), still


@pytest.mark.slow
def test_loss_by_numpy():
    _, classifier, state = begun("full")
    rng = np.random.default_rng(1)
    params = {
        **state.params,
        "params/head/kernel": jnp.asarray(rng.normal(size=(WIDTH, 3)), jnp.float32),
    }
    batch = texts().batch_at(0)
    still = dataclasses.replace(classifier, net=_without_dropout(classifier.net))
    logits = np.asarray(
        still.apply(finetune.whole(params, state.aux), batch["ids"], batch["mask"]), np.float64
    )
    chances = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    wanted = -np.log(chances[np.arange(8), batch["y"]]).mean()
    loss, (metrics, aux) = finetune.text_loss(still)(
        params, batch, state.key, state.hyper, state.aux
    )
    np.testing.assert_allclose(loss, wanted, rtol=1e-5)
    assert float(metrics["accuracy"]) == np.mean(logits.argmax(1) == batch["y"])
    assert aux is state.aux


def _without_dropout(method):
    return dataclasses.replace(method, backbone=method.backbone.clone(dropout=0.0))


@pytest.mark.slow
def test_log_probs_do_not_depend_on_how_texts_are_batched():
    _, classifier, state = begun("lst")
    tokens = texts(23).tokens
    whole = finetune.log_probs(classifier, state, tokens, 32)
    assert whole.shape == (23, 3)
    np.testing.assert_allclose(np.exp(whole).sum(1), 1, rtol=1e-5)
    np.testing.assert_allclose(finetune.log_probs(classifier, state, tokens, 5), whole, atol=1e-5)
    none = Tokens(tokens.ids[:0], tokens.mask[:0])
    assert finetune.log_probs(classifier, state, none).shape == (0, 3)


def test_score_by_hand():
    """Three of four right: .75, and sqrt(.75 * .25 / 4)."""
    logs = np.log(np.array([[0.9, 0.1], [0.2, 0.8], [0.4, 0.6], [0.7, 0.3]]))
    found = finetune.score(logs, np.array([0, 1, 0, 0]))
    assert found.accuracy == 0.75
    assert found.standard_error == pytest.approx(math.sqrt(0.75 * 0.25 / 4))
    assert found.loss == pytest.approx(-np.mean(np.log([0.9, 0.8, 0.4, 0.7])))
    with pytest.raises(ValueError, match="1 or more, got 0"):
        finetune.score(logs[:0], np.zeros(0, int))


@pytest.mark.slow
def test_members_of_a_population_tune_as_alone():
    """Two learning rates under vmap against each by itself; float32 sums in another order."""
    config, classifier, state = begun("lora")
    optimizer = finetuning.build_optimizer(config)
    step = make_train_step(finetune.text_loss(classifier), optimizer)
    rates = jnp.array([1e-3, 1e-2])
    many = jax.vmap(
        lambda lr: dataclasses.replace(state, hyper={**state.hyper, "lr": lr}), out_axes=0
    )(rates)
    batch = texts().batch_at(0)
    together, _ = jax.jit(jax.vmap(step, in_axes=(0, None)))(many, batch)
    for i, lr in enumerate(rates):
        alone, _ = jax.jit(step)(dataclasses.replace(state, hyper={**state.hyper, "lr": lr}), batch)
        for path, leaf in alone.params.items():
            np.testing.assert_allclose(together.params[path][i], leaf, atol=1e-5)


def test_mistakes():
    with pytest.raises(ValueError, match=r"ratio must divide width of the network, 16, got 3"):
        shapes("lst", ratio=3)
    with pytest.raises(ValueError, match=r"method.dropped must be of 0..1, got 3"):
        shapes("lst", dropped=(3,))
    with pytest.raises(ValueError, match=r"method.dropped must leave one of the 2 blocks"):
        shapes("lst", dropped=(0, 1))
    with pytest.raises(ValueError, match=r"method.examples must be a whole number .* got 0"):
        shapes("lst", examples=0)
    with pytest.raises(ValueError, match=r"method.prompts must be a whole number .* got 0"):
        shapes("prompt", prompts=0)
    with pytest.raises(ValueError, match=r"rank must be a whole number of at least 1, got 0"):
        shapes("lora", rank=0)
    with pytest.raises(ValueError, match=r"at most 12 tokens, got 16"):
        shapes("prompt", prompts=10)
