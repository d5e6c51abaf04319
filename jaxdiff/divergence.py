"""The divergence of a vector field, exactly or by random probes: one interface, three estimators.

    div v(x) = tr J = sum_i e_i' J e_i          exact, D products with J
             = E[u' J u],   E[u u'] = I         hutchinson, one product a probe
             = tr Q' J Q + E[w' J w]            hutchpp, w = (I - Q Q') u, Q a basis of J S

Examples are independent of one another, so one product with the Jacobian of the whole batch is
one product for each example. Probes are drawn beforehand, example i's from its own key, so that
a solver may hold them fixed along a path.
"""

import math
from collections.abc import Callable
from typing import Any, Protocol

import jax
import jax.numpy as jnp
from jax import Array

from jaxdiff import arrays

__all__ = [
    "DIVERGENCES",
    "Divergence",
    "exact",
    "hutchinson",
    "hutchpp",
    "is_random",
    "resolve",
]


class Divergence(Protocol):
    """An estimator of the divergence: a frozen pytree.

    Attributes:
        values: static, P, how many estimates it gives an example; their mean is the estimate,
            their spread its error. 1 if exact.
    """

    values: int

    def draw(self, keys: Array, shape: tuple[int, ...], dtype: Any) -> Any:
        """The probes of a batch of `shape` (B, ...), from keys [B]; a pytree, None if none."""
        ...

    def __call__(self, field: Callable, x: Array, probes: Any) -> tuple[Array, Array]:
        """(field(x) [B, ...], estimates of its divergence [B, P]).

        Args:
            field: [B, ...] to [B, ...], each example by itself.
            x: [B, ...].
            probes: what `draw` gave.
        """
        ...


@arrays.pytree
class Exact:
    """See `exact`."""

    chunk: int = arrays.static()
    values = 1

    def draw(self, keys: Array, shape: tuple[int, ...], dtype: Any) -> None:
        """Nothing is random."""

    def __call__(self, field: Callable, x: Array, probes: Any) -> tuple[Array, Array]:
        """The diagonal of the Jacobian, summed."""
        v, jacobian = jax.linearize(field, x)
        size = x[0].size

        def element(i: Array) -> Array:
            unit = jnp.zeros(size, x.dtype).at[i].set(1).reshape(x.shape[1:])
            out = jacobian(jnp.broadcast_to(unit, x.shape))
            return out.reshape(x.shape[0], size)[:, i]

        diagonal = jax.lax.map(element, jnp.arange(size), batch_size=min(self.chunk, size))
        return v, jnp.sum(diagonal, axis=0)[:, None]


@arrays.pytree
class Hutchinson:
    """See `hutchinson`."""

    values: int = arrays.static()
    distribution: str = arrays.static()

    def draw(self, keys: Array, shape: tuple[int, ...], dtype: Any) -> Array:
        """[P, B, ...] probes."""
        return _draw(keys, (self.values, *shape[1:]), dtype, self.distribution)

    def __call__(self, field: Callable, x: Array, probes: Array) -> tuple[Array, Array]:
        """u' J u of each probe."""
        v, jacobian = jax.linearize(field, x)
        return v, jax.vmap(lambda u: _dot(u, jacobian(u)), out_axes=1)(probes)


@arrays.pytree
class HutchPP:
    """See `hutchpp`."""

    values: int = arrays.static()
    distribution: str = arrays.static()

    def draw(self, keys: Array, shape: tuple[int, ...], dtype: Any) -> Array:
        """[2 P, B, ...]: those that find the range of J, then the probes of what is left."""
        if self.values > (size := math.prod(shape[1:])):
            raise ValueError(f"probes must be at most {size}, all of an example, got {self.values}")
        return _draw(keys, (2 * self.values, *shape[1:]), dtype, self.distribution)

    def __call__(self, field: Callable, x: Array, probes: Array) -> tuple[Array, Array]:
        """tr Q' J Q, and w' J w of each probe besides."""
        v, jacobian = jax.linearize(field, x)
        products = jax.vmap(jacobian)
        sketch, rest = jnp.split(probes, 2)
        flat = lambda a: jnp.moveaxis(a.reshape(*a.shape[:2], -1), 0, 2)  # noqa: E731 [B, D, P]
        shaped = lambda a: jnp.moveaxis(a, 2, 0).reshape(sketch.shape)  # noqa: E731
        # any orthonormal Q serves: the estimate is unbiased for each, and so is its gradient
        q = jnp.linalg.qr(flat(jax.lax.stop_gradient(products(sketch))))[0]
        of_range = _einsum("bdp,bdp->b", q, flat(products(shaped(q))))
        u = flat(rest)
        w = u - _einsum("bdq,brq,brp->bdp", q, q, u)
        left = _einsum("bdp,bdp->bp", w, flat(products(shaped(w))))
        return v, of_range[:, None] + left


