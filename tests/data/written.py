"""Files of every format that is read, written from their descriptions."""

import gzip
import struct

import numpy as np
from PIL import Image

CODES = {"u1": 0x08, "i1": 0x09, "i2": 0x0B, "i4": 0x0C, "f4": 0x0D, "f8": 0x0E}


def random_bytes(*shape, seed=0):
    return np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)


def idx_bytes(x):
    """LeCun's format: 0, 0, type, rank, dimensions, numbers, big-endian."""
    head = struct.pack(">BBBB", 0, 0, CODES[x.dtype.str[1:]], x.ndim)
    return (
        head + struct.pack(f">{x.ndim}I", *x.shape) + x.astype(x.dtype.newbyteorder(">")).tobytes()
    )


def idx(path, x):
    content = idx_bytes(x)
    path.write_bytes(gzip.compress(content) if path.suffix == ".gz" else content)
    return path


def mnist(folder, suffix="", n_train=12, n_test=5):
    """A directory as MNIST's; returns what it holds."""
    folder.mkdir(exist_ok=True)
    parts = []
    for seed, (part, n) in enumerate([("train", n_train), ("t10k", n_test)]):
        x, y = random_bytes(n, 6, 5, seed=seed), np.arange(n, dtype=np.uint8) % 3
        idx(folder / f"{part}-images-idx3-ubyte{suffix}", x)
        idx(folder / f"{part}-labels-idx1-ubyte{suffix}", y)
        parts.append((x, y))
    return parts


def cifar(path, x, *labels):
    """Records of the label bytes and the pixels, colour by colour."""
    planes = x.transpose(0, 3, 1, 2).reshape(len(x), -1)
    columns = [np.asarray(y, np.uint8)[:, None] for y in labels]
    path.write_bytes(np.concatenate([*columns, planes], axis=1).tobytes())
    return path


def picture(path, x, **options):
    """[H, W] or [H, W, C] bytes by Pillow, in the format that the suffix says."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(x).save(path, **options)
    return path


def pictures(folder, names, shape=(6, 5, 3)):
    """PNGs of random pixels; returns them by name."""
    found = {name: random_bytes(*shape, seed=i) for i, name in enumerate(names)}
    for name, x in found.items():
        picture(folder / name, x)
    return found
