"""Members of a study as configurations, grouped by what their programs must know.

Truth: the same training alone, by the configuration that a member is.
"""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxdiff import config as configs
from jaxdiff import study
from jaxdiff.config import build, members, preset

BATCH = {"x": np.random.default_rng(0).normal(size=(8, 2)).astype(np.float32)}


def base():
    config = preset("mlp")
    return dataclasses.replace(
        config,
        model=configs.MLPConfig(width=8, depth=1),
        data=dataclasses.replace(config.data, shape=(2,)),
        training=dataclasses.replace(config.training, batch_size=8),
    )


POINTS = [
    {"optimizer.lr": 1e-3, "optimizer.ema_decay": 0.9, "training.seed": 0, "model.depth": 1,
     "optimizer.weight_decay": 0.0, "optimizer.warmup": 2, "schedule.name": "cosine"},
    {"optimizer.lr": 3e-3, "optimizer.ema_decay": 0.5, "training.seed": 1, "model.depth": 1,
     "optimizer.weight_decay": 0.1, "optimizer.warmup": 0, "schedule.name": "cosine"},
    {"optimizer.lr": 2e-3, "optimizer.ema_decay": 0.5, "training.seed": 1, "model.depth": 2,
     "optimizer.weight_decay": 0.1, "optimizer.warmup": 5, "schedule.name": "cosine"},
    {"optimizer.lr": 2e-3, "optimizer.ema_decay": 0.5, "training.seed": 1, "model.depth": 1,
     "optimizer.weight_decay": 0.1, "optimizer.warmup": 5, "schedule.name": "linear_vp"},
]  # fmt: skip


def test_grouped_by_what_must_be_static():
    found = members.groups(base(), POINTS, BATCH)
    assert [group.served for group in found] == [((0,), (1,), (3,)), ((2,),)]
    traced = {"optimizer.lr", "optimizer.ema_decay", "training.seed", "optimizer.weight_decay"}
    assert set(found[0].traits[0]) == traced | {"optimizer.warmup", "schedule.name"}
    assert found[0].traits[1]["optimizer.lr"] == 3e-3
    assert found[1].config.model.depth == 2
    assert found[0].traits[2]["schedule.name"].names == ("cosine", "linear_vp")
    assert [traits["schedule.name"].index for traits in found[0].traits] == [0, 0, 1]


def test_formulas_are_shared_where_they_can_be():
    """The clock of edm is another than that of the rest, so that its network is told otherwise."""
    names = [
        ("cosine", "v", "simple"),
        ("linear_vp", "eps", "plain"),
        ("rectified", "v", "min_snr"),
    ]
    axes = ("schedule.name", "parametrization.name", "loss.weight")
    points = [dict(zip(axes, row, strict=True)) for row in names]
    found = members.groups(base(), [*points, {**points[0], "schedule.name": "edm"}], BATCH)
    assert [g.served for g in found] == [((0,), (1,), (2,)), ((3,),)]
    assert found[1].config.schedule.name == "edm"


def test_seeds_are_taken_in_32_bits_as_jax_takes_them():
    points = [{"training.seed": seed} for seed in (3, 3_000_000_000)]
    (group,) = members.groups(base(), points, BATCH)
    for traits, point in zip(group.traits, points, strict=True):
        mine, alone = (jax.random.key(x["training.seed"]) for x in (traits, point))
        assert mine == alone


def test_those_that_differ_in_sampling_alone_are_one_training():
    """Numbers and names alike; the learning rate is that of the training, not of its place."""
    points = [
        {"optimizer.lr": lr, "sampling.steps": k, "sampling.sampler": name}
        for k, name in ((5, "ddim"), (7, "ddpm"))
        for lr in (1e-3, 2e-3)
    ]
    (group,) = members.groups(base(), points, BATCH)
    assert group.served == ((0, 2), (1, 3))
    assert [traits["optimizer.lr"] for traits in group.traits] == [1e-3, 2e-3]
    assert "sampling.steps" not in group.traits[0]


