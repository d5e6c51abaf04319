"""A step whose sums do not depend on the number of devices: the same bits on one and on many.

A batch of B is cut into `parts` of B/parts examples each, part i with noise of its own by
fold_in(key, i). Each device takes parts / devices of them, one after another; then all of them
know the gradients of all parts, and add them in the order of the parts:

    g = (((g_0 + g_1) + g_2) + ... + g_{parts-1}) / parts

An all-reduce adds in an order that depends on the devices. This costs memory for `parts` gradients,
and an all-gather in place of the all-reduce. What it cannot fix is the compiler, which may make
another program of a part for another number of devices. On CPU it makes the same for 2, 4 and 8
devices; for one it does for an MLP, and for a DiT one that differs in last bits.
"""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax import Array
from jax.sharding import AxisType, Mesh
from jax.sharding import PartitionSpec as P

from jaxdiff.training import optim
from jaxdiff.training.parallel import AXIS
from jaxdiff.training.state import TrainState
from jaxdiff.training.step import LossFn, Step, apply, gradient

__all__ = ["make_ordered_step"]


def make_ordered_step(
    loss_fn: LossFn,
    optimizer: optax.GradientTransformation,
    *,
    parts: int,
    over: Mesh | None = None,
    decay: optim.Decay = optim.constant,
) -> Step:
    """Makes the pure `step(state, batch) -> (state, metrics)`.

    Args:
        loss_fn, optimizer, decay: as for `make_train_step`.
        parts: in how many parts a batch is taken; must divide it.
        over: the mesh, whose devices along "data" must divide `parts`; None for one device. The
            state is copied to each.

    Returns:
        The step, to be compiled by `parallel.jit_step`. Of what the loss carries along, floats are
        averaged over the parts and whole numbers take their maximum.

    Raises:
        ValueError: `parts` is not a positive whole number, is not a multiple of the devices, or,
            when traced, does not divide the batch.
    """
    if over is None:  # the same program as elsewhere, down to its last fusion
        over = Mesh(np.asarray(jax.devices()[:1]), (AXIS,), axis_types=(AxisType.Auto,))
    devices = over.shape[AXIS]
    if not isinstance(parts, int) or parts < 1:
        raise ValueError(f"parts must be a positive whole number, got {parts!r}")
    if parts % devices:
        raise ValueError(f"parts must be a multiple of the {devices} devices, got {parts}")

    def of_all(params: Any, batch: Any, key: Array, aux: Any, hyper: Any, own: Array) -> Any:
        """Gradients, metrics and aux of all parts, with an axis of them in front."""
        first, size = jax.lax.axis_index(AXIS) * own, len(jax.tree.leaves(batch)[0]) * devices

        def one(i: Array) -> Any:
            part = jax.tree.map(lambda a: _piece(a, i, size // parts), batch)
            inner = jax.random.fold_in(key, first + i)
            return gradient(loss_fn, hyper)(params, part, inner, aux)

        def add(i: Array, found: Any) -> Any:
            return jax.tree.map(lambda to, a: to.at[i].set(a), found, one(i))

        shapes = jax.eval_shape(one, own)
        empty = jax.tree.map(lambda a: jnp.zeros((parts // devices, *a.shape), a.dtype), shapes)
        found = jax.lax.fori_loop(0, own, add, empty)
        return jax.tree.map(lambda a: jax.lax.all_gather(a, AXIS, tiled=True), found)

    def step(state: TrainState, batch: Any) -> tuple[TrainState, dict[str, Array]]:
        sizes = {len(a) for a in jax.tree.leaves(batch)}
        if any(size % parts for size in sizes):
            raise ValueError(f"parts={parts} must divide the batch, got {max(sizes)} examples")
        key = jax.random.fold_in(state.key, state.step)
        # A number that the compiler does not know, or it would unroll a loop of one part.
        own = jnp.int32(parts // devices) + (state.step < 0)
        specs = (P(), P(AXIS), P(), P(), P(), P())
        found = jax.shard_map(of_all, mesh=over, in_specs=specs, out_specs=P(), check_vma=False)(
            state.params, batch, key, state.aux, state.hyper, own
        )
        # What follows must be the same program everywhere, not fused with what came before.
        grads, metrics, aux = jax.lax.optimization_barrier(found)
        grads, metrics = jax.tree.map(_mean, (grads, metrics))
        lr = optim.learning_rate(state.step, state.hyper, decay)
        metrics = {**metrics, "grad_norm": optax.tree.norm(grads), "lr": lr}
        return apply(state, optimizer, grads, jax.tree.map(_agreed, aux), lr), metrics

    return step


def _piece(a: Array, i: Array, size: int) -> Array:
    return jax.lax.dynamic_slice_in_dim(a, i * size, size)


def _mean(a: Array) -> Array:
    """The mean over the first axis, from its first entry to its last."""
    total = a[0]
    for i in range(1, len(a)):
        total = total + a[i]
    return total / len(a)


def _agreed(a: Array) -> Array:
    return _mean(a) if jnp.issubdtype(a.dtype, jnp.floating) else jnp.max(a, axis=0)
