"""Train step and sampler of every family of networks lower for TPU and CUDA, on a machine with
neither, and what they lower to is what those machines are good at.

Truth: the text of the lowered programs. Nothing is compiled.
"""

import dataclasses
import re

import jax
import jax.numpy as jnp
import pytest

from jaxdiff import config as configs
from jaxdiff import interop
from jaxdiff.config import build, preset

UNET = {"channels": 8, "multipliers": (1, 2), "blocks": 1, "dtype": "bfloat16"}
FAMILIES = {
    "mlp": configs.MLPConfig(16, 1, dtype="bfloat16"),
    "unet": configs.UNetConfig(**UNET, attention=(4,), groups=4),
    "dit": configs.DiTConfig(16, 1, 2, positions="urpe", dtype="bfloat16"),
    "song": configs.SongConfig(**UNET, attention=(4,)),
    "dhariwal": configs.DhariwalConfig(**UNET, attention=(4,), head_channels=8),
    "su_a": configs.SuAConfig(**UNET, groups=4),
    "su_b": configs.SuBConfig(**UNET, groups=4),
}
MACHINES = ("tpu", "cuda")


def at(name):
    config = preset("mlp" if name == "mlp" else "unet")
    shape = (6,) if name == "mlp" else (8, 8, 1)
    data = dataclasses.replace(config.data, shape=shape, label_counts=(1, 1, 1))
    return dataclasses.replace(config, model=FAMILIES[name], data=data)


def step(config):
    """The exported train step."""
    state = jax.eval_shape(lambda: build.build_state(config))
    batch = {"x": jax.ShapeDtypeStruct((4, *config.data.shape), jnp.float32)}
    batch["y"] = jax.ShapeDtypeStruct((4,), jnp.int32)
    jitted = jax.jit(build.build_step(config), donate_argnums=0)
    return jax.export.export(jitted, platforms=MACHINES)(state, batch)


def sampler(config):
    """The exported sampler."""
    program = interop.export_sampler(
        lambda weights, label, scale: build.build_denoise(config, weights, label),
        jax.eval_shape(lambda: build.build_state(config)).params,
        build.build_grid(config, "uniform", 3),
        config.data.shape,
        sampler=build.build_sampler("dpmpp_2m"),
        labelled=True,
        platforms=MACHINES,
    )
    return program.exported


QUICK = {"mlp", "dit"}
ROWS = [pytest.param(n, marks=[pytest.mark.slow] * (n not in QUICK)) for n in FAMILIES]


def products(text, operation):
    """Ranks and types of the operands of each such operation."""
    found = re.findall(rf"stablehlo\.{operation}.* : \((tensor<[^)]*)\) ->", text)
    for operands in found:
        parts = re.findall(r"tensor<([^>]*)>", operands)
        yield [(part.count("x"), part.split("x")[-1]) for part in parts]


@pytest.mark.parametrize("program", [step, sampler])
@pytest.mark.parametrize("name", ROWS)
def test_lowers_for_machines_that_are_not_here(name, program):
    exported = program(at(name))
    assert exported.platforms == MACHINES
    text = exported.mlir_module()
    assert "f64>" not in text
    # what asks whether the open batch is at least 1; no callback, no library of one machine
    assert set(re.findall(r"custom_call @(\w+)", text)) <= {"shape_assertion"}
    convolutions, dots = (list(products(text, op)) for op in ("convolution", "dot_general"))
    assert bool(convolutions) == (name not in ("mlp", "dit"))
    assert all(dtype == "bf16" for pair in convolutions for _, dtype in pair)
    assert any(dtype == "bf16" for pair in dots for _, dtype in pair)
    for pair in dots:
        if {dtype for _, dtype in pair} == {"bf16"}:
            continue
        assert pair == [(2, "f32"), (2, "f32")]  # but for what describes whole examples, [B, E]
