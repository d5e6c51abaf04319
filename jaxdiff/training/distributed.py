"""Several processes as one training: one a machine of a pod, or one a group of devices.

All run the same program on the same arguments and see one mesh of all devices (see `parallel`);
each makes its own share of a batch. What is written is written by the first process alone, and
what only one of them can know (a signal, what lies on the disk) is agreed on before it is acted
upon, or the others would wait for a step that never comes. The directory of the run must be one
that all of them see.

Where a process is lost, the others cannot go on: they end, and all are started again to go on
from the last checkpoint. Where the first one is lost, JAX itself aborts the others, in its words.
"""

import contextlib
import hashlib
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental import multihost_utils
from jax.sharding import NamedSharding
from jax.sharding import PartitionSpec as P

__all__ = [
    "by_first",
    "check_same",
    "from_first",
    "is_first",
    "join",
    "laid",
    "largest",
    "local",
    "noticed",
]

_LOST = ("gloo", "peer", "coordination", "barrier", "heartbeat", "unavailable", "nccl", "socket")


def join(
    coordinator: str | None = None,
    processes: int | None = None,
    process: int | None = None,
    *,
    timeout: float = 60.0,
) -> None:
    """Joins this process to the others, before JAX has looked for devices.

    On TPU pods and under Slurm or Open MPI the launcher says who they are; elsewhere all three
    arguments are needed.

    Args:
        coordinator: host:port of the first process.
        processes: how many there are, >= 2.
        process: which one this is, in 0..processes-1.
        timeout: seconds to wait for the others, and after which one that is silent counts as
            lost.

    Raises:
        ValueError: naming the argument that does not fit, or that no launcher has said.
        ConnectionError: the others did not come.
        RuntimeError: JAX has begun already.
    """
    given = {"coordinator": coordinator, "processes": processes, "process": process}
    missing = [name for name, value in given.items() if value is None]
    if missing and len(missing) < len(given):
        raise ValueError(
            f"coordinator, processes and process go together, got no {' and no '.join(missing)}"
        )
    if not missing:
        _check(coordinator, processes, process)
    if not timeout >= 1:
        raise ValueError(f"timeout must be 1 second or more, got {timeout}")
    seconds = round(timeout)
    # Its handler of SIGTERM would take the place of ours, which saves.
    jax.config.update("jax_enable_preemption_service", False)
    try:
        jax.distributed.initialize(
            coordinator,
            processes,
            process,
            initialization_timeout=seconds,
            heartbeat_timeout_seconds=seconds,
            shutdown_timeout_seconds=seconds,
        )
    except ValueError as error:  # JAX's own: nothing to detect
        raise ValueError(
            "no launcher says which processes there are (TPU pods, Slurm and Open MPI do): give"
            f" coordinator, processes and process ({error})"
        ) from error
    except jax.errors.JaxRuntimeError as error:
        raise ConnectionError(
            f"the {processes or ''} processes did not find one another at {coordinator} within"
            f" {seconds} s: {_first_line(error)}"
        ) from error
    if jax.process_count() < 2:
        raise ValueError("there is a single process: train without joining others")


def _check(coordinator: str, processes: int, process: int) -> None:
    host, _, port = coordinator.rpartition(":")
    if not host or not port.isdecimal() or not 0 < int(port) < 2**16:
        raise ValueError(f"coordinator must be HOST:PORT, got {coordinator!r}")
    if processes < 2:
        raise ValueError(f"processes must be 2 or more, got {processes}")
    if not 0 <= process < processes:
        raise ValueError(f"process must be in 0..{processes - 1}, got {process}")


def is_first() -> bool:
    """Whether this process is the one that writes."""
    return jax.process_index() == 0


def from_first(value: float | None) -> float | None:
    """The number that the first process has; or None, where it has None."""
    if jax.process_count() == 1:
        return value
    # As two int32, which no precision of JAX's touches: steps may be beyond float32.
    sent = np.asarray([np.nan if value is None else value], np.float64).view(np.int32)
    came = float(np.asarray(multihost_utils.broadcast_one_to_all(sent)).view(np.float64)[0])
    return None if np.isnan(came) else came


def largest(value: int) -> int:
    """The largest of all processes' numbers."""
    if jax.process_count() == 1:
        return value
    return int(np.max(multihost_utils.process_allgather(np.int32(value))))


def check_same(texts: Mapping[str, str]) -> None:
    """Raises ValueError, in every process, unless all were given the same.

    Args:
        texts: what they were given, by names that are the same everywhere.
    """
    if jax.process_count() == 1:
        return
    digests = [hashlib.sha256(texts[name].encode()).digest()[:8] for name in sorted(texts)]
    own = np.frombuffer(b"".join(digests), np.int32).reshape(-1, 2)
    everyone = np.asarray(multihost_utils.process_allgather(own))
    differs = (everyone != everyone[0]).any((0, 2))
    other = [name for name, here in zip(sorted(texts), differs, strict=True) if here]
    if other:
        raise ValueError(f"all processes must be given the same, they differ in {', '.join(other)}")


def by_first(action: Callable[[], None]) -> None:
    """Does something in the first process alone; the others wait for it.

    Raises:
        OSError: in the others, where it failed there.
    """
    failure = None
    if is_first():
        try:
            action()
        except Exception as error:  # told to the others, then raised
            failure = error
    failed = from_first(int(failure is not None))
    if failure is not None:
        raise failure
    if failed:
        raise OSError("the first process failed, whose message says why")


def local(tree: Any) -> Any:
    """A tree that lies on the devices of several processes, as one process can use it alone.

    Called by all of them, as what is cut is put together again; a device must hold the whole.
    """
    if jax.process_count() == 1:
        return tree

    def gathered(a: Any) -> Any:
        if not a.is_fully_replicated:
            a = jax.jit(lambda a: a, out_shardings=NamedSharding(a.sharding.mesh, P()))(a)
        return a.addressable_data(0)

    return jax.tree.map(gathered, tree)


def laid(tree: Any, where: Any) -> Any:
    """A tree that every process holds, on the devices of all of them.

    Args:
        tree: arrays, the same in each process, or those of all processes already.
        where: a sharding, or a tree of them.
    """
    if jax.process_count() == 1:
        return jax.device_put(tree, where)

    def placed(a: Any, sharding: Any) -> Any:
        if jnp.issubdtype(a.dtype, jax.dtypes.prng_key):
            data = placed(jax.random.key_data(a), sharding)
            return jax.random.wrap_key_data(data, impl=jax.random.key_impl(a))
        if isinstance(a, jax.Array) and not a.is_fully_addressable:
            return jax.jit(lambda a: a, out_shardings=sharding)(a)
        whole = np.asarray(a)
        return jax.make_array_from_callback(whole.shape, sharding, lambda index: whole[index])

    if isinstance(where, jax.sharding.Sharding):
        return jax.tree.map(lambda a: placed(a, where), tree)
    return jax.tree.map(placed, tree, where)


@contextlib.contextmanager
def noticed() -> Iterator[None]:
    """Turns what JAX raises where another process is gone into words.

    Raises:
        ConnectionError: in place of JAX's error.
    """
    try:
        yield
    except jax.errors.JaxRuntimeError as error:
        text = str(error).lower()
        if jax.process_count() == 1 or not any(word in text for word in _LOST):
            raise
        raise ConnectionError(
            f"another of the {jax.process_count()} processes has ended or cannot be reached:"
            f" {_first_line(error)}"
        ) from error


def _first_line(error: BaseException) -> str:
    return str(error).strip().split("\n")[0]
