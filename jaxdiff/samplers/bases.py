"""Orthonormal bases in which part of an example is known, so that inpainting is all there is.

    z = V x,    V V^T = I:    white noise stays white, x_t = alpha x_0 + sigma eps stays itself

    colour      z_0 = sqrt(3) times the mean of the channels: colorisation
    linear      A = U S V_m (the SVD), so that A x = y says z_i = u_i^T y / s_i for i < m

A basis is a frozen pytree with `to(x)` and `back(z)`; each example is taken by itself.
"""

from typing import Any, NamedTuple, Protocol

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from jaxdiff import arrays
from jaxdiff.arrays import wide_float
from jaxdiff.gaussian import q_sample
from jaxdiff.samplers.steps import check_pytree
from jaxdiff.typing import NoiseLevel

__all__ = [
    "Basis",
    "Known",
    "Part",
    "Pixels",
    "colour_basis",
    "grey_known",
    "known_part",
    "linear_basis",
    "linear_known",
]


class Basis(Protocol):
    """Coordinates of examples in an orthonormal basis: a frozen pytree."""

    def to(self, x: Array) -> Array:
        """The coordinates of x [B, ...]."""
        ...

    def back(self, z: Array) -> Array:
        """The inverse of `to`, which is its transpose."""
        ...


class Known(NamedTuple):
    """What is known of examples, in the order that `replacement` and `repaint` take.

    Attributes:
        known: [...] or [B, ...], the known coordinates.
        mask: the same shape or that of one example, 1 where known.
        basis: what the coordinates are of.
    """

    known: Array
    mask: Array
    basis: Basis


@arrays.pytree
class Pixels:
    """The coordinates that examples have of themselves."""

    def to(self, x: Array) -> Array:
        """X itself."""
        return x

    def back(self, z: Array) -> Array:
        """Z itself."""
        return z


@arrays.pytree
class Part:
    """The known part of examples, in a basis."""

    known: Array
    mask: Array
    basis: Basis

    def check(self, x: Array) -> None:
        """Raises ValueError unless it is of examples like x [B, ...]."""
        shape = jax.eval_shape(self.basis.to, x).shape
        for name, value in (("known", self.known), ("mask", self.mask)):
            if value.shape not in (shape, shape[1:]):
                raise ValueError(
                    f"{name} must have the shape of a sample or of the batch,"
                    f" {list(shape[1:])} or {list(shape)}, got {list(value.shape)}"
                )

    def put(self, x: Array, noise: Array, level: NoiseLevel) -> Array:
        """x at a level with the known part drawn from q(x_t | known)."""
        z, noise = self.basis.to(x), self.basis.to(noise)
        known = q_sample(jnp.broadcast_to(self.known.astype(x.dtype), z.shape), noise, level)
        return self.basis.back(jnp.where(jnp.broadcast_to(self.mask, z.shape), known, z))


# grey first; the other two span the plane of colours, any two would do
_COLOUR = np.array([[1, 1, 1], [1, -1, 0], [1, 1, -2]]) / np.sqrt([[3], [2], [6]])


@arrays.pytree
class Colour:
    """See `colour_basis`."""

    def to(self, x: Array) -> Array:
        """[B, ..., 3], grey first."""
        return _turned(x, _COLOUR.T)

    def back(self, z: Array) -> Array:
        """[B, ..., 3], the channels."""
        return _turned(z, _COLOUR)


@arrays.pytree
class Linear:
    """See `linear_basis`. `rows` [D, D] are the directions, `shape` is that of an example."""

    rows: Array
    shape: tuple[int, ...] = arrays.static()

    def to(self, x: Array) -> Array:
        """[B, *shape] to [B, D]."""
        if x.shape[1:] != self.shape:
            raise ValueError(
                f"the linear basis is of examples {list(self.shape)}, got {list(x.shape[1:])}"
            )
        return _product("bd,ed->be", x.reshape(x.shape[0], -1), self.rows)

    def back(self, z: Array) -> Array:
        """[B, D] to [B, *shape]."""
        return _product("be,ed->bd", z, self.rows).reshape(-1, *self.shape)


def _turned(x: Array, matrix: np.ndarray) -> Array:
    if x.shape[-1] != 3:
        raise ValueError(
            f"the colour basis is of 3 channels on the last axis, got shape {list(x.shape)}"
        )
    return _product("...c,cd->...d", x, matrix)


def _product(indices: str, a: Array, b: Any) -> Array:
    b = jnp.asarray(b, a.dtype)
    return jnp.einsum(indices, a, b, precision=jax.lax.Precision.HIGHEST)


def known_part(known: Any, mask: Any, basis: Basis | None = None) -> Part:
    """The known part of examples, checked; `replacement` says what its arguments and errors are."""
    known, mask = jnp.asarray(known), jnp.asarray(mask)
    if not jnp.issubdtype(known.dtype, jnp.floating):
        raise ValueError(f"known must be float, in the range of the samples, got {known.dtype}")
    _check_mask(known, mask)
    basis = Pixels() if basis is None else basis
    if not (hasattr(basis, "to") and hasattr(basis, "back")):
        raise TypeError(f"basis must be a Basis such as colour_basis(), got {basis!r}")
    check_pytree("basis", basis)
    mask = mask.astype(bool)
    return Part(jnp.where(jnp.broadcast_to(mask, known.shape), known, 0), mask, basis)


def colour_basis() -> Colour:
    """Grey and two colours on the last axis.

        z_0 = (x_0 + x_1 + x_2) / sqrt(3),  z_1 = (x_0 - x_1) / sqrt(2),
        z_2 = (x_0 + x_1 - 2 x_2) / sqrt(6)

    Returns:
        A Basis of [B, ..., 3].

    Source: Song et al. 2021, arXiv:2011.13456, appendix I.3, whose first axis is the same; the
        law of a sample does not depend on the other two.
    """
    return Colour()


