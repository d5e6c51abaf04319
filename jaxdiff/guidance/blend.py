"""Guidance by two models: away from one of them, through the other and beyond.

    x0 = x0_ref + w (x0_model - x0_ref),    eps = eps_ref + w (eps_model - eps_ref)

Both pairs satisfy x_t = alpha x0 + sigma eps, so their blend does, at every level; it is the same
blend of scores, of v and of any other parametrization. w = 0 is the reference, w = 1 the model.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array

from jaxdiff import arrays
from jaxdiff.arrays import check_range, event_mean, expand_to, safe_divide, safe_sqrt
from jaxdiff.denoiser import Denoiser, null_cond, own_heads, with_x0
from jaxdiff.guidance.scale import Scale, as_scale, scale_at
from jaxdiff.typing import Denoise, Denoised, NoiseLevel

__all__ = ["autoguidance", "cfg"]


@arrays.pytree
class Blend:
    """See `cfg` and `autoguidance`; `pair(x_t, level)` says (the model's answer, the other)."""

    pair: Callable[[Array, NoiseLevel], tuple[Denoised, Denoised]]
    scale: Scale
    rescale: Any = None

    def __call__(self, x_t: Array, level: NoiseLevel) -> Denoised:
        """The blend; heads are those of the model."""
        model, reference = self.pair(x_t, level)
        w = scale_at(self.scale, level, x_t, neutral=1.0)
        blend = lambda to, ref: ref + w * (to - ref)  # noqa: E731
        x0 = blend(model.x0, reference.x0)
        d = Denoised(x0, blend(model.eps, reference.eps), own_heads(model))
        if self.rescale is None:
            return d
        std = _std(x0)
        ratio = jnp.where(std > 0, safe_divide(_std(model.x0), std), 1)  # of one pixel, of none
        factor = expand_to(1 + self.rescale * (ratio - 1), x0)
        return with_x0(d, factor * x0, x_t, level)


@arrays.pytree
class Halves:
    """One network under its condition and under none, asked once with a batch of both."""

    denoiser: Denoiser
    null: Any

    def __call__(self, x_t: Array, level: NoiseLevel) -> tuple[Denoised, Denoised]:
        """(conditional, unconditional)."""
        batch = x_t.shape[0]
        for leaf in jax.tree.leaves(self.denoiser.cond):
            if jnp.shape(leaf)[:1] != (batch,):
                raise ValueError(
                    f"cond must have one entry an example, {batch}, got shape {jnp.shape(leaf)}"
                )
        cond = jax.tree.map(_joined, self.denoiser.cond, self.null)
        both = jax.tree.map(lambda a: jnp.tile(a, 2) if jnp.ndim(a) else a, level)
        d = self.denoiser.with_cond(cond)(jnp.concatenate([x_t, x_t]), both)
        return jax.tree.map(lambda a: a[:batch], d), jax.tree.map(lambda a: a[batch:], d)


@arrays.pytree
class Two:
    """Two models, each asked for itself."""

    model: Denoise
    reference: Denoise

    def __call__(self, x_t: Array, level: NoiseLevel) -> tuple[Denoised, Denoised]:
        """(the model's answer, the reference's)."""
        return self.model(x_t, level), self.reference(x_t, level)


def cfg(denoiser: Denoiser, scale: Scale, null_cond: Any = None, *, rescale: Any = None) -> Blend:
    """Classifier-free guidance: away from what the network says without its condition.

        x0 = x0(null) + w (x0(cond) - x0(null)),    and the same for eps

    One call of the network on a batch of both halves. The paper's w is this one less 1. The
    network must have been trained with `cond_dropout`: else its null was never seen.

    Args:
        denoiser: a `Denoiser` under a condition (`with_cond`), one entry an example; clipping and
            the like go around the result.
        scale: w, [] or [B], or a function of the level (`limited`); 0 is the unconditional, 1 the
            conditional model.
        null_cond: what stands for no condition, a pytree like cond with leaves [B, ...] or of one
            example; `denoiser.null_cond` (labels -1, vectors 0) if None. Another condition here is
            a negative prompt.
        rescale: phi in [0, 1], draws each example's deviation of x0 back to that of the
            conditional x0; None for not at all:

                x0 <- (1 - phi + phi std(x0(cond)) / std(x0)) x0,    eps follows

    Returns:
        A denoise with the heads of the conditional half.

    Raises:
        ValueError: a denoiser under no condition, rescale outside [0, 1], a bad scale; when
            asked, a condition for another number of examples.
        TypeError: no `Denoiser`, or a null of another structure.

    Source: Ho and Salimans 2022, arXiv:2207.12598, eq. 6. rescale: Lin et al. 2023,
        arXiv:2305.08891, eq. 14-16, there of the network's output v. Here x0 is rescaled, which
        is the same at alpha = 0, where v = -x0 and their over-exposure begins, and does not
        depend on what the network predicts.
    """
    if not isinstance(denoiser, Denoiser):
        raise TypeError(
            "cfg guides a Denoiser such as make_denoiser gives (wrap the result, or use"
            f" autoguidance for two models), got {type(denoiser).__name__}"
        )
    if denoiser.cond is None:
        raise ValueError(
            "guidance without a label: denoiser.cond is None; give it a condition by with_cond,"
            " or train the network with one"
        )
    null = _null(denoiser.cond, null_cond)
    return Blend(Halves(denoiser, null), as_scale(scale), _checked(rescale))


def autoguidance(denoise: Denoise, weaker: Denoise, scale: Scale, *, rescale: Any = None) -> Blend:
    """Guidance away from a weaker model of the same thing, or of any second model.

        x0 = x0_weaker + w (x0 - x0_weaker),    and the same for eps

    The weaker model is a smaller or less trained network under the same condition. With an
    unconditional model in its place this is classifier-free guidance by two networks.

    Args:
        denoise: the model.
        weaker: the one to move away from.
        scale: w as in `cfg`: 0 is the weaker model, 1 the model itself.
        rescale: as in `cfg`.

    Returns:
        A denoise with the heads of the model.

    Raises:
        ValueError: rescale outside [0, 1] or a bad scale.
        TypeError: no function.

    Source: Karras et al. 2024, arXiv:2406.02507.
    """
    pair = Two(arrays.as_pytree(denoise), arrays.as_pytree(weaker))
    return Blend(pair, as_scale(scale), _checked(rescale))


def _null(cond: Any, given: Any) -> Any:
    """The null condition as given, in the structure of `cond`."""
    if given is None:
        return null_cond(cond)
    if jax.tree.structure(given) != jax.tree.structure(cond):
        raise TypeError(
            f"null_cond must be a pytree like cond, {jax.tree.structure(cond)},"
            f" got {jax.tree.structure(given)}"
        )
    # In the dtype that a null of the network's has: 0.0 for a label is the label 0.
    return jax.tree.map(lambda a, null: jnp.asarray(a, null.dtype), given, null_cond(cond))


def _joined(cond: Any, null: Any) -> Array:
    """[2 B, ...]: the condition, then its null, which may be that of one example."""
    cond, null = jnp.asarray(cond), jnp.asarray(null)
    if null.shape != cond.shape:
        if null.shape not in (cond.shape[1:], (1, *cond.shape[1:])):
            raise ValueError(
                f"null_cond must be {list(cond.shape)} or {list(cond.shape[1:])} as cond is,"
                f" got {list(null.shape)}"
            )
        null = jnp.broadcast_to(null.reshape(1, *cond.shape[1:]), cond.shape)
    return jnp.concatenate([cond.astype(null.dtype), null])


def _checked(rescale: Any) -> Any:
    if rescale is not None:
        check_range("rescale", rescale, 0, 1)
    return rescale


def _std(x: Array) -> Array:
    """The deviation over the event axes, [B]."""
    return safe_sqrt(event_mean((x - expand_to(event_mean(x), x)) ** 2))
