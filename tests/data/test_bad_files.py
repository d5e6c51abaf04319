"""Truth: the list of what lies on people's disks. Each error names the file, and says what was
wanted; nothing that a header claims is believed before the file's own size allows it."""

import gzip
import os
import struct
import tracemalloc
import zlib

import numpy as np
import pytest
from PIL import Image

from jaxdiff import data
from tests.data import written

X, Y = written.random_bytes(12, 6, 5), np.arange(12, dtype=np.uint8)
CIFAR = written.random_bytes(3, 32, 32, 3)


def idx(content, name="x.idx3"):
    """A file of those bytes."""

    def write(home):
        (home / name).write_bytes(content)
        return home / name

    return write


def header(*shape, code=0x08, magic=b"\0\0", rank=None):
    rank = len(shape) if rank is None else rank
    return magic + bytes([code, rank]) + struct.pack(f">{len(shape)}I", *shape)


WHOLE = written.idx_bytes(X)
PACKED = gzip.compress(WHOLE)
ALTERED = PACKED[:60] + bytes([PACKED[60] ^ 255]) + PACKED[61:]


def labels_of_another_set(home):
    written.idx(home / "train-images-idx3-ubyte", X)
    written.idx(home / "train-labels-idx1-ubyte", Y[:-1])
    return home


def labels_for_one_part(home):
    written.mnist(home / "set")
    (home / "set" / "t10k-labels-idx1-ubyte").unlink()
    return home / "set"


def two_sets(home):
    for name in ("digits", "letters"):
        written.idx(home / f"{name}-train-images-idx3-ubyte", X)
    return home


def parts_that_differ(home):
    written.mnist(home / "set")
    written.idx(home / "set" / "t10k-images-idx3-ubyte", X[:5, :4])
    return home / "set"


def labels_alone(home):
    return written.idx(home / "train-labels-idx1-ubyte", Y)


IDX = [
    ("empty", idx(b""), "is not an idx file: it begins with nothing"),
    ("text", idx(b"no numbers"), "is not an idx file: it begins with 6e 6f"),
    ("the wrong magic", idx(header(12, 6, 5, magic=b"\0\1")), "is not an idx file.*00 01 08 03"),
    ("no dimensions", idx(header()), "is not an idx file"),
    ("an unknown type", idx(header(12, 6, 5, code=7)), "numbers must be one of 08, .*got 07"),
    ("a torn header", idx(header(12, 6, rank=3)), "ends within its header of 3 dimensions"),
    ("cut short", idx(WHOLE[:-1]), "is cut short: 360 bytes"),
    ("cut within", idx(WHOLE[:370]), "is cut short: 360 bytes"),
    ("too long", idx(WHOLE + b"\0"), "goes on after its end"),
    ("a negative dimension", idx(header(2**32 - 1, 6, 5)), "claims to hold .4294967295, 6, 5."),
    ("a huge dimension", idx(header(60_000, 2**20, 2**20)), "claims.*file of 16 bytes cannot"),
    ("255 dimensions", idx(header(*[255] * 255)), "claims to hold"),
    ("a dimension of zero", idx(header(0, 6, 5)), "holds no examples"),
    ("a torn gz", idx(PACKED[:-20]), "is damaged"),
    ("a gz torn in its header", idx(PACKED[:5]), "is damaged"),
    ("an altered gz", idx(ALTERED), "is damaged"),
    ("a gz of text", idx(gzip.compress(b"text")), "is not an idx file"),
    ("a gz too short", idx(gzip.compress(WHOLE[:-5])), "is cut short"),
    ("a gz too long", idx(gzip.compress(WHOLE + b"\0")), "goes on after its end"),
    ("a huge claim in a gz", idx(gzip.compress(header(2**31, 6, 5))), "claims to hold"),
    ("floats beyond", idx(header(2, 2, code=0x0D) + bytes([0x40, 0, 0, 0] * 4)), r"\[-1, 1\]"),
    ("whole numbers", idx(header(2, 2, code=0x0B) + bytes(8)), "state value_range"),
    ("labels alone", labels_alone, "holds 12 single numbers: name the file of images"),
    ("labels of another set", labels_of_another_set, "a label for each of the 12 .*got shape .11."),
    ("labels for one part", labels_for_one_part, "t10k-images-idx3-ubyte has no labels"),
    ("two sets", two_sets, "one file of images.*digits-train.*letters-train"),
    ("parts that differ", parts_that_differ, "must be alike.*6, 5, 1.*4, 5, 1"),
]


def cifar(size, name="data_batch_1.bin"):
    return idx(bytes(size), name)


