"""Truth: gradient descent on a quadratic in closed form; a Python loop on one device.

The quadratic is loss = mean |w - x|^2 / 2, whose gradient is w - mean x: after one step of plain
descent w = (1 - lr) w + lr mean x, and any factor that a transformation slips into the gradient
(the number of devices, say) shows, which Adam would hide.
"""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.sharding import AxisType, NamedSharding
from jax.sharding import PartitionSpec as P

from jaxdiff import training


def quadratic(params, batch, key, hyper, aux):
    return jnp.mean(jnp.sum((params["w"][None] - batch["x"]) ** 2, axis=1)) / 2, ({}, aux)


@pytest.fixture
def mesh():
    return jax.make_mesh((8,), ("data",), axis_types=(AxisType.Auto,))


@pytest.fixture
def descent(toy, key):
    """(state, batch, expected w) of one step of descent on the quadratic."""
    x = jax.random.normal(key, (16, 3))
    w = jnp.array([1.0, -2.0, 3.0])
    hyper = {"lr": 0.25, "ema_decay": 0.9}
    state = training.init_state(key, {"w": w}, toy.sgd, hyper=hyper)
    return state, {"x": x}, 0.75 * np.asarray(w) + 0.25 * np.mean(np.asarray(x, float), axis=0)


def spread(step, mesh, how):
    """The step over 8 devices: a function of an ordinary state and batch."""
    if how == "jit":
        rows, whole = NamedSharding(mesh, P("data")), NamedSharding(mesh, P())
        return jax.jit(step, in_shardings=(whole, rows), out_shardings=whole)
    if how == "pmap":
        mapped = jax.pmap(step, axis_name="data", in_axes=(None, 0), out_axes=None)
        split = lambda a: a.reshape(8, a.shape[0] // 8, *a.shape[1:])  # noqa: E731
        return lambda state, batch: mapped(state, jax.tree.map(split, batch))
    check = how == "shard_map checked"
    specs = {"in_specs": (P(), P("data")), "out_specs": P(), "check_vma": check}
    return jax.jit(jax.shard_map(step, mesh=mesh, **specs))


WAYS = ["jit", "shard_map checked", "shard_map unchecked", "pmap"]


@pytest.mark.parametrize("accumulate", [1, 2])
@pytest.mark.parametrize("how", WAYS)
def test_eight_devices_have_the_gradient_of_one(descent, toy, mesh, how, accumulate):
    state, batch, expected = descent
    axis = None if how == "jit" else "data"
    step = training.make_train_step(quadratic, toy.sgd, axis_name=axis, accumulate=accumulate)
    after, metrics = spread(step, mesh, how)(state, batch)
    # float32 means of 16 numbers in another order of summation.
    np.testing.assert_allclose(after.params["w"], expected, rtol=1e-6)
    gradient = np.asarray(state.params["w"]) - np.mean(np.asarray(batch["x"]), axis=0)
    np.testing.assert_allclose(metrics["grad_norm"], np.linalg.norm(gradient), rtol=1e-6)
    assert int(after.step) == 1


@pytest.mark.parametrize("how", WAYS)
def test_eight_devices_train_as_one(toy, key, mesh, how):
    axis = None if how == "jit" else "data"
    optimizer = training.adam()
    one = jax.jit(training.make_train_step(toy.quiet_loss, optimizer))
    many = spread(training.make_train_step(toy.quiet_loss, optimizer, axis_name=axis), mesh, how)
    a = b = toy.start(key, optimizer)
    for t in range(10):
        batch = toy.Regression().batch_at(t)
        (a, first), (b, second) = one(a, batch), many(b, batch)
        np.testing.assert_allclose(first["loss"], second["loss"], rtol=1e-5)
    # Sums in another order differ by 1e-7; Adam divides by the gradient's size, which may be
    # small, and 10 steps add up (jax-notes measured 2e-7 after 20 on a well-scaled problem).
    for p, q in zip(jax.tree.leaves(a.ema), jax.tree.leaves(b.ema), strict=True):
        np.testing.assert_allclose(p, q, atol=2e-5)


@pytest.mark.parametrize("how", WAYS[1:])
def test_devices_draw_with_keys_of_their_own(toy, key, mesh, how):
    """The mean of noise over 8 devices: var 1/8 if independent, 1 if the same everywhere."""

    def draw(params, batch, key, hyper, aux):
        noise = jax.random.normal(key, (200,))
        return 0 * params["w"].sum(), ({"var": jnp.mean(noise * batch["sign"].sum())}, noise)

    step = training.make_train_step(draw, toy.sgd, axis_name="data")
    hyper = {"lr": 0.1, "ema_decay": 0.9}
    state = training.init_state(key, {"w": jnp.ones(1)}, toy.sgd, hyper=hyper, aux=jnp.zeros(200))
    after, _ = spread(step, mesh, how)(state, {"sign": jnp.ones(8)})
    # The variance of 200 draws has relative deviation sqrt(2 / 200) = 0.1; five of them.
    assert abs(float(jnp.var(after.aux)) * 8 - 1) < 0.5


def test_scan_is_a_loop(toy, key):
    optimizer = training.adam()
    step = training.make_train_step(toy.noisy_loss, optimizer)
    data = toy.Regression()
    batches = [data.batch_at(t) for t in range(5)]
    looped = toy.start(key, optimizer)
    jitted = jax.jit(step)
    losses = []
    for batch in batches:
        looped, metrics = jitted(looped, batch)
        losses.append(metrics["loss"])
    stacked = jax.tree.map(lambda *a: jnp.stack(a), *batches)
    scanned, metrics = jax.jit(lambda s, b: jax.lax.scan(step, s, b))(
        toy.start(key, optimizer), stacked
    )
    # The same operations, fused otherwise: a few float32 roundings through Adam's quotient.
    np.testing.assert_allclose(metrics["loss"], losses, rtol=1e-5)
    for p, q in zip(jax.tree.leaves(looped.params), jax.tree.leaves(scanned.params), strict=True):
        np.testing.assert_allclose(p, q, atol=1e-5)


def test_population_is_separate_runs(toy):
    optimizer = training.adam()
    step = training.make_train_step(toy.noisy_loss, optimizer, decay=training.optim.cosine)
    members = {
        "lr": jnp.array([0.01, 0.05, 0.1]),
        "ema_decay": jnp.array([0.5, 0.9, 0.99]),
        "steps": jnp.array([6.0, 10.0, jnp.inf]),
    }
    seeds = jnp.arange(3)
    begin = lambda seed, hyper: toy.start(jax.random.key(seed), optimizer, **hyper)  # noqa: E731
    together = jax.jit(jax.vmap(begin))(seeds, members)
    mapped, single = jax.jit(jax.vmap(step, in_axes=(0, None))), jax.jit(step)
    alone = [begin(seeds[i], jax.tree.map(lambda a: a[i], members)) for i in range(3)]  # noqa: B023
    for t in range(6):
        batch = toy.Regression().batch_at(t)
        together, _ = mapped(together, batch)
        alone = [single(state, batch)[0] for state in alone]
    stacked = jax.tree.map(lambda *a: jnp.stack(a), *(state.ema for state in alone))
    # Batched matmuls sum in another order; see above for Adam.
    for p, q in zip(jax.tree.leaves(together.ema), jax.tree.leaves(stacked), strict=True):
        np.testing.assert_allclose(p, q, atol=1e-5)
    assert np.ptp(np.asarray(together.params["w1"]), axis=0).min() > 0  # members do differ


@pytest.mark.parametrize("parts", [2, 4])
def test_microbatches_are_the_batch(toy, key, parts):
    a, b = (
        jax.jit(training.make_train_step(toy.quiet_loss, toy.sgd, accumulate=n))(
            toy.start(key, toy.sgd), toy.Regression().batch_at(0)
        )
        for n in (1, parts)
    )
    # The same mean in another order, in float32.
    np.testing.assert_allclose(a[1]["loss"], b[1]["loss"], rtol=1e-6)
    for p, q in zip(jax.tree.leaves(a[0].params), jax.tree.leaves(b[0].params), strict=True):
        np.testing.assert_allclose(p, q, atol=1e-6)


def test_microbatches_draw_their_own_noise_and_carry_aux(toy, key):
    def count(params, batch, key, hyper, aux):
        return 0 * params["w"].sum(), ({"draw": jax.random.normal(key, ())}, aux + 1)

    hyper = {"lr": 0.1, "ema_decay": 0.9}
    state = training.init_state(key, {"w": jnp.ones(1)}, toy.sgd, hyper=hyper, aux=jnp.zeros(()))
    step = training.make_train_step(count, toy.sgd, accumulate=4)
    after, metrics = step(state, {"x": jnp.ones((8, 1))})
    assert float(after.aux) == 4
    per_step = jax.random.fold_in(key, 0)
    draws = [jax.random.normal(jax.random.fold_in(per_step, i), ()) for i in range(4)]
    np.testing.assert_allclose(metrics["draw"], np.mean(draws), rtol=1e-5)


def test_key_of_a_step_depends_on_nothing_but_the_step(toy, key):
    step = training.make_train_step(
        lambda p, b, k, h, a: (0 * p["w1"].sum(), ({"draw": jax.random.normal(k, ())}, a)), toy.sgd
    )
    state = toy.start(key, toy.sgd)
    for t in range(3):
        state, metrics = step(state, {"x": jnp.ones((2, 1))})
        assert metrics["draw"] == jax.random.normal(jax.random.fold_in(key, t), ())


def test_overfits_one_batch(toy, key):
    optimizer = training.adam()
    step = training.make_train_step(toy.quiet_loss, optimizer)
    batch = toy.Regression(8).batch_at(0)
    _, metrics = jax.jit(lambda s: jax.lax.scan(lambda s, _: step(s, batch), s, length=1500))(
        toy.start(key, optimizer)
    )
    # 40 parameters, 8 points: the loss can be zero; from order 1 it must fall by four decades.
    assert metrics["loss"][0] > 0.1
    assert metrics["loss"][-1] < 1e-4


@pytest.mark.slow
def test_clipping_bounds_the_step(toy, key):
    """grad_norm is that before clipping; a clipped plain descent moves by lr times the bound."""
    optimizer = optax.chain(optax.clip_by_global_norm(0.01), toy.sgd)
    state = toy.start(key, optimizer, lr=1.0)
    step = training.make_train_step(toy.quiet_loss, optimizer)
    after, metrics = step(state, toy.Regression().batch_at(0))
    moved = optax.tree.norm(jax.tree.map(jnp.subtract, after.params, state.params))
    assert metrics["grad_norm"] > 0.1
    np.testing.assert_allclose(moved, 0.01, rtol=1e-4)


@pytest.mark.parametrize("bad", [0, -1, 1.5])
def test_refuses_accumulate(toy, bad):
    with pytest.raises(ValueError, match="accumulate must be"):
        training.make_train_step(toy.quiet_loss, toy.sgd, accumulate=bad)


def test_refuses_a_batch_that_does_not_split(toy, key):
    step = training.make_train_step(toy.quiet_loss, toy.sgd, accumulate=3)
    with pytest.raises(ValueError, match="must divide the batch, got 16"):
        step(toy.start(key, toy.sgd), toy.Regression(16).batch_at(0))


@pytest.mark.parametrize(
    ("hyper", "words"),
    [
        ({"lr": 0.1}, "ema_decay"),
        ({"lr": -0.1, "ema_decay": 0.9}, "'lr'"),
        ({"lr": 0.1, "ema_decay": 1.1}, "'ema_decay'"),
        ({"lr": 0.1, "ema_decay": 0.9, "steps": 0}, "'steps'"),
    ],
)
def test_state_refuses(toy, key, hyper, words):
    with pytest.raises(ValueError, match=words):
        training.init_state(key, {"w": jnp.ones(1)}, toy.sgd, hyper=hyper)


def test_state_wants_a_typed_key(toy):
    with pytest.raises(ValueError, match="typed key"):
        training.init_state(jax.random.PRNGKey(0), {}, toy.sgd, hyper={"lr": 1, "ema_decay": 0})


@pytest.mark.usefixtures("strict")
def test_numbers_are_parameters_of_one_program(toy, key):
    """A number would be weakly typed, the first step's result not: two compilations."""

    def loss(params, batch, key, hyper, aux):
        return (params["w"] - batch) ** 2, ({}, aux)

    hyper = {"lr": 0.25, "ema_decay": 0.0}
    state = training.init_state(key, {"w": 1.0}, toy.sgd, hyper=hyper)
    step = jax.jit(training.make_train_step(loss, toy.sgd))
    for _ in range(2):
        state, _ = step(state, jnp.float32(3.0))
    # Each step halves the distance to 3: w - lr 2 (w - 3).
    assert state.params["w"] == 2.5
    assert step._cache_size() == 1
