"""Truth: the schedules' formulas by hand, Adam's and AdamW's update written out."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxdiff.training import optim


def hyper(**values):
    return {name: jnp.float32(v) for name, v in {"lr": 2.0, **values}.items()}


@pytest.mark.parametrize(
    ("decay", "expected"),
    [
        (optim.constant, [0.5, 1.0, 2.0, 2.0, 2.0]),
        (optim.linear, [0.5, 0.99, 1.5, 0.0, 0.0]),
        (optim.cosine, [0.5, 0.99975, 2 * 0.8535534, 0.0, 0.0]),
    ],
)
def test_learning_rate_by_hand(decay, expected):
    # Steps 0, 1, 25, 100, 150 of 100, with 4 of warm-up; cos(pi / 4) = 0.7071068.
    h = hyper(warmup=4, steps=100)
    got = [optim.learning_rate(t, h, decay) for t in (0, 1, 25, 100, 150)]
    np.testing.assert_allclose(got, expected, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("decay", [optim.linear, optim.cosine])
def test_no_end_is_no_decay(decay):
    got = optim.learning_rate(jnp.int32(10**6), hyper(warmup=0, steps=np.inf), decay)
    assert float(got) == 2.0


def test_adamw_written_out():
    params, grads = jnp.array([1.0, -2.0]), jnp.array([3.0, 4.0])
    optimizer = optim.adam(b1=0.9, b2=0.99, eps=1e-3, clip=1.0, weight_decay=0.1)
    state = optimizer.init(params)
    m = v = np.zeros(2)
    clipped = np.array([0.6, 0.8])  # |(3, 4)| = 5
    for t in (1, 2):
        update, state = optimizer.update(grads, state, params)
        m, v = 0.9 * m + 0.1 * clipped, 0.99 * v + 0.01 * clipped**2
        step = (m / (1 - 0.9**t)) / (np.sqrt(v / (1 - 0.99**t)) + 1e-3)
        # float32 against float64: a few roundings, with the bias corrections' cancellation.
        np.testing.assert_allclose(update, -(step + 0.1 * np.asarray(params)), rtol=1e-5)


def test_clip_none_clips_nothing():
    optimizer = optim.adam(clip=None, eps=1e3)  # a large eps keeps the update linear in g
    big = jnp.array([300.0])
    update, _ = optimizer.update(big, optimizer.init(big), big)
    np.testing.assert_allclose(update, -300 / (300 + 1e3), rtol=1e-5)


@pytest.mark.parametrize(
    "bad", [{"b1": 1.0}, {"b2": -0.1}, {"eps": 0.0}, {"clip": 0.0}, {"weight_decay": -1.0}]
)
def test_refuses(bad):
    with pytest.raises(ValueError, match=next(iter(bad))):
        optim.adam(**bad)


def test_total_is_traced():
    got = jax.jit(
        jax.vmap(lambda n: optim.learning_rate(5, hyper(warmup=0, steps=n), optim.linear))
    )(jnp.array([10.0, 20.0, np.inf]))
    np.testing.assert_allclose(got, [1.0, 1.5, 2.0], rtol=1e-6)
