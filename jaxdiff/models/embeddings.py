"""What a network is conditioned on besides its input: a time, a class, a free vector.

    t     -> sinusoidal or Fourier features -> Dense -> SiLU -> Dense    \\
    label -> a learned row of a table, one more row for "no label"        } summed: [B, features]
    vector -> Dense; the zero vector is "no vector"                      /

A time arrives as whatever feature the denoiser feeds (a step, 1000 t, a log-SNR, log sigma / 4):
nothing here rescales it.
"""

import math
from typing import Any

import flax.linen as nn
import jax.numpy as jnp
import numpy as np
from jax import Array
from scipy.special import ndtri

from jaxdiff import arrays
from jaxdiff.models import layers, precision

__all__ = ["Conditioning", "add_given", "check_inputs", "fourier", "sinusoidal", "split"]

Cond = Any
"""None, int labels [B], float vectors [B, D], or {"label": ..., "vector": ...}."""


def sinusoidal(
    t: Array, features: int, *, max_period: float = 10_000.0, endpoint: bool = True
) -> Array:
    """Sines and cosines of `t` at geometrically spaced frequencies.

        w_i = max_period**(-i / (h - 1)),  i = 0..h-1,  h = features // 2;  / h if not endpoint
        [sin(w_0 t) .. sin(w_{h-1} t), cos(w_0 t) .. cos(w_{h-1} t)], one 0 more if odd

    Args:
        t: [B], a time feature of some hundreds (steps, or 1000 t); a feature in [0, 1] hardly
            moves most of the frequencies.
        features: the number of features, >= 4.
        max_period: 2 pi times this is the longest period.
        endpoint: whether that period is among them, as in `numpy.linspace`.

    Returns:
        [B, features], float32 (float64 under jax_enable_x64).

    Raises:
        ValueError: if `features` < 4.

    Source: Vaswani et al. 2017, arXiv:1706.03762, section 3.5, in the layout of Ho et al. 2020,
    arXiv:2006.11239 (sines first, both ends of the frequency range included); without the end:
    the configuration of Dhariwal and Nichol 2021, arXiv:2105.05233.
    """
    if features < 4:
        raise ValueError(f"features must be at least 4, got features={features}")
    half = features // 2
    # Powers are rounded as PyTorch's networks round them, whose weights then answer as there.
    rounded = arrays.float_dtype().type
    powers = (
        rounded(-math.log(max_period)) * np.arange(half, dtype=rounded) / rounded(half - endpoint)
    )
    return _waves(t, np.exp(powers.astype(np.float64)), features)


def fourier(t: Array, features: int, *, scale: float = 16.0) -> Array:
    """Sines and cosines of `t` at Gaussian-distributed frequencies.

        w_i = scale |Phi^-1((1 + (i + 1/2) / h) / 2)|,  i = 0..h-1,  h = features // 2
        [sin(2 pi w t), cos(2 pi w t)], one 0 more if odd

    The frequencies are the quantiles of |N(0, scale**2)| instead of draws from N(0, scale**2):
    the sign of a frequency tells a linear layer nothing, and quantiles need no stored draw.

    Args:
        t: [B], a time feature of order one (log sigma / 4, t in [0, 1]).
        features: the number of features, >= 4.
        scale: the deviation of the frequencies, > 0.

    Returns:
        [B, features], float32 (float64 under jax_enable_x64).

    Raises:
        ValueError: if `features` < 4.

    Source: Song et al. 2021, arXiv:2011.13456, appendix C.2 (there drawn at random, scale 16).
    """
    if features < 4:
        raise ValueError(f"features must be at least 4, got features={features}")
    half = features // 2
    quantiles = ndtri((1 + (np.arange(half) + 0.5) / half) / 2)
    return _waves(t, 2 * np.pi * scale * quantiles, features)


def _waves(t: Array, frequencies: np.ndarray, features: int) -> Array:
    """[B, features]: sines, then cosines, then a zero if `features` is odd."""
    dtype = arrays.float_dtype()
    angles = jnp.asarray(t, dtype)[:, None] * jnp.asarray(frequencies, dtype)[None, :]
    waves = jnp.concatenate([jnp.sin(angles), jnp.cos(angles)], axis=-1)
    return jnp.pad(waves, ((0, 0), (0, features - waves.shape[-1])))


EMBEDDINGS = ("sinusoidal", "fourier")


class Conditioning(nn.Module):
    """One vector an example from its time, label and vector.

        e = Dense(silu(Dense(waves(t)))) + table[label] + Dense(vector)

    Attributes:
        features: the length of the vector.
        waves: how many sines and cosines describe the time.
        embedding: "sinusoidal" (times of some hundreds) or "fourier" (times of order one).
        endpoint: whether the longest period is among the sinusoidal ones.
        num_classes: the number of classes, 0 for none; label -1 is the learned null label, any
            other label outside 0..num_classes-1 gives NaN.
        cond_dim: the length of the free vector, 0 for none; zeros are the null vector.
    """

    features: int
    waves: int = 128
    embedding: str = "sinusoidal"
    endpoint: bool = True
    num_classes: int = 0
    cond_dim: int = 0

    @nn.compact
    def __call__(self, t: Array, cond: Cond = None) -> Array:
        """[B] times and their conditions to [B, features], never in half precision."""
        if self.embedding == "fourier":
            waves = fourier(t, self.waves)
        else:
            waves = sinusoidal(t, self.waves, endpoint=self.endpoint)
        out = nn.silu(layers.exact_dense(self.features, name="time_in")(waves))
        out = layers.exact_dense(self.features, name="time_out")(out)
        return add_given(out, cond, self.num_classes, self.cond_dim)


