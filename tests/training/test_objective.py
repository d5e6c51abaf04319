"""Truth: for one Gaussian point mass the best network is known, and its loss; uniform times agree
with importance-drawn ones in expectation.

The data are the single point c, so eps = (x_t - alpha c) / sigma exactly: a network with the free
parameter c reaches loss 0 there and nowhere else.
"""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxdiff import losses, schedules, training
from jaxdiff.denoiser import make_denoiser
from jaxdiff.guidance import make_classifier

SCHEDULE = schedules.cosine()
POINT = np.array([0.5, -0.25], np.float32)


def apply(params, x, t, cond=None):
    """A network that predicts x_0 as its parameter, plus the label if there is one."""
    shift = 0.0 if cond is None else cond.astype(x.dtype)[:, None]
    return jnp.broadcast_to(params["c"], x.shape) + shift


@pytest.fixture
def denoiser():
    return make_denoiser(apply, {"c": jnp.zeros(2)}, parametrization="x0", time_feature="clock")


def train(loss_fn, key, batch, steps=300, aux=()):
    optimizer = training.adam()
    hyper = {"lr": 0.02, "ema_decay": 0.9}
    params = {"c": jnp.zeros(2)}
    state = training.init_state(key, params, optimizer, hyper=hyper, aux=aux)
    step = training.make_train_step(loss_fn, optimizer)
    return jax.jit(lambda s: jax.lax.scan(lambda s, _: step(s, batch), s, length=steps))(state)


def test_finds_the_point(denoiser, key):
    loss_fn = training.denoising_loss(denoiser, SCHEDULE, weight=losses.plain)
    state, metrics = train(loss_fn, key, {"x": jnp.tile(POINT, (16, 1))})
    # Adam at rate 0.02 circles the minimum within about that rate.
    np.testing.assert_allclose(state.params["c"], POINT, atol=0.02)
    # On the output x_0 itself the loss at c = 0 is |point|^2 / 2, at every time.
    np.testing.assert_allclose(metrics["loss"][0], np.mean(POINT**2), rtol=1e-5)
    assert set(metrics) == {"loss", "grad_norm", "lr"}


def test_is_conditioned_on_the_entry_named(denoiser, key):
    loss_fn = training.denoising_loss(denoiser, SCHEDULE, cond="y", weight=losses.plain)
    y = jnp.arange(16) % 3
    x = jnp.tile(POINT, (16, 1)) + y[:, None]
    loss, _ = loss_fn({"c": jnp.asarray(POINT)}, {"x": x, "y": y}, key, {}, ())
    assert loss < 1e-12


@pytest.mark.slow
def test_importance_carries_a_history_and_keeps_the_objective(denoiser, key):
    loss_fn = training.importance_loss_of(losses.denoising, denoiser, SCHEDULE)
    history = losses.loss_history(bins=4, length=3)
    batch = {"x": jnp.tile(POINT, (64, 1))}
    state, _ = train(loss_fn, key, batch, aux=history)
    assert int(state.aux.counts.sum()) == 300 * 64
    np.testing.assert_allclose(state.params["c"], POINT, atol=0.02)
    # Its loss at a fixed network estimates that of uniform times: 400 batches of each.
    params, keys = {"c": jnp.zeros(2)}, jax.random.split(key, 400)
    plain = training.denoising_loss(denoiser, SCHEDULE, weight=losses.plain)
    drawn = training.importance_loss_of(losses.denoising, denoiser, SCHEDULE, weight=losses.plain)
    uneven = history.update(jnp.linspace(0.01, 0.99, 40), jnp.linspace(1.0, 9.0, 40), SCHEDULE)
    values = [
        np.asarray(jax.jit(jax.vmap(lambda k, f=f, a=a: f(params, batch, k, {}, a)[0]))(keys))
        for f, a in ((plain, ()), (drawn, uneven))
    ]
    error = np.hypot(*(np.std(v) / np.sqrt(400) for v in values))
    assert np.std(values[1]) > 0  # importance is at work
    assert abs(np.mean(values[0]) - np.mean(values[1])) < 5 * error


