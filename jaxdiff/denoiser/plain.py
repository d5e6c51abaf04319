"""Any model of the mathematics where a network is expected."""

from typing import Any

from jax import Array

from jaxdiff import arrays, parametrization
from jaxdiff.typing import Denoise, Denoised, NoiseLevel

__all__ = ["PlainDenoiser", "as_denoiser"]


@arrays.pytree
class PlainDenoiser:
    """A `Denoise` with what losses ask of a network; see `as_denoiser`."""

    denoise: Denoise
    parametrization = parametrization.Eps()

    def __call__(self, x_t: Array, level: NoiseLevel) -> Denoised:
        """The model's own answer."""
        return self.denoise(x_t, level)

    def raw(
        self, x_t: Array, level: NoiseLevel, *, key: Array | None = None, train: bool = False
    ) -> Array:
        """Its eps, [B, ...]; nothing is dropped."""
        return self.denoise(x_t, level).eps

    def interpret(self, raw: Array, x_t: Array, level: NoiseLevel) -> Denoised:
        """The model's answer, whose eps is `raw`."""
        return self.denoise(x_t, level)

    def with_cond(self, cond: Any) -> "PlainDenoiser":
        """Raises ValueError: there is no condition to exchange."""
        raise ValueError("cond was given, but as_denoiser holds a model that takes none")


def as_denoiser(denoise: Denoise) -> PlainDenoiser:
    """Any model as something that `losses` take: one that predicts eps.

    So the loss of an exact model can be had, which no network can pass: that of
    `exact.empirical(x)` on x itself is the least denoising loss there is on x, at every time and
    under every weight.

    Args:
        denoise: any `Denoise`; a pytree's leaves are what gradients are taken by.

    Returns:
        A frozen pytree with `raw` and a parametrization, and a `Denoise` as before.

    Raises:
        TypeError: not callable.
    """
    return PlainDenoiser(arrays.as_pytree(denoise))
