"""Data parallelism: one copy of the state a device, and a slice of each batch.

The step is compiled for the whole mesh; the compiler adds the gradients over the devices. Noise
is drawn as for the whole batch, so that the number of devices changes a run by roundings alone.
"""

from collections.abc import Callable
from typing import Any

import jax
import numpy as np
from jax.sharding import AxisType, Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

__all__ = ["AXIS", "jit_step", "mesh", "replicate", "split"]

AXIS = "data"


def mesh(devices: int | None = None, *, batch_size: int | None = None) -> Mesh | None:
    """A mesh of local devices along one axis, "data".

    Args:
        devices: how many; all if None, or as many as divide the batch.
        batch_size: what is to be split over them.

    Returns:
        The mesh; None where it would be of one device, which needs none.

    Raises:
        ValueError: there are fewer devices, or they do not divide the batch.
    """
    local = jax.local_devices()
    if devices is None:
        fitting = [n for n in range(1, len(local) + 1) if not (batch_size or 0) % n]
        devices = fitting[-1]
    if not 1 <= devices <= len(local):
        raise ValueError(f"devices must be in 1..{len(local)}, as many as there are, got {devices}")
    if batch_size is not None and batch_size % devices:
        raise ValueError(f"batch_size must be a multiple of devices={devices}, got {batch_size}")
    if devices == 1:
        return None
    return Mesh(np.asarray(local[:devices]), (AXIS,), axis_types=(AxisType.Auto,))


def replicate(tree: Any, over: Mesh | None) -> Any:
    """The tree on each device."""
    return tree if over is None else jax.device_put(tree, NamedSharding(over, P()))


def split(batch: Any, over: Mesh | None) -> Any:
    """A batch with its first axis split over the devices.

    Raises:
        ValueError: there is no such axis, or its length is not a multiple of their number.
    """
    if over is None:
        return batch
    shapes = [np.shape(leaf) for leaf in jax.tree.leaves(batch)]
    if any(not shape or shape[0] % over.size for shape in shapes):
        raise ValueError(
            f"each entry of a batch must be [B, ...], B a multiple of {over.size} devices, got"
            f" shapes {', '.join(str(list(shape)) for shape in shapes)}"
        )
    return jax.device_put(batch, NamedSharding(over, P(AXIS)))


def jit_step(step: Callable, over: Mesh | None) -> Callable:
    """`step(state, batch) -> (state, metrics)` compiled, its state donated and replicated."""
    if over is None:
        return jax.jit(step, donate_argnums=0)
    return jax.jit(step, donate_argnums=0, out_shardings=NamedSharding(over, P()))
