"""Truth: the list of what users hand over by mistake. Each error names the argument."""

import numpy as np
import pytest

from jaxdiff import data
from jaxdiff.data import files, npz

IMAGES = np.random.default_rng(0).uniform(-1, 1, (12, 8, 8, 3)).astype(np.float32)
BYTES = np.random.default_rng(0).integers(0, 256, (12, 8, 8, 3), dtype=np.uint8)


def spoilt(value):
    x = IMAGES.copy()
    x[3, 2, 1, 0] = value
    return x


def labels(y):
    return lambda: data.from_arrays(IMAGES, y)


def scaled(value_range):
    return lambda: data.from_arrays(BYTES.astype(np.float32), value_range=value_range)


BAD_ARRAYS = [
    ("whole numbers as floats", BYTES.astype(np.float32), "whole pixel values"),
    ("[0, 1] data", (IMAGES + 1) / 2, r"look like \[0, 1\]"),
    ("[0, 1] vectors", np.linspace(0, 1, 12).reshape(6, 2), r"look like \[0, 1\]"),
    ("NaN", spoilt(np.nan), "1 NaN or infinite"),
    ("infinity", spoilt(-np.inf), "1 NaN or infinite"),
    ("a double beyond float32", spoilt(0).astype(np.float64) * 1e300, "NaN or infinite"),
    ("beyond the range", IMAGES * 1.5, r"must lie in \[-1, 1\]"),
    ("channels first", IMAGES.transpose(0, 3, 1, 2), r"channels last.*\[12, 3, 8, 8\]"),
    ("one channel first", IMAGES.transpose(0, 3, 1, 2)[:, :1], "channels last"),
    ("rank 1", IMAGES.ravel(), r"shape.*got \[2304\]"),
    ("rank 5", IMAGES[None], r"shape.*got \[1, 12, 8, 8, 3\]"),
    ("no examples", IMAGES[:0], "must not be empty"),
    ("no pixels", IMAGES[:, :0], "must not be empty"),
    ("complex", IMAGES.astype(np.complex64), "real numbers"),
    ("booleans", IMAGES > 0, "real numbers"),
    ("strings", np.full((4, 2), "ink"), "real numbers"),
    ("objects", np.full((4, 2), None), "real numbers"),
]


@pytest.mark.parametrize(("x", "says"), [c[1:] for c in BAD_ARRAYS], ids=[c[0] for c in BAD_ARRAYS])
def test_bad_arrays(x, says):
    with pytest.raises(ValueError, match=f"pictures.*{says}"):
        data.check_images(x, name="pictures")
    with pytest.raises(ValueError, match=f"pictures: x.*{says}"):
        data.from_arrays(x, name="pictures")


BAD_CALLS = [
    ("bytes where floats are due", lambda: data.check_images(BYTES, "x_T"), "x_T.*uint8"),
    ("grey images unexpanded", lambda: data.check_images(IMAGES[..., 0], "x0"), "x0.*got"),
    ("a single image", lambda: data.from_arrays(IMAGES[0]), r"single image.*H, W, C"),
    ("int64 pixels", lambda: data.from_arrays(BYTES.astype(int)), "int64: state value_range"),
    ("bytes of 0 and 1", lambda: data.from_arrays(BYTES % 2), r"uint8 .*\[0, 1\]"),
    ("a range too narrow", scaled((0, 100)), r"must lie in \[0, 100\]"),
    ("a falling range", scaled((255, 0)), "value_range must be.*low < high"),
    ("half a range", scaled(255), "value_range must be"),
    ("an endless range", scaled((0, np.inf)), "value_range must be"),
    ("a range of words", scaled(("low", "high")), "value_range must be"),
    ("labels too few", labels([0, 1]), r"y must have shape \[12\].*got \[2\]"),
    ("one-hot labels", labels(np.eye(12, dtype=int)), r"y must have shape.*got \[12, 12\]"),
    ("float labels", labels(np.zeros(12)), "y must hold integers, got float64"),
    ("boolean labels", labels(np.zeros(12, bool)), "y must hold integers, got bool"),
    ("negative labels", labels(np.arange(-1, 11)), r"y must lie in.*-1\.\.10"),
    ("labels too large", labels(np.arange(12) + 2**31), "y must lie in"),
    ("unknown name", lambda: data.load("mnist"), "unknown data 'mnist'.*digits, FILE.npz"),
    ("unknown split", lambda: data.load("digits", split="test"), "split.*train, heldout, all"),
    ("a range for digits", lambda: data.load("digits", value_range=(0, 1)), "value_range"),
    (
        "nothing to train on",
        lambda: data.load("digits", split="train", heldout_every=1),
        "heldout_every must lie in 2..1797",
    ),
    ("empty batches", lambda: data.from_arrays(IMAGES).with_batches(0), "batch_size must be >= 1"),
    (
        "a negative seed",
        lambda: data.from_arrays(IMAGES).with_batches(1, seed=-1),
        "seed must lie in",
    ),
    (
        "mirrored vectors",
        lambda: data.from_arrays(IMAGES[:, 0, 0]).with_batches(1, flip=True),
        "flip is for images",
    ),
    ("a negative step", lambda: data.from_arrays(IMAGES).batch_at(-1), "step must be >= 0"),
    ("samples under another suffix", lambda: npz.write("a.png", IMAGES), "path must end in .npz"),
    ("samples unclipped", lambda: npz.write("a.npz", IMAGES * 2), r"x must lie in \[-1, 1\]"),
]