def add_given(emb: Array, cond: Cond, num_classes: int, cond_dim: int) -> Array:
    """`emb` [B, E] + table[label] + Dense(vector); modules "label" and "vector" of the caller's."""
    dtype, features = arrays.float_dtype(), emb.shape[-1]
    label, vector = split(cond, num_classes, cond_dim)
    if label is not None:
        known = (label >= 0) & (label < num_classes)
        # One row past the table is NaN by take's fill mode: a wrong label must not pass.
        row = jnp.where(known, label, num_classes + (label != -1))
        emb = emb + nn.Embed(num_classes + 1, features, param_dtype=dtype, name="label")(row)
    if vector is not None:
        emb = emb + layers.exact_dense(features, name="vector")(jnp.asarray(vector, dtype))
    return emb


def split(cond: Cond, num_classes: int, cond_dim: int) -> tuple[Array | None, Array | None]:
    """(label, vector) of a condition that `check_inputs` has passed."""
    if isinstance(cond, dict):
        return cond.get("label"), cond.get("vector")
    return (cond if num_classes else None), (cond if cond_dim else None)


def completed(x: Array, cond: Cond, num_classes: int, cond_dim: int) -> Cond:
    """The condition, with the null vector where a network takes a vector and none was given.

    So a network that is told how images were augmented is asked for samples without a word of it.
    A label is never left out: -1 says that there is none.
    """
    if cond_dim < 1:
        return cond
    null = jnp.zeros((x.shape[0], cond_dim), arrays.float_dtype())
    if isinstance(cond, dict):
        return {"vector": null, **cond}
    if num_classes:
        return None if cond is None else {"label": cond, "vector": null}
    return null if cond is None else cond


def check_fields(net: nn.Module) -> None:
    """Raises ValueError unless `net` has whole multipliers and, where it is given, an output."""
    if net.out_channels is not None and net.out_channels < 1:
        raise ValueError(f"out_channels must be positive or None, got {net.out_channels}")
    if any(not isinstance(m, int) for m in net.multipliers):
        raise ValueError(f"multipliers must be whole numbers, got {net.multipliers}")


def check_inputs(
    x: Array,
    t: Array,
    cond: Cond,
    *,
    rank: int,
    embedding: str,
    num_classes: int,
    cond_dim: int,
    dtype: Any,
) -> None:
    """Raises ValueError unless a network with these fields can take `x`, `t` and `cond`.

    Args:
        x: must be float, of `rank` axes.
        t: must be [B].
        cond: must be what `num_classes` and `cond_dim` announce, no more and no less, after
            `completed`.
        rank: 2 for vectors, 4 for images.
        embedding: must be a name of `EMBEDDINGS`.
        num_classes: the number of classes, 0 for none.
        cond_dim: the length of the free vector, 0 for none.
        dtype: must be one that networks compute in.

    Raises:
        ValueError: naming the argument, what was given and what was wanted.
    """
    precision.check(dtype)
    for name, value in (("num_classes", num_classes), ("cond_dim", cond_dim)):
        if value < 0:
            raise ValueError(f"{name} must not be negative, got {value}")
    if embedding not in EMBEDDINGS:
        raise ValueError(f"embedding must be one of {sorted(EMBEDDINGS)}, got {embedding!r}")
    if x.ndim != rank or not jnp.issubdtype(x.dtype, jnp.floating):
        layout = {2: "[B, D]", 4: "[B, H, W, C]"}[rank]
        raise ValueError(f"x must be float {layout}, got {x.dtype} {list(x.shape)}")
    if jnp.shape(t) != x.shape[:1]:
        raise ValueError(f"t must be [{x.shape[0]}], one time an example, got {jnp.shape(t)}")
    wanted = {"label": num_classes > 0, "vector": cond_dim > 0}
    names = [name for name, present in wanted.items() if present]
    if len(names) == 2 or isinstance(cond, dict):
        given = sorted(cond) if isinstance(cond, dict) else None
        if given != sorted(names):
            got = "no dict" if given is None else f"keys {given}"
            raise ValueError(f"cond must be a dict with keys {names}, got {got}")
    elif names and cond is None:
        raise ValueError(
            f"cond is missing: a network with num_classes={num_classes} takes a label; -1 stands"
            " for none"
        )
    elif not names and cond is not None:
        raise ValueError(
            "cond must be None: the network was built with num_classes=0 and cond_dim=0, "
            f"got shape {jnp.shape(cond)}"
        )
    label, vector = split(cond, num_classes, cond_dim)
    _check_label(label, x.shape[0])
    if vector is not None and jnp.shape(vector) != (x.shape[0], cond_dim):
        raise ValueError(
            f"cond vector must be [{x.shape[0]}, {cond_dim}], got {list(jnp.shape(vector))}"
        )


def _check_label(label: Array | None, batch: int) -> None:
    if label is None:
        return
    dtype = jnp.result_type(label)
    if jnp.shape(label) != (batch,) or not jnp.issubdtype(dtype, jnp.integer):
        raise ValueError(
            f"cond label must be integer [{batch}], got {dtype} {list(jnp.shape(label))}"
        )
