"""Presets of published networks: they pass every check on batches that they are made for.

Truth: the sizes that `models/test_published_sizes.py` sums by hand and the tables of the
recipes. Programs are traced, not compiled.
"""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxdiff.config import build, preset
from jaxdiff.models.dit import SIZES

PUBLISHED = {
    "edm-cifar10": ((32, 32, 3), 0, 55_733_891),
    "edm-ncsnpp-cifar10": ((32, 32, 3), 0, 56_397_827 + 128),
    "adm-imagenet64": ((64, 64, 3), 1000, 295_899_267),
    "su-a": ((128, 128, 3), 0, 50_514_176),
    "su-b": ((128, 128, 3), 0, 92_460_800),
}


@pytest.mark.slow
@pytest.mark.parametrize(
    "name", [pytest.param(n, marks=[pytest.mark.slow] * (n != "su-b")) for n in PUBLISHED]
)
def test_trains_and_samples_on_what_it_is_made_for(name):
    shape, classes, size = PUBLISHED[name]
    config = preset(name)
    data = dataclasses.replace(config.data, shape=shape, label_counts=(1,) * classes)
    config = dataclasses.replace(config, data=data)
    batch = {"x": jax.ShapeDtypeStruct((2, *shape), jnp.float32)}
    if classes:
        batch["y"] = jax.ShapeDtypeStruct((2,), jnp.int32)
    state = build.check(config, batch)
    assert build.count_parameters(state.params) == size


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "size", "millions"),
    [
        ("dit-s2-latent", "S", 33),
        pytest.param("dit-b2-latent", "B", 130, marks=pytest.mark.slow),
        pytest.param("dit-l2-latent", "L", 458, marks=pytest.mark.slow),
        pytest.param("dit-xl2-latent", "XL", 675, marks=pytest.mark.slow),
    ],
)
def test_transformers_of_latents(name, size, millions):
    """Of 32x32x4 with 1000 classes, as many millions as published, in the published sizes."""
    config = preset(name)
    fields = dataclasses.asdict(config.model)
    assert {k: fields[k] for k in SIZES[size]} == SIZES[size]
    data = dataclasses.replace(
        config.data, shape=(32, 32, 4), label_counts=(1,) * 1000, latents="somewhere"
    )
    config = dataclasses.replace(config, data=data)
    batch = {
        "x": jax.ShapeDtypeStruct((2, 32, 32, 4), jnp.float32),
        "y": jax.ShapeDtypeStruct((2,), jnp.int32),
    }
    state = build.check(config, batch)
    assert round(build.count_parameters(state.params) / 1e6) == millions


@pytest.mark.slow
def test_improved_is_of_the_size_that_its_checkpoint_is_named_after():
    """cifar10_uncond_50M_500K.pt: some 50 million parameters, 500,000 steps."""
    config = preset("improved-cifar10")
    config = dataclasses.replace(config, data=dataclasses.replace(config.data, shape=(32, 32, 3)))
    state = build.check(config, {"x": jax.ShapeDtypeStruct((2, 32, 32, 3), jnp.float32)})
    assert 45e6 < build.count_parameters(state.params) < 55e6
    assert config.training.steps == 500_000


def test_edm_counts_in_images():
    """10 million images of warm-up, 200 million of training, half-life half a million."""
    config = preset("edm-cifar10")
    batch = config.training.batch_size
    assert batch == 512
    # to the nearest step
    assert abs(config.optimizer.warmup * batch - 10e6) <= batch / 2
    assert abs(config.training.steps * batch - 200e6) <= batch / 2
    np.testing.assert_allclose(config.optimizer.ema_decay ** (0.5e6 / batch), 0.5, rtol=1e-9)


def test_su_decays_where_it_is_published():
    """Up to 4,000 steps, half at 20,000, a tenth at 40,000."""
    config = preset("su-a")
    hyper = {"lr": jnp.float32(1), "warmup": config.optimizer.warmup, "steps": 40_000}
    assert config.training.steps == 40_000
    decay = build.training.optim.DECAYS[config.optimizer.decay]
    rates = [
        float(build.training.optim.learning_rate(step, hyper, decay))
        for step in (1999, 4000, 12_000, 20_000, 40_000)
    ]
    # linear between the published points, in float32
    np.testing.assert_allclose(rates, [0.5, 1.0, 0.75, 0.5, 0.1], rtol=1e-5)