def test_history_is_one_for_all_devices(denoiser, key):
    """Counts stay whole numbers, and every device goes on from the same history."""
    mesh = jax.make_mesh((8,), ("data",), axis_types=(jax.sharding.AxisType.Auto,))
    spec = jax.sharding.PartitionSpec
    optimizer = training.adam()
    loss_fn = training.importance_loss_of(losses.denoising, denoiser, SCHEDULE)
    step = training.make_train_step(loss_fn, optimizer, axis_name="data")
    hyper = {"lr": 0.02, "ema_decay": 0.9}
    aux = losses.loss_history(bins=2, length=2)
    state = training.init_state(key, {"c": jnp.zeros(2)}, optimizer, hyper=hyper, aux=aux)
    mapped = jax.shard_map(step, mesh=mesh, in_specs=(spec(), spec("data")), out_specs=spec())
    after, _ = jax.jit(mapped)(state, {"x": jnp.tile(POINT, (16, 1))})
    assert after.aux.counts.dtype == jnp.int32
    assert after.aux.counts.sum() > 0
    assert jax.tree.structure(after) == jax.tree.structure(state)


def read(params, x, feature):
    """Logits of two classes that differ by 2 k x."""
    return jnp.concatenate([-params["k"] * x, params["k"] * x], axis=-1)


def test_classification_finds_the_exact_classifier(key):
    """x_0 = +-1 at one level: the log-odds of y given x_t are 2 alpha x / sigma^2."""
    level = SCHEDULE(jnp.asarray(0.5))
    fixed = lambda key, n, schedule: (jnp.full(n, 0.5), jnp.ones(n))  # noqa: E731
    classifier = make_classifier(read, {"k": jnp.zeros(())}, 2, time_feature="clock")
    loss_fn = training.classification_loss(classifier, SCHEDULE, times=fixed)
    y = jnp.arange(512) % 2
    batch = {"x": 2.0 * y[:, None] - 1, "y": y}
    optimizer = training.adam()
    state = training.init_state(
        key, {"k": jnp.zeros(())}, optimizer, hyper={"lr": 0.02, "ema_decay": 0.98}
    )
    step = training.make_train_step(loss_fn, optimizer)
    run = jax.jit(lambda s: jax.lax.scan(lambda s, _: step(s, batch), s, length=400))
    state, metrics = run(state)
    # The logistic estimate from some 50 batches of 512 errs by 2 per cent, Adam by its rate.
    np.testing.assert_allclose(state.ema["k"], level.alpha / level.sigma**2, rtol=0.1)
    assert metrics["accuracy"][-1] > metrics["accuracy"][0]


@pytest.mark.slow
def test_scaled_multiplies_the_loss_and_its_gradient(denoiser, key):
    batch = {"x": jnp.tile(POINT, (8, 1))}
    plain = training.denoising_loss(denoiser, SCHEDULE)
    summed = training.scaled(plain, 2.0)
    value = lambda f: jax.value_and_grad(f, has_aux=True)({"c": jnp.ones(2)}, batch, key, {}, ())  # noqa: E731
    (loss, _), grads = value(plain)
    (twice, _), more = value(summed)
    np.testing.assert_allclose(twice, 2 * loss, rtol=1e-6)
    np.testing.assert_allclose(more["c"], 2 * grads["c"], rtol=1e-6)


@pytest.mark.slow
@pytest.mark.parametrize("probability", [0.0, 1.0])
def test_augmented_tells_the_network_what_was_done(probability, key):
    """Where nothing is done the network is told zeros, and sees the images as they are."""
    seen = {}

    def apply(params, x, t, cond):
        seen.update(cond)
        return x

    denoiser = make_denoiser(apply, {}, parametrization="x0", time_feature="clock")
    noisy = {}

    def inner(params, batch, key, hyper, aux):
        noisy.update(batch)
        return training.denoising_loss(denoiser, SCHEDULE, cond={"vector": "augment"})(
            params, batch, key, hyper, aux
        )

    x = jax.random.uniform(key, (4, 6, 6, 1), minval=-1)
    loss, _ = training.augmented(inner, probability)({}, {"x": x}, key, {}, ())
    assert np.isfinite(loss)
    assert seen["vector"].shape == (4, 9)
    same = np.array_equal(noisy["x"], x)
    assert same == (probability == 0.0)
    assert np.any(seen["vector"]) == (probability == 1.0)
