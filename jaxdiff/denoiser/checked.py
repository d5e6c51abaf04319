"""A model held to its contract, while it is traced."""

from jax import Array

from jaxdiff import arrays
from jaxdiff.typing import Denoise, Denoised, NoiseLevel

__all__ = ["Checked"]


@arrays.pytree
class Checked:
    """`denoise`, whose answer must be of the shape and dtype of its question."""

    denoise: Denoise

    def __call__(self, x: Array, level: NoiseLevel) -> Denoised:
        """The model's answer, refused where it could broadcast in silence."""
        d = self.denoise(x, level)
        if not isinstance(d, Denoised):
            raise TypeError(f"denoise must return a Denoised, got {type(d).__name__}")
        for name in ("x0", "eps"):
            got = getattr(d, name)
            if got.shape != x.shape or got.dtype != x.dtype:
                raise ValueError(
                    f"denoise must return {name} as {x.dtype}{list(x.shape)}, like x_t,"
                    f" got {got.dtype}{list(got.shape)}"
                )
        return d
