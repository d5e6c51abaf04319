"""Array helpers that everything else needs: shapes, safe quotients, concreteness, pytrees.

`typing` and `arrays` are the floor of the library: nothing here knows a noise level.
"""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any, dataclass_transform

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

__all__ = [
    "Plain",
    "as_pytree",
    "by_name",
    "check_count",
    "check_index",
    "check_range",
    "choose",
    "concrete",
    "event_mean",
    "event_sum",
    "expand_to",
    "float_dtype",
    "is_number",
    "is_pytree",
    "is_traced",
    "pytree",
    "safe_divide",
    "safe_sqrt",
    "static",
    "strong",
    "wide_float",
]


def static(**kwargs: Any) -> Any:
    """A dataclass field that is part of the structure, not a traced leaf."""
    return dataclasses.field(metadata={"static": True}, **kwargs)


@dataclass_transform(frozen_default=True, eq_default=False, field_specifiers=(static,))
def pytree(cls: type) -> type:
    """Makes a class a frozen dataclass and a pytree; fields are leaves unless `static()`.

    Equality is identity, since leaves may be arrays. Nothing is validated on construction: JAX
    also constructs with tracers and placeholders. Factories validate.

    `jax.tree_util.register_dataclass` will not do: in jax 0.10 the structures of two classes with
    equal fields compare equal, so that jit may take one schedule's program for another's.
    """
    cls = dataclasses.dataclass(frozen=True, eq=False)(cls)
    fields = dataclasses.fields(cls)
    kept = tuple(f.name for f in fields if f.metadata.get("static"))
    traced = tuple(f.name for f in fields if not f.metadata.get("static"))
    keys = tuple(jax.tree_util.GetAttrKey(name) for name in traced)

    def flatten(node: Any) -> tuple[tuple, tuple]:
        values = vars(node)
        return tuple(values[n] for n in traced), tuple(values[n] for n in kept)

    def flatten_with_keys(node: Any) -> tuple[tuple, tuple]:
        leaves, aux = flatten(node)
        return tuple(zip(keys, leaves, strict=True)), aux

    def unflatten(aux: tuple, leaves: tuple) -> Any:
        node = object.__new__(cls)
        vars(node).update(zip(traced, leaves, strict=True))
        vars(node).update(zip(kept, aux, strict=True))
        return node

    jax.tree_util.register_pytree_with_keys(cls, flatten_with_keys, unflatten, flatten)
    return cls


def is_pytree(x: Any) -> bool:
    """Whether JAX looks inside `x` rather than taking it for a leaf."""
    return not jax.tree_util.all_leaves([x])


@pytree
class Plain:
    """A plain function as a pytree without leaves, so that it passes through jit."""

    function: Callable = static()

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """The function's own answer."""
        return self.function(*args, **kwargs)


def as_pytree(function: Callable) -> Callable:
    """`function` itself if JAX looks inside it, else wrapped as `Plain`.

    Raises:
        TypeError: not callable.
    """
    if not callable(function):
        raise TypeError(f"wanted a function, got {function!r}")
    return function if is_pytree(function) else Plain(function)


def is_number(value: Any) -> bool:
    """Whether it is a number or an array; arrays have methods, `std` too, that name interfaces."""
    return isinstance(value, int | float | np.ndarray | np.generic | Array)


def is_traced(tree: Any) -> bool:
    """Whether any leaf is being traced, so that its numbers cannot be looked at."""
    return any(isinstance(leaf, jax.core.Tracer) for leaf in jax.tree.leaves(tree))


def float_dtype() -> Any:
    """float32, or float64 under jax_enable_x64."""
    return jnp.result_type(float)


def wide_float(x: Any) -> Array:
    """`x` as an array of at least float32; integers become the default float."""
    x = jnp.asarray(x)
    if x.dtype in (jnp.float32, jnp.float64):
        return x
    half = jnp.issubdtype(x.dtype, jnp.floating)
    return x.astype(jnp.float32 if half else float_dtype())


def concrete(x: Any) -> np.ndarray | None:
    """The value of `x` as numpy, or None where it is being traced.

    What decides whether a number can be checked: validation looks at concrete values alone.
    """
    return None if is_traced(x) else np.asarray(x)


def strong(tree: Any, dtype: Any) -> Any:
    """Python numbers and weakly typed arrays as arrays: eta = 0.5 in any form is one program.

    Whole numbers stay whole: labels may be jnp.full(n, 3), which is weakly typed.
    """

    def one(a: Any) -> Any:
        if not (isinstance(a, float) or getattr(a, "weak_type", False)):
            return a
        floating = jnp.issubdtype(jnp.result_type(a), jnp.floating)
        return jnp.array(a, dtype if floating else a.dtype)

    return jax.tree.map(one, tree)


def by_name(what: str, value: Any, table: Mapping[str, Callable], *, kind: str, has: str) -> Any:
    """A thing from itself, its factory, or its name in a table of factories.

    Args:
        what: what messages call it.
        value: the thing, factory or name.
        table: factories by name.
        kind: the interface it must be of, for messages.
        has: a method of that interface.

    Raises:
        ValueError: an unknown name.
        TypeError: something else altogether.
    """
    if isinstance(value, str):
        if value not in table:
            raise ValueError(f"{what} must be one of {', '.join(table)}, got {value!r}")
        return table[value]()
    if is_number(value):  # arrays compare by number and have a `std` of their own
        raise TypeError(f"{what} must be a {kind}, got {value!r}")
    if value in table.values():
        return value()
    if not hasattr(value, has):
        raise TypeError(f"{what} must be a {kind}, got {value!r}")
    return value