def grey_known(grey: Any) -> Known:
    """Images whose grey part is known.

    Args:
        grey: [H, W, 1] or [B, H, W, 1], float, the mean of the three channels.

    Returns:
        Known of [H, W, 3] or [B, H, W, 3], to be passed on as `replacement(sampler, *known)`.

    Raises:
        ValueError: not one channel, not float, or not finite.
    """
    grey = _checked("grey", grey)
    if grey.ndim not in (3, 4) or grey.shape[-1] != 1:
        raise ValueError(f"grey must be [H, W, 1] or [B, H, W, 1], got {list(grey.shape)}")
    known = jnp.pad(3**0.5 * grey, [(0, 0)] * (grey.ndim - 1) + [(0, 2)])
    return Known(known, np.broadcast_to([True, False, False], known.shape[-3:]), Colour())


def linear_basis(a: Any) -> Linear:
    """The right singular vectors of a matrix, of which the first m span what A sees.

    Args:
        a: [m, ...], m linear functions of an example; the other axes are an example's, D
            numbers in all. Rows independent.

    Returns:
        A Basis of [B, ...], with coordinates [B, D].

    Raises:
        ValueError: no rows, more rows than D, not finite, or rows that depend on each other.
    """
    return _factored(a)[2]


def linear_known(y: Any, a: Any) -> Known:
    """Examples of which A x = y is known.

    All arguments are traced leaves; gradients by `a` are none, since the SVD's are infinite where
    singular values meet (and the last D - m of them do).

    Args:
        y: [m] or [B, m], float, the measurement.
        a: [m, ...], as for `linear_basis`.

    Returns:
        Known with coordinates [D] or [B, D], the first m of them known.

    Raises:
        ValueError: as for `linear_basis`; y of another length, not float or not finite. Rows that
            depend on each other are refused whether or not y contradicts itself, but only where
            a is concrete: while it is traced the answer is then unspecified.

    Source: Song et al. 2022, arXiv:2111.08005, section 3, for any A of full row rank.
    """
    y = _checked("y", y)
    left, values, basis = _factored(a)
    count, size = values.shape[0], basis.rows.shape[0]
    if y.ndim not in (1, 2) or y.shape[-1] != count:
        raise ValueError(
            f"y must be [m] or [B, m] with m = {count}, the rows of a, got {list(y.shape)}"
        )
    known = _product("...m,mk->...k", y, left / values[None])
    known = jnp.pad(known, [(0, 0)] * (y.ndim - 1) + [(0, size - count)])
    return Known(known, np.arange(size) < count, basis)


def _factored(a: Any) -> tuple[Array, Array, Linear]:
    """U, S and the basis V of a matrix, in float64 on the host where it is concrete."""
    shape = jnp.shape(a)
    size = int(np.prod(shape[1:]))
    if len(shape) < 2 or not 1 <= shape[0] <= size:
        raise ValueError(
            f"a must be [m, ...] with 1 <= m <= the numbers of an example, got {list(shape)}"
        )
    numbers = arrays.concrete(a)
    if numbers is None:
        flat = jax.lax.stop_gradient(wide_float(a).reshape(shape[0], size))
        left, values, rows = jnp.linalg.svd(flat, full_matrices=True)
        return left, values, Linear(rows, shape[1:])
    numbers = numbers.astype(np.float64)
    if not np.isfinite(numbers).all():
        raise ValueError("a must be finite, got NaN or infinity in it")
    left, values, rows = np.linalg.svd(numbers.reshape(shape[0], size), full_matrices=True)
    # what is less is rounding of the numbers given, and would come back as noise / rounding
    precision = np.finfo(np.float32 if arrays.float_dtype() == jnp.float32 else np.float64).eps
    rank = int(np.sum(values > values[0] * size * precision))
    if rank < shape[0]:
        raise ValueError(
            f"a must have independent rows, got rank {rank} of {shape[0]} rows: some say again, or"
            f" contradict, what others say; keep {rank} of them"
        )
    return left, values, Linear(jnp.asarray(rows, arrays.float_dtype()), shape[1:])


def _checked(name: str, value: Any) -> Array:
    array = jnp.asarray(value)
    if not jnp.issubdtype(array.dtype, jnp.floating):
        raise ValueError(f"{name} must be float, in the range of the samples, got {array.dtype}")
    numbers = arrays.concrete(value)
    if numbers is not None and not np.isfinite(numbers).all():
        raise ValueError(f"{name} must be finite, got NaN or infinity in it")
    return wide_float(array)


def _check_mask(known: Array, mask: Array) -> None:
    if mask.shape not in (known.shape, known.shape[1:]):
        raise ValueError(
            f"mask must have the shape of known, {list(known.shape)}, or of one example of it,"
            f" got {list(mask.shape)}"
        )
    values = arrays.concrete(mask)
    if values is None:
        return
    if not np.all((values == 0) | (values == 1)):
        raise ValueError(
            f"mask must hold 0 and 1 alone, got {values[(values != 0) & (values != 1)].flat[0]}"
        )
    if values.all() or not values.any():
        what = "nothing to draw" if values.all() else "nothing known"
        raise ValueError(f"mask must be 1 where known, 0 where not: it leaves {what}")
    numbers = arrays.concrete(known)
    if (
        numbers is not None
        and not np.isfinite(numbers[np.broadcast_to(values == 1, numbers.shape)]).all()
    ):
        raise ValueError(
            "known must be finite where mask is 1 (1 is known, 0 is to be drawn), got NaN or"
            " infinity there: is the mask the other way round?"
        )
