"""What every method of tuning owes on every network.

Truth: the network itself; gradients that are exactly 0; counts by formula; loops instead of vmap.
"""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxdiff.models import MLP, tuning
from jaxdiff.models.transformer import Transformer
from tests.models.tuning.networks import (
    METHODS,
    NETWORKS,
    QUICK,
    TOKENS,
    abstract,
    count,
    filled,
    ladder,
    trained,
)

MLPS = NETWORKS["mlp"]
QUICKLY = [*[("mlp", method) for method in METHODS if method != "prompts"]]
QUICKLY += [("transformer", "lora"), ("transformer", "prompts")]
SLOWLY = [
    pytest.param(net, method, marks=pytest.mark.slow)
    for net in NETWORKS
    for method in METHODS
    if (method != "prompts" or net == "transformer") and (net, method) not in QUICKLY
]
PAIRS = [*QUICKLY, *SLOWLY]
each = pytest.mark.parametrize(("network", "method"), PAIRS)


def square(variables, *args, method, **more):
    return jnp.sum(method.apply(variables, *args, **more) ** 2)


@each
def test_gradients_are_zero_where_frozen_and_nowhere_else(network, method):
    net, args = NETWORKS[network]
    method = METHODS[method](net, args)
    variables = filled(abstract(method, args))
    labels = method.labels(variables)
    assert jax.tree.structure(labels) == jax.tree.structure(variables)
    grads = jax.jit(jax.grad(lambda v: square(v, *args, method=method)), compiler_options=QUICK)
    found = zip(jax.tree.leaves_with_path(grads(variables)), jax.tree.leaves(labels), strict=True)
    for (path, grad), label in found:
        assert (jnp.abs(grad).max() > 0) == (label == "trained"), (path, label)


@pytest.mark.slow
@each
def test_starts_as_the_network_itself(network, method):
    net, args = NETWORKS[network]
    if method == "prompts" or (network, method) == ("transformer", "ladder"):
        pytest.skip("does not promise it")
    method, params = METHODS[method](net, args), trained(net, args)
    init = jax.jit(lambda k, p: method.init(k, *args, backbone=p), compiler_options=QUICK)
    variables = init(jax.random.key(2), params)
    for one, two in zip(
        jax.tree.leaves(variables["params"]["backbone"]), jax.tree.leaves(params), strict=True
    ):
        np.testing.assert_array_equal(one, two)
    # operation by operation, so that no compiler orders the sums of one program otherwise
    alone = net.apply({"params": params}, *args)
    np.testing.assert_array_equal(method.apply(variables, *args), alone)
    assert jnp.abs(alone).max() > 0.01


def test_a_network_without_trained_parameters_begins_anew(key):
    net, args = MLPS
    variables = tuning.full(net).init(key, *args)
    alone = net.init(key, *args)["params"]
    same = jax.tree.map(lambda a, b: bool((a == b).all()), variables["params"]["backbone"], alone)
    assert all(jax.tree.leaves(same))