def check_range(name: str, value: Any, low: float, high: float, ends: str = "[]") -> None:
    """Raises unless every concrete number of `value` lies between `low` and `high`.

    Args:
        name: what the message calls it.
        value: a number or array; passed over while it is being traced.
        low, high: the bounds.
        ends: "[]", "()", "[)" or "(]": which bounds belong to the range.

    Raises:
        ValueError: a number lies outside, or is NaN.
        TypeError: no real number.
    """
    numbers = concrete(value)
    if numbers is None:
        return
    if numbers.dtype.kind in "OUSc":
        raise TypeError(f"{name} must be a number, got {value!r}")
    above = numbers >= low if ends[0] == "[" else numbers > low
    below = numbers <= high if ends[1] == "]" else numbers < high
    if not np.all(above & below):
        wrong = numbers[~(above & below)].flat[0]
        raise ValueError(f"{name} must lie in {ends[0]}{low:g}, {high:g}{ends[1]}, got {wrong:g}")


def check_count(name: str, value: Any, least: int = 1) -> None:
    """Raises unless `value` is a whole number of at least `least`.

    Args:
        name: what the message calls it.
        value: a number, not traced.
        least: the smallest that is allowed.

    Raises:
        ValueError: it is below that, not whole, not finite, or no number.
    """
    number = isinstance(value, int | float | np.integer | np.floating) and value is not True
    if not number or not np.isfinite(value) or value != int(value) or value < least:
        raise ValueError(f"{name} must be a whole number of at least {least}, got {value}")


def check_index(name: str, value: Any, count: int) -> None:
    """Raises unless every concrete number of `value` is whole and in 0..count - 1.

    Args:
        name: what the message calls it.
        value: a whole number or an array of them; its range is passed over while it is traced.
        count: how many things there are, >= 1.

    Raises:
        ValueError: a number lies outside.
        TypeError: no whole number.
    """
    if not is_number(value) or not jnp.issubdtype(jnp.result_type(value), jnp.integer):
        raise TypeError(f"{name} must be a whole number, got {value!r}")
    check_range(name, value, 0, count - 1)


def choose(index: Any, functions: Sequence[Callable], args: Any = (), instead: Any = ()) -> Any:
    """`functions[index](*args)`, where the index may be traced.

    Then all are computed, those that are not chosen at other arguments, so that no infinity of
    theirs gets into slopes (0 times infinity) and none refuses what is outside its domain.

    Args:
        index: [] int; beyond the ends, where it is traced, the nearest.
        functions: of equal structure of answers.
        args: what the chosen one is asked.
        instead: for each of the functions what it is asked otherwise, as `args` in structure.

    Raises:
        ValueError: an index with axes.
    """
    if jnp.ndim(index):
        raise ValueError(f"index must be [], got {list(jnp.shape(index))}: vmap over it")
    if not is_traced(index):
        return functions[int(index)](*args)
    index = jnp.clip(index, 0, len(functions) - 1)
    instead = instead or [()] * len(functions)

    def asked(i: int) -> Any:
        here = jax.tree.map(lambda a, b: jnp.where(index == i, a, b), args, instead[i])
        return functions[i](*here)

    take = lambda *leaves: jnp.stack(jnp.broadcast_arrays(*leaves))[index]  # noqa: E731
    return jax.tree.map(take, *map(asked, range(len(functions))))


def expand_to(coef: Any, x: Array) -> Array:
    """Shapes a coefficient of time, [] or [B], to multiply `x` [B, ...].

    The result has the dtype of `x`, but never less than float32: the arithmetic of a schedule
    does not follow a network into half precision.

    Args:
        coef: [], [B], or already of the rank of `x`.
        x: [B, ...].

    Returns:
        [], or [B, 1, ..., 1] with the rank of `x`.
    """
    coef = jnp.asarray(coef, jnp.float64 if x.dtype == jnp.float64 else jnp.float32)
    if coef.ndim in (0, x.ndim):
        return coef
    return coef.reshape(coef.shape + (1,) * (x.ndim - coef.ndim))


def safe_sqrt(x: Array) -> Array:
    """sqrt(x) where x > 0, else 0, with gradient 0 there instead of infinity; NaN stays NaN."""
    nothing = x <= 0
    return jnp.where(nothing, 0, jnp.sqrt(jnp.where(nothing, 1, x)))


def safe_divide(a: Any, b: Array) -> Array:
    """a / b where b != 0, else 0, with finite gradients there."""
    nonzero = b != 0
    return jnp.where(nonzero, a / jnp.where(nonzero, b, 1), 0)


def event_sum(x: Array) -> Array:
    """The sum over all axes but the first: [B, ...] to [B]."""
    return jnp.sum(x, axis=tuple(range(1, x.ndim)))


def event_mean(x: Array) -> Array:
    """The mean over all axes but the first: [B, ...] to [B]."""
    return jnp.mean(x, axis=tuple(range(1, x.ndim)))