def exact(chunk: int = 16) -> Exact:
    """The divergence itself, by D products with the Jacobian.

    Args:
        chunk: static, how many are taken at once; memory grows with it.

    Returns:
        A Divergence with one value.

    Raises:
        ValueError: chunk below 1.
    """
    arrays.check_count("chunk", chunk)
    return Exact(int(chunk))


def hutchinson(probes: int = 1, distribution: str = "rademacher") -> Hutchinson:
    """Hutchinson's estimator, u' J u; unbiased.

    With Rademacher probes its variance is that of the off-diagonal part of J + J' alone.

    Args:
        probes: static, P >= 1; two at least for a standard error.
        distribution: static, "rademacher" or "gaussian".

    Returns:
        A Divergence with P values.

    Raises:
        ValueError: probes below 1, or another distribution.

    Source: Hutchinson 1990, doi:10.1080/03610919008812866; Grathwohl et al. 2019,
        arXiv:1810.01367, eq. 8; Song et al. 2021, arXiv:2011.13456, eq. 40.
    """
    arrays.check_count("probes", probes)
    _check_distribution(distribution)
    return Hutchinson(int(probes), distribution)


def hutchpp(probes: int = 4, distribution: str = "rademacher") -> HutchPP:
    """Hutch++: exact on a random sketch of the range of J, Hutchinson's estimator on the rest.

    Takes 3 P products. Gains where few directions carry J; else 3 P probes of `hutchinson` are
    as good or better.

    Args:
        probes: static, P >= 1: columns of the sketch, and probes of the rest.
        distribution: static, "rademacher" or "gaussian".

    Returns:
        A Divergence with P values, independent of each other given the sketch, which leaves each
        unbiased.

    Raises:
        ValueError: probes below 1, or another distribution; when asked, more probes than an
            example has numbers.

    Source: Meyer et al. 2021, arXiv:2010.09649, algorithm 1. There the matrix is positive
        semidefinite; for any matrix the estimate stays unbiased.
    """
    arrays.check_count("probes", probes)
    _check_distribution(distribution)
    return HutchPP(int(probes), distribution)


DIVERGENCES: dict[str, Callable[..., Divergence]] = {
    "exact": exact,
    "hutchinson": hutchinson,
    "hutchpp": hutchpp,
}


def resolve(divergence: Divergence | Callable | str) -> Divergence:
    """An estimator from itself, its factory or its name.

    Raises:
        ValueError: an unknown name.
        TypeError: something else altogether.
    """
    return arrays.by_name("divergence", divergence, DIVERGENCES, kind="Divergence", has="draw")


def is_random(divergence: Divergence) -> bool:
    """Whether an estimator draws probes."""
    keys = jax.eval_shape(lambda: jax.random.split(jax.random.key(0), 2))
    draw = lambda keys: divergence.draw(keys, (2, 2 * divergence.values), jnp.float32)  # noqa: E731
    return bool(jax.tree.leaves(jax.eval_shape(draw, keys)))


def _einsum(formula: str, *operands: Array) -> Array:
    return jnp.einsum(formula, *operands, precision=jax.lax.Precision.HIGHEST)


def _dot(u: Array, v: Array) -> Array:
    return arrays.event_sum(u * v)


def _draw(keys: Array, shape: tuple[int, ...], dtype: Any, distribution: str) -> Array:
    """[P, B, ...] from keys [B], each example from its own."""
    random = {"rademacher": jax.random.rademacher, "gaussian": jax.random.normal}[distribution]
    return jax.vmap(lambda key: random(key, shape, dtype), out_axes=1)(keys)


def _check_distribution(name: str) -> None:
    if name not in ("rademacher", "gaussian"):
        raise ValueError(f"distribution must be rademacher or gaussian, got {name!r}")
