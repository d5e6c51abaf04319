"""One optimiser step as a pure function, the same under every transformation of JAX.

    key_t = fold_in(key, t),   g = grad loss(params; batch, key_t),
    params <- params + lr_t optimizer(g),   ema <- average of params

`jit`, `jit` over a sharded batch, `shard_map`, `pmap`, `vmap` over a population and `lax.scan`
take it as it is. (Backward convolutions inside a scan are slow on CPU: there, loop in Python.)
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax
from jax import Array

from jaxdiff.training import ema, optim
from jaxdiff.training.state import TrainState

__all__ = ["LossFn", "Step", "apply", "gradient", "make_train_step"]

LossFn = Callable[..., tuple[Array, tuple[dict[str, Array], Any]]]
"""`loss_fn(params, batch, key, hyper, aux) -> (scalar, (metrics, aux))`."""

Step = Callable[[TrainState, Any], tuple[TrainState, dict[str, Array]]]


def make_train_step(
    loss_fn: LossFn,
    optimizer: optax.GradientTransformation,
    *,
    decay: optim.Decay = optim.constant,
    accumulate: int = 1,
    axis_name: str | None = None,
) -> Step:
    """Makes the pure `step(state, batch) -> (state, metrics)`.

    Args:
        loss_fn: `loss_fn(params, batch, key, hyper, aux) -> (scalar, (metrics, aux))`, the scalar
            a mean over the batch, `metrics` a dict of scalars, `aux` shaped as it came.
        optimizer: of unit learning rate, as in `optim`; clipping belongs into its chain.
        decay: the learning rate's factor by progress; see `optim.learning_rate`.
        accumulate: in how many microbatches a batch is taken, each with its own key, its
            gradients averaged; the batch size must be a multiple.
        axis_name: the mapped axis that the batch is split over, under `shard_map` or `pmap`.
            Gradients, metrics and the floats of `aux` are averaged over it, the whole numbers of
            `aux` (counts) take their maximum; each device draws with its own key. None under
            plain `jit`, sharded or not.

    Returns:
        The step. Its metrics are "loss", "grad_norm" (before clipping), "lr", and loss_fn's.

    Raises:
        ValueError: `accumulate` is not a positive whole number; or, when traced, does not divide
            the batch.
    """
    if not isinstance(accumulate, int) or accumulate < 1:
        raise ValueError(f"accumulate must be a positive whole number, got {accumulate!r}")

    def step(state: TrainState, batch: Any) -> tuple[TrainState, dict[str, Array]]:
        key = jax.random.fold_in(state.key, state.step)
        params, aux = state.params, state.aux
        if axis_name is not None:
            key = jax.random.fold_in(key, jax.lax.axis_index(axis_name))
            # Under shard_map's check_vma the gradient by a replicated value comes summed over the
            # devices; by a value marked as varying it is the device's own, as everywhere else.
            params, aux = jax.lax.pcast((params, aux), axis_name, to="varying")
        objective = _objective(loss_fn, state.hyper, accumulate)
        grads, metrics, aux = objective(params, batch, key, aux)
        if axis_name is not None:
            grads, metrics = jax.lax.pmean((grads, metrics), axis_name)
            aux = jax.tree.map(lambda a: _agree(a, axis_name), aux)
        lr = optim.learning_rate(state.step, state.hyper, decay)
        metrics = {**metrics, "grad_norm": optax.tree.norm(grads), "lr": lr}
        return apply(state, optimizer, grads, aux, lr), metrics

    return step


def apply(state: TrainState, optimizer: Any, grads: Any, aux: Any, lr: Array) -> TrainState:
    """The state after one update along `grads`."""
    updates, opt_state = optimizer.update(grads, state.opt_state, state.params)
    params = optax.apply_updates(state.params, jax.tree.map(lambda u: lr * u, updates))
    return TrainState(
        step=state.step + 1,
        params=params,
        ema=ema.update(state.ema, params, step=state.step, decay=state.hyper["ema_decay"]),
        opt_state=opt_state,
        key=state.key,
        hyper=state.hyper,
        aux=aux,
    )


def _agree(a: Array, axis_name: str) -> Array:
    """One value of a carried statistic for all devices."""
    mean = jnp.issubdtype(a.dtype, jnp.floating)
    return (jax.lax.pmean if mean else jax.lax.pmax)(a, axis_name)


def gradient(loss_fn: LossFn, hyper: dict[str, Any]) -> Callable:
    """`(params, batch, key, aux) -> (grads, metrics, aux)`, in one piece."""

    def whole(params: Any, batch: Any, key: Array, aux: Any) -> tuple[Any, dict[str, Array], Any]:
        valued = jax.value_and_grad(loss_fn, has_aux=True)
        (loss, (metrics, aux)), grads = valued(params, batch, key, hyper, aux)
        return grads, {**metrics, "loss": loss}, aux

    return whole


def _objective(loss_fn: LossFn, hyper: dict[str, Any], accumulate: int) -> Callable:
    """The same, in one piece or in microbatches."""
    whole = gradient(loss_fn, hyper)

    def in_parts(params: Any, batch: Any, key: Array, aux: Any) -> Any:
        def body(carry, part):
            total, aux = carry
            index, microbatch = part
            grads, metrics, aux = whole(params, microbatch, jax.random.fold_in(key, index), aux)
            return (jax.tree.map(jnp.add, total, grads), aux), metrics

        # 0 * p rather than zeros: the sum must differ by device from the start where p does.
        zero = jax.tree.map(lambda p: 0 * p, params)
        parts = (jnp.arange(accumulate), jax.tree.map(lambda a: _split(a, accumulate), batch))
        # XLA's backward convolutions are several times slower inside a loop on CPU.
        unroll = accumulate if jax.default_backend() == "cpu" else 1
        (total, aux), metrics = jax.lax.scan(body, (zero, aux), parts, unroll=unroll)
        grads = jax.tree.map(lambda a: a / accumulate, total)
        return grads, jax.tree.map(lambda a: jnp.mean(a, axis=0), metrics), aux

    return whole if accumulate == 1 else in_parts


def _split(a: Array, parts: int) -> Array:
    """[B, ...] to [parts, B / parts, ...], strided: a batch split over devices stays so."""
    if a.shape[0] % parts:
        raise ValueError(f"accumulate={parts} must divide the batch, got {a.shape[0]} examples")
    return jnp.moveaxis(a.reshape(a.shape[0] // parts, parts, *a.shape[1:]), 1, 0)
