"""The handwritten digits that come with scikit-learn: 1797 grey images of 8 x 8, labels 0..9."""

from jaxdiff.data import dataset

__all__ = ["load"]


def load() -> dataset.Dataset:
    """All 1797 digits, from 0 (paper) .. 16 (ink) to [-1, 1] by x / 8 - 1.

    Source: Alpaydin and Kaynak 1998, Optical Recognition of Handwritten Digits (UCI), the test
    part, as scikit-learn distributes it; doi:10.24432/C50P49.
    """
    from sklearn.datasets import load_digits  # heavy to import

    bunch = load_digits()
    whole = bunch.images.astype("uint8")  # stored as floats, whole numbers all
    return dataset.from_arrays(whole, bunch.target, value_range=(0, 16), name="digits")
