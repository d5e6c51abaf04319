"""A set of examples whose batches are a function of (seed, step).

The examples form one endless sequence: epoch 0 in an order drawn from (seed, 0), then epoch 1 in
an order drawn from (seed, 1), and so on. Batch `step` is places step * B .. (step + 1) * B of it.
So every example comes once an epoch, whatever the batch size; nothing is dropped or repeated at
an epoch's end; and a run resumes from the number of its step alone.
"""

import dataclasses
import operator
from collections.abc import Iterator
from typing import Any

import numpy as np

from jaxdiff.data import images, order, sources

__all__ = ["SPLITS", "Dataset", "from_arrays", "from_source"]

SPLITS = ("train", "heldout", "all")
MOST = 2**32  # bytes that `images` loads without being told how many examples are wanted


@dataclasses.dataclass(frozen=True, eq=False)
class Dataset:
    """Examples, their labels, and how they are dealt out; `from_arrays` makes one.

    Attributes:
        x: [N, H, W, C] or [N, D], uint8 or float32 in [-1, 1]: a read-only array, or any other
            `sources.Source`, such as files that are decoded when their rows are asked for.
        y: [N] int32 class numbers, or None.
        name: what errors and logs call it.
        num_classes: one more than the highest label of the whole set, or None without labels.
        test_from: the row where an official test part begins, or None without one.
        bins: how many values a number of x can take, evenly over [-1, 1] with both ends: 256 for
            bytes; None for floats, of which nothing is known.
        batch_size: examples a batch, which may exceed N.
        seed: what the order of examples is drawn from.
        flip: whether images are mirrored left to right, each with probability 1/2 an epoch.
        share: (i, n): of each batch the i-th of n equal parts is dealt out.
    """

    x: sources.Source
    y: np.ndarray | None = None
    name: str = "data"
    num_classes: int | None = None
    test_from: int | None = None
    bins: int | None = None
    batch_size: int = 128
    seed: int = 0
    flip: bool = False
    share: tuple[int, int] = (0, 1)

    def __len__(self) -> int:
        return len(self.x)

    @property
    def example_shape(self) -> tuple[int, ...]:
        """(H, W, C) or (D,)."""
        return tuple(self.x.shape[1:])

    @property
    def in_memory(self) -> bool:
        """Whether a batch costs no reading from disk, so that there is nothing to prefetch."""
        return sources.in_memory(self.x)

    def images(self, limit: int | None = None) -> np.ndarray:
        """Examples in stored order, in memory.

        Args:
            limit: how many at most, evenly spaced among all, so that a set sorted by class stays
                balanced; all of them unless given.

        Returns:
            float32 in [-1, 1]: [M, H, W, C] or [M, D] with M = min(N, limit).

        Raises:
            ValueError: where `limit` is not positive, or all would take more than 4 GiB and no
                limit was given.
        """
        n, chosen = len(self), self._spaced(limit)
        size = 4 * n * int(np.prod(self.example_shape))
        if limit is None and size > MOST:
            raise ValueError(
                f"{self.name} holds {n} examples, {size / 2**30:.1f} GiB as float32: say how many "
                "to load by images(limit), or take them in turn by blocks()"
            )
        if len(chosen) == n and self.in_memory:
            return _as_float(self.x)
        return np.concatenate(list(_read(self.x, chosen, 256)))

    def labels(self, limit: int | None = None) -> np.ndarray | None:
        """The labels [M] of what `images(limit)` returns, None without any."""
        return None if self.y is None else self.y[self._spaced(limit)]

    def _spaced(self, limit: int | None) -> np.ndarray:
        """At most `limit` rows, evenly spaced among all."""
        if limit is not None and operator.index(limit) < 1:
            raise ValueError(f"limit must be >= 1, got {limit}")
        n = len(self)
        chosen = n if limit is None else min(n, limit)
        return np.arange(chosen) * n // chosen

    def blocks(self, size: int = 256) -> Iterator[np.ndarray]:
        """All examples in stored order, float32 in [-1, 1], `size` at a time (the last fewer)."""
        if operator.index(size) < 1:
            raise ValueError(f"size must be >= 1, got {size}")
        return _read(self.x, np.arange(len(self)), size)

    def batch_at(self, step: Any) -> dict[str, np.ndarray]:
        """The batch of one step, a pure function of (seed, step).

        Args:
            step: the number of the step, >= 0.

        Returns:
            {"x": [B, ...] float32 in [-1, 1], "y": [B] int32}, the latter where there are labels;
            of a share of 1/n, B/n of each.

        Raises:
            ValueError: where `step` is negative, or an example cannot be read.
        """
        step = operator.index(step)
        if step < 0:
            raise ValueError(f"step must be >= 0, got {step}")
        place, parts = self.share
        size = self.batch_size // parts
        start = step * self.batch_size + place * size
        index, mirrored = order.deal(self.seed, len(self), start, size)
        x = _as_float(self.x[index])
        if self.flip:
            x = np.where(mirrored[:, None, None, None], x[:, :, ::-1], x)
        return {"x": x} if self.y is None else {"x": x, "y": self.y[index]}

    def with_batches(self, batch_size: int, *, seed: int = 0, flip: bool = False) -> "Dataset":
        """The same examples, dealt out otherwise.

        Args:
            batch_size: examples a batch, >= 1.
            seed: what the order is drawn from, 0 <= seed < 2**63.
            flip: whether images are mirrored at random, which turns some symbols into others.

        Returns:
            A dataset that shares the memory of this one.

        Raises:
            ValueError: naming the argument that does not fit.
        """
        batch_size, seed = operator.index(batch_size), operator.index(seed)
        if batch_size < 1:
            raise ValueError(f"batch_size must be >= 1, got {batch_size}")
        order.check_seed(seed)
        if flip and len(self.x.shape) != 4:
            raise ValueError(f"flip is for images [N, H, W, C], got shape {list(self.x.shape)}")
        if batch_size % self.share[1]:
            raise ValueError(f"batch_size must be a multiple of {self.share[1]}, got {batch_size}")
        return dataclasses.replace(self, batch_size=batch_size, seed=seed, flip=flip)

    def with_share(self, place: int, parts: int) -> "Dataset":
        """The same batches, of which only one part is read: that of a process of several.

        Args:
            place: which, 0 <= place < parts.
            parts: in how many a batch is cut; must divide it.

        Returns:
            A dataset that shares the memory of this one.

        Raises:
            ValueError: naming the argument that does not fit.
        """
        if not 0 <= place < parts:
            raise ValueError(f"place must be in 0..{parts - 1}, got {place}")
        if self.batch_size % parts:
            raise ValueError(f"parts={parts} must divide the batch, got {self.batch_size} examples")
        return dataclasses.replace(self, share=(place, parts))

    def part(self, split: str, *, heldout_every: int | None = None) -> "Dataset":
        """The training part, the held-out part, or all of it.

        Row i is held out where i mod heldout_every = heldout_every - 1, so that sorted and
        shuffled files both give parts alike; 2 makes halves, even rows to train on.

        Args:
            split: "train", "heldout" or "all".
            heldout_every: >= 2, and at most N; None for the official test part.

        Returns:
            The chosen rows, in stored order.

        Raises:
            ValueError: naming the argument that does not fit.
        """
        if split not in SPLITS:
            raise ValueError(f"split must be one of {', '.join(SPLITS)}, got {split!r}")
        if split == "all":
            return self
        heldout = self._heldout(heldout_every)
        rows = np.flatnonzero(heldout if split == "heldout" else ~heldout)
        y = None if self.y is None else sources.read_only(self.y[rows])
        return dataclasses.replace(self, x=sources.rows_of(self.x, rows), y=y, test_from=None)

    def _heldout(self, every: int | None) -> np.ndarray:
        """Which rows are held out."""
        if every is None:
            if self.test_from is None:
                raise ValueError(f"{self.name} has no official test part: state heldout_every")
            return np.arange(len(self)) >= self.test_from
        if len(self) < 2:
            raise ValueError(f"{self.name} must hold 2 examples to hold one out, got {len(self)}")
        if not 2 <= every <= len(self):
            raise ValueError(
                f"heldout_every must lie in 2..{len(self)}, the number of examples in {self.name}, "
                f"got {every}"
            )
        return np.arange(len(self)) % every == every - 1


