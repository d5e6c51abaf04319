"""Time, label and vector embeddings against numpy formulas and SciPy's normal quantiles."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

from jaxdiff.models import embeddings


@pytest.mark.parametrize("features", [8, 9, 128])
def test_sinusoidal_is_the_formula(features):
    t = np.array([0.0, 1.0, 17.4, 999.0])
    half = features // 2
    angles = t[:, None] * 10_000.0 ** (-np.arange(half) / (half - 1))
    wanted = np.concatenate([np.sin(angles), np.cos(angles)], axis=-1)
    got = embeddings.sinusoidal(jnp.asarray(t, jnp.float32), features)
    assert got.shape == (4, features)
    # float32 angles of up to 999 carry rounding errors of 999 * 6e-8.
    np.testing.assert_allclose(got[:, : 2 * half], wanted, atol=2e-4)
    np.testing.assert_array_equal(got[:, 2 * half :], 0)


def test_sinusoidal_float64(x64):
    angles = 500.25 * 10_000.0 ** (-np.arange(16) / 15)
    got = embeddings.sinusoidal(jnp.array([500.25]), 32)[0]
    np.testing.assert_allclose(got[:16], np.sin(angles), atol=1e-12)


def test_fourier_frequencies_are_half_normal_quantiles():
    # At a small time sin(2 pi w t) = 2 pi w t, so the sines read the frequencies off.
    t, scale = 1e-5, 4.0
    waves = embeddings.fourier(jnp.array([t]), 64, scale=scale)[0]
    wanted = stats.halfnorm(scale=scale).ppf((np.arange(32) + 0.5) / 32)
    # The cubic term of the sine is (2 pi w t)**2 / 6 < 1e-7 here; the rest is float32 rounding.
    np.testing.assert_allclose(waves[:32] / (2 * np.pi * t), wanted, rtol=1e-5)
    np.testing.assert_allclose(waves[32:], 1, atol=1e-6)


@pytest.mark.parametrize("embed", [embeddings.sinusoidal, embeddings.fourier])
def test_too_few_features(embed):
    with pytest.raises(ValueError, match="features"):
        embed(jnp.zeros(1), 3)


def _init(**fields):
    module = embeddings.Conditioning(16, **fields)
    cond = {}
    if module.num_classes:
        cond["label"] = jnp.zeros(2, int)
    if module.cond_dim:
        cond["vector"] = jnp.zeros((2, module.cond_dim))
    return module, jax.jit(module.init)(jax.random.key(0), jnp.zeros(2), cond or None)


def test_label_adds_its_row_and_null_the_last():
    module, variables = _init(num_classes=3)
    bare = embeddings.Conditioning(16)
    params = {k: v for k, v in variables["params"].items() if k != "label"}
    t = jnp.array([5.0, 5.0, 5.0, 5.0])
    added = module.apply(variables, t, jnp.array([0, 2, -1, 1])) - bare.apply({"params": params}, t)
    table = variables["params"]["label"]["embedding"]
    assert table.shape == (4, 16)
    # A sum of two float32 numbers of order one, subtracted again.
    np.testing.assert_allclose(added, table[jnp.array([0, 2, 3, 1])], atol=1e-6)


@pytest.mark.parametrize("label", [3, -2, 1000])
def test_label_out_of_range_is_nan(label):
    module, variables = _init(num_classes=3)
    out = module.apply(variables, jnp.zeros(2), jnp.array([label, 1]))
    assert np.isnan(out[0]).all()
    assert np.isfinite(out[1]).all()


def test_label_and_vector_together():
    module, variables = _init(num_classes=3, cond_dim=2)
    t, label = jnp.zeros(2), jnp.array([1, 1])
    vector = jnp.array([[0.0, 0.0], [2.0, -1.0]])
    out = module.apply(variables, t, {"label": label, "vector": vector})
    kernel = variables["params"]["vector"]["kernel"]
    np.testing.assert_allclose(out[1] - out[0], 2 * kernel[0] - kernel[1], atol=1e-6)


def test_a_single_vector_or_label_may_come_bare_or_in_a_dict():
    module, variables = _init(cond_dim=2)
    vector = jnp.ones((2, 2))
    bare = module.apply(variables, jnp.zeros(2), vector)
    np.testing.assert_array_equal(bare, module.apply(variables, jnp.zeros(2), {"vector": vector}))


GOOD = {
    "x": jnp.zeros((2, 3)),
    "t": jnp.zeros(2),
    "cond": None,
    "rank": 2,
    "embedding": "fourier",
    "num_classes": 0,
    "cond_dim": 0,
    "dtype": None,
}


@pytest.mark.parametrize(
    ("changes", "names"),
    [
        ({"x": jnp.zeros((2, 3, 3))}, ["x must be", "[2, 3, 3]"]),
        ({"x": jnp.zeros((2, 3), int)}, ["x must be float", "int32"]),
        ({"t": jnp.zeros(())}, ["t must be [2]"]),
        ({"t": jnp.zeros((2, 1))}, ["t must be [2]"]),
        ({"embedding": "rotary"}, ["embedding", "rotary", "sinusoidal"]),
        ({"dtype": "int8"}, ["dtype must be None", "bfloat16", "int8"]),
        ({"dtype": "fp16"}, ["dtype must be None", "fp16"]),
        ({"cond": jnp.zeros(2, int)}, ["cond must be None", "num_classes=0"]),
        ({"cond": {"label": jnp.zeros(2, int)}}, ["cond", "label"]),
        ({"num_classes": 3}, ["cond is missing", "num_classes=3", "-1"]),
        ({"num_classes": 3, "cond": jnp.zeros(3, int)}, ["label", "[2]", "[3]"]),
        ({"num_classes": 3, "cond": jnp.zeros(2)}, ["label", "integer", "float32"]),
        ({"cond_dim": 4, "cond": jnp.zeros((2, 5))}, ["vector", "[2, 4]", "[2, 5]"]),
        ({"num_classes": 3, "cond_dim": 4, "cond": jnp.zeros((2, 4))}, ["dict", "label", "vector"]),
        (
            {"num_classes": 3, "cond_dim": 4, "cond": {"label": jnp.zeros(2, int)}},
            ["keys", "vector"],
        ),
    ],
)
def test_bad_input_is_named(changes, names):
    embeddings.check_inputs(**GOOD)
    with pytest.raises(ValueError, match=r"must be|missing") as error:
        embeddings.check_inputs(**{**GOOD, **changes})
    for name in names:
        assert name in str(error.value)
