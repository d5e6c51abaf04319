"""One picture file as bytes [H, W, C], whatever its format: the part that Pillow does."""

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

__all__ = ["SUFFIXES", "Header", "decode", "header"]

SUFFIXES = (".png", ".jpg", ".jpeg", ".webp", ".bmp", ".gif", ".tif", ".tiff", ".ppm", ".pgm")
# What Pillow raises of files that are torn, altered, or of a size that only an attack would have
# (SyntaxError is its word for a bad PNG, the bomb that for some 179 million pixels).
_UNREADABLE = (OSError, EOFError, ValueError, SyntaxError, OverflowError, MemoryError)
_UNREADABLE += (Image.DecompressionBombError,)
_ORIENTATION = 0x0112  # the EXIF tag; 5..8 turn the picture on its side


class Header(NamedTuple):
    """What a file says of itself.

    Attributes:
        height, width: in pixels, as it is to be looked at.
        grey: whether it has no colours.
    """

    height: int
    width: int
    grey: bool


@contextlib.contextmanager
def _opened(path: str | Path) -> Iterator[Image.Image]:
    """The picture in a file; whatever goes wrong with it is a ValueError that names the file."""
    try:
        with Image.open(path) as image:
            yield image
    except UnidentifiedImageError as error:
        raise ValueError(f"{path} is not a picture") from error
    except _UNREADABLE as error:
        raise ValueError(f"{path} cannot be read: {error}") from error


def header(path: str | Path) -> Header:
    """Reads the beginning of a file.

    Raises:
        ValueError: where it is not a picture, or too large for one.
    """
    with _opened(path) as image:
        width, height = image.size
        # a TIFF's size is that of the turned picture already; a PNG would be decoded to look for it
        turned = image.format == "TIFF" or (image.format == "PNG" and "exif" not in image.info)
        if not turned and image.getexif().get(_ORIENTATION, 1) >= 5:
            width, height = height, width
        return Header(height, width, image.mode in ("1", "L", "LA", "I") or image.mode[:2] == "I;")


def decode(path: str | Path, *, grey: bool, size: int | None) -> np.ndarray:
    """The pixels of a file.

    Turned as its EXIF data say; what is transparent is put on white; 16 bits become 8, rounded;
    of an animation the first frame. With `size` the largest square in the middle is resampled to
    that side by Lanczos' filter, which takes in all pixels when it shrinks.

    Args:
        path: the file.
        grey: whether to return one channel instead of three.
        size: the side of the square, None for the picture as it is.

    Returns:
        uint8 [H, W, 1] or [H, W, 3].

    Raises:
        ValueError: where it is not a whole picture.
    """
    with _opened(path) as opened:
        if size is not None:
            opened.draft(None, (2 * size, 2 * size))  # spares a JPEG the pixels that go anyway
        image = _flat(ImageOps.exif_transpose(opened), "L" if grey else "RGB")
        if size is not None:
            image = ImageOps.fit(image, (size, size), Image.Resampling.LANCZOS)
        pixels = np.asarray(image)
    return pixels[..., None] if grey else pixels


def _flat(image: Image.Image, mode: str) -> Image.Image:
    """A picture of 8 bits without transparency."""
    if image.mode[0] == "I":
        deep = np.asarray(image)
        if deep.min() < 0 or deep.max() > 65535:
            raise ValueError(f"grey values in {deep.min()}..{deep.max()}, 0..65535 are read")
        image = Image.fromarray(np.rint(deep / 257).astype(np.uint8))
    if image.mode[0] == "F":
        raise ValueError("pixels are floats, whose range is not known")
    if image.has_transparency_data:
        image = image.convert("RGBA")
        white = Image.new("RGBA", image.size, "white")
        image = Image.alpha_composite(white, image)
    return image.convert(mode)