def from_arrays(x: Any, y: Any = None, *, value_range: Any = None, name: str = "data") -> Dataset:
    """Makes a dataset of arrays, having checked them.

    Args:
        x: [N, H, W, C], [N, H, W] (grey) or [N, D]; uint8, or floats in [-1, 1], or anything real
            with `value_range`. A `numpy.memmap` is read once to be checked, and stays on disk.
        y: [N] integer class numbers >= 0, or None.
        value_range: (low, high), the numbers that stand for -1 and 1.
        name: what errors and logs call it.

    Returns:
        A dataset with batches of 128 and seed 0; see `Dataset.with_batches`.

    Raises:
        ValueError: naming what is wrong with which array, and what was wanted.
    """
    x = np.asanyarray(x) if isinstance(x, np.memmap) else np.asarray(x)
    if x.ndim == 3:
        if x.shape[-1] <= images.MAX_CHANNELS and x.shape[-1] < x.shape[1]:
            raise ValueError(
                f"{name}: x must be [N, H, W, C], [N, H, W] or [N, D], got {list(x.shape)}, "
                "which looks like a single image [H, W, C]"
            )
        x = x[..., None]
    bounds = images.check_range(x, value_range, f"{name}: x")
    bins = images.count_values(x.dtype, bounds)
    return from_source(sources.scaled(x, bounds), y, name=name, bins=bins)


