"""Truth: pixels that the tests gave to Pillow in lossless formats, EXIF's eight orientations,
arithmetic of 16 bits (x / 257) and of white behind transparency, and Pillow's own decoder."""

import warnings

import numpy as np
import pytest
from PIL import Image

from jaxdiff import data
from jaxdiff.data import folder
from tests.data import written


@pytest.fixture(autouse=True)
def _no_warning():
    """What is sound is read without a word."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        yield


def stored(path, **options):
    """All pictures as bytes."""
    return data.to_uint8(data.load(path, **options).images())


def test_folders_are_classes_in_the_order_of_names(tmp_path):
    names = ["cat/b.png", "cat/deep/er/a.png", "ant/z.png", "Übel/ß 1.png", "ant/y.PNG"]
    found = written.pictures(tmp_path, names)
    (tmp_path / "ant" / "notes.txt").write_text("no picture")
    (tmp_path / ".cache").mkdir()
    (tmp_path / ".cache" / "c.png").write_text("hidden")
    whole = data.load(tmp_path)
    order = ["ant/y.PNG", "ant/z.png", "cat/b.png", "cat/deep/er/a.png", "Übel/ß 1.png"]
    np.testing.assert_array_equal(stored(tmp_path), [found[name] for name in order])
    assert whole.y.tolist() == [0, 0, 1, 1, 2]
    assert (whole.num_classes, whole.in_memory, whole.x.dtype) == (3, False, np.uint8)


@pytest.mark.parametrize("names", [["a.png", "b.png"], ["img/a.png", "img/b.png"]])
def test_one_folder_is_no_class(tmp_path, names):
    written.pictures(tmp_path, names)
    assert data.load(tmp_path).y is None


def test_train_and_test_folders_are_the_parts(tmp_path):
    names = ["train/a/1.png", "train/b/2.png", "Val/b/3.png", "Val/c/4.png"]
    found = written.pictures(tmp_path, names)
    for split, chosen, labels in [("train", names[:2], [0, 1]), ("heldout", names[2:], [1, 2])]:
        part = data.load(tmp_path, split=split)
        np.testing.assert_array_equal(data.to_uint8(part.images()), [found[n] for n in chosen])
        assert part.y.tolist() == labels
        assert part.num_classes == 3


def test_links_are_followed_but_not_in_circles(tmp_path):
    written.pictures(tmp_path, ["a/1.png", "b/2.png"])
    (tmp_path / "a" / "up").symlink_to(tmp_path, target_is_directory=True)
    (tmp_path / "c").symlink_to(tmp_path / "b", target_is_directory=True)
    assert data.load(tmp_path).y.tolist() == [0, 1, 2]


@pytest.mark.parametrize("suffix", [".png", ".webp", ".bmp", ".tif", ".ppm"])
def test_every_lossless_format(tmp_path, suffix):
    x = written.random_bytes(5, 7, 3)
    options = {"lossless": True} if suffix == ".webp" else {}
    written.picture(tmp_path / f"a{suffix}", x, **options)
    np.testing.assert_array_equal(stored(tmp_path), x[None])


def test_jpeg_is_as_its_decoder_says(tmp_path):
    path = written.picture(tmp_path / "a.jpg", written.random_bytes(16, 24, 3))
    np.testing.assert_array_equal(stored(tmp_path)[0], np.asarray(Image.open(path)))


def test_all_grey_is_one_channel_and_some_grey_is_three(tmp_path):
    x = written.random_bytes(5, 7)
    written.picture(tmp_path / "a.png", x)
    written.picture(tmp_path / "b.png", (x > 99).astype(bool))
    np.testing.assert_array_equal(stored(tmp_path)[..., 0], [x, 255 * (x > 99)])
    colour = written.random_bytes(5, 7, 3, seed=1)
    written.picture(tmp_path / "c.png", colour)
    np.testing.assert_array_equal(stored(tmp_path)[2], colour)
    np.testing.assert_array_equal(stored(tmp_path)[0], np.stack([x] * 3, -1))


def test_sixteen_bits_are_rounded_to_eight(tmp_path):
    x = np.random.default_rng(0).integers(0, 2**16, (9, 8), dtype=np.uint16)
    written.picture(tmp_path / "a.png", x)
    written.picture(tmp_path / "b.tif", x.astype(np.int32))  # Pillow's mode of 32 bits
    np.testing.assert_array_equal(stored(tmp_path)[..., 0], np.rint([x / 257, x / 257]))


def test_palettes(tmp_path):
    x = np.kron(np.arange(6, dtype=np.uint8).reshape(2, 3, 1) * [[[40, 9, 1]]], np.ones((2, 2, 1)))
    Image.fromarray(x.astype(np.uint8)).quantize(6).save(tmp_path / "a.png")
    np.testing.assert_array_equal(stored(tmp_path)[0], x)


def test_what_is_transparent_lies_on_white(tmp_path):
    x = written.random_bytes(4, 6, 4)
    x[:, :2, 3], x[:, 2:4, 3] = 0, 255
    written.picture(tmp_path / "a.png", x)
    share = x[..., 3:].astype(float) / 255
    white = share * x[..., :3] + (1 - share) * 255
    assert np.abs(stored(tmp_path)[0] - white).max() <= 1  # one rounding of bytes
    np.testing.assert_array_equal(stored(tmp_path)[0, :, 2:4], x[:, 2:4, :3])
    assert (stored(tmp_path)[0, :, :2] == 255).all()


# What must be done to the stored pixels for each value of the tag (EXIF 2.3, Orientation).
TURNS = {
    1: lambda x: x,
    2: lambda x: x[:, ::-1],
    3: lambda x: x[::-1, ::-1],
    4: lambda x: x[::-1],
    5: lambda x: x.transpose(1, 0, 2),
    6: lambda x: np.rot90(x, -1),
    7: lambda x: x.transpose(1, 0, 2)[::-1, ::-1],
    8: lambda x: np.rot90(x),
}


@pytest.mark.parametrize("suffix", [".png", ".webp", ".tif"])
def test_exif_orientation(tmp_path, suffix):
    for value, turn in TURNS.items():
        x, exif = written.random_bytes(4, 6, 3, seed=value), Image.Exif()
        exif[0x0112] = value
        options = {"lossless": True} if suffix == ".webp" else {}
        home = tmp_path / str(value)
        written.picture(home / f"a{suffix}", x, exif=exif, **options)
        np.testing.assert_array_equal(stored(home)[0], turn(x))
        assert data.example_shape(home) == turn(x).shape


def test_size_crops_the_middle_and_resizes_it(tmp_path):
    for name, shape in [("wide", (12, 40)), ("tall", (30, 12)), ("small", (3, 3))]:
        flat = np.full((*shape, 3), 30, np.uint8)
        written.picture(tmp_path / f"{name}.png", flat)
    assert (stored(tmp_path, size=8) == 30).all()  # the weights of a resampling add up to one
    assert data.example_shape(tmp_path, size=8) == (8, 8, 3)
    middle = written.random_bytes(8, 8, 3)
    framed = np.pad(middle, ((0, 0), (5, 5), (0, 0)))
    (tmp_path / "one").mkdir()
    written.picture(tmp_path / "one" / "a.png", framed)
    np.testing.assert_array_equal(stored(tmp_path / "one", size=8)[0], middle)


def test_a_large_jpeg_is_decoded_small_to_the_same_picture(tmp_path):
    y, x = np.mgrid[:256, :256]
    smooth = np.stack([x, y, 255 - x], -1).astype(np.uint8)
    path = written.picture(tmp_path / "a.jpg", smooth, quality=95)
    ours = stored(tmp_path, size=16)[0].astype(int)
    whole = np.asarray(Image.open(path).resize((16, 16), Image.Resampling.BOX)).astype(int)
    # a slope of 1 a pixel, means of 16 pixels; the border has a smaller window
    assert np.abs(ours - whole)[1:-1, 1:-1].max() <= 3


def test_one_warning_names_what_is_left_out(tmp_path):
    found = written.pictures(tmp_path, [f"{i}.png" for i in range(8)])
    (tmp_path / "2.png").write_bytes((tmp_path / "2.png").read_bytes()[:70])
    (tmp_path / "5.png").write_text("no picture")
    with pytest.warns(
        UserWarning, match=r"2 of 8 pictures cannot be read: .*5\.png.*2\.png"
    ) as seen:
        whole = data.load(tmp_path)
    assert len(seen) == 1
    kept = [found[f"{i}.png"] for i in (0, 1, 3, 4, 6, 7)]
    np.testing.assert_array_equal(data.to_uint8(whole.images()), kept)
    assert data.example_shape(tmp_path) == (6, 5, 3)  # silently: load has said it


def test_what_turns_out_damaged_later_is_stood_in_for_by_its_class(tmp_path, monkeypatch):
    monkeypatch.setattr(folder, "_DECODED", 0)
    names = ["a/0.png", "a/1.png", "b/2.png", "b/3.png", "b/4.png", "c/5.png"]
    found = written.pictures(tmp_path, names)
    for name in ("a/1.png", "b/3.png", "b/4.png", "c/5.png"):
        (tmp_path / name).write_bytes((tmp_path / name).read_bytes()[:70])
    whole = data.load(tmp_path)
    with pytest.warns(UserWarning, match=r"3\.png cannot be read.*stands in"):
        batch = whole.x[np.array([3])]
    np.testing.assert_array_equal(batch[0], found["b/2.png"])
    with pytest.warns(UserWarning, match="stands in"):
        rows = whole.x[np.array([1, 4, 0])]
    np.testing.assert_array_equal(rows, [found["a/0.png"], found["b/2.png"], found["a/0.png"]])
    np.testing.assert_array_equal(whole.x[np.array([1])], rows[:1])  # said once, done always
    with (
        pytest.warns(UserWarning, match="5.png"),
        pytest.raises(ValueError, match="nor can any other"),
    ):
        whole.x[np.array([5])]
    with pytest.raises(ValueError, match="4 of 6 pictures cannot be read"):
        data.load(tmp_path, strict=True)
