"""Truth: the published parameter count of DDPM's network, the networks' own fields, JSON itself."""

import dataclasses
import inspect
import json
import typing

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxdiff import config as configs
from jaxdiff import grids, losses, models
from jaxdiff.config import build, fields, networks
from jaxdiff.typing import Schedule

SHAPES = {"mlp": (2,), "digits": (8, 8, 1), "mnist": (28, 28, 1)}
SHAPES |= {"unet": (32, 32, 3), "dit": (16, 16, 3)}
PUBLISHED = {"edm-cifar10": 32, "edm-ncsnpp-cifar10": 32, "adm-imagenet64": 64}
PUBLISHED |= {"su-a": 128, "su-b": 128}
SHAPES |= {name: (size, size, 3) for name, size in {"ddpm-cifar10": 32, **PUBLISHED}.items()}
SHAPES |= {"improved-cifar10": (32, 32, 3), "digits-latent": (4, 4, 4)}
LATENT = {f"dit-{size}2-latent": (32, 32, 4) for size in ("s", "b", "l", "xl")}
SHAPES |= LATENT


def at(name, shape=None, counts=(3, 4), **parts):
    """A preset as if data of some shape had been seen."""
    config = configs.preset(name)
    counts = counts if config.data.labels else ()
    data = dataclasses.replace(config.data, shape=shape or SHAPES[name], label_counts=counts)
    return dataclasses.replace(config, data=data, **parts)


def batch_like(config, size=8):
    batch = {"x": jax.ShapeDtypeStruct((size, *config.data.shape), jnp.float32)}
    if config.data.label_counts:
        batch["y"] = jax.ShapeDtypeStruct((size,), jnp.int32)
    return batch


@pytest.mark.parametrize("name", configs.PRESETS)
def test_json_round_trip(name):
    config = at(name)
    assert configs.from_json(json.loads(json.dumps(configs.to_json(config)))) == config
    assert config.preset == name


def test_what_is_left_out_takes_its_default():
    config = configs.from_json({"optimizer": {"lr": 0.5}, "model": {"kind": "mlp"}})
    assert config == configs.Config(
        optimizer=configs.OptimizerConfig(lr=0.5), model=configs.MLPConfig()
    )


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"optimiser": {}}, r"config must be one of .*optimizer.*got 'optimiser'"),
        ({"optimizer": {"rate": 1}}, r"config\.optimizer must be one of name, .*got 'rate'"),
        ({"optimizer": {"lr": "fast"}}, r"config\.optimizer\.lr must be a number, got 'fast'"),
        ({"optimizer": {"lr": True}}, r"config\.optimizer\.lr must be a number, got True"),
        (
            {"optimizer": {"decay": "step"}},
            r"must be one of constant, linear, cosine, .*, got 'step'",
        ),
        ({"optimizer": 3}, r"config\.optimizer must be names and values, got 3"),
        ({"training": {"steps": 1.5}}, r"config\.training\.steps must be a whole number, got 1.5"),
        ({"data": {"flip": 1}}, r"config\.data\.flip must be a bool, got 1"),
        ({"data": {"value_range": [0]}}, r"value_range must be a list of 2, got \[0\]"),
        ({"data": {"shape": [8, "a"]}}, r"config\.data\.shape\[1\] must be a whole number"),
        ({"data": {"source": 7}}, r"config\.data\.source must be a name, got 7"),
        ({"model": {"channels": 8}}, r"config\.model must be a network with its kind"),
        ({"model": {"kind": []}}, r"config\.model\.kind must be one of mlp, unet, dit"),
        ({"model": {"kind": "gan"}}, r"config\.model\.kind must be one of mlp, unet, dit"),
        ({"model": {"kind": "mlp", "channels": 8}}, r"config\.model must be one of width, .*"),
        ({"schedule": {"options": {"beta_max": "x"}}}, r"options\.beta_max must be a number"),
        ([], r"config must be names and values, got \[\]"),
    ],
)
def test_refuses(values, words):
    with pytest.raises(ValueError, match=words):
        configs.from_json(values)


