"""The ladder: its formula, its limits, what its gradient computes, and its size.

Truth: the formula in float64 numpy; the network itself where a ladder must be it; the products in
the gradient's jaxpr, counted; the published size for T5-base.
"""

import flax.linen as nn
import jax
import jax.extend
import jax.numpy as jnp
import numpy as np
import pytest
from flax import traverse_util

from jaxdiff.models import MLP, DiT, UNet, tuning
from jaxdiff.models.transformer import EncoderDecoder, Transformer
from tests.models.tuning.networks import (
    NETWORKS,
    QUICK,
    TOKENS,
    T,
    X,
    abstract,
    count,
    filled,
    ladder,
    trained,
)


class Toy(nn.Module):
    """tanh(x W + b) in each block, without a last layer."""

    width: int
    depth: int = 3

    @nn.compact
    def __call__(self, x, *, train=False):
        h = nn.Dense(self.width, name="in", param_dtype=x.dtype)(x)
        for i in range(self.depth):
            h = ToyBlock(name=f"block_{i}")(h, train)
        return h


class ToyBlock(nn.Module):
    @nn.compact
    def __call__(self, h, train):
        return jnp.tanh(nn.Dense(h.shape[-1], name="dense", param_dtype=h.dtype)(h))


def affine(p, h):
    return h @ np.asarray(p["kernel"]) + np.asarray(p["bias"])


def test_the_formula_in_numpy(x64):
    """Blocks 0 and 2 read, block 1 is left out, D_0 stands for the first layer, T = 0.3."""
    net = Toy(6)
    method = tuning.Ladder(
        net, Toy(3), ("block_0", "block_2"), dropped=("block_1",), first=("in",), output="up",
        temperature=0.3,
    )  # fmt: skip
    x = np.random.default_rng(2).normal(size=(5, 4))
    variables = filled(abstract(method, (x,)))
    backbone, own = (variables["params"][name] for name in ("backbone", "ladder"))
    assert set(own["side"]) == {"block_0", "block_2"}
    h, told = affine(backbone["in"], x), {}
    told["in"] = h
    for i in range(3):
        h = told[f"block_{i}"] = np.tanh(affine(backbone[f"block_{i}"]["dense"], h))
    z = affine(own["rungs"]["in"], told["in"])
    for name in ("block_0", "block_2"):
        rung = own["rungs"][name]
        mu = 1 / (1 + np.exp(-np.asarray(rung["gate"]) / 0.3))
        z = mu * z + (1 - mu) * affine(rung, told[name])
        z = np.tanh(affine(own["side"][name]["dense"], z))
    np.testing.assert_allclose(method.apply(variables, x), affine(own["up"], z), rtol=1e-12)


def test_the_formula_of_sums_in_numpy(x64):
    """z <- side_i(z) + D_i h_i, as in the article's released code: blocks 1 and 2 read."""
    net = Toy(6)
    method = tuning.Ladder(
        net, Toy(3), ("block_1", "block_2"), dropped=("block_0",), first=("in",), output="up",
        mix="sum",
    )  # fmt: skip
    x = np.random.default_rng(2).normal(size=(5, 4))
    variables = filled(abstract(method, (x,)))
    backbone, own = (variables["params"][name] for name in ("backbone", "ladder"))
    assert all("gate" not in rung for rung in own["rungs"].values())
    h = affine(backbone["in"], x)
    z = affine(own["rungs"]["in"], h)
    for i in range(3):
        name = f"block_{i}"
        h = np.tanh(affine(backbone[name]["dense"], h))
        if i > 0:
            z = np.tanh(affine(own["side"][name]["dense"], z)) + affine(own["rungs"][name], h)
    np.testing.assert_allclose(method.apply(variables, x), affine(own["up"], z), rtol=1e-12)


@pytest.mark.parametrize(
    ("net", "args", "first"),
    [
        (*NETWORKS["transformer"], ("tokens",)),
        pytest.param(*NETWORKS["mlp"], (), marks=pytest.mark.slow),
        pytest.param(*NETWORKS["dit, recomputed"], ("in",), marks=pytest.mark.slow),
    ],
)
def test_the_network_itself_where_nothing_is_narrow_and_gates_are_one(net, args, first):
    """r = 1, copied weights, mu = 1, D_0 = U = I."""
    blocks = tuning.find_blocks(net, *args)
    method = tuning.Ladder(net, net, blocks, first=first, output="up")
    variables = filled(abstract(method, args))
    params = variables["params"]["backbone"]
    own = variables["params"]["ladder"]
    own["side"] = {name: tree for name, tree in params.items() if name not in first}
    for name in blocks:
        own["rungs"][name]["gate"] = jnp.array(100.0)  # sigmoid(1000) is 1
    for part in [*(own["rungs"][name] for name in first), own["up"]]:
        part["kernel"], part["bias"] = jnp.eye(part["kernel"].shape[0]), 0 * part["bias"]
    alone = net.apply({"params": params}, *args)
    np.testing.assert_array_equal(method.apply(variables, *args), alone)
    assert jnp.abs(alone).max() > 0.01


