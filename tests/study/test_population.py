"""Members of a population are the same trainings alone.

Truth: each training by itself, by `make_train_step` under `jit`; sums by hand for halving.
"""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxdiff import models, training
from jaxdiff.study import halving, memory, population

NET = models.MLP(width=16, depth=1)
BATCHES = np.random.default_rng(0).normal(size=(3, 8, 2)).astype(np.float32)


def state_of(traits):
    """Parameters of the member's own seed."""
    key = jax.random.key(traits["seed"])
    params = NET.init(key, jnp.zeros((1, 2)), jnp.zeros(1))
    hyper = {"lr": traits["lr"], "ema_decay": traits["decay"], "pull": traits["pull"]}
    optimizer = training.adam(weight_decay=traits["weight_decay"])
    return training.init_state(key, params, optimizer, hyper=hyper)


def step_of(traits):
    """Of a member whose optimiser decays weights as a trait says."""

    def loss_fn(params, batch, key, hyper, aux):
        noisy = batch["x"] + jax.random.normal(key, batch["x"].shape)
        out = NET.apply(params, noisy, jnp.ones(len(noisy)))
        return jnp.mean((out - batch["x"]) ** 2) + hyper["pull"] * jnp.mean(out**2), ({}, aux)

    optimizer = training.adam(weight_decay=traits["weight_decay"])
    return training.make_train_step(loss_fn, optimizer)


def members(count=4):
    rng = np.random.default_rng(1)
    return [
        {
            "seed": i // 2,
            "lr": float(10 ** rng.uniform(-3, -2)),
            "decay": float(rng.uniform(0.5, 0.9)),
            "pull": float(rng.uniform()),
            "weight_decay": float(rng.uniform(0, 0.1)),
        }
        for i in range(count)
    ]


def alone(traits, steps=3):
    traits = jax.tree.map(jnp.asarray, traits)
    step, state = jax.jit(step_of(traits)), jax.jit(state_of)(traits)
    seen = []
    for i in range(steps):
        state, metrics = step(state, {"x": BATCHES[i]})
        seen.append(metrics)
    return state, seen


def assert_same(ours, theirs):
    """To 1e-4 of a number, or 1e-5, a hundredth of a step of Adam: its first ones are as large as
    lr whatever the gradient, and float32 sums in another order change the small ones."""
    for a, b in zip(jax.tree.leaves(ours), jax.tree.leaves(theirs), strict=True):
        if not jnp.issubdtype(a.dtype, jax.dtypes.prng_key):
            np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5)


SLOW = pytest.mark.slow


