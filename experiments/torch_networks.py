"""Networks of the benchmarks in torch, from the parameters of jaxdiff's.

The same function of the same numbers, so that what is around either does the same work. Not an
import path for weights: only what the digits UNet (added skips, pooling, no attention), the MLP and
the DiT have, all without dropout.
"""

import math
from collections.abc import Callable
from typing import Any

import jax
import numpy as np
import torch
from torch.nn import functional

__all__ = ["dit", "mlp", "tensors", "unet"]


def tensors(params: Any) -> dict:
    """Flax's tree as new tensors: dense kernels [out, in], convolutions' [out, in, h, w]."""

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


def _sinusoidal(t: torch.Tensor, features: int) -> torch.Tensor:
    half = features // 2
    waves = torch.exp(-math.log(10_000.0) * torch.arange(half) / (half - 1))
    angles = t[:, None] * waves
    return torch.cat([angles.sin(), angles.cos()], dim=-1)


def _conditioning(p: dict, t: torch.Tensor, label: torch.Tensor | None = None) -> torch.Tensor:
    features = _sinusoidal(t, p["time_in"]["kernel"].shape[1])
    emb = _dense(p["time_out"], functional.silu(_dense(p["time_in"], features)))
    if label is None:
        return emb
    return emb + functional.embedding(label, p["label"]["embedding"].T)


def mlp(p: dict) -> Callable[[torch.Tensor, torch.Tensor], torch.Tensor]:
    """`models.MLP` without classes: (x [B, D], t [B]) -> [B, D]."""
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


def unet(p: dict, *, levels: int, blocks: int, groups: int) -> Callable[..., torch.Tensor]:
    """`models.UNet` of the digits preset: (x [B, C, H, W], t [B], label [B]) -> [B, C, H, W]."""

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

    def call(x: torch.Tensor, t: torch.Tensor, label: torch.Tensor | None = None) -> torch.Tensor:
        emb = functional.silu(_conditioning(p["conditioning"], t, label))
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


def _modulated(q: dict, emb: torch.Tensor, parts: int) -> tuple[torch.Tensor, ...]:
    return _dense(q["modulation"], emb)[:, None].chunk(parts, dim=-1)


def _adapted(h: torch.Tensor, scale: torch.Tensor, shift: torch.Tensor) -> torch.Tensor:
    return functional.layer_norm(h, h.shape[-1:]) * (1 + scale) + shift


def dit(p: dict, *, heads: int, patch: int) -> Callable[..., torch.Tensor]:
    """`models.DiT`: (x [B, C, H, W], t [B], label [B]) -> [B, C, H, W]."""
    blocks = [p[f"block_{i}"] for i in range(sum(name.startswith("block_") for name in p))]

    def attend(q: dict, h: torch.Tensor) -> torch.Tensor:
        names = ("query", "key", "value")
        parts = [_dense(q[name], h).unflatten(-1, (heads, -1)) for name in names]
        out = functional.scaled_dot_product_attention(*(part.transpose(1, 2) for part in parts))
        return _dense(q["out"], out.transpose(1, 2).flatten(2))

    def block(q: dict, h: torch.Tensor, emb: torch.Tensor) -> torch.Tensor:
        scale_a, shift_a, gate_a, scale_p, shift_p, gate_p = _modulated(q, emb, 6)
        h = h + gate_a * attend(q["attention"], _adapted(h, scale_a, shift_a))
        wide = _dense(q["perceptron"]["expand"], _adapted(h, scale_p, shift_p))
        narrow = q["perceptron"]["contract"]
        return h + gate_p * _dense(narrow, functional.gelu(wide, approximate="tanh"))

    def positions(rows: int, columns: int, width: int) -> torch.Tensor:
        tokens = torch.arange(rows * columns)
        halves = [_sinusoidal(axis, width // 2) for axis in (tokens // columns, tokens % columns)]
        return torch.cat(halves, dim=-1)

    def call(x: torch.Tensor, t: torch.Tensor, label: torch.Tensor | None = None) -> torch.Tensor:
        emb = functional.silu(_conditioning(p["conditioning"], t, label))
        batch, channels, height, width = x.shape
        rows, columns = height // patch, width // patch
        tokens = x.reshape(batch, channels, rows, patch, columns, patch)
        h = _dense(p["in"], tokens.permute(0, 2, 4, 3, 5, 1).flatten(3).flatten(1, 2))
        h = h + positions(rows, columns, h.shape[-1])
        for q in blocks:
            h = block(q, h, emb)
        out = _dense(p["out"], _adapted(h, *_modulated(p, emb, 2)))
        out = out.reshape(batch, rows, columns, patch, patch, channels)
        return out.permute(0, 5, 1, 3, 2, 4).reshape(x.shape)

    return call