@pytest.mark.slow
@pytest.mark.parametrize("gate", [-100.0, 0.0])
def test_gates_of_zero_read_the_backbone_alone(gate):
    net, args = NETWORKS["mlp"]
    method = ladder(net, args)
    variables = filled(abstract(method, args))
    own = variables["params"]["ladder"]
    for rung in own["rungs"].values():
        rung["gate"] = jnp.array(gate)
    grads = jax.grad(lambda v: jnp.sum(method.apply(v, *args) ** 2))(variables)
    side = grads["params"]["ladder"]["side"]
    # what comes before the last gate counts only where that is open
    for name in ("in", "block_0"):
        values = [float(jnp.abs(leaf).max()) for leaf in jax.tree.leaves(side[name])]
        assert (max(values) == 0) == (gate < 0)
    assert jnp.abs(side["block_1"]["in"]["kernel"]).max() > 0


def products(jaxpr):
    """The dot_generals of a jaxpr, those inside of its parts too."""
    for eqn in jaxpr.eqns:
        if eqn.primitive.name == "dot_general":
            yield [tuple(v.aval.shape) for v in (*eqn.invars, *eqn.outvars)]
        for part in jax.extend.core.jaxprs_in_params(eqn.params):
            yield from products(part)


@pytest.mark.parametrize(
    "network",
    ["transformer", *(pytest.param(n, marks=pytest.mark.slow) for n in ("dit", "dit, recomputed"))],
)
def test_the_gradient_holds_no_backward_product_of_the_backbone(network):
    """Its kernels are in as many products as forward; full tuning has nearly three times as many.

    Both a gradient by a kernel and one through it have the kernel's shape in an operand or a
    result, and no layer of the side network has such a shape.
    """
    net, args = NETWORKS[network]
    kernels = {leaf.shape for leaf in jax.tree.leaves(trained(net, args)) if leaf.ndim == 2}

    def number(function, *operands):
        found = products(jax.make_jaxpr(function)(*operands).jaxpr)
        both = [shapes for shapes in found if kernels & ({*shapes} | {s[::-1] for s in shapes})]
        return len(both)

    def gradient(method):
        variables = filled(abstract(method, args))
        return number(jax.grad(lambda v: jnp.sum(method.apply(v, *args) ** 2)), variables)

    forward = number(lambda p: net.apply({"params": p}, *args), trained(net, args))
    beside = ladder(net, args)
    shapes = {leaf.shape for leaf in jax.tree.leaves(abstract(beside, args)["params"]["ladder"])}
    assert not kernels & shapes
    assert gradient(beside) == forward
    assert gradient(tuning.full(net)) > 2 * forward


@pytest.mark.slow
def test_the_side_network_of_t5_base_has_the_published_size():
    """3.879M, 1.74 % of 222.9M: Sung et al. 2022, table 1; the parts by their formula.

    Width 768, perceptrons 3072, 12 heads of 64, all divided by 8; of 12 blocks in both stacks 9.
    T5's norms have no shift and its decoder no cross bias: what is no matrix is counted for T5.
    """

    d, s, inside = 768, 96, 384

    def half(cross):
        return Transformer(
            32128, width=d, depth=12, heads=12, positions="t5", bias=False, causal=cross,
            cross=cross,
        )  # fmt: skip

    net = EncoderDecoder(half(False), half(True))
    kept = [f"{part}/block_{i}" for part in ("encoder", "decoder") for i in range(12) if i % 4]
    dropped = [f"{part}/block_{i}" for part in ("encoder", "decoder") for i in (0, 4, 8)]
    method = tuning.Ladder(
        net, tuning.narrow(net, 8), tuple(kept), tuple(dropped),
        first=("encoder/tokens", "decoder/tokens"), output="up",
    )  # fmt: skip
    variables = abstract(method, (TOKENS, TOKENS))
    assert jax.eval_shape(method.apply, variables, TOKENS, TOKENS).shape == (3, 6, d)
    own = variables["params"]["ladder"]
    leaves = traverse_util.flatten_dict(own, sep="/")

    def size(part):
        return sum(leaf.size for path, leaf in leaves.items() if path.startswith(part))

    firsts = sum(size(f"rungs/{part}/tokens") for part in ("encoder", "decoder"))
    blocks = 9 * (4 * s * s + 2 * s * inside) + 9 * (8 * s * s + 2 * s * inside)
    sides = {path for path in leaves if "/block_" in path and path.startswith("side/")}
    matrices = sum(leaves[path].size for path in sides if leaves[path].ndim == 2)
    assert matrices == blocks == 2_322_432
    assert size("rungs") - firsts == 18 * (d * s + s + 1) == 1_328_832 + 18
    assert firsts == 2 * (d * s + s) == 147_648
    assert size("up") == s * d + d == 74_496
    rest = 9 * (2 + 3) * s + 2 * s + 2 * 32 * 12  # norms of blocks and stacks, relative biases
    total = matrices + size("rungs") + size("up") + rest
    assert round(total / 1e6, 3) == 3.879
    assert round(100 * total / 222.9e6, 2) == 1.74