def from_source(
    x: sources.Source,
    y: Any = None,
    *,
    name: str = "data",
    test_from: int | None = None,
    bins: int | None = None,
) -> Dataset:
    """Makes a dataset of a source, whose numbers are taken as they come.

    Args:
        x: [N, H, W, C] or [N, D], N > 0; uint8, or float32 in [-1, 1].
        y: [N] integer class numbers >= 0, or None.
        name: what errors and logs call it.
        test_from: the row where an official test part begins, 0 < test_from < N, if there is one.
        bins: how many values floats take, if that is known; bytes take 256.

    Returns:
        A dataset with batches of 128 and seed 0; see `Dataset.with_batches`.

    Raises:
        ValueError: naming what is wrong, and what was wanted.
    """
    if len(x) < 1 or len(x.shape) not in (2, 4) or x.dtype not in (np.uint8, np.float32):
        raise ValueError(
            f"{name}: x must be [N, H, W, C] or [N, D] of uint8 or float32, N > 0, got "
            f"{list(x.shape)} of {x.dtype}"
        )
    if test_from is not None and not 0 < test_from < len(x):
        raise ValueError(f"{name}: test_from must lie in 1..{len(x) - 1}, got {test_from}")
    if y is not None:
        y = sources.read_only(images.check_labels(y, len(x), f"{name}: y"))
    classes = None if y is None else int(y.max()) + 1
    bins = 256 if x.dtype == np.uint8 else bins
    return Dataset(x=x, y=y, name=name, num_classes=classes, test_from=test_from, bins=bins)


def _as_float(x: np.ndarray) -> np.ndarray:
    """Stored numbers as float32 in [-1, 1]."""
    return images.from_uint8(x) if x.dtype == np.uint8 else x


def _read(x: sources.Source, rows: np.ndarray, size: int) -> Iterator[np.ndarray]:
    """Some rows as float32 in [-1, 1], `size` at a time."""
    return (_as_float(x[rows[i : i + size]]) for i in range(0, len(rows), size))
