"""Data, in memory or on disk: checked on the way in, dealt out as a function of (seed, step)."""

from jaxdiff.data.augment import augment
from jaxdiff.data.dataset import Dataset, from_arrays, from_source
from jaxdiff.data.images import check_images, check_labels, from_uint8, to_uint8
from jaxdiff.data.points import load_points
from jaxdiff.data.prefetch import prefetch
from jaxdiff.data.readers import READERS, example_shape, load

__all__ = [
    "READERS",
    "Dataset",
    "augment",
    "check_images",
    "check_labels",
    "example_shape",
    "from_arrays",
    "from_source",
    "from_uint8",
    "load",
    "load_points",
    "prefetch",
    "to_uint8",
]
