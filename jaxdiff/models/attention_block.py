"""Attention over the pixels of an image, as UNets have it."""

from typing import Any

import flax.linen as nn
from jax import Array

from jaxdiff.models import attention, layers

__all__ = ["AttentionBlock"]


class AttentionBlock(nn.Module):
    """Self-attention over the pixels of an image, as a residual branch that starts as zero.

        out = x + dense_0(attend(q, k, v)),    q, k, v = dense(norm(x))

    Attributes:
        heads: the number of heads; must divide the channels.
        head_channels: the channels of a head instead, None for as many heads as `heads` says.
        groups: the groups of the norm; must divide the channels.
        epsilon: of the norm.
        dtype: the compute dtype, None for the parameters' own.

    Source: Ho et al. 2020, arXiv:2006.11239, appendix B.
    """

    heads: int = 1
    head_channels: int | None = None
    groups: int = 32
    epsilon: float = 1e-5
    dtype: Any = None

    @nn.compact
    def __call__(self, x: Array) -> Array:
        """[B, H, W, C] to the same shape."""
        batch, height, width, channels = x.shape
        norm = layers.group_norm(self.groups, epsilon=self.epsilon, dtype=self.dtype, name="norm")
        h = norm(x)
        qkv = layers.dense(3 * channels, dtype=self.dtype, name="qkv")(h)
        heads = self.heads if self.head_channels is None else channels // self.head_channels
        qkv = qkv.reshape(batch, height * width, 3, heads, channels // heads)
        h = attention.attend(qkv[:, :, 0], qkv[:, :, 1], qkv[:, :, 2]).reshape(x.shape)
        return x + layers.dense(channels, kernel_init=layers.ZEROS, dtype=self.dtype, name="out")(h)