@pytest.mark.parametrize(
    ("config", "network"),
    [
        (configs.MLPConfig, models.MLP),
        (configs.UNetConfig, models.UNet),
        (configs.DiTConfig, models.DiT),
        (configs.SongConfig, models.SongUNet),
        (configs.DhariwalConfig, models.DhariwalUNet),
        (configs.SuAConfig, models.SuA),
        (configs.SuBConfig, models.SuB),
    ],
)
def test_networks_have_the_fields_and_defaults_of_their_modules(config, network):
    theirs = {f.name: f.default for f in dataclasses.fields(network)}
    mine = {f.name: f.default for f in dataclasses.fields(config)}
    assert {name: theirs.get(name, "missing") for name in mine} == mine
    # What is left out follows from the data.
    left = set(theirs) - set(mine) - {"parent", "name"}
    assert left == {"out_channels", "num_classes", "cond_dim"}
    assert build.build_model(at("mlp", model=config())).__class__ is network


def test_ddpm_cifar10_has_the_published_number_of_parameters():
    state = jax.eval_shape(lambda: build.build_state(at("ddpm-cifar10")))
    assert build.count_parameters(state.params) == 35_746_307


# Those of published networks are large, and have `test_presets`; one is enough in short.
@pytest.mark.parametrize(
    "name",
    [
        pytest.param(name, marks=[pytest.mark.slow] * (name != "digits"))
        for name in configs.PRESETS
        if name not in PUBLISHED | LATENT
    ],
)
def test_presets_trace_a_step(name):
    config = at(name)
    state = jax.eval_shape(lambda: build.build_state(config))
    after, metrics = jax.eval_shape(build.build_step(config), state, batch_like(config))
    shapes = [[(a.shape, a.dtype) for a in jax.tree.leaves(tree)] for tree in (state, after)]
    assert shapes[0] == shapes[1]
    assert jax.tree.structure(state) == jax.tree.structure(after)
    assert set(metrics) == {"loss", "grad_norm", "lr"}


def mlp(**parts):
    return at("mlp", model=configs.MLPConfig(width=8, depth=1), **parts)


@pytest.mark.parametrize("name", configs.SCHEDULES)
def test_every_schedule_trains(name):
    config = mlp(schedule=configs.ScheduleConfig(name=name))
    schedule = build.build_schedule(config)
    assert isinstance(schedule, Schedule)
    state = jax.eval_shape(lambda: build.build_state(config))
    jax.eval_shape(build.build_step(config), state, batch_like(config))


@pytest.mark.parametrize(
    ("name", "t", "feature"),
    [
        ("cosine", 0.25, 250.0),
        ("linear_betas", 7.0, 6.0),
        ("edm", np.exp(2.0), 0.5),  # log(sigma) / 4
    ],
)
def test_the_time_feature_suits_the_schedule(name, t, feature):
    config = mlp(schedule=configs.ScheduleConfig(name=name))
    level = build.build_schedule(config)(jnp.float32(t))
    got = build.build_denoiser(config, None).time_feature(level)
    np.testing.assert_allclose(got, feature, rtol=1e-5)


def test_a_shifted_chain_is_told_its_steps():
    """Its clock still runs to 1000, which thousandths would take to a million."""
    config = mlp(schedule=configs.ScheduleConfig(name="linear_betas", shift=0.5))
    level = build.build_schedule(config)(jnp.float32(500.0))
    got = build.build_denoiser(config, None).time_feature(level)
    np.testing.assert_allclose(got, level.t - 1)
    assert 0 < got < 499  # less noise than the chain has there


def test_schedule_options_and_shift_reach_the_schedule():
    options = {"beta_min": 0.2, "beta_max": 10.0}
    part = configs.ScheduleConfig(name="linear_vp", options=options)
    level = build.build_schedule(mlp(schedule=part))(jnp.float32(0.5))
    # log alpha = -(beta_min t / 2 + (beta_max - beta_min) t^2 / 4), Song et al. 2021.
    np.testing.assert_allclose(jnp.log(level.alpha), -(0.05 + 9.8 / 16), rtol=1e-5)
    moved = build.build_schedule(mlp(schedule=dataclasses.replace(part, shift=3.0)))
    shifted = moved(jnp.float32(0.5))
    # The float32 inverse in between costs some 1e-5.
    np.testing.assert_allclose(
        shifted.sigma / shifted.alpha, 3 * level.sigma / level.alpha, rtol=1e-4
    )
    chain = configs.ScheduleConfig(name="cosine_betas", options={"num_steps": 500.0})
    assert build.build_schedule(mlp(schedule=chain)).t_max == 500


