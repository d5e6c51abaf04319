"""Batches of the next steps, made in the background while a step is computed."""

import contextlib
import operator
import os
import threading
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, Protocol

__all__ = ["prefetch"]


class Batches(Protocol):
    """What has batches, such as a `Dataset`."""

    def batch_at(self, step: int) -> Any:
        """The batch of a step, a pure function of it that may be called from several threads."""
        ...


class _Ahead:
    """The same batches, those of the steps after the last one asked for being under way."""

    def __init__(self, dataset: Batches, ahead: int, pool: ThreadPoolExecutor):
        self._dataset, self._ahead, self._pool = dataset, ahead, pool
        self._under_way: dict[int, Future] = {}
        self._lock = threading.Lock()

    def batch_at(self, step: int) -> Any:
        """The batch of a step, and what making it raised, in whatever order steps are asked for."""
        step = operator.index(step)
        with self._lock:
            batch = self._under_way.pop(step, None) or self._begin(step)
            wanted = range(step + 1, step + 1 + self._ahead)
            for other in [s for s in self._under_way if s not in wanted]:
                self._under_way.pop(other).cancel()
            for other in wanted:
                if other not in self._under_way:
                    self._under_way[other] = self._begin(other)
        return batch.result()

    def _begin(self, step: int) -> Future:
        return self._pool.submit(self._dataset.batch_at, step)


@contextlib.contextmanager
def prefetch(dataset: Batches, ahead: int = 2, *, workers: int | None = None) -> Iterator[Batches]:
    """Makes batches in the background, within a with-block.

    Bit for bit the batches that `dataset` gives, since a batch is a function of its step alone.
    What the making of a batch raises is raised when that step is asked for. At the end of the
    block, also by Ctrl-C, what has not begun is dropped and what has is waited for.

    Args:
        dataset: `batch_at(step)` gives the batch of a step.
        ahead: how many batches beyond the last one asked for are made, >= 0; so many are held in
            memory at most. 0 makes each when it is asked for: for data in memory.
        workers: the threads, each of which makes one batch at a time; as many as `ahead`, but no
            more than there are cores, unless given.

    Yields:
        An object with `batch_at(step)`.

    Raises:
        ValueError: naming the argument that does not fit.
    """
    if operator.index(ahead) < 0:
        raise ValueError(f"ahead must be >= 0, got {ahead}")
    if workers is not None and operator.index(workers) < 1:
        raise ValueError(f"workers must be >= 1, got {workers}")
    if ahead == 0:
        yield dataset
        return
    pool = ThreadPoolExecutor(workers or min(ahead, os.cpu_count() or 1), "prefetch")
    try:
        yield _Ahead(dataset, ahead, pool)
    finally:
        pool.shutdown(wait=True, cancel_futures=True)
