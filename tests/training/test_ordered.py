"""Gradients added in a fixed order.

Truth: the same bits on every number of devices; and `make_train_step` on the parts one by one,
whose mean by numpy it must be.
"""

import os
import pathlib
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jaxdiff import models, training
from jaxdiff.training import ordered, parallel

X = np.random.default_rng(0).normal(size=(16, 2)).astype(np.float32)
NET = models.MLP(16, 1)


def loss_of(net):
    def loss_fn(params, batch, key, hyper, aux):
        noisy = batch["x"] + jax.random.normal(key, batch["x"].shape)
        out = net.apply(params, noisy, jnp.linspace(0.0, 900.0, len(noisy)))
        loss = jnp.mean((out - batch["x"]) ** 2)
        return loss, ({"first": noisy.ravel()[0]}, jax.tree.map(lambda a: a + 1, aux))

    return loss_fn


def state_of(net, x):
    shapes = jax.eval_shape(net.init, jax.random.key(0), x[:1], jnp.zeros(1))
    rng = np.random.default_rng(1)
    params = jax.tree.map(lambda a: 0.2 * rng.normal(size=a.shape).astype(np.float32), shapes)
    hyper = {"lr": 0.01, "ema_decay": 0.9}
    aux = {"count": jnp.int32(0), "mean": jnp.float32(0)}
    return training.init_state(jax.random.key(0), params, training.adam(), hyper=hyper, aux=aux)


def trained(net, x, devices, steps=4):
    over = parallel.mesh(devices)
    step = ordered.make_ordered_step(loss_of(net), training.adam(), parts=8, over=over)
    state, step = parallel.replicate(state_of(net, x), over), parallel.jit_step(step, over)
    for _ in range(steps):
        state, metrics = step(state, parallel.split({"x": x}, over))
    state = {"params": state.params, "ema": state.ema, "opt": state.opt_state, "aux": state.aux}
    return jax.device_get((state, metrics))


IMAGES = np.random.default_rng(0).normal(size=(16, 8, 8, 1)).astype(np.float32)
NETS = {
    "mlp": (NET, X, (1, 2, 8)),
    # Of one device the program is another one, and differs in last bits.
    "dit": (models.DiT(32, 2, 4), IMAGES, (2, 4, 8)),
    "unet": (models.UNet(8, (1, 2), 1, groups=4, attention=(4,), heads=2), IMAGES, (2, 4, 8)),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", NETS)
def test_bits_do_not_know_the_number_of_devices(name):
    """In a process of its own, compiled as everywhere: these tests are compiled for speed of
    compiling, which does not make the same program of a part."""
    env = {**os.environ, "JAX_PLATFORMS": "cpu", "JAX_NUM_CPU_DEVICES": "8", "XLA_FLAGS": ""}
    command = [sys.executable, "-m", "tests.training.test_ordered", name]
    root = pathlib.Path(__file__).parents[2]
    ran = subprocess.run(command, cwd=root, env=env, capture_output=True, text=True, timeout=600)
    assert ran.returncode == 0, ran.stderr


def main(name):
    net, x, numbers = NETS[name]
    first, *others = (trained(net, x, devices) for devices in numbers)
    for other in others:
        jax.tree.map(np.testing.assert_array_equal, other, first)


@pytest.mark.slow
def test_devices_only_move_the_parts():
    """To roundings of float32 sums, of the metrics of one step."""
    one, eight = (trained(NET, X, devices, steps=1) for devices in (1, 8))
    close = lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5)  # noqa: E731
    jax.tree.map(close, one[1], eight[1])
    assert eight[0]["aux"] == {"count": 1, "mean": 1.0}


@pytest.mark.slow
def test_is_the_mean_of_its_parts():
    """To float32 roundings of sums of eight."""
    state = state_of(NET, X)
    key, gradients, losses = jax.random.fold_in(state.key, 0), [], []
    for i, part in enumerate(X.reshape(8, 2, 2)):
        valued = jax.value_and_grad(loss_of(NET), has_aux=True)
        given = (state.params, {"x": part}, jax.random.fold_in(key, i), {}, state.aux)
        (loss, _), gradient = valued(*given)
        gradients.append(gradient)
        losses.append(float(loss))
    mean = jax.tree.map(lambda *g: np.mean(g, axis=0), *gradients)
    step = ordered.make_ordered_step(loss_of(NET), optax.sgd(1.0), parts=8)
    state = training.init_state(
        state.key, state.params, optax.sgd(1.0), hyper={"lr": 1.0, "ema_decay": 0.9}, aux=state.aux
    )
    after, metrics = jax.jit(step)(state, {"x": X})
    moved = jax.tree.map(lambda a, b: np.asarray(a - b), state.params, after.params)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-6), moved, mean)
    np.testing.assert_allclose(metrics["loss"], np.mean(losses), rtol=1e-6)
    np.testing.assert_allclose(metrics["grad_norm"], optax.tree.norm(mean), rtol=1e-5)


def test_refuses():
    make = lambda **how: ordered.make_ordered_step(loss_of(NET), training.adam(), **how)  # noqa: E731
    with pytest.raises(ValueError, match="parts must be a positive whole number, got 0"):
        make(parts=0)
    with pytest.raises(ValueError, match="parts must be a multiple of the 8 devices, got 4"):
        make(parts=4, over=parallel.mesh(8))
    with pytest.raises(ValueError, match="parts=3 must divide the batch, got 16 examples"):
        jax.eval_shape(make(parts=3), state_of(NET, X), {"x": X})


if __name__ == "__main__":
    main(sys.argv[1])