def test_counts_are_by_formula():
    """MLP of width w on D numbers: blocks of in [w, w], emb [w, w], out [w, w] and a norm."""
    net, args = MLPS
    d, w, depth, r = 4, 8, 2, 2
    sizes = {
        "head": w * d + d,
        # of norm, in, emb, out in each block; of two layers of time; of in, norm, out
        "bitfit": depth * 4 * w + 2 * w + w + w + d,
        "lora": depth * 2 * r * (w + w),
        "adapters": depth * (2 * w * 3 + 3 + w),
        "full": sum(leaf.size for leaf in jax.tree.leaves(trained(net, args))),
    }
    for name, size in sizes.items():
        method = METHODS[name](net, args)
        variables = abstract(method, args)
        assert count(variables, method.labels(variables)) == size, name
    method = ladder(net, args)
    variables = abstract(method, args)
    side = sum(leaf.size for leaf in jax.tree.leaves(abstract(tuning.full(method.side), args)))
    rungs = depth * (w * w // 2 + w // 2 + 1)
    assert count(variables, method.labels(variables)) == side + rungs


@pytest.mark.slow
def test_the_head_can_be_trained_beside_any_of_them():
    net, args = MLPS
    for method in (
        tuning.LoRA(net, ("*/in",), rank=2, trained=("out",)),
        tuning.Adapters(net, width=2, trained=("out",)),
    ):
        variables = filled(abstract(method, args))
        grads = jax.grad(lambda v, m=method: square(v, *args, method=m))(variables)
        backbone = grads["params"]["backbone"]
        assert jnp.abs(backbone["out"]["kernel"]).max() > 0
        assert jnp.abs(backbone["in"]["kernel"]).max() == 0
        assert method.labels(variables)["params"]["backbone"]["out"]["kernel"] == "trained"


@pytest.mark.slow
@pytest.mark.parametrize("method", ["lora", "adapters", "ladder"])
def test_vmap_over_members_on_one_network(method):
    net, args = MLPS
    method = METHODS[method](net, args)
    params = filled(abstract(method, args))["params"]
    backbone, own = params["backbone"], {n: p for n, p in params.items() if n != "backbone"}
    many = jax.tree.map(lambda a: jnp.stack([a, 2 * a, -a]), own)

    def apply(own):
        return method.apply({"params": {"backbone": backbone, **own}}, *args)

    outs = jax.jit(jax.vmap(apply), compiler_options=QUICK)(many)
    for i in range(3):
        alone = apply(jax.tree.map(lambda a, i=i: a[i], many))
        np.testing.assert_allclose(outs[i], alone, rtol=1e-4, atol=1e-5)  # sums in another order


def test_dropout_is_for_what_is_trained(key):
    """A network that LoRA changes drops as in training; the one beside a ladder never does."""
    wet = MLP(width=8, depth=2, dropout=0.5)
    _, args = MLPS
    for method, drops in (
        (tuning.LoRA(wet, ("*/in",), rank=2), True),
        (ladder(wet, args, side=MLP(width=4, depth=2)), False),
        (ladder(MLP(width=8, depth=2), args, side=MLP(width=4, depth=2, dropout=0.5)), True),
    ):
        variables = filled(abstract(method, args))
        dry = method.apply(variables, *args)
        out = method.apply(variables, *args, key=key, train=True)
        assert np.array_equal(out, dry) == (not drops)


def test_masks_reach_both_networks():
    """What is masked changes nothing, in a ladder whose two networks both see tokens."""
    net, args = NETWORKS["transformer"]
    method = ladder(net, args)
    variables = filled(abstract(method, args))
    mask = np.ones(TOKENS.shape, bool)
    mask[:, 4:] = False
    other = np.where(mask, TOKENS, 7)
    apply = jax.jit(method.apply, compiler_options=QUICK)
    one, two = (apply(variables, tokens, mask)[:, :4] for tokens in (TOKENS, other))
    np.testing.assert_array_equal(one, two)
    assert not np.allclose(apply(variables, other)[:, :4], one)


@pytest.mark.slow
def test_prompts_start_as_tokens_and_are_taken_off(key):
    net, args = NETWORKS["transformer"]
    method = tuning.Prompts(net, 3)
    params = trained(net, args)
    variables = method.init(key, *args, backbone=params)
    table = np.asarray(params["tokens"]["embedding"])
    for row in np.asarray(variables["params"]["prompt"]):
        assert (row == table).all(axis=1).any()
    out = method.apply(variables, *args)
    assert out.shape == (3, 6, 16)
    wanted = net.apply({"params": params}, *args, prefix=variables["params"]["prompt"])
    np.testing.assert_array_equal(out, wanted)


@pytest.mark.slow
def test_gradients_by_the_input_flow_through_all(key):
    """Guidance needs them. Truth: central differences in float64."""
    with jax.enable_x64(True):
        net, args = MLPS
        x, t = (jnp.asarray(a, jnp.float64) for a in args)
        for name in ("lora", "ladder"):
            method = METHODS[name](net, args)
            variables = filled(abstract(method, (x, t)))
            value = jax.jit(lambda e, m=method, v=variables: square(v, x + e, t, method=m))
            step = 1e-5
            difference = (value(step) - value(-step)) / (2 * step)
            np.testing.assert_allclose(jax.grad(value)(0.0), difference, rtol=1e-6)


def test_equal_fields_make_equal_methods():
    net, args = MLPS
    for make in METHODS.values():
        assert make(net, args) == make(MLP(width=8, depth=2), args)
        assert hash(make(net, args)) == hash(make(net, args))


def begin(method, args=MLPS[1], **more):
    return abstract(method, args, **more)


NET = MLPS[0]


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: begin(tuning.head(NET, ("head",))), "trained must name some of .*got 'head'"),
        (lambda: begin(tuning.Selected(NET, "out")), r"tuple such as .* got \'out\'"),
        (lambda: begin(tuning.LoRA(NET)), "layers must name some of conditioning/time_in, .*"),
        (lambda: begin(tuning.LoRA(NET, ("norm",))), "layers must name some of .*got 'norm'"),
        (lambda: tuning.LoRA(NET, rank=0), "rank must be a whole number of at least 1, got 0"),
        (lambda: tuning.LoRA(NET, alpha=0.0), "alpha must lie in .*got 0"),
        (lambda: begin(tuning.Adapters(NET, ("blocks",))), "modules must name .*got 'blocks'"),
        (lambda: tuning.Adapters(NET, width=0), "width must be a whole number of at least 1"),
        (lambda: tuning.Prompts(NET, 0), "length must be a whole number of at least 1"),
        (lambda: begin(tuning.Prompts(NET)), "must have a table of tokens.*got MLP"),
        (
            lambda: begin(tuning.full(NET), backbone=trained(MLP(width=4, depth=2), MLPS[1])),
            r"must hold the parameters of the network: .* is \(.*\), wanted",
        ),
        (
            lambda: begin(tuning.full(NET), backbone=trained(MLP(width=8, depth=3), MLPS[1])),
            r"block_2/.* wanted none",
        ),
        (
            lambda: begin(
                tuning.Prompts(Transformer(11, width=16, depth=1, heads=2, length=8)), (TOKENS,)
            ),
            "at most 8 tokens, got 26",
        ),
    ],
)
def test_what_cannot_be_tuned_is_named(call, words):
    with pytest.raises(ValueError, match=words):
        call()


def test_blocks_are_found_in_every_network():
    wanted = {
        "mlp": ("block_0", "block_1"),
        "unet": ("down_0_0", "middle_0", "middle_1", "up_0_0", "up_0_1"),
        "dit": ("block_0", "block_1"),
        "dit, recomputed": ("block_0", "block_1"),
        "transformer": ("block_0", "block_1"),
    }
    found = {name: tuning.find_blocks(net, *args) for name, (net, args) in NETWORKS.items()}
    assert found == wanted
