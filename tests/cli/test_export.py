"""From a run to a program and back to samples, which are those of `jaxdiff sample` to the bit."""

import numpy as np
import pytest

from jaxdiff.cli import main
from tests.cli.commands import complaint, draw

pytest.importorskip("flatbuffers", reason="needs the extra export")

STEPS = ["--sampler", "dpmpp_2m", "--steps", "4"]


@pytest.fixture(scope="module")
def file(run, tmp_path_factory):
    out = tmp_path_factory.mktemp("exported") / "program.npz"
    assert main(["export", str(run), "--out", str(out), *STEPS]) == 0
    return out


def serve(file, out, *options):
    assert main(["serve-file", str(file), "--out", str(out), *options]) == 0
    return np.load(out)


def test_same_samples_as_the_run(run, file, tmp_path):
    picture = tmp_path / "a.png"
    ours = serve(file, tmp_path / "a.npz", "--n", "9", "--plot", str(picture), "--seed", "3")
    theirs = draw(run, tmp_path / "b.npz", "--n", "9", "--seed", "3", "--guidance", "1", *STEPS)
    for name in ("x", "y"):
        np.testing.assert_array_equal(ours[name], theirs[name])
    assert picture.read_bytes().startswith(b"\x89PNG")
    ours = serve(file, tmp_path / "a.npz", "--n", "5", "--label", "1", "--guidance", "2")
    theirs = draw(run, tmp_path / "b.npz", "--n", "5", "--label", "1", "--guidance", "2", *STEPS)
    np.testing.assert_array_equal(ours["x"], theirs["x"])


def test_fixed_batch_and_weights_beside(run, tmp_path, capsys):
    out = tmp_path / "p.npz"
    options = ["--batch", "4", "--beside", "--no-guided", "--platforms", "cpu"]
    assert main(["export", str(run), "--out", str(out), *STEPS, *options]) == 0
    assert (tmp_path / "p.safetensors").is_file()
    ours = serve(out, tmp_path / "a.npz", "--n", "6")
    theirs = draw(run, tmp_path / "b.npz", "--n", "6", "--chunk", "4", *STEPS)
    np.testing.assert_array_equal(ours["x"], theirs["x"])
    words = complaint(["serve-file", out, "--out", tmp_path / "c.npz", "--guidance", "2"], capsys)
    assert "takes no scale" in words


def test_mistakes(run, file, tmp_path, capsys):
    out = str(tmp_path / "p.npz")
    for options, words in (
        (["--platforms", "cpu,abacus"], "--platforms must be of"),
        (["--steps", "0"], "--steps must be at least 1"),
        (["--grid", "none"], "--grid must be one of"),
        (["--batch", "0"], "--batch must be at least 1"),
    ):
        assert words in complaint(["export", run, "--out", out, *options], capsys)
    for options, words in (
        (["--n", "0"], "--n must be at least 1"),
        (["--label", "7"], "--label must be in 0..1"),
        (["--weights", str(file)], "cannot be read"),
    ):
        assert words in complaint(["serve-file", file, "--out", out, *options], capsys)
    assert "no data file" in complaint(["serve-file", out, "--out", out], capsys)
    assert not list(tmp_path.iterdir())
