"""Truth: the pixels of the written picture, scipy's running mean, and the rows that went in."""

import io
import math
import os
import subprocess
import sys

import matplotlib.image
import numpy as np
import pytest
from rich.console import Console
from scipy.ndimage import uniform_filter1d

from jaxdiff import data, metrics, plots
from jaxdiff.likelihood import Estimate
from jaxdiff.plots import lines

X = np.random.default_rng(0).uniform(-1, 1, (5, 8, 8, 1)).astype(np.float32)


def pixels(path):
    """The RGB bytes of a picture, as an independent reader sees them."""
    return np.rint(matplotlib.image.imread(path)[..., :3] * 255).astype(np.uint8)


@pytest.mark.parametrize("channels", [1, 3])
def test_a_grid_shows_every_image_block_by_block(tmp_path, channels):
    x = np.random.default_rng(0).uniform(-1.2, 1.2, (5, 8, 8, channels))
    plots.sample_grid(x, tmp_path / "a.png", columns=3)
    picture = pixels(tmp_path / "a.png")
    assert picture.shape == (2 * 68 + 4, 3 * 68 + 4, 3)  # 8 times 8 pixels, 4 between
    for i, image in enumerate(data.to_uint8(x)):
        top, left = 4 + 68 * (i // 3), 4 + 68 * (i % 3)
        block = np.broadcast_to(np.kron(image, np.ones((8, 8, 1))), (64, 64, 3))
        np.testing.assert_array_equal(picture[top : top + 64, left : left + 64], block)
    assert np.all(picture[72:, 140:] == 255)  # the free place


def test_labels_and_title_leave_the_images_alone(tmp_path):
    plots.sample_grid(X, tmp_path / "a.png", columns=5, labels=[0, 1, 2, 3, 4], title="digits")
    picture = pixels(tmp_path / "a.png")
    assert picture.shape[0] == 4 + 14 + 64 + 4 + 26
    np.testing.assert_array_equal(picture[44:108, 4:68:8, 0][::8], data.to_uint8(X[0, ..., 0]))
    assert picture[:26].min() < 100  # the title is there
    assert np.all(picture[32:42].min(axis=(0, 2)).reshape(-1)[[8, 60]] == 255)
    captions = picture[30:42].min(axis=(0, 2))
    assert all(captions[4 + 68 * i : 68 + 68 * i].min() < 100 for i in range(5))


def test_large_images_are_not_enlarged(tmp_path):
    plots.sample_grid(np.zeros((1, 100, 90, 3)) - 1, tmp_path / "a.png")
    assert pixels(tmp_path / "a.png").shape == (108, 98, 3)


@pytest.mark.parametrize("suffix", ["png", "pdf", "svg"])
def test_the_suffix_is_the_format(tmp_path, suffix):
    heads = {"png": b"\x89PNG", "pdf": b"%PDF", "svg": b"<?xml"}
    plots.scatter({"a": np.eye(2)}, tmp_path / f"a.{suffix}")
    assert (tmp_path / f"a.{suffix}").read_bytes().startswith(heads[suffix])
    assert os.listdir(tmp_path) == [f"a.{suffix}"]  # no file left beside it


def write_log(path, loss):
    rows = "".join(f"{10 * i},{value},0.1\n" for i, value in enumerate(loss))
    path.write_text("step,loss,lr\n" + rows)


def test_a_log_is_read_and_drawn(tmp_path):
    loss = np.exp(-np.arange(200) / 50)
    write_log(tmp_path / "log.csv", loss)
    step, value = plots.read_log(tmp_path / "log.csv", "loss")
    np.testing.assert_array_equal(step, 10 * np.arange(200))
    np.testing.assert_array_equal(value, loss)
    plots.loss_curve(tmp_path / "log.csv", tmp_path / "a.png", title="digits")
    picture = pixels(tmp_path / "a.png")
    assert picture.shape == (400, 700, 3)
    smooth = np.all(picture == [0x1F, 0x4E, 0x8C], axis=-1)
    rows, columns = np.nonzero(smooth[:, 120:500])  # the line, neither its ends nor its legend
    # an exponential is a straight line on a logarithmic axis
    assert np.corrcoef(rows, columns)[0, 1] > 0.999


def test_gaps_and_infinities_in_a_log_are_passed_over(tmp_path):
    write_log(tmp_path / "log.csv", [3, "", "nan", 2, "inf", -1])
    step, value = plots.read_log(tmp_path / "log.csv", "loss")
    np.testing.assert_array_equal(step, [0, 30, 50])
    np.testing.assert_array_equal(value, [3, 2, -1])
    plots.loss_curve(tmp_path / "log.csv", tmp_path / "a.png")  # on a linear axis


@pytest.mark.parametrize("width", [2, 5, 8])
def test_the_smooth_line_is_a_running_mean(width):
    value = np.random.default_rng(0).normal(size=100)
    found = lines.moving_mean(value, width)
    inner = slice(width, -width)
    np.testing.assert_allclose(found[inner], uniform_filter1d(value, width)[inner], atol=1e-14)
    np.testing.assert_allclose(lines.moving_mean(np.ones(9), width), 1)  # no droop at the ends


def test_scatter_puts_points_on_common_axes(tmp_path):
    points = np.random.default_rng(0).normal(size=(500, 2))
    plots.scatter({"data": points, "samples": points}, tmp_path / "a.png", title="twice")
    picture = pixels(tmp_path / "a.png")
    dark = (picture[70:-40, :, 2] > picture[70:-40, :, 0] + 20.0).sum(axis=0)
    left, right = dark[:350].sum(), dark[350:].sum()
    assert left > 1000
    assert right == pytest.approx(left, rel=0.1)  # the same points, up to where pixels fall


def test_the_table_holds_every_number():
    x = np.random.default_rng(0).uniform(-1, 1, (3, 30, 2))
    rows = metrics.evaluate(x[0], x[1], x[2][:25])
    text = plots.metrics_text(rows, title="numbers")
    for row in rows:
        line = next(line for line in text.splitlines() if row.metric in line)
        assert f"{row.value:.4f} ± {row.error:.4f}" in line
        assert f"{row.floor:.4f} ± {row.floor_error:.4f}" in line
    assert "samples: n = 30, real floor: n = 30, both against 25 held-out" in text
    assert plots.metrics_table(rows).row_count == len(rows)


def test_the_table_of_a_likelihood_holds_its_numbers():
    """Beside numpy's: 3 bits a dimension, say, are -3 log 2 nats of each number."""
    x = np.random.default_rng(0).normal(size=(2, 10, 1, 3))
    bound = Estimate({"prior": x[0] - 9, "decoder": x[1]}, 4, False, True)
    sums = {"prior": (3.25, 0.5), "decoder": (-0.125, math.nan)}
    console = Console(file=io.StringIO(), width=80)
    table = plots.likelihood_table(
        bound, sums, draws="noise", unit="bits", title="[a]", caption="b"
    )
    console.print(table)
    text = console.file.getvalue()
    value = x.sum(axis=0) - 9
    error = value.mean(axis=(1, 2)).std(ddof=1) / np.sqrt(10)
    noise = np.sqrt(value.var(axis=2, ddof=1).mean() / 30)
    for unit in (1, -4 * np.log(2)):
        assert f"{value.mean() / unit:.4f}" in text
        assert f"{error / abs(unit):.4f}" in text
        assert f"{noise / abs(unit):.4f}" in text
    lines = {line.split()[3]: line for line in text.splitlines() if "bits/dim of" in line}
    assert "3.2500" in lines["prior"]
    assert "0.5000" in lines["prior"]
    assert "-0.1250" in lines["decoder"]
    assert " - " in lines["decoder"]
    assert "[a]" in text


def test_bars_are_as_long_as_the_terms(tmp_path):
    steps = np.full(20, 0.1)
    ends = {"prior": (1.0, 0.0), "steps": (2.0, 0.0), "decoder": (0.5, 0.0)}
    plots.bound_terms(steps, np.linspace(-5, 5, 20), ends, tmp_path / "a.png", title="digits")
    picture = pixels(tmp_path / "a.png")
    colours = {"prior": "#b9c7d8", "steps": "#1f4e8c", "decoder": "#c44e31"}
    lengths = {}
    for name, colour in colours.items():
        same = np.all(picture[:, 650:] == to_rgb_bytes(colour), axis=-1)
        lengths[name] = np.median([row.sum() for row in same if row.sum() > 20])
    # pixels, of which an error bar's line takes some, at each end one may be mixed
    assert lengths["prior"] / lengths["steps"] == pytest.approx(0.5, abs=0.03)
    assert lengths["decoder"] / lengths["steps"] == pytest.approx(0.25, abs=0.03)
    line = np.all(picture[:, :550] == to_rgb_bytes(colours["steps"]), axis=-1)
    rows = np.nonzero(line)[0]
    assert np.ptp(rows) <= 8  # equal steps are a level line, as thick as its marks


def to_rgb_bytes(colour):
    return [int(colour[i : i + 2], 16) for i in (1, 3, 5)]


def test_a_histogram_counts_examples(tmp_path):
    """Nine examples at one end and a single one at the other: bars of nine to one."""
    values = np.array([1.0] * 9 + [2.0])
    plots.likelihood_histogram(values, tmp_path / "a.png")
    bars = np.all(pixels(tmp_path / "a.png") == to_rgb_bytes("#b9c7d8"), axis=-1).sum(axis=0)
    tall, short = bars[:350].max(), bars[350:].max()
    assert tall / short == pytest.approx(9, rel=0.1)  # rows of pixels
    plots.likelihood_histogram(values, tmp_path / "b.png", interval=(1.0, 1.3), title="digits")
    assert not np.array_equal(pixels(tmp_path / "a.png"), pixels(tmp_path / "b.png"))


def test_terms_that_cannot_be_drawn(tmp_path):
    with pytest.raises(ValueError, match=r"must be \[K - 1\] both, got \[2\] and \[3\]"):
        plots.bound_terms([1, 2], [1, 2, 3], {"prior": (1, 0)}, tmp_path / "a.png")
    with pytest.raises(ValueError, match="at least one term"):
        plots.bound_terms([1], [1], {}, tmp_path / "a.png")
    with pytest.raises(ValueError, match="finite"):
        plots.likelihood_histogram([1, np.nan], tmp_path / "a.png")
    plots.bound_terms([], [], {"decoder": (1.0, math.nan)}, tmp_path / "a.png")  # a single step
    assert os.listdir(tmp_path) == ["a.png"]


def test_a_failed_picture_leaves_the_old_one(tmp_path, monkeypatch):
    path = tmp_path / "a.png"
    plots.sample_grid(X, path)
    before = path.read_bytes()

    def fail(self, file, **kwargs):
        file.write(b"half")
        raise RuntimeError("disk full")

    monkeypatch.setattr("matplotlib.figure.Figure.savefig", fail)
    with pytest.raises(RuntimeError, match="disk full"):
        plots.sample_grid(-X, path)
    assert path.read_bytes() == before
    assert os.listdir(tmp_path) == ["a.png"]


BAD = [
    ("vectors", lambda d: plots.sample_grid(X[:, 0, 0], d / "a.png"), r"x must be \[N, H, W, C\]"),
    ("two channels", lambda d: plots.sample_grid(np.zeros((2, 8, 8, 2)), d / "a.png"), "C of 1"),
    ("no images", lambda d: plots.sample_grid(X[:0], d / "a.png"), "x must not be empty"),
    ("NaN pixels", lambda d: plots.sample_grid(X * np.nan, d / "a.png"), "x must be finite"),
    ("labels", lambda d: plots.sample_grid(X, d / "a.png", labels=[1]), "labels must be 5.*got 1"),
    ("columns", lambda d: plots.sample_grid(X, d / "a.png", columns=0), "columns must be >= 1"),
    ("format", lambda d: plots.sample_grid(X, d / "a.bmp"), r"path must end in one of \.png"),
    ("no column", lambda d: plots.loss_curve(d / "log.csv", d / "a.png", column="mse"), "mse"),
    ("words", lambda d: plots.loss_curve(d / "words.csv", d / "a.png"), "must be numbers"),
    ("an empty log", lambda d: plots.loss_curve(d / "none.csv", d / "a.png"), "finite loss"),
    ("no heading", lambda d: plots.loss_curve(d / "zero.csv", d / "a.png"), "an empty file"),
    ("3-D points", lambda d: plots.scatter({"p": np.ones((4, 3))}, d / "a.png"), r"points\['p'\]"),
    ("no points", lambda d: plots.scatter({}, d / "a.png"), "at least one set"),
    ("no rows", lambda d: plots.metrics_text([]), "rows must hold"),
]


@pytest.mark.parametrize(("call", "says"), [b[1:] for b in BAD], ids=[b[0] for b in BAD])
def test_bad_input(tmp_path, call, says):
    write_log(tmp_path / "log.csv", [3, 2])
    write_log(tmp_path / "words.csv", ["low", "lower"])
    write_log(tmp_path / "none.csv", [])
    (tmp_path / "zero.csv").write_text("")
    with pytest.raises(ValueError, match=says):
        call(tmp_path)
    assert not (tmp_path / "a.png").exists()


def test_missing_log_and_directory(tmp_path):
    with pytest.raises(FileNotFoundError, match="there is no log"):
        plots.loss_curve(tmp_path / "log.csv", tmp_path / "a.png")
    with pytest.raises(FileNotFoundError, match="there is no directory"):
        plots.sample_grid(X, tmp_path / "no" / "a.png")


def test_importing_is_light_and_drawing_opens_no_window(tmp_path):
    program = f"""
import sys
from jaxdiff import data, metrics, plots
heavy = {{"matplotlib", "sklearn", "rich", "orbax", "diffrax"}} & set(sys.modules)
assert not heavy, heavy
plots.scatter({{"a": [[0, 1], [1, 0]]}}, {str(tmp_path / "a.png")!r})
assert "matplotlib.pyplot" not in sys.modules
"""
    subprocess.run([sys.executable, "-c", program], check=True, timeout=120)


def test_curves_show_every_line_and_refuse_what_is_none(tmp_path):
    """Three colours for three lines; what is not positive is left out, not an error."""
    x = [1.0, 10.0, 100.0]
    lines = {"a": (x, [1.0, 0.1, 0.01]), "b": (x, [1.0, 0.5, np.nan], [0.1, 0.1, 0.1])}
    lines["c"] = (x, [0.0, 0.2, 0.3])
    plots.curves(lines, tmp_path / "a.png", xlabel="steps", ylabel="error", floor=0.05)
    picture = pixels(tmp_path / "a.png").reshape(-1, 3)
    for colour in ((31, 119, 180), (255, 127, 14), (44, 160, 44)):  # matplotlib's first three
        assert np.sum(np.all(picture == colour, axis=1)) > 50
    with pytest.raises(ValueError, match="at least one line"):
        plots.curves({}, tmp_path / "b.png", xlabel="x", ylabel="y")
    with pytest.raises(ValueError, match=r"lines\['a'\].*\(3,\), \(2,\)"):
        plots.curves({"a": (x, [1.0, 2.0])}, tmp_path / "b.png", xlabel="x", ylabel="y")


def test_moments_leave_out_what_cannot_be_shown(tmp_path):
    """Infinite log SNR, negative variances and unknown errors are gaps, not failures; by pixels."""
    log_snr = np.array([-np.inf, -5.0, 0.0, 5.0])
    eps = np.array([1.0, 1.1, 0.6, 0.1]), np.full(4, np.nan)
    covs = {"eps": (np.array([np.inf, -3.0, 0.4, 0.01]), np.array([np.inf, 2.0, 0.3, 0.02]))}
    plots.moment_curves(log_snr, eps, covs, tmp_path / "a.png", title="moments")
    drawn = pixels(tmp_path / "a.png")
    assert drawn.shape == (400, 1000, 3)
    blue = np.all(np.abs(drawn.astype(int) - [31, 119, 180]) < 40, axis=2)  # tab10's first
    assert blue[:, :500].any()
    assert blue[:, 500:].any()


def test_moments_of_another_shape_are_refused(tmp_path):
    two, three = (np.ones(2),) * 2, (np.ones(3),) * 2
    with pytest.raises(ValueError, match=r"x0 must be \[N\] as log_snr \[3\], got .*\[2\]"):
        plots.moment_curves(np.arange(3), three, {"x0": two}, tmp_path / "a.png")
    with pytest.raises(ValueError, match=r"eps must be \[N\]"):
        plots.moment_curves(np.arange(3), two, {"x0": three}, tmp_path / "a.png")
    with pytest.raises(ValueError, match="covs must hold at least one"):
        plots.moment_curves(np.arange(3), three, {}, tmp_path / "a.png")


def test_parallel_coordinates(tmp_path):
    """Of a study with one member that failed, words, a constant, and powers of ten."""
    columns = {"lr": [1e-4, 1e-2, 1e-3], "name": ["a", "b", "a"], "same": [2.0] * 3, "n": [1, 2, 3]}
    columns["options"] = [{"gamma": 1.0}, {}, [1, 2]]
    score = [0.5, float("nan"), 0.1]
    plots.parallel_coordinates(columns, score, tmp_path / "p.png", name="loss")
    drawn = pixels(tmp_path / "p.png").reshape(-1, 3)
    assert np.sum(np.all(np.abs(drawn.astype(int) - [192, 57, 43]) < 10, axis=1)) > 200  # the best
    for bad, words in (({"lr": [1.0]}, "a value for each member"), ({}, "finite for at least")):
        wrong = score if bad else [float("nan")]
        with pytest.raises(ValueError, match=words):
            plots.parallel_coordinates(bad, wrong, tmp_path / "q.png")
    assert not (tmp_path / "q.png").exists()
