"""A state cut over devices is trained as one that is copied to each.

Truth: the same steps on one device; sizes by counting.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.sharding import PartitionSpec as P

from jaxdiff import models, training
from jaxdiff.training import parallel, sharding

NET = models.DiT(32, 2, 4)
X = np.random.default_rng(0).normal(size=(16, 8, 8, 1)).astype(np.float32)


@functools.cache
def start():
    """Parameters that are not zero anywhere, so that every layer has a gradient."""
    shapes = jax.eval_shape(NET.init, jax.random.key(0), X[:1], jnp.zeros(1))
    rng = np.random.default_rng(1)
    return jax.tree.map(lambda a: 0.1 * rng.normal(size=a.shape).astype(np.float32), shapes)


def state_of():
    hyper = {"lr": 0.1, "ema_decay": 0.9}
    return training.init_state(jax.random.key(0), start(), optax.sgd(1.0, 0.9), hyper=hyper)


def loss_fn(params, batch, key, hyper, aux):
    noisy = batch["x"] + jax.random.normal(key, batch["x"].shape)
    out = NET.apply(params, noisy, jnp.linspace(0.0, 900.0, len(noisy)))
    return jnp.mean((out - batch["x"]) ** 2), ({}, aux)


STEP = training.make_train_step(loss_fn, optax.sgd(1.0, 0.9))


@functools.cache
def alone():
    state, step, seen = state_of(), jax.jit(STEP), []
    for _ in range(3):
        state, metrics = step(state, {"x": X})
        seen.append(metrics)
    return jax.device_get(state.params), jax.device_get(state.ema), jax.device_get(seen)


WAYS = {
    "data": ({"devices": 8}, {}),
    "full": ({"devices": 8}, {"full": True}),
    "tensor": ({"devices": 2, "model": 4}, {"rules": sharding.TRANSFORMER}),
    "both": ({"devices": 4, "model": 2}, {"full": True, "rules": sharding.TRANSFORMER}),
}


@pytest.mark.parametrize(
    "way", ["both", *(pytest.param(w, marks=pytest.mark.slow) for w in ("full", "data", "tensor"))]
)
def test_three_steps_are_those_of_one_device(way):
    """Gradient descent with momentum: sums in another order, a few float32 roundings of each."""
    meshed, how = WAYS[way]
    over = parallel.mesh(**meshed)
    state = sharding.made(state_of, over, **how)
    where = sharding.layout(state, over, **how)
    step = parallel.jit_step(STEP, over, where)
    params, ema, seen = alone()
    for i in range(3):
        state, metrics = step(state, parallel.split({"x": X}, over))
        np.testing.assert_allclose(metrics["loss"], seen[i]["loss"], rtol=1e-5)
        np.testing.assert_allclose(metrics["grad_norm"], seen[i]["grad_norm"], rtol=1e-5)
    close = lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-6)  # noqa: E731
    jax.tree.map(close, state.params, params)
    jax.tree.map(close, state.ema, ema)
    kept = jax.tree.map(lambda a, s: a.sharding.is_equivalent_to(s, a.ndim), state, where)
    assert all(jax.tree.leaves(kept))


def test_memory_of_a_device():
    """Of 8 devices each holds an eighth of what is cut; XLA's own count of the step's arguments."""
    over, sizes = parallel.mesh(8), {}
    shapes = jax.eval_shape(state_of)
    for full in (False, True):
        where = sharding.layout(shapes, over, full=full)
        placed = jax.tree.map(
            lambda a, s: jax.ShapeDtypeStruct(a.shape, a.dtype, sharding=s), shapes, where
        )
        held = sum(np.prod(s.shard_shape(a.shape)) * 4 for a, s in zip(
            jax.tree.leaves(shapes), jax.tree.leaves(where), strict=True))  # fmt: skip
        batch = {
            "x": jax.ShapeDtypeStruct(X.shape, X.dtype, sharding=parallel.split(X, over).sharding)
        }
        lowered = parallel.jit_step(STEP, over, where).lower(placed, batch)
        sizes[full] = lowered.compile().memory_analysis().argument_size_in_bytes
        # the batch's eighth besides; a key is two words
        np.testing.assert_allclose(sizes[full], held + X.nbytes / 8, atol=64)
    assert sizes[True] < 0.25 * sizes[False]


def test_what_is_cut():
    over = parallel.mesh(4, model=2)
    assert dict(over.shape) == {"data": 4, "model": 2}
    tree = {
        "attention": {"query": {"kernel": np.zeros((64, 32)), "bias": np.zeros(32)}},
        "odd": np.zeros((1023, 3)),
        "small": np.zeros(64),
        "scalar": np.zeros(()),
    }
    found = sharding.layout(tree, over, full=True, rules=sharding.TRANSFORMER)
    specs = jax.tree.map(lambda s: s.spec, found)
    assert specs["attention"]["query"]["kernel"] == P("data", "model")
    assert specs["attention"]["query"]["bias"] == P("model")
    assert specs["odd"] == P(None, None)  # 4 divides neither
    assert specs["small"] == P(None)
    assert specs["scalar"] == P()


def test_refuses():
    over = parallel.mesh(2)
    tree = {"attention": {"query": {"kernel": np.zeros((6, 5))}}}
    with pytest.raises(ValueError, match="is over 'model', the mesh has data"):
        sharding.layout(tree, over, rules=sharding.TRANSFORMER)
    both = parallel.mesh(2, model=2)
    with pytest.raises(ValueError, match=r"query/kernel of shape \[6, 5\] must divide by the 2"):
        sharding.layout(tree, both, rules=sharding.TRANSFORMER)
    with pytest.raises(ValueError, match="has fewer axes"):
        sharding.layout({"a": np.zeros(4)}, both, rules=[("a", P(None, "model"))])
    for model in (0, 9):
        with pytest.raises(ValueError, match=r"model must be in 1\.\.8"):
            parallel.mesh(model=model)
    with pytest.raises(ValueError, match=r"devices must be in 1\.\.4"):
        parallel.mesh(5, model=2)


@pytest.mark.slow
def test_a_checkpoint_of_one_layout_goes_on_in_another(tmp_path):
    """Written by 8 devices in parts, read by 2 x 2 by heads, then by one, whose log it is."""

    class Batches:
        def batch_at(self, step):
            return {"x": X}

    how = {"log_every": 1, "show": False, "out": tmp_path, "resume": True}
    cut = functools.partial(sharding.layout, over=(over := parallel.mesh(8)), full=True)
    first = training.fit(STEP, state_of(), Batches(), steps=1, mesh=over, layout=cut, **how)
    over = parallel.mesh(2, model=2)
    cut = functools.partial(sharding.layout, over=over, rules=sharding.TRANSFORMER)
    second = training.fit(STEP, state_of(), Batches(), steps=2, mesh=over, layout=cut, **how)
    third = training.fit(STEP, state_of(), Batches(), steps=3, **how)
    losses = [row["loss"] for fit in (first, second, third) for row in fit.history]
    np.testing.assert_allclose(losses, [m["loss"] for m in alone()[2]], rtol=1e-5)
    assert len(jax.tree.leaves(third.state.params)[0].sharding.device_set) == 1