@pytest.mark.parametrize(
    ("call", "says"), [c[1:] for c in BAD_CALLS], ids=[c[0] for c in BAD_CALLS]
)
def test_bad_calls(call, says):
    with pytest.raises(ValueError, match=says):
        call()


def write_text(path):
    path.write_text("not an archive")


def write_half(path):
    np.savez(path, x=IMAGES)
    path.write_bytes(path.read_bytes()[:-100])


def write_flipped(path):
    np.savez(path, x=IMAGES)
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def write_directory_flipped(path):
    np.savez(path, x=IMAGES)
    content = bytearray(path.read_bytes())
    content[content.rindex(b"PK\x01\x02")] ^= 1
    path.write_bytes(content)


def write_marked(path, offset, value):
    """One field of the only entry, in its own header and in the archive's directory."""
    np.savez(path, x=IMAGES)
    content = bytearray(path.read_bytes())
    content[offset] = value
    content[content.rindex(b"PK\x01\x02") + offset + 2] = value
    path.write_bytes(content)


def write_objects(path):
    np.savez(path, x=np.array([{"a": 1}, None], dtype=object))


def write_array(path):
    with path.open("wb") as file:
        np.save(file, IMAGES)


BAD_FILES = [
    ("text", write_text, "is not an .npz file"),
    ("a bare array", write_array, "is not an .npz file"),
    ("cut short", write_half, "is not an .npz file"),
    ("one bit flipped", write_flipped, "cannot read array x.*CRC"),
    ("a directory with one bit flipped", write_directory_flipped, "data.npz is damaged"),
    ("encrypted", lambda path: write_marked(path, 6, 1), "cannot read array x.*encrypted"),
    ("packed some way", lambda path: write_marked(path, 8, 99), "cannot read array x.*compression"),
    ("objects, which would need pickle", write_objects, "cannot read array x.*allow_pickle"),
    ("no x", lambda path: np.savez(path, images=IMAGES), "must hold an array x, got images"),
    ("a single row", lambda path: np.savez(path, x=IMAGES[:1]), "must hold 2 examples to hold one"),
    ("labels of another set", lambda path: np.savez(path, x=IMAGES, y=[0]), "data.npz: y must"),
    ("a range of three", lambda path: np.savez(path, x=IMAGES, range=[0, 1, 2]), "value_range"),
]


@pytest.mark.parametrize(
    ("write", "says"), [c[1:] for c in BAD_FILES], ids=[c[0] for c in BAD_FILES]
)
def test_bad_files(tmp_path, write, says):
    path = tmp_path / "data.npz"
    write(path)
    with pytest.raises(ValueError, match=says):
        data.load(path, split="train")


def test_missing_files_and_unwritable_paths(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"no data file.*gone\.npz"):
        data.load(tmp_path / "gone.npz")
    with pytest.raises(FileNotFoundError, match="there is no directory"):
        npz.write(tmp_path / "no" / "a.npz", IMAGES)
    with pytest.raises(IsADirectoryError, match="is a directory"), files.replacing(tmp_path):
        pass
    with pytest.raises(OSError, match=r"cannot write.*a+\.npz"):
        npz.write(tmp_path / ("a" * 248 + ".npz"), IMAGES)


@pytest.mark.parametrize(
    "x",
    [
        IMAGES,
        IMAGES.astype(np.float16),
        IMAGES.astype(np.float64),
        IMAGES[..., :1],
        IMAGES[:, 0, 0],
        np.full((2, 4, 4, 1), 0.5),  # one flat grey is no sign of [0, 1] data
        np.random.default_rng(0).uniform(-1, 1, (3, 4, 4, 16)),  # latents, as tall as 4 channels
    ],
)
def test_good_arrays_pass_as_float32(x):
    checked = data.check_images(x)
    assert checked.dtype == np.float32
    np.testing.assert_array_equal(checked, x.astype(np.float32))


def test_jax_arrays_pass():
    import jax.numpy as jnp

    for dtype in (jnp.float32, jnp.bfloat16):
        assert data.check_images(jnp.asarray(IMAGES, dtype)).dtype == np.float32