def cifar_torn(home):
    written.cifar(home / "test.bin", CIFAR, [1, 2, 3], [4, 5, 6])
    (home / "train.bin").write_bytes(bytes(3074 * 2 - 1))
    return home


def cifar_label(home):
    return written.cifar(home / "x.bin", CIFAR, [1, 10, 2])


def cifar_python_version(home):
    (home / "batches.bin").write_bytes(b"pickle")
    return home


BINARY = [
    ("of a wrong length", cifar(3073 * 2 + 1), "records of 3073 .* or 3074 .*got 6147 bytes"),
    ("empty", cifar(0), "got 0 bytes"),
    ("a part of a wrong length", cifar_torn, r"train\.bin must hold records of 3074"),
    ("a label of 10", cifar_label, "labels of CIFAR-10 must be below .10., got .10."),
]


def npy(x):
    def write(home):
        np.save(home / "x.npy", x, allow_pickle=True)
        return home / "x.npy"

    return write


def npy_torn(home):
    path = npy(X)(home)
    path.write_bytes(path.read_bytes()[:-9])
    return path


def npy_huge(home):
    path = npy(X)(home)
    path.write_bytes(path.read_bytes().replace(b"(12, 6, 5)", b"(9999999999, 6, 5)"))
    return path


NPY = [
    ("objects, which need pickle", npy(np.array([{}, None])), "cannot be read as an .npy file"),
    ("text", idx(b"text", "x.npy"), "cannot be read as an .npy file"),
    ("empty", idx(b"", "x.npy"), "cannot be read as an .npy file"),
    ("torn", npy_torn, "cannot be read as an .npy file"),
    ("a huge claim", npy_huge, "cannot be read as an .npy file"),
    ("out of range", npy(np.full((4, 3), 1.5)), r"x.npy: x must lie in \[-1, 1\]"),
    ("NaN", npy(np.full((4, 3), np.nan)), "12 NaN"),
    ("rank 1", npy(np.zeros(4)), r"got \[4\]"),
    ("no rows", npy(np.zeros((0, 3))), r"must not be empty|cannot be read"),
    ("text within", npy(np.full((4, 3), "ink")), "real numbers"),
]


def folder(*names, **contents):
    """A folder of sound pictures, and files of other content."""

    def write(home):
        written.pictures(home, names)
        for name, content in contents.items():
            (home / f"{name}.png").write_bytes(content)
        return home

    return write


def bomb():
    """A PNG of a few bytes that claims 60,000 x 60,000 pixels."""

    def chunk(kind, content):
        crc = struct.pack(">I", zlib.crc32(kind + content))
        return struct.pack(">I", len(content)) + kind + content + crc

    size = struct.pack(">IIBBBBB", 60_000, 60_000, 8, 0, 0, 0, 0)
    pixels = zlib.compress(bytes(60_001))
    return (
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", size) + chunk(b"IDAT", pixels) + chunk(b"IEND", b"")
    )


def of_two_sizes(home):
    written.pictures(home, ["a.png", "b.png"])
    written.picture(home / "c.png", written.random_bytes(5, 6, 3))
    return home


def floats(home):
    return written.picture(home / "a.tif", np.zeros((3, 3), np.float32)).parent


def empty_part(home):
    written.pictures(home, ["train/1.png"])
    (home / "test").mkdir()
    return home


def only_links(home):
    (home / "a.png").symlink_to(home / "a.png")
    (home / "again").symlink_to(home, target_is_directory=True)
    return home


FOLDERS = [
    ("empty", folder(), "holds no pictures .*png"),
    ("all damaged", folder(a=b"x", b=b"y"), "holds no pictures.*2 of 2 .*a.png.*b.png"),
    ("empty files", folder(a=b""), "a.png is not a picture"),
    ("a bomb", folder(a=bomb()), "a.png cannot be read.*3600000000 pixels"),
    ("of two sizes", of_two_sizes, r"unless size is given.*a\.png of 6 x 5.*c\.png of 5 x 6"),
    ("floats", floats, "floats, whose range is not known"),
    ("circles of links", only_links, "holds no pictures.*a.png cannot be read"),
    ("beside classes", folder("a/1.png", "2.png"), r"2\.png beside the folder a"),
    ("three parts", folder("train/1.png", "val/2.png", "test/3.png"), "got folders test, train"),
    ("an empty part", empty_part, "test holds no pictures"),
]


