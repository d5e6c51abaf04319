"""Attention and position methods in float64 numpy, one entry at a time, from their papers."""

import functools
import math

import jax
import numpy as np

ROWS = {
    "softmax": lambda b: np.exp(b - b.max()) / np.exp(b - b.max()).sum(),
    "exp": lambda b: np.exp(b) / len(b),
    "l2": lambda b: np.exp(b) / np.sqrt(np.exp(2 * b).sum()),
    "swish_l2": lambda b: _silu(b) / np.sqrt((_silu(b) ** 2).sum()),
    "relu2": lambda b: np.maximum(b, 0) ** 2 / len(b),
}
"""Weights of the keys that a query may see."""


def _silu(b):
    return b / (1 + np.exp(-b))


def weigh(query, key, *, bias=0.0, mask=True, scale=None, normalise="softmax"):
    """[B, heads, N, M]."""
    batch, n, heads, dim = query.shape
    shape = (batch, heads, n, key.shape[1])
    bias, mask = np.broadcast_to(bias, shape), np.broadcast_to(mask, shape)
    out = np.zeros(shape)
    for at in np.ndindex(batch, heads, n):
        b, h, i = at
        scores = key[b, :, h] @ query[b, i, h] * (dim**-0.5 if scale is None else scale) + bias[at]
        if mask[at].any():
            out[at][mask[at]] = ROWS[normalise](scores[mask[at]])
    return out


def attend(query, key, value, *, factor=1.0, vectors=None, **how):
    """sum_j factor_ij a_ij (value_j + vectors_ij): [B, N, heads, D]."""
    weights = weigh(query, key, **how)
    weights = weights * np.broadcast_to(factor, weights.shape)
    out = np.zeros((*query.shape[:3], value.shape[-1]))
    for b, h, i in np.ndindex(weights.shape[:3]):
        told = value[b, :, h] if vectors is None else value[b, :, h] + vectors[i]
        out[b, i, h] = weights[b, h, i] @ told
    return out


def clipped(d, span):
    return max(-span, min(span, d))


def turned(vector, place, period=10_000.0):
    """Rotary: neighbouring features as complex numbers times exp(i place w)."""
    w = period ** (-2 * np.arange(len(vector) // 2) / len(vector))
    points = (vector[0::2] + 1j * vector[1::2]) * np.exp(1j * place * w)
    return np.stack([points.real, points.imag], axis=-1).ravel()


def waves(d, width):
    """Transformer-XL's sines, then cosines."""
    w = 10_000.0 ** (-2 * np.arange(width // 2) / width)
    return np.concatenate([np.sin(d * w), np.cos(d * w)])


def bucket(j_minus_i, buckets=32, reach=128, both=True):
    """T5's, of a memory position less a query position, as appendix and code have it."""
    found, d = 0, j_minus_i
    if both:
        buckets //= 2
        found, d = (buckets if d > 0 else 0), abs(d)
    else:
        d = max(-d, 0)
    exact = buckets // 2
    if d < exact:
        return found + d
    growth = math.log(d / exact) / math.log(reach / exact)
    return found + min(exact + int(growth * (buckets - exact) + 1e-9), buckets - 1)


def normal(seed, *shape):
    return np.random.default_rng(seed).normal(size=shape)


def drawn(module, *args, seed=0, scale=1.0, **how):
    """A module's variables, all redrawn from N(0, scale**2): zeros and ones hide mistakes."""
    make = functools.partial(module.init, **how)
    shapes = jax.eval_shape(make, jax.random.key(0), *args)
    rng = np.random.default_rng(seed)
    return jax.tree.map(lambda a: (scale * rng.normal(size=a.shape)).astype(a.dtype), shapes)