def test_batches_and_their_parts_are_static():
    """A step knows nothing of their size: no member is trained on batches of the first one's."""
    points = [{"training.batch_size": b, "training.accumulate": a} for b, a in ((8, 1), (4, 2))]
    first, second = members.groups(base(), points, BATCH)
    assert [g.config.training.batch_size for g in (first, second)] == [8, 4]
    assert [g.config.training.accumulate for g in (first, second)] == [1, 2]
    assert first.traits == ({"training.seed": base().training.seed},)


def test_options_of_schedules_and_weights_are_traced():
    points = [
        {"schedule.options.offset": offset, "loss.weight_options.gamma": gamma}
        for offset, gamma in ((0.008, 5.0), (0.02, 1.0))
    ]
    loss = dataclasses.replace(base().loss, weight="min_snr")
    (group,) = members.groups(dataclasses.replace(base(), loss=loss), points, BATCH)
    assert group.served == ((0,), (1,))
    assert set(group.traits[0]) == {*points[0], "training.seed"}


@pytest.mark.slow
@pytest.mark.parametrize("layout", ["vmap", "each"])
def test_a_member_is_its_configuration_trained_alone(layout):
    """Two steps of Adam; tolerances as in tests/study/test_population.py."""
    group = members.groups(base(), POINTS, BATCH)[0]
    ours = study.population.begin(
        layout,
        lambda traits: build.build_state(members.with_values(group.config, traits)),
        lambda traits: build.build_step(members.with_values(group.config, traits)),
        group.traits,
    )
    for _ in range(2):
        ours.advance([BATCH] * 3)
    states = ours.states()
    for place, (i,) in enumerate(group.served):
        alone = members.member(base(), POINTS[i])
        state, step = (
            jax.jit(lambda c=alone: build.build_state(c))(),
            jax.jit(build.build_step(alone)),
        )
        for _ in range(2):
            state, _ = step(state, BATCH)
        mine = study.population.unstacked(states, place)
        for a, b in zip(jax.tree.leaves(mine.params), jax.tree.leaves(state.params), strict=True):
            np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5)
        for a, b in zip(jax.tree.leaves(mine.ema), jax.tree.leaves(state.ema), strict=True):
            np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"optimizer.lr": -1.0}, r"member 1 .*optimizer.lr must lie in"),
        ({"optimizer.ema_decay": 2.0}, "decays of averages must lie in"),
        ({"optimizer.weight_decay": -0.1}, "weight_decay must lie in"),
        ({"optimizer.speed": 1.0}, "optimizer must be one of .*speed"),
        ({"lr": 1.0}, "lr: must be a dotted name"),
        ({"optimizer.lr.peak": 1.0}, "must be a dotted name"),
        ({"schedule.name": "cosinus"}, "schedule.name must be one of"),
        ({"training.steps": 10}, "training.steps: is one for all members"),
        ({"data.labels": False}, "is one for all members"),
        ({"tuning.method": "lora"}, "is one for all members"),
        ({"model.depth": 1.5}, "model.depth must be a whole number"),
        ({"sampling.guidance": 2.0}, "sampling.guidance 2.0 needs data with labels"),
        ({"sampling.eta": -1.0}, "eta must"),
        ({"training.seed": 2**63}, "seed must lie in 0 <= seed"),
    ],
)
def test_refuses(values, words):
    with pytest.raises(ValueError, match=words):
        members.groups(base(), [{"optimizer.lr": 1e-3}, {"optimizer.lr": 1e-3, **values}], BATCH)


def test_values_may_be_traced():
    lr = jax.jit(lambda v: members.with_values(base(), {"optimizer.lr": v}).optimizer.lr)(3.0)
    assert float(lr) == 3
    options = members.with_values(base(), {"loss.weight_options.gamma": jnp.float32(2)})
    assert float(options.loss.weight_options["gamma"]) == 2