@pytest.mark.parametrize("name", typing.get_args(fields.TimesName))
def test_every_time_sampler_trains(name):
    config = mlp(loss=configs.LossConfig(times=name))
    state = jax.eval_shape(lambda: build.build_state(config))
    after, _ = jax.eval_shape(build.build_step(config), state, batch_like(config))
    assert (after.aux == ()) == (name != "importance")


@pytest.mark.parametrize("name", losses.WEIGHTS)
def test_every_weight_trains(name):
    config = mlp(loss=configs.LossConfig(weight=name))
    state = jax.eval_shape(lambda: build.build_state(config))
    jax.eval_shape(build.build_step(config), state, batch_like(config))


@pytest.mark.parametrize("name", grids.GRIDS)
def test_every_grid_has_its_steps(name):
    schedule = configs.ScheduleConfig(name="linear_betas")
    grid = build.build_grid(mlp(schedule=schedule), name, 10)
    assert grid.num_steps == 10


def test_hyperparameters_reach_the_state():
    config = mlp(optimizer=configs.OptimizerConfig(lr=0.5, warmup=7, ema_decay=0.75))
    state = build.build_state(config)
    assert state.hyper["lr"] == 0.5
    assert state.hyper["warmup"] == 7
    assert state.hyper["ema_decay"] == 0.75


def test_clip_is_as_configured():
    """Untrained, the network is zero: with v, x_0 = alpha x_t, far outside [-1, 1] here."""
    x_t = jnp.full((2, 2), 30.0)
    for clip, bound in ((True, 1.0), (False, 30.0)):
        config = mlp(sampling=configs.SamplingConfig(clip=clip))
        level = build.build_schedule(config)(jnp.float32(0.2))
        denoise = build.build_denoise(
            config, build.build_state(config).params, jnp.zeros(2, jnp.int32)
        )
        expected = min(bound, 30 * float(level.alpha))
        np.testing.assert_allclose(denoise(x_t, level).x0, expected, rtol=1e-5)


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: configs.preset("imagenet"), r"preset must be one of digits, .*'imagenet'"),
        (
            lambda: build.build_schedule(
                mlp(schedule=configs.ScheduleConfig(options={"beta": 1.0}))
            ),
            r"schedule.options of cosine must be among offset, got 'beta'",
        ),
        (
            lambda: build.build_loss(mlp(loss=configs.LossConfig(weight_options={"g": 1.0}))),
            r"loss.weight_options of simple must be among none, got 'g'",
        ),
        (
            lambda: build.build_loss(mlp(loss=configs.LossConfig(times_options={"std": 1.0}))),
            r"loss.times_options of stratified must be among none, got 'std'",
        ),
        (lambda: build.build_grid(mlp(), "even", 3), r"grid must be one of uniform, .*'even'"),
        (lambda: build.build_grid(mlp(), "leading", 3), "needs a from_betas schedule"),
        (lambda: build.build_sampler("euler?"), r"sampler must be one of ddpm, .*'euler\?'"),
        (lambda: build.build_data(configs.preset("mlp")), r"mlp is for vectors, got .*\[8, 8, 1\]"),
    ],
)
def test_refuses_what_does_not_fit(call, words):
    with pytest.raises(ValueError, match=words):
        call()


def test_data_are_looked_at():
    config, dataset = build.build_data(configs.preset("digits"))
    assert config.data.shape == (8, 8, 1)
    assert sum(config.data.label_counts) == len(dataset) == 899  # half of the 1797 digits
    assert len(config.data.label_counts) == 10
    assert dataset.batch_size == config.training.batch_size


def test_changes_are_named():
    old, new = configs.preset("mlp"), configs.preset("mlp")
    new = dataclasses.replace(new, optimizer=dataclasses.replace(new.optimizer, lr=0.5))
    assert configs.changes(old, old) == {}
    assert configs.changes(old, new) == {"optimizer.lr": (old.optimizer.lr, 0.5)}


def test_every_field_says_what_it_is():
    """The help of the command line is made of these."""
    source = inspect.getsource(fields) + inspect.getsource(networks)
    for kind in (v for v in vars(configs).values() if isinstance(v, type)):
        body = source.split(f"class {kind.__name__}:")[1].split("\n\n\n")[0]
        count = len(dataclasses.fields(kind))
        if kind is not configs.Config:
            assert body.count('    """') == count + 1, kind
