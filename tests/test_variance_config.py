"""What a configuration says of the reverse variance, from JSON to the step and the validation.

Truth: JSON as it was written before there was such a part; parameters compared bit for bit.
"""

import dataclasses
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxdiff import config as configs
from jaxdiff import models
from jaxdiff.config import build
from tests.test_config import at, batch_like

CHAIN = configs.ScheduleConfig(name="linear_betas", options={"num_steps": 30})
EPS = configs.ParametrizationConfig(name="eps")


def small(*heads, shape=(2,), counts=(3, 4), **parts):
    """The smallest network with heads, on a chain."""
    loss = configs.LossConfig(times=parts.pop("times", "stratified"))
    optimizer = configs.OptimizerConfig(weight_decay=parts.pop("weight_decay", 0.0))
    schedule = parts.pop("schedule", CHAIN)
    return at(
        "mlp",
        shape,
        counts,
        model=configs.MLPConfig(width=8, depth=1, dropout=0.1),
        parametrization=EPS,
        schedule=schedule,
        loss=loss,
        optimizer=optimizer,
        variance=configs.VarianceConfig(heads=heads, **parts),
    )


def batch(size=16):
    x = jax.random.uniform(jax.random.key(1), (size, 2), minval=-1)
    return {"x": x, "y": jnp.arange(size) % 2}


def test_json_without_the_part_is_as_before():
    values = configs.to_json(at("mlp"))
    del values["variance"], values["begins"], values["data"]["bins"]
    config = configs.from_json(json.loads(json.dumps(values)))
    assert config == at("mlp")
    assert config.variance.heads == ()
    assert "variance" not in configs.to_json(configs.CLASSIFIER)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("heads", "parts", "names"),
    [
        (("npr",), {}, ("residual2",)),
        (("sn",), {"form": "residual"}, ("eps2",)),
        (("sn", "npr"), {"frozen": False}, ("eps2", "residual2")),
        (("learned",), {}, ("log_var_fraction",)),
        (("learned",), {"times": "importance"}, ("log_var_fraction",)),
        (("learned",), {"objective": "bound", "times": "importance"}, ("log_var_fraction",)),
    ],
)
def test_every_choice_trains_and_is_watched(heads, parts, names):
    config = small(*heads, **parts)
    assert configs.from_json(json.loads(json.dumps(configs.to_json(config)))) == config
    assert build.build_denoiser(config, None).heads == names
    assert build.build_model(config) is build.build_model(config)  # one object, one compile
    shapes = build.check(config, batch_like(config))
    told = jax.eval_shape(
        build.build_validation(config), shapes.params, batch_like(config), jax.random.key(0)
    )
    assert all(a.shape == () for a in told.values())
    more = {"npr": "residual2", "sn": "eps2"}
    parts_of_it = {more[name] for name in heads if name in more}
    if not config.variance.frozen or (heads == ("learned",) and "objective" not in parts):
        parts_of_it |= {"mean"}
    if heads == ("learned",) and "objective" not in parts:
        parts_of_it |= {"bound"}
    assert set(told) == {"heldout_loss", *(f"heldout_{name}" for name in parts_of_it)}


def test_learned_is_a_last_layer_of_twice_the_channels():
    net = build.build_model(small("learned"))
    assert isinstance(net, models.MLP)
    assert net.out_channels == 4


def test_heads_go_with_distorted_images():
    config = at("digits", variance=configs.VarianceConfig(heads=("npr",)))
    config = dataclasses.replace(
        config,
        model=configs.UNetConfig(channels=8, multipliers=(1,), blocks=1, attention=(), groups=4),
        data=dataclasses.replace(config.data, augment=0.1),
    )
    build.check(config, batch_like(config))


def bits(tree):
    return [np.asarray(a).tobytes() for a in jax.tree.leaves(tree)]


@pytest.mark.slow
@pytest.mark.parametrize("frozen", [True, pytest.param(False, marks=pytest.mark.slow)])
def test_five_steps_move_a_frozen_network_by_no_bit(frozen):
    config = small("npr", "sn", frozen=frozen)
    state = jax.jit(lambda: build.build_state(config))()
    trained = jax.tree.map(lambda a: a + 0.1, state.params["params"]["backbone"])
    first = state = build.begin(state, {"params": trained})
    assert bits(state.params["params"]["backbone"]) == bits(trained)
    step = jax.jit(build.build_step(config))
    for _ in range(5):
        state, metrics = step(state, batch())
    assert np.isfinite(metrics["loss"])
    for old, new in ((first.params, state.params), (first.ema, state.ema)):
        old, new = old["params"], new["params"]
        assert (bits(old["backbone"]) == bits(new["backbone"])) == frozen
        assert bits(old["heads"]) != bits(new["heads"])


@pytest.mark.slow
def test_begin_leaves_heads_behind_and_refuses_other_networks():
    config = small("npr")
    state = build.build_state(config)
    again = build.begin(state, jax.tree.map(lambda a: a + 1, state.params))
    assert bits(again.params["params"]["heads"]) == bits(state.params["params"]["heads"])
    other = build.build_state(small("npr", counts=(1, 2, 3)))
    with pytest.raises(ValueError, match=r"of another network: .*wanted .*float32"):
        build.begin(state, other.params)


@pytest.mark.parametrize(
    ("config", "words"),
    [
        (small("learned", "npr"), "must be learned alone, or npr and sn, got learned, npr"),
        (
            small("learned", schedule=configs.ScheduleConfig(name="linear_vp")),
            "trained by the bound of a chain, got the continuous schedule.name linear_vp",
        ),
        (small("learned", bound_weight=-1.0), r"variance.bound_weight must lie in \[0, inf\)"),
        (small("npr", weight_decay=0.1), "optimizer.weight_decay must be 0 where"),
        (small("npr", "npr"), "names must be one or more, each once"),
    ],
)
def test_refuses_what_does_not_go_together(config, words):
    with pytest.raises(ValueError, match=words):
        build.check(config, batch_like(config))


@pytest.mark.slow
@pytest.mark.parametrize("name", configs.STAGES)
def test_a_stage_keeps_all_but_variance_and_optimizer(name):
    config = at("digits", optimizer=configs.OptimizerConfig(name="lamb", weight_decay=0.1))
    stage = configs.STAGES[name](config)
    assert stage.variance.heads == (name,)
    changed = {part.split(".")[0] for part in configs.changes(config, stage)}
    assert changed == {"variance", "optimizer"}
    build.check(stage, batch_like(stage))


def test_values_of_the_data_are_counted():
    """The digits have 17: 0..16."""
    config, _ = build.build_data(configs.preset("digits"))
    assert config.data.bins == 17
