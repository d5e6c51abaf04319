"""The DCGAN's generator from torch's weights into `models.DCGAN`."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from jaxdiff.models.generators import DCGAN

__all__ = ["convert_dcgan"]

_EPSILON = 1e-5  # of torch's batch norm


def convert_dcgan(weights: Mapping[str, Any]) -> tuple[DCGAN, dict[str, Any], int]:
    """The network, its variables and the length of its latents.

        kernel' = kernel scale,  bias' = shift - mean scale,   scale = weight / sqrt(var + 1e-5)

    for each transposed convolution and the batch norm after it, as it is in evaluation.

    Args:
        weights: arrays "main.0.weight", "main.1.weight", ... as the DCGAN of torch's examples
            names them, or one dictionary of them within.

    Returns:
        (net, {"params": ...}, L), for `net.apply(variables, z)` with z [B, L].

    Raises:
        ValueError: an array is missing, has another shape or is one too many.

    Source: Radford et al. 2016, arXiv:1511.06434; the names are those of torch's DCGAN tutorial.
    """
    if len(weights) == 1 and isinstance(next(iter(weights.values())), Mapping):
        weights = next(iter(weights.values()))
    own = {name: np.asarray(a) for name, a in weights.items() if "num_batches" not in name}

    def taken(name: str, shape: tuple[int, ...] | None = None) -> np.ndarray:
        if name not in own:
            raise ValueError(f"weights must hold {name}")
        value = own.pop(name)
        if shape is not None and value.shape != shape:
            raise ValueError(f"{name} must be {list(shape)}, got {list(value.shape)}")
        return value

    params: dict[str, Any] = {}
    channels: list[int] = []
    inputs = latent = 0
    place = 0
    while f"main.{place}.weight" in own:
        kernel = taken(f"main.{place}.weight")
        if kernel.ndim != 4 or kernel.shape[2:] != (4, 4) or inputs not in (0, kernel.shape[0]):
            raise ValueError(
                f"main.{place}.weight must be [{inputs or 'L'}, any, 4, 4], got"
                f" {list(kernel.shape)}"
            )
        latent = latent or kernel.shape[0]
        inputs = kernel.shape[1]
        scale, shift = np.ones(inputs, np.float32), np.zeros(inputs, np.float32)
        if f"main.{place + 1}.weight" in own:
            parts = ("weight", "bias", "running_mean", "running_var")
            gain, bias, mean, var = (taken(f"main.{place + 1}.{p}", (inputs,)) for p in parts)
            scale = gain / np.sqrt(var + _EPSILON)
            shift = bias - mean * scale
        # Transposed convolution is correlation with the kernel turned round.
        turned = kernel[:, :, ::-1, ::-1].transpose(2, 3, 0, 1) * scale
        params[f"up_{len(channels)}"] = {
            "kernel": np.ascontiguousarray(turned, np.float32),
            "bias": np.asarray(shift, np.float32),
        }
        channels.append(inputs)
        place += 3
    if len(channels) < 2 or own:
        extra = f", and no place for {min(own)}" if own else ""
        raise ValueError(f"weights must be of two layers or more, got {len(channels)}{extra}")
    return DCGAN(tuple(channels[:-1]), channels[-1]), {"params": params}, latent