@pytest.mark.parametrize(
    ("write", "says"),
    [case[1:] for case in IDX + BINARY + NPY + FOLDERS],
    ids=[
        f"{kind}: {case[0]}"
        for kind, cases in [("idx", IDX), ("cifar", BINARY), ("npy", NPY), ("folder", FOLDERS)]
        for case in cases
    ],
)
def test_bad_files(tmp_path, write, says):
    path = write(tmp_path)
    Image.init()  # readers of pictures are loaded when first needed, which is not for the data
    tracemalloc.start()
    with pytest.raises(ValueError, match=says):
        data.load(path)
    _, most = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert most < 2**22  # nothing large was made room for


def test_packed_zeros_stop_at_what_the_header_says(tmp_path):
    """A gz of 64 MiB of zeros in 64 KiB, whose header claims 300 bytes."""
    content = gzip.compress(header(10, 6, 5) + bytes(2**26))
    tracemalloc.start()
    with pytest.raises(ValueError, match="goes on after its end"):
        data.load(idx(content)(tmp_path))
    assert tracemalloc.get_traced_memory()[1] < 2**22
    tracemalloc.stop()


def test_one_damaged_picture_is_left_out_or_an_error(tmp_path):
    path = folder("a.png", "b.png", c=b"damaged")(tmp_path)
    with pytest.warns(
        UserWarning, match=r"1 of 3 pictures cannot be read: .*c\.png is not a picture"
    ):
        assert len(data.load(path)) == 2
    with pytest.raises(ValueError, match=r"1 of 3 pictures cannot be read: .*c\.png"):
        data.load(path, strict=True)


def test_a_long_list_is_cut(tmp_path):
    path = folder("z.png", **{f"b{i}": b"x" for i in range(8)})(tmp_path)
    with pytest.warns(UserWarning, match=r"8 of 9 .*b0\.png.*b4\.png.*; and 3 more$"):
        data.load(path)


def test_options_that_a_source_does_not_have(tmp_path):
    written.mnist(tmp_path / "set")
    written.pictures(tmp_path / "pictures", ["a.png"])
    written.cifar(tmp_path / "x.bin", CIFAR, [1, 2, 3])
    for source, options, says in [
        ("digits", {"size": 16}, "size is for a folder of pictures; got size=16 with digits"),
        (tmp_path / "set", {"size": 0}, "size is for a folder"),
        (tmp_path / "set", {"strict": True}, "strict is for a folder"),
        (tmp_path / "set", {"coarse": True}, "coarse is for .*CIFAR"),
        (tmp_path / "pictures", {"size": 0}, "size must be >= 1, got 0"),
        (tmp_path / "pictures", {"size": -4}, "size must be >= 1, got -4"),
        (tmp_path / "pictures", {"value_range": (0, 1)}, "value_range is for"),
        (tmp_path / "x.bin", {"coarse": True}, "coarse is for CIFAR-100, .*CIFAR-10"),
    ]:
        with pytest.raises(ValueError, match=says):
            data.load(source, **options)


@pytest.mark.parametrize("name", ["x.npz", "x.npy", "x-idx3-ubyte.gz", "x.bin", "no/folder"])
def test_what_is_not_there(tmp_path, name):
    for read in (data.load, data.example_shape):
        if read is data.example_shape and name == "x.bin":
            continue  # CIFAR's shape is known
        with pytest.raises(FileNotFoundError, match="there is no data file"):
            read(tmp_path / name)


def test_a_file_of_a_set_that_is_missing(tmp_path):
    written.cifar(tmp_path / "test_batch.bin", CIFAR, [1, 2, 3])
    with pytest.raises(FileNotFoundError, match=r"data_batch_1\.bin"):
        data.load(tmp_path)
    (tmp_path / "test_batch.bin").rename(tmp_path / "other.bin")
    with pytest.raises(FileNotFoundError, match=r"no test_batch\.bin \(CIFAR-10\)"):
        data.load(tmp_path)


def test_directories_where_files_are_due_and_the_other_way(tmp_path):
    for name in ("a.npz", "a.npy"):
        (tmp_path / name).mkdir()
        with pytest.raises(FileNotFoundError, match=f"no data file.*{name}"):
            data.load(tmp_path / name)
    path = written.picture(tmp_path / "a.png", X[0])
    with pytest.raises(ValueError, match=r"unknown data .*a\.png.*a folder of pictures"):
        data.load(path)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
@pytest.mark.parametrize("name", ["x.npz", "x.npy", "x-idx3-ubyte.gz", "x.bin"])
def test_files_that_may_not_be_read(tmp_path, name):
    (tmp_path / name).write_bytes(bytes(3073))
    (tmp_path / name).chmod(0)
    with pytest.raises(PermissionError, match=name):
        data.load(tmp_path / name)
