"""A network with its parameters, seen as a model of E[x_0 | x_t] and E[eps | x_t]."""

import dataclasses
import inspect
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from jaxdiff import arrays
from jaxdiff.arrays import expand_to
from jaxdiff.denoiser.time_features import resolve_feature
from jaxdiff.parametrization import Parametrization, determinant, resolve, to_denoised
from jaxdiff.typing import Denoised, NoiseLevel

__all__ = ["Denoiser", "make_denoiser"]


@arrays.pytree
class Denoiser:
    """A network with its parametrization, parameters and conditioning; see `make_denoiser`."""

    params: Any
    cond: Any
    parametrization: Parametrization
    apply: Callable = arrays.static()
    time_feature: Callable = arrays.static()
    heads: tuple[str, ...] = arrays.static()
    accepts: frozenset[str] = arrays.static()

    def __call__(self, x_t: Array, level: NoiseLevel) -> Denoised:
        """E[x_0 | x_t] and E[eps | x_t], with the network's further heads.

        Args:
            x_t: [B, ...], at `level`.
            level: fields [] or [B].

        Returns:
            Denoised, [B, ...] in the dtype of x_t (float32 or float64).
        """
        return self.interpret(self.raw(x_t, level), x_t, level)

    def interpret(self, raw: Array, x_t: Array, level: NoiseLevel) -> Denoised:
        """What `raw` returned for x_t at a level, as `__call__` has it."""
        y, *heads = jnp.split(raw, 1 + len(self.heads), axis=-1)
        named = dict(zip(self.heads, heads, strict=True))
        return to_denoised(self.parametrization, y.astype(x_t.dtype), x_t, level, named)

    def raw(
        self, x_t: Array, level: NoiseLevel, *, key: Array | None = None, train: bool = False
    ) -> Array:
        """The network's own output, which losses compare with their target.

        Args:
            x_t: [B, ...], unscaled.
            level: fields [] or [B].
            key: for dropout.
            train: static, whether dropout is on.

        Returns:
            [B, ..., C (1 + number of heads)].

        Raises:
            ValueError: the network returns another shape, which could broadcast in silence.
        """
        scale = self.parametrization.scale_in(level)
        x = expand_to(scale, x_t) * x_t
        feature = jnp.broadcast_to(self.time_feature(level), x_t.shape[:1]).astype(x.dtype)
        more: list[Any] = [] if self.cond is None else [self.cond]
        named: dict[str, Any] = {}
        if train and "train" in self.accepts:
            named["train"] = True
        if key is not None and "key" in self.accepts:
            named["key"] = key
        if key is not None and "rngs" in self.accepts:
            named["rngs"] = {"dropout": key}
        y = self.apply(self.params, x, feature, *more, **named)
        wanted = (*x_t.shape[:-1], x_t.shape[-1] * (1 + len(self.heads)))
        if y.shape != wanted:
            heads = f" for heads {self.heads}" if self.heads else ""
            raise ValueError(
                f"apply must return {list(wanted)}{heads} for x of {list(x_t.shape)},"
                f" got {list(y.shape)}"
            )
        return y

    def with_params(self, params: Any) -> "Denoiser":
        """The same network with other parameters of the same shapes."""
        return dataclasses.replace(self, params=params)

    def with_cond(self, cond: Any) -> "Denoiser":
        """The same network under another condition.

        Raises:
            ValueError: a condition for a network that takes none.
        """
        _check_cond(self.accepts, cond)
        return dataclasses.replace(self, cond=cond)

    def check(self, levels: NoiseLevel) -> None:
        """Raises ValueError where this parametrization cannot be solved at a noisy level."""
        if arrays.is_traced((levels, self.parametrization)):
            return
        with jax.ensure_compile_time_eval():  # numbers, even where the caller is being traced
            det = np.asarray(determinant(self.parametrization, levels))
        bad = (np.asarray(levels.sigma) > 0) & (det == 0)
        if np.any(bad):
            name = type(self.parametrization).__name__.lower()
            raise ValueError(
                f"a network that predicts {name} says nothing of x_0 at alpha = 0 (zero terminal"
                f" SNR), got alpha = 0 at step {int(np.argmax(bad))} of the grid; use v, x0 or"
                " flow, or start the grid below t_max"
            )


def make_denoiser(
    apply: Callable,
    params: Any,
    *,
    parametrization: Parametrization | Callable | str,
    time_feature: Callable[[NoiseLevel], Array] | str,
    heads: tuple[str, ...] = (),
    cond: Any = None,
) -> Denoiser:
    """A model of E[x_0 | x_t] and E[eps | x_t] from a network.

    Args:
        apply: `apply(params, x, feature[, cond], *[, key][, train])` -> [B, ..., C], with x
            [B, ..., C] already scaled and feature [B]. Of what is in brackets it is given what
            its signature names. The `apply` of a linen module is taken as it is: what counts is
            its `__call__(x, feature[, cond][, train])`, and the key is that of dropout.
        params: the pytree it takes; for linen the variables, {"params": ...} alone.
        parametrization: what the network predicts: an object, a factory or a name of
            `parametrization.PARAMETRIZATIONS`.
        time_feature: what of a level it is told, level -> [] or [B]: a function or a name of
            `TIME_FEATURES`.
        heads: names of further outputs, each C more channels at the end.
        cond: labels [B], vectors [B, D], or whatever apply takes; None for none.

    Returns:
        A Denoiser: a pytree with params, cond and the parametrization's numbers as leaves.

    Raises:
        ValueError: an unknown name, a condition that apply does not take, or batch statistics
            among the parameters: they differ between training and sampling.
    """
    time_feature = resolve_feature(time_feature)
    if isinstance(params, dict) and "batch_stats" in params:
        raise ValueError(
            "params hold batch_stats: batch normalisation sees other statistics in sampling than"
            " in training and is not supported; use group normalisation"
        )
    accepts = _accepts(apply)
    _check_cond(accepts, cond)
    resolved = resolve(parametrization)
    return Denoiser(params, cond, resolved, apply, time_feature, tuple(heads), accepts)


def _accepts(apply: Callable) -> frozenset[str]:
    """Which of cond, key, train and rngs the signature of `apply` names."""
    found = inspect.signature(apply).parameters
    if "rngs" in found and hasattr(apply, "__self__"):
        # a linen module's own apply, which hands on to its __call__(x, feature, ...)
        return _names(inspect.signature(apply.__self__.__call__).parameters, 2) | {"rngs"}
    return _names(found, 3)


def _names(found: Mapping[str, inspect.Parameter], given: int) -> frozenset[str]:
    """The optional arguments that a signature names beyond those that are always given."""
    names = set(found) & {"key", "train"}
    free = [p for p in found.values() if p.kind in _PLACES and p.name not in names]
    if len(free) > given or any(p.kind is p.VAR_POSITIONAL for p in found.values()):
        names.add("cond")
    return frozenset(names)


_PLACES = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)


def _check_cond(accepts: frozenset[str], cond: Any) -> None:
    if cond is not None and "cond" not in accepts:
        raise ValueError(
            "cond was given, but apply takes no fourth argument: the network is unconditional"
        )
