"""Meshes, and batches split over them: a slice of each batch a device.

The step is compiled for the whole mesh; the compiler adds the gradients over the devices. Noise
is drawn as for the whole batch, so that the number of devices changes a run by roundings alone.
The state is copied to each device, unless a layout says otherwise (see `sharding`).
"""

from collections.abc import Callable
from typing import Any

import jax
import numpy as np
from jax.sharding import AxisType, Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from jaxdiff.training import distributed

__all__ = ["AXIS", "jit_step", "mesh", "replicate", "split"]

AXIS = "data"


def mesh(
    devices: int | None = None, *, batch_size: int | None = None, model: int = 1
) -> Mesh | None:
    """A mesh of devices along an axis "data", and one "model" where that is asked for.

    Of several processes each has an equal part of it, next to one another along "data".

    Args:
        devices: how many along "data"; all if None, or as many as divide the batch.
        batch_size: what is to be split over them.
        model: over how many devices the parts of a layer are split, for each of those.

    Returns:
        The mesh; None where it would be of one device, which needs none.

    Raises:
        ValueError: there are fewer devices, they do not divide the batch, or the processes do not
            divide them.
    """
    count, own = jax.process_count(), len(jax.local_devices())
    if not 1 <= model <= own:
        raise ValueError(f"model must be in 1..{own}, the devices of a process, got {model}")
    most = own // model
    if devices is None:
        fitting = [n for n in range(1, most + 1) if not (batch_size or 0) % (n * count)]
        if not fitting:
            raise ValueError(
                f"batch_size must be a multiple of the {count} processes, got {batch_size}"
            )
        devices = fitting[-1] * count
    if not 1 <= devices <= most * count:
        beside = f" beside {model} along model" if model > 1 else ""
        raise ValueError(
            f"devices must be in 1..{most * count}, as many as there are{beside}, got {devices}"
        )
    if devices % count:
        raise ValueError(f"devices must be a multiple of the {count} processes, got {devices}")
    if batch_size is not None and batch_size % devices:
        raise ValueError(f"batch_size must be a multiple of devices={devices}, got {batch_size}")
    if devices * model == 1:
        return None
    found = [[d for d in jax.devices() if d.process_index == i] for i in range(count)]
    chosen = np.asarray([of_one[: devices // count * model] for of_one in found])
    if model == 1:
        return Mesh(chosen.reshape(devices), (AXIS,), axis_types=(AxisType.Auto,))
    return Mesh(chosen.reshape(devices, model), (AXIS, "model"), axis_types=(AxisType.Auto,) * 2)


def replicate(tree: Any, over: Mesh | None) -> Any:
    """The tree on each device."""
    return tree if over is None else distributed.laid(tree, NamedSharding(over, P()))


def split(batch: Any, over: Mesh | None) -> Any:
    """A batch with its first axis split over the devices.

    Args:
        batch: arrays [B, ...]; of several processes each gives its own part, in their order.
        over: the mesh.

    Raises:
        ValueError: there is no such axis, or its length is not a multiple of their number.
    """
    if over is None:
        return batch
    shapes = [np.shape(leaf) for leaf in jax.tree.leaves(batch)]
    devices = over.shape[AXIS] // jax.process_count()
    if any(not shape or shape[0] % devices for shape in shapes):
        raise ValueError(
            f"each entry of a batch must be [B, ...], B a multiple of {devices} devices, got"
            f" shapes {', '.join(str(list(shape)) for shape in shapes)}"
        )
    where = NamedSharding(over, P(AXIS))
    if jax.process_count() == 1:
        return jax.device_put(batch, where)
    return jax.tree.map(
        lambda a: jax.make_array_from_process_local_data(where, np.asarray(a)), batch
    )


def jit_step(step: Callable, over: Mesh | None, layout: Any = None) -> Callable:
    """`step(state, batch) -> (state, metrics)` compiled, its state donated.

    Args:
        step: pure.
        over: the mesh.
        layout: where the state lies, as `sharding.layout` gives it; on each device if None.
    """
    if over is None:
        return jax.jit(step, donate_argnums=0)
    everywhere = NamedSharding(over, P())
    where = everywhere if layout is None else layout
    return jax.jit(step, donate_argnums=0, out_shardings=(where, everywhere))
