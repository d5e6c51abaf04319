"""The two networks of `bench_samplers.py` in torch, from the parameters of jaxdiff's.

The same function of the same numbers, so that loops around either do the same work. Not an import
path for weights: only what the digits UNet (added skips, pooling, no attention) and the MLP have.
"""

import math
from collections.abc import Callable
from typing import Any

import jax
import numpy as np
import torch
from torch.nn import functional

__all__ = ["mlp", "unet"]


def _tensors(params: Any) -> dict:
    """Flax's tree as tensors: dense kernels [out, in], convolutions' [out, in, h, w]."""

    def one(leaf: Any) -> torch.Tensor:
        array = np.array(leaf)
        order = {4: (3, 2, 0, 1), 2: (1, 0)}.get(array.ndim)
        return torch.from_numpy(np.ascontiguousarray(array.transpose(order) if order else array))

    return jax.tree.map(one, params["params"])


def _dense(p: dict, x: torch.Tensor) -> torch.Tensor:
    return functional.linear(x, p["kernel"], p["bias"])


def _pixelwise(p: dict, x: torch.Tensor) -> torch.Tensor:
    return functional.conv2d(x, p["kernel"][:, :, None, None], p["bias"])


def _conv(p: dict, x: torch.Tensor) -> torch.Tensor:
    return functional.conv2d(x, p["kernel"], p["bias"], padding=1)


def _conditioning(p: dict, t: torch.Tensor) -> torch.Tensor:
    half = p["time_in"]["kernel"].shape[1] // 2
    waves = torch.exp(-math.log(10_000.0) * torch.arange(half) / (half - 1))
    angles = t[:, None] * waves
    features = torch.cat([angles.sin(), angles.cos()], dim=-1)
    return _dense(p["time_out"], functional.silu(_dense(p["time_in"], features)))


def mlp(params: Any) -> Callable[[torch.Tensor, torch.Tensor], torch.Tensor]:
    """`models.MLP` without classes: (x [B, D], t [B]) -> [B, D]."""
    p = _tensors(params)
    blocks = [p[name] for name in sorted(p) if name.startswith("block_")]

    def norm(q: dict, h: torch.Tensor) -> torch.Tensor:
        return functional.layer_norm(h, h.shape[-1:], q["scale"], q["bias"])

    def call(x: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
        emb = functional.silu(_conditioning(p["conditioning"], t))
        h = _dense(p["in"], x)
        for q in blocks:
            branch = _dense(q["in"], norm(q["norm"], h)) + _dense(q["emb"], emb)
            h = h + _dense(q["out"], functional.silu(branch))
        return _dense(p["out"], functional.silu(norm(p["norm"], h)))

    return call


def unet(
    params: Any, *, levels: int, blocks: int, groups: int
) -> Callable[[torch.Tensor, torch.Tensor], torch.Tensor]:
    """`models.UNet` of the digits preset: (x [B, C, H, W], t [B]) -> [B, C, H, W]."""
    p = _tensors(params)

    def active(q: dict, h: torch.Tensor) -> torch.Tensor:
        return functional.silu(functional.group_norm(h, groups, q["scale"], q["bias"]))

    def block(name: str, x: torch.Tensor, emb: torch.Tensor) -> torch.Tensor:
        q = p[name]
        h = _conv(q["conv_in"], active(q["norm_in"], x)) + _dense(q["emb"], emb)[:, :, None, None]
        h = _conv(q["conv_out"], active(q["norm_out"], h))
        return (_pixelwise(q["skip"], x) if "skip" in q else x) + h

    def down(h: torch.Tensor, emb: torch.Tensor) -> list[torch.Tensor]:
        stack = [h]
        for i in range(levels):
            if i:
                stack.append(functional.avg_pool2d(stack[-1], 2))
            for j in range(blocks):
                stack.append(block(f"down_{i}_{j}", stack[-1], emb))
        return stack

    def call(x: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
        emb = functional.silu(_conditioning(p["conditioning"], t))
        stack = down(_conv(p["in"], x), emb)
        h = block("middle_1", block("middle_0", stack[-1], emb), emb)
        for i in reversed(range(levels)):
            for j in range(blocks + 1):
                skip, join = stack.pop(), p.get(f"join_{i}_{j}")
                h = block(
                    f"up_{i}_{j}", h + (skip if join is None else _pixelwise(join, skip)), emb
                )
            if i:
                h = functional.interpolate(h, scale_factor=2, mode="nearest")
        return _conv(p["out"], active(p["norm"], h))

    return call