@pytest.mark.parametrize(
    ("layout", "count"),
    [
        ("vmap", 4),
        pytest.param("each", 3, marks=SLOW),
        *(pytest.param("vmap", n, marks=SLOW) for n in (3, 1)),
        *(pytest.param("each", n, marks=SLOW) for n in (4, 1)),
    ],
)
def test_a_member_is_the_training_alone(layout, count):
    """On eight devices: four members over four, three over three, one on one."""
    ours = population.begin(layout, state_of, step_of, members(count))
    assert len(ours) == count
    seen = [ours.advance([{"x": BATCHES[i]}] * count) for i in range(3)]
    states, means = ours.states(), population.columns(seen)
    for i, traits in enumerate(members(count)):
        state, metrics = alone(traits)
        assert_same(population.unstacked(states, i).params, state.params)
        assert_same(population.unstacked(states, i).ema, state.ema)
        loss = np.mean([m["loss"] for m in metrics])
        np.testing.assert_allclose(means["loss"][i], loss, rtol=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("layout", ["vmap", pytest.param("each", marks=SLOW)])
def test_kept_and_resumed(layout):
    """What is dropped changes nothing of the others; states that are given go on."""
    ours = population.begin(layout, state_of, step_of, members(4))
    ours.advance([{"x": BATCHES[0]}] * 4)
    ours.keep([3, 1])
    assert len(ours) == 2
    ours.advance([{"x": BATCHES[1]}] * 2)
    chosen = [members(4)[i] for i in (3, 1)]
    other = "vmap" if layout == "each" else "each"
    resumed = population.begin(other, state_of, step_of, chosen, states=ours.states())
    resumed.advance([{"x": BATCHES[2]}] * 2)
    for i, traits in enumerate(chosen):
        assert_same(population.unstacked(resumed.states(), i).params, alone(traits)[0].params)


@pytest.mark.slow
def test_chunks_are_the_whole():
    """Truth: all at once, by the same batches; chunks of two, two and one, of which some go."""
    whole = population.begin("vmap", state_of, step_of, members(5))
    parts = population.begin("vmap", state_of, step_of, members(5), chunk=2)
    for each in (whole, parts):
        seen = [each.advance([{"x": BATCHES[i % 3]} for i in range(5)])]
        each.keep([4, 0, 1])
        assert len(each) == 3
        means = population.columns(seen)["loss"]
        each.last = means, each.advance([{"x": BATCHES[i % 3]} for i in range(3)])
    assert_same(parts.states().params, whole.states().params)
    np.testing.assert_allclose(parts.last[0], whole.last[0], rtol=1e-5)
    assert len({*map(float, parts.last[0])}) == 3  # untrained networks are 0: batches differ
    for how in ({"layout": "each", "chunk": 2}, {"layout": "vmap", "chunk": 0}):
        with pytest.raises(ValueError, match="chunk must be >= 1, and is for layout vmap"):
            population.begin(how["layout"], state_of, step_of, members(2), chunk=how["chunk"])


@pytest.mark.slow
def test_memory_by_the_estimate_of_two():
    """Truth: XLA's own estimate of the program that is chosen, and of one with a member more."""
    given = (step_of, state_of, members(1)[0], {"x": jnp.zeros((256, 2))})
    limit, total = 2_000_000, 16
    states = memory.bytes_of(*given, total)[0]
    chunk = memory.fitting(*given, total, limit=limit)
    assert 1 < chunk < total
    needs = [states + memory.bytes_of(*given, n)[1] for n in (chunk, chunk + 1)]
    assert needs[0] < limit
    assert needs[1] > 0.8 * limit
    assert memory.fitting(*given, total, limit=10**9) == total
    with pytest.raises(ValueError, match=r"16 members on a device need .* MiB, a member's step"):
        memory.fitting(*given, total, limit=states)


@pytest.mark.slow
def test_each_member_has_its_batch():
    ours = population.begin("vmap", state_of, step_of, members(2))
    ours.advance([{"x": BATCHES[0]}, {"x": BATCHES[1]}])
    traits = jax.tree.map(jnp.asarray, members(2)[1])
    wanted, _ = step_of(traits)(state_of(traits), {"x": BATCHES[1]})
    assert_same(population.unstacked(ours.states(), 1).params, wanted.params)


def test_layout_by_network():
    batch = {"x": jnp.zeros((8, 2))}
    assert population.prefer(step_of, state_of, members(1)[0], batch) == "vmap"
    assert population.prefer(step_of, state_of, members(1)[0], batch, "tpu") == "vmap"
    # some thousand parameters, twice forth and four times back: 6e9
    large = {"x": jax.ShapeDtypeStruct((1_000_000, 2), jnp.float32)}
    assert population.prefer(step_of, state_of, members(1)[0], large) == "each"

    def convolved(traits):
        def step(state, batch):
            image = batch["x"].reshape(1, 4, 4, 1)
            kernel = traits["lr"] * jnp.ones((3, 3, 1, 1))
            dims = ("NHWC", "HWIO", "NHWC")
            out = jax.lax.conv_general_dilated(
                image, kernel, (1, 1), "SAME", dimension_numbers=dims
            )
            return state, {"loss": out.sum()}

        return step

    assert population.prefer(convolved, state_of, members(1)[0], batch) == "each"


def test_refuses():
    with pytest.raises(ValueError, match="layout must be one of vmap, each"):
        population.begin("grouped", state_of, step_of, members(2))
    with pytest.raises(ValueError, match="traits of equal names, got none"):
        population.begin("vmap", state_of, step_of, [])
    with pytest.raises(ValueError, match="traits of equal names"):
        population.begin("vmap", state_of, step_of, [{"a": 1}, {"b": 1}])
    with pytest.raises(ValueError, match="traits of equal names, got nothing"):
        population.begin("vmap", state_of, step_of, [{}, {}])


def test_rungs_cost_the_same():
    """27 members, 81 steps, thirds: 27 x 3, 9 more x (9 - 3), ... as by hand."""
    assert halving.rungs(27, 81, 3) == [(3, 9), (9, 3), (27, 1)]
    assert halving.rungs(64, 2000, 4) == [(31, 16), (125, 4), (500, 1)]
    assert halving.rungs(3, 100, 4) == []
    assert halving.rungs(1, 100) == []
    # fewer steps than rungs: those that fall together are one
    assert halving.rungs(8, 2, 2) == [(1, 1)]
    for bad in ((0, 10, 2), (4, 0, 2), (4, 10, 1), (4.0, 10, 2)):
        with pytest.raises(ValueError, match="must be a whole number"):
            halving.rungs(*bad)


def test_survivors():
    assert halving.survivors([3.0, np.nan, 1.0, 2.0], 2) == [2, 3]
    assert halving.survivors([np.inf, 1.0, np.nan], 2) == [0, 1]
    assert halving.survivors([1.0, 1.0, 1.0], 2) == [0, 1]
