"""Forms of one operation: a 3x3 convolution of stride 1 with zeros around, channels last.

    y[b, i, j] = sum_uv x[b, i + u - 1, j + v - 1] k[u, v],    x [B, H, W, C], k [3, 3, C, F]

`bench_core.py` times them alone and, by `through`, inside a network.
"""

from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

__all__ = ["FORMS", "own_gradient", "patches", "plain", "shifted", "through", "winograd"]

# Lavin and Gray 2016, arXiv:1509.09308, section 4.1: of the kernel, the input and the output
_G = np.array([[1, 0, 0], [0.5, 0.5, 0.5], [0.5, -0.5, 0.5], [0, 0, 1]], np.float32)
_B = np.array([[1, 0, -1, 0], [0, 1, 1, 0], [0, -1, 1, 0], [0, 1, 0, -1]], np.float32)
_A = np.array([[1, 1, 1, 0], [0, 1, -1, -1]], np.float32)


def plain(x: Array, k: Array) -> Array:
    """XLA's own."""
    return jax.lax.conv_general_dilated(
        x, k, (1, 1), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC")
    )


def _windows(x: Array) -> list[Array]:
    """The nine neighbours of every pixel, each [B, H, W, C]."""
    padded = jnp.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0)))
    height, width = x.shape[1:3]
    return [padded[:, i : i + height, j : j + width] for i in range(3) for j in range(3)]


def shifted(x: Array, k: Array) -> Array:
    """The sum of nine products of matrices."""
    taps = k.reshape(9, *k.shape[2:])
    return sum(window @ tap for window, tap in zip(_windows(x), taps, strict=True))


def patches(x: Array, k: Array) -> Array:
    """One product of [B H W, 9 C] and [9 C, F] ("im2col")."""
    return jnp.concatenate(_windows(x), axis=-1) @ k.reshape(-1, k.shape[-1])


@jax.custom_vjp
def own_gradient(x: Array, k: Array) -> Array:
    """XLA's own, whose gradient by k is one product of matrices, by x a convolution again."""
    return plain(x, k)


def _backward(saved: tuple[Array, Array], g: Array) -> tuple[Array, Array]:
    x, k = saved
    by_k = jnp.einsum("bijc,bijf->cf", jnp.concatenate(_windows(x), axis=-1), g)
    return plain(g, k[::-1, ::-1].swapaxes(2, 3)), by_k.reshape(k.shape)


own_gradient.defvjp(lambda x, k: (plain(x, k), (x, k)), _backward)


def _combine(matrix: np.ndarray, parts: list[Array]) -> list[Array]:
    """matrix @ parts, by additions alone: its entries are 0, 1 and -1."""
    rows = [[(int(c), part) for c, part in zip(row, parts, strict=True) if c] for row in matrix]
    return [sum(part if c > 0 else -part for c, part in row) for row in rows]


def winograd(x: Array, k: Array) -> Array:
    """F(2x2, 3x3): 16 products in place of 36 for each 2x2 pixels; H and W even.

    Source: Lavin and Gray 2016, arXiv:1509.09308, section 4.1.
    """
    batch, height, width, channels = x.shape
    features, half = k.shape[-1], (height // 2, width // 2)
    padded = jnp.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0)))

    def tiles(a: Array, axis: int) -> list[Array]:
        """The four lines of each tile, of which the next begins two further."""
        last = 2 * half[axis - 1] - 1
        cut = [jax.lax.slice_in_dim(a, i, i + last, stride=2, axis=axis) for i in range(4)]
        return _combine(_B, cut)

    data = jnp.stack([tile for row in tiles(padded, 1) for tile in tiles(row, 2)])
    kernel = jnp.einsum("ai,bj,ijcf->abcf", _G, _G, k).reshape(16, channels, features)
    product = jnp.einsum("tnc,tcf->tnf", data.reshape(16, -1, channels), kernel)
    product = product.reshape(4, 4, batch, *half, features)
    rows = [_combine(_A, list(line)) for line in _combine(_A, list(product))]
    y = jnp.stack([jnp.stack(row, axis=3) for row in rows], axis=2)  # [B, H/2, 2, W/2, 2, F]
    return y.reshape(batch, height, width, features)


FORMS: dict[str, Callable[[Array, Array], Array]] = {
    "plain": plain,
    "shifted": shifted,
    "patches": patches,
    "winograd": winograd,
    "own gradient": own_gradient,
}
"""Forms by name."""


def through(form: Callable[[Array, Array], Array], module: nn.Module) -> Callable[..., Array]:
    """`module.apply` with its 3x3 convolutions of stride 1 between several channels in a form."""

    def swap(call: Callable, args: tuple, kwargs: dict, context: Any) -> Any:
        layer = context.module
        if not isinstance(layer, nn.Conv) or context.method_name != "__call__":
            return call(*args, **kwargs)
        p = layer.variables["params"]
        fits = layer.kernel_size == (3, 3) and layer.strides == (1, 1)
        if not fits or 1 in p["kernel"].shape[2:]:
            return call(*args, **kwargs)
        return form(args[0], p["kernel"]) + p["bias"].reshape(1, 1, 1, -1)

    def apply(params: Any, *inputs: Any) -> Array:
        with nn.intercept_methods(swap):
            return module.apply(params, *inputs)

    return apply