def test_narrow_networks():
    assert tuning.narrow(DiT(width=384), 8) == DiT(width=48)
    assert isinstance(tuning.narrow(DiT(width=384), 8.0).width, int)
    unet = tuning.narrow(UNet(channels=32, groups=32), 4)
    assert (unet.channels, unet.groups) == (8, 8)
    wide = Transformer(9, width=64, hidden=128, inner=32)
    narrow = tuning.narrow(wide, 4)
    assert (narrow.width, narrow.hidden, narrow.inner, narrow.heads) == (16, 32, 8, 4)
    pair = tuning.narrow(EncoderDecoder(wide, wide), 4)
    assert pair.encoder == pair.decoder == narrow


NET, ARGS = NETWORKS["mlp"]
HALF = MLP(width=4, depth=2)
UNET = UNet(channels=8, multipliers=(1, 2), blocks=1, attention=(), groups=4)


def begin(blocks=("block_0", "block_1"), net=NET, side=HALF, args=ARGS, **more):
    return abstract(tuning.Ladder(net, side, blocks, **more), args)


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: begin(()), r"blocks must be one or more, .*got blocks=\(\)"),
        (lambda: begin("block_0"), "blocks must be a tuple such as .*got 'block_0'"),
        (lambda: begin(("block_0", "block_0")), "each in one of"),
        (lambda: begin(("block_0",), dropped=("block_0",)), "each in one of"),
        (lambda: begin(("block_0", "block_7")), "of the backbone, such as .*block_1.*'block_7'"),
        (lambda: begin(side=MLP(width=4, depth=1)), "blocks .* of the side network.*'block_1'"),
        (lambda: begin(first=("tokens",)), "first must name modules of the backbone.*'tokens'"),
        (lambda: begin(("block_0",), dropped=("block_2",)), "dropped must .* side .*'block_2'"),
        (lambda: begin(dropped=("conditioning",)), "dropped must not hold conditioning"),
        (lambda: begin(temperature=0.0), r"temperature must lie in \(0, inf\), got 0"),
        (lambda: begin(temperature=-0.1), "temperature must lie in"),
        (lambda: begin(output="add"), "output must be one of sum, up, got 'add'"),
        (lambda: begin(mix="add"), "mix must be one of gate, sum, got 'add'"),
        (
            lambda: begin(("up_1",), UNET, UNET, (X, T)),
            r"blocks must not hold up_1: .* \[3, 4, 4, 16\], .* \[3, 2, 2, 16\]",
        ),
        (
            lambda: begin(side=MLP(width=4, depth=2, out_channels=3)),
            r"side must return .* \[3, 4\] for output='sum', got \[3, 3\]",
        ),
        (lambda: tuning.narrow(DiT(width=36), 8), "ratio must divide width of the network, 36, g"),
        (lambda: tuning.narrow(NET, 0), "ratio must be a whole number of at least 1, got 0"),
        (lambda: tuning.narrow(nn.Dense(3), 1), "with width or channels is wanted, got Dense"),
        (
            lambda: begin(net=DiT(width=32, heads=8), side=tuning.narrow(DiT(width=32, heads=8), 8),
                          args=(X, T)),
            "heads=8 must divide width=4",
        ),
    ],
)  # fmt: skip
def test_what_makes_no_ladder_is_named(call, words):
    with pytest.raises(ValueError, match=words):
        call()


def test_float64_and_half_precision(x64):
    net, _ = NETWORKS["mlp"]
    args = tuple(a.astype(np.float64) for a in ARGS)
    variables = abstract(ladder(net, args), args)
    assert {leaf.dtype for leaf in jax.tree.leaves(variables)} == {jnp.dtype("float64")}
    half = MLP(width=8, depth=2, dtype="bfloat16")
    method = ladder(half, args)
    out = jax.eval_shape(method.apply, variables, *args)
    assert out.dtype == jnp.float64  # the output of every network
    jax.jit(jax.grad(lambda v: jnp.sum(method.apply(v, *args))), compiler_options=QUICK).lower(
        variables
    )
    assert count(variables, ladder(net, args).labels(variables)) > 0
