"""A classifier of noisy images: the way down of a UNet, then the mean of what is left."""

from typing import Any

import flax.linen as nn
import jax.numpy as jnp
from jax import Array

from jaxdiff.models import embeddings, layers, levels, precision

__all__ = ["Classifier"]


class Classifier(nn.Module):
    """Logits of the class of a noisy image [B, H, W, C], told how noisy it is.

    Its last layer starts as zero: untrained, every class is equally likely.

    Attributes:
        num_classes: the number of classes.
        channels, multipliers, blocks, attention, heads, head_channels, resample, scale_shift,
        dropout, groups, epsilon, dtype, remat: as in `UNet`, whose way down this is.
        embedding: "fourier" for time features of order one, such as log(sigma / alpha) / 4, or
            "sinusoidal" for those of some hundreds.

    Source: Dhariwal and Nichol 2021, arXiv:2105.05233, section 4.1 (there pooled by attention;
    here by the mean).
    """

    num_classes: int
    channels: int = 32
    multipliers: tuple[int, ...] = (1, 2)
    blocks: int = 1
    attention: tuple[int, ...] = ()
    heads: int = 1
    head_channels: int | None = None
    resample: str = "pool"
    scale_shift: bool = True
    embedding: str = "fourier"
    dropout: float = 0.1
    groups: int = 8
    epsilon: float = 1e-5
    dtype: Any = None
    remat: bool = False

    def setup(self):
        """The last layer, apart, so that what it reads can be had without it."""
        self.out = layers.exact_dense(self.num_classes, kernel_init=layers.ZEROS)

    def __call__(self, x: Array, t: Array, *, train: bool = False) -> Array:
        """The logits.

        Args:
            x: [B, H, W, C], float.
            t: [B], the time feature.
            train: whether dropout is active (RNG collection "dropout").

        Returns:
            [B, num_classes], float32.

        Raises:
            ValueError: if a field or an input does not fit, before any compile.
        """
        if self.num_classes < 2:
            raise ValueError(f"num_classes must be at least 2, got {self.num_classes}")
        return precision.output(self.out(self.features(x, t, train=train)))

    @nn.compact
    def features(self, x: Array, t: Array, *, train: bool = False) -> Array:
        """What the logits are linear in; takes what `__call__` takes.

        Returns:
            [B, channels of the last level], float32.
        """
        embeddings.check_inputs(
            x,
            t,
            None,
            rank=4,
            embedding=self.embedding,
            num_classes=0,
            cond_dim=0,
            dtype=self.dtype,
        )
        levels.check(self, x.shape[1], x.shape[2])
        emb = embeddings.Conditioning(
            4 * self.channels, waves=self.channels, embedding=self.embedding, name="conditioning"
        )(t)
        h = layers.conv(self.channels, dtype=self.dtype, name="in")(x)
        h, _ = levels.down(self, h, emb, train)
        h = nn.silu(
            layers.group_norm(self.groups, epsilon=self.epsilon, dtype=self.dtype, name="norm")(h)
        )
        return precision.output(jnp.mean(h, axis=(1, 2)))
