"""How fast steps are, and what share of the device's rate of matrix products that is."""

import time
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

__all__ = ["Speed", "flops", "matmul_rate", "of"]

_LEAST = 100  # steps from which a mean is worth saying


class Speed(NamedTuple):
    """The pace of a training.

    Attributes:
        step_seconds: a step's time, what is logged, saved and evaluated between steps included.
        examples_per_second: batches times their size.
    """

    step_seconds: float
    examples_per_second: float


def of(history: Sequence[dict[str, float]], batch_size: int) -> Speed | None:
    """The pace between the first and last row of a log, None if that is below 100 steps.

    What comes before the first row, compilation, does not count.
    """
    if len(history) < 2 or history[-1]["step"] - history[0]["step"] < _LEAST:
        return None
    steps = history[-1]["step"] - history[0]["step"]
    seconds = (history[-1]["seconds"] - history[0]["seconds"]) / steps
    return Speed(seconds, batch_size / seconds)


def flops(step: Callable, state: Any, batch: Any) -> float:
    """The operations of one step as XLA counts them, before it optimises; nothing is compiled.

    What is inside a loop is counted once: a network of scanned layers, or batches accumulated on
    an accelerator, take a multiple.
    """
    counted = jax.jit(step).lower(state, batch).cost_analysis()
    return float(counted["flops"])


def matmul_rate(dtype: Any = jnp.float32, *, repeats: int = 5) -> float:
    """Operations per second of this machine's product of square matrices, the best of some.

    Args:
        dtype: of the matrices.
        repeats: how many are timed.

    Returns:
        2 n**3 / seconds on one device, with n = 1024 on a CPU and 8192 elsewhere.
    """
    n = 1024 if jax.default_backend() == "cpu" else 8192
    a = jnp.ones((n, n), dtype)
    product = jax.jit(lambda a: a @ a)
    times = []
    product(a).block_until_ready()
    for _ in range(repeats):
        began = time.perf_counter()
        product(a).block_until_ready()
        times.append(time.perf_counter() - began)
    return 2 * n**3 / min(times)
