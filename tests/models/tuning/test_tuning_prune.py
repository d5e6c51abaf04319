"""Structural pruning, and the squared gradients that it may go by.

Truth: a loop over layers in numpy, written from the published description; gradients by hand.
"""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxdiff.models import MLP, tuning
from jaxdiff.models.transformer import Transformer
from tests.models.tuning.networks import NETWORKS, TOKENS, abstract, filled, trained

NET, ARGS = NETWORKS["transformer"]


def in_numpy(params, importance, ratio):
    """The blocks of a transformer with norms before, layer by layer."""

    def keep(scores):
        order = np.argsort(-np.abs(scores).sum(axis=0))
        return np.sort(order[: scores.shape[1] // ratio])

    left = keep(importance["tokens"]["embedding"])
    found = {}
    for i in range(2):
        own, weight = params[f"block_{i}"], importance[f"block_{i}"]
        for branch, groups in (
            ("attention", [("query", "key", "value"), ("out",)]),
            ("perceptron", [("expand",), ("contract",)]),
        ):
            found[i, branch, "norm"] = own[f"norm_{branch}"]["scale"][left]
            for group in groups:
                scores = np.prod([weight[branch][name]["kernel"][left] for name in group], axis=0)
                before, left = left, keep(scores)
                for name in group:
                    found[i, branch, name] = own[branch][name]["kernel"][before][:, left]
                    found[i, branch, name, "bias"] = own[branch][name]["bias"][left]
    return found


@pytest.mark.parametrize("by", ["size", "importance"])
def test_layers_are_pruned_in_order(by):
    params = trained(NET, ARGS)
    importance = None if by == "size" else filled(params, seed=7)
    found = tuning.prune(params, tuning.transformer_plan(NET), 2, importance)
    numbers = jax.tree.map(np.asarray, (params, params if by == "size" else importance))
    for (i, branch, name, *bias), wanted in in_numpy(*numbers, 2).items():
        block = found[f"block_{i}"]
        if name == "norm":
            np.testing.assert_array_equal(block[f"norm_{branch}"]["scale"], wanted)
        else:
            part = "bias" if bias else "kernel"
            np.testing.assert_array_equal(block[branch][name][part], wanted)


def test_small_importances_are_told_apart():
    """Which rows stay does not depend on the unit of importance, such as 1e-16: the cube of that
    is not a float32."""
    params = trained(NET, ARGS)
    importance = jax.tree.map(jnp.square, filled(params, seed=7))
    small = jax.tree.map(lambda a: 1e-16 * a, importance)
    plan = tuning.transformer_plan(NET)
    found, wanted = (tuning.prune(params, plan, 2, by) for by in (small, importance))
    jax.tree.map(np.testing.assert_array_equal, found, wanted)


@pytest.mark.parametrize("norm", ["pre", "post"])
def test_what_is_left_is_a_side_network(norm, key):
    """Its shapes are those of the narrow network; the ladder begins with its numbers."""
    net = NET.clone(norm=norm, types=2)
    params, side = trained(net, ARGS), tuning.narrow(net, 2)
    pruned = tuning.prune(params, tuning.transformer_plan(net), 2)
    wanted = jax.eval_shape(side.init, key, *ARGS)["params"]
    assert jax.tree.map(jnp.shape, pruned) == jax.tree.map(jnp.shape, wanted)
    method = tuning.Ladder(net, side, ("block_0", "block_1"), first=("tokens",), output="up")
    own = abstract(method, ARGS, side=pruned)["params"]["ladder"]["side"]
    assert "tokens" not in own
    assert jax.tree.map(jnp.shape, own) == {
        name: tree for name, tree in jax.tree.map(jnp.shape, pruned).items() if name != "tokens"
    }


@pytest.mark.slow
def test_the_ladder_takes_what_it_is_given(key):
    net, args = NETWORKS["mlp"]
    method = tuning.Ladder(net, MLP(width=4, depth=2), ("block_0",))
    side = {"in": {"kernel": jnp.full((4, 4), 7.0)}}
    own = method.init(key, *args, side=side)["params"]["ladder"]["side"]
    np.testing.assert_array_equal(own["in"]["kernel"], 7.0)
    np.testing.assert_array_equal(own["in"]["bias"], 0.0)
    for wrong in ({"in": {"kernel": jnp.ones((4, 8))}}, {"inn": {"kernel": jnp.ones((4, 4))}}):
        with pytest.raises(ValueError, match="side must hold parameters of the side network"):
            method.init(key, *args, side=wrong)


@pytest.mark.parametrize("at_once", [1, 3])
def test_fisher_is_the_sum_of_squared_gradients(at_once, x64):
    """Of (x . w)^2 / 2 the gradient is x (x . w)."""
    rng = np.random.default_rng(5)
    x, w = rng.normal(size=(6, 4)), rng.normal(size=4)
    loss = lambda w, x: jnp.sum(x * w) ** 2 / 2  # noqa: E731
    found = tuning.fisher(loss, jnp.asarray(w), jnp.asarray(x), at_once=at_once)
    np.testing.assert_allclose(found, np.sum((x * (x @ w)[:, None]) ** 2, axis=0), rtol=1e-12)


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda p: tuning.prune(p, (("tokens",), ("head",)), 2), "plan must name .*got 'head'"),
        (lambda p: tuning.prune(p, (("tokens",),), 5), "ratio must divide the 16 outputs of tok"),
        (
            lambda p: tuning.prune(p, (("block_0/attention/out", "block_0/perceptron/expand"),), 2),
            r"a group of the plan must be of one shape.* \[16, 64\]",
        ),
        (lambda p: tuning.transformer_plan(NET.clone(block="gau")), "block='attention'.*'gau'"),
        (lambda p: tuning.transformer_plan(NET.clone(cross=True)), "cross=True"),
        (
            lambda p: tuning.fisher(lambda p, x: x, 1.0, TOKENS, at_once=2),
            "at_once must divide the 3 examples, got 2",
        ),
    ],
)
def test_what_cannot_be_pruned_is_named(call, words):
    with pytest.raises(ValueError, match=words):
        call(trained(NET, ARGS))


@pytest.mark.slow
def test_plans_are_in_the_order_of_the_calls():
    post = tuning.transformer_plan(Transformer(5, width=8, depth=1, heads=1, norm="post", types=2))
    assert post == (
        ("tokens",),
        ("types",),
        ("positions",),
        ("norm_in",),
        ("block_0/attention/query", "block_0/attention/key", "block_0/attention/value"),
        ("block_0/attention/out",),
        ("block_0/norm_attention",),
        ("block_0/perceptron/expand",),
        ("block_0/perceptron/contract",),
        ("block_0/norm_perceptron",),
    )
