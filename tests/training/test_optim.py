"""Truth: the schedules' formulas by hand, Adam's and AdamW's update written out."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
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


@pytest.mark.parametrize("name", sorted(optim.DECAYS))
def test_decays_begin_at_one_and_never_rise(name):
    factors = np.asarray(jax.vmap(optim.DECAYS[name])(jnp.linspace(0, 1, 101)))
    assert factors[0] == 1
    assert np.all(np.diff(factors) <= 1e-7)
    assert np.all(factors >= -1e-7)


@pytest.mark.parametrize(
    ("name", "progress", "expected"),
    [
        ("su", 0.1, 1.0),
        ("su", 0.5, 0.5),
        ("su", 0.75, 0.3),
        ("su", 1.0, 0.1),
        ("inverse_sqrt", 0.4, 0.5),
        ("trapezoid", 0.8, 1.0),
        ("trapezoid", 0.9, 0.5),
    ],
)
def test_decays_by_hand(name, progress, expected):
    np.testing.assert_allclose(optim.DECAYS[name](jnp.float32(progress)), expected, rtol=1e-5)


def test_lamb_is_the_algorithm():
    """Two steps of algorithm 2 in float64; vectors and zero matrices take Adam's direction."""
    rng = np.random.default_rng(0)
    params = {
        "kernel": rng.normal(size=(3, 4)),
        "bias": rng.normal(size=4),
        "zero": np.zeros((2, 2)),
    }
    grads = [{name: rng.normal(size=p.shape) for name, p in params.items()} for _ in range(2)]
    b1, b2, eps, weight_decay = 0.9, 0.99, 1e-6, 0.1
    lamb = optim.lamb(b1=b1, b2=b2, eps=eps, weight_decay=weight_decay)
    state, ours = lamb.init(params), None
    m, v = (dict.fromkeys(params, 0.0) for _ in range(2))
    for t, g in enumerate(grads, 1):
        ours, state = lamb.update(g, state, params)
        for name, p in params.items():
            m[name] = b1 * m[name] + (1 - b1) * g[name]
            v[name] = b2 * v[name] + (1 - b2) * g[name] ** 2
            u = (m[name] / (1 - b1**t)) / (np.sqrt(v[name] / (1 - b2**t)) + eps)
            if p.ndim > 1:
                u = u + weight_decay * p
                size = np.linalg.norm(p)
                u = u * (size / np.linalg.norm(u) if size else 1)
            np.testing.assert_allclose(ours[name], -u, rtol=2e-5)  # float32 moments


@pytest.mark.parametrize("bad", [{"b1": 1.0}, {"eps": 0.0}, {"clip": 0.0}, {"weight_decay": -1.0}])
def test_lamb_refuses(bad):
    with pytest.raises(ValueError, match=next(iter(bad))):
        optim.lamb(**bad)


def test_without_decay_the_structure_is_that_of_three_parts():
    """By optax: checkpoints are read into the structure that they were written with."""
    params = {"w": jnp.ones(3)}
    parts = (optax.clip_by_global_norm(1.0), optax.scale_by_adam(), optax.scale(-1.0))
    wanted = jax.tree.structure(optax.chain(*parts).init(params))
    assert jax.tree.structure(optim.adam().init(params)) == wanted
    assert jax.tree.structure(optim.adam(weight_decay=0.1).init(params)) != wanted
