"""A set of examples in memory whose batches are a function of (seed, step).

The examples form one endless sequence: epoch 0 in an order drawn from (seed, 0), then epoch 1 in
an order drawn from (seed, 1), and so on. Batch `step` is places step * B .. (step + 1) * B of it.
So every example comes once an epoch, whatever the batch size; nothing is dropped or repeated at
an epoch's end; and a run resumes from the number of its step alone.
"""

import dataclasses
import functools
import operator
from typing import Any

import numpy as np

from jaxdiff.data import images

__all__ = ["SPLITS", "Dataset", "from_arrays"]

SPLITS = ("train", "heldout", "all")


@dataclasses.dataclass(frozen=True, eq=False)
class Dataset:
    """Examples, their labels, and how they are dealt out; `from_arrays` makes one.

    Attributes:
        x: [N, H, W, C] or [N, D], uint8 or float32 in [-1, 1], read-only.
        y: [N] int32 class numbers, or None.
        name: what errors and logs call it.
        num_classes: one more than the highest label of the whole set, or None without labels.
        batch_size: examples a batch, which may exceed N.
        seed: what the order of examples is drawn from.
        flip: whether images are mirrored left to right, each with probability 1/2 an epoch.
    """

    x: np.ndarray
    y: np.ndarray | None = None
    name: str = "data"
    num_classes: int | None = None
    batch_size: int = 128
    seed: int = 0
    flip: bool = False

    def __len__(self) -> int:
        return len(self.x)

    @property
    def example_shape(self) -> tuple[int, ...]:
        """(H, W, C) or (D,)."""
        return self.x.shape[1:]

    def images(self) -> np.ndarray:
        """All examples in stored order, float32 in [-1, 1]: [N, H, W, C] or [N, D]."""
        return _as_float(self.x)

    def batch_at(self, step: Any) -> dict[str, np.ndarray]:
        """The batch of one step, a pure function of (seed, step).

        Args:
            step: the number of the step, >= 0.

        Returns:
            {"x": [B, ...] float32 in [-1, 1], "y": [B] int32}, the latter where there are labels.

        Raises:
            ValueError: where `step` is negative.
        """
        step = operator.index(step)
        if step < 0:
            raise ValueError(f"step must be >= 0, got {step}")
        index, mirrored = self._deal(step * self.batch_size)
        x = _as_float(self.x[index])
        if self.flip:
            x = np.where(mirrored[:, None, None, None], x[:, :, ::-1], x)
        return {"x": x} if self.y is None else {"x": x, "y": self.y[index]}

    def _deal(self, start: int) -> tuple[np.ndarray, np.ndarray]:
        """The examples at places start .. start + B of the sequence, and which are mirrored."""
        parts = []
        place, end = start, start + self.batch_size
        while place < end:
            epoch, first = divmod(place, len(self))
            last = min(len(self), first + end - place)
            parts.append([column[first:last] for column in _epoch(self.seed, epoch, len(self))])
            place += last - first
        index, mirrored = (np.concatenate(column) for column in zip(*parts, strict=True))
        return index, mirrored

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
        if not 0 <= seed < 2**63:
            raise ValueError(f"seed must lie in 0 <= seed < 2**63, got {seed}")
        if flip and self.x.ndim != 4:
            raise ValueError(f"flip is for images [N, H, W, C], got shape {list(self.x.shape)}")
        return dataclasses.replace(self, batch_size=batch_size, seed=seed, flip=flip)

    def part(self, split: str, *, heldout_every: int) -> "Dataset":
        """The training part, the held-out part, or all of it.

        Row i is held out where i mod heldout_every = heldout_every - 1, so that sorted and
        shuffled files both give parts alike; 2 makes halves, even rows to train on.

        Args:
            split: "train", "heldout" or "all".
            heldout_every: >= 2, and at most N.

        Returns:
            The chosen rows, in stored order.

        Raises:
            ValueError: naming the argument that does not fit.
        """
        if split not in SPLITS:
            raise ValueError(f"split must be one of {', '.join(SPLITS)}, got {split!r}")
        if split == "all":
            return self
        if len(self) < 2:
            raise ValueError(f"{self.name} must hold 2 examples to hold one out, got {len(self)}")
        if not 2 <= heldout_every <= len(self):
            raise ValueError(
                f"heldout_every must lie in 2..{len(self)}, the number of examples in {self.name}, "
                f"got {heldout_every}"
            )
        heldout = np.arange(len(self)) % heldout_every == heldout_every - 1
        rows = heldout if split == "heldout" else ~heldout
        y = None if self.y is None else _read_only(self.y[rows])
        return dataclasses.replace(self, x=_read_only(self.x[rows]), y=y)


def from_arrays(x: Any, y: Any = None, *, value_range: Any = None, name: str = "data") -> Dataset:
    """Makes a dataset of arrays, having checked them.

    Args:
        x: [N, H, W, C], [N, H, W] (grey) or [N, D]; uint8, or floats in [-1, 1], or anything real
            with `value_range`.
        y: [N] integer class numbers >= 0, or None.
        value_range: (low, high), the numbers that stand for -1 and 1.
        name: what errors and logs call it.

    Returns:
        A dataset with batches of 128 and seed 0; see `Dataset.with_batches`.

    Raises:
        ValueError: naming what is wrong with which array, and what was wanted.
    """
    x = np.asarray(x)
    if x.ndim == 3:
        if x.shape[-1] <= images.MAX_CHANNELS and x.shape[-1] < x.shape[1]:
            raise ValueError(
                f"{name}: x must be [N, H, W, C], [N, H, W] or [N, D], got {list(x.shape)}, "
                "which looks like a single image [H, W, C]"
            )
        x = x[..., None]
    x = images.to_float(x, value_range, f"{name}: x")
    if y is not None:
        y = _read_only(images.check_labels(y, len(x), f"{name}: y"))
    return Dataset(
        x=_read_only(x),
        y=y,
        name=name,
        num_classes=None if y is None else int(y.max()) + 1,
    )


def _as_float(x: np.ndarray) -> np.ndarray:
    """Stored numbers as float32 in [-1, 1]."""
    return images.from_uint8(x) if x.dtype == np.uint8 else x


def _read_only(x: np.ndarray) -> np.ndarray:
    """A view that cannot be written through."""
    view = x.view()
    view.flags.writeable = False
    return view


@functools.lru_cache(maxsize=4)  # consecutive batches share an epoch or two
def _epoch(seed: int, epoch: int, n: int) -> tuple[np.ndarray, np.ndarray]:
    """The order of n examples in one epoch, and which are mirrored, from (seed, epoch).

    Sorting raw words of a counter-based generator rather than `Generator.permutation`: numpy
    promises the former to be the same in every version (NEP 19), so that resumed runs agree.
    Two equal words in 64 bits, which would favour the lower index, have chance n**2 / 2**65.
    """
    raw = np.random.Philox(key=np.array([seed, epoch], np.uint64)).random_raw(2 * n)
    return np.argsort(raw[:n], kind="stable"), (raw[n:] & np.uint64(1)).astype(bool)
