"""Learning a grid from the command line, and sampling with it."""

import json
import os
import signal

import numpy as np
import pytest

from jaxdiff.cli import main
from jaxdiff.samplers.base import _run
from jaxdiff.training import progress
from tests.cli.commands import complaint, draw


@pytest.fixture(scope="module")
def learned(run, tmp_path_factory):
    path = tmp_path_factory.mktemp("grids") / "grid.json"
    options = ["--steps", "3", "--iterations", "4", "--batch", "8", "--batches", "2"]
    assert main(["learn-grid", str(run), "--out", str(path), *options]) == 0
    return path


def test_writes_times_that_sample_visits(run, learned, tmp_path):
    """The file is JSON, times fall from the schedule's end, and no file is left beside it; samples
    differ from those of three even steps, and the sampler of the file is used."""
    file = json.loads(learned.read_text())
    assert file["sampler"] == "dpmpp_2m"
    assert file["t"][0] == 1.0
    assert len(file["t"]) == 3
    assert np.all(np.diff(file["t"]) < 0)
    assert [p.name for p in learned.parent.iterdir()] == ["grid.json"]
    by_file = draw(run, tmp_path / "a.npz", "--grid", str(learned), steps=None)["x"]
    even = draw(run, tmp_path / "b.npz", "--sampler", "dpmpp_2m", steps=3)["x"]
    assert np.isfinite(by_file).all()
    assert not np.array_equal(by_file, even)
    again = draw(run, tmp_path / "c.npz", "--grid", str(learned), "--sampler", "dpmpp_2m", steps=3)
    np.testing.assert_array_equal(again["x"], by_file)


@pytest.mark.slow
def test_learns_numbers_against_the_data(run, tmp_path):
    """eta and guidance come out of their ranges' inside, are written, and are what sample uses."""
    path, options = tmp_path / "grid.json", ["--steps", "3", "--iterations", "3", "--batch", "8"]
    options += ["--sampler", "ddim", "--against", "data", "--learn", "eta", "guidance"]
    assert main(["learn-grid", str(run), "--out", str(path), "--guidance", "1.5", *options]) == 0
    file = json.loads(path.read_text())
    assert 0 < file["eta"] < 1
    assert 0 < file["guidance"] < 10
    x = draw(run, tmp_path / "a.npz", "--grid", str(path), steps=None)["x"]
    flags = ["--grid", str(path), "--eta", str(file["eta"]), "--guidance", str(file["guidance"])]
    np.testing.assert_array_equal(draw(run, tmp_path / "b.npz", *flags, steps=None)["x"], x)
    other = draw(run, tmp_path / "c.npz", *flags[:2], "--guidance", "0", steps=None)["x"]
    assert not np.array_equal(other, x)


MISTAKES = {
    "one step": (["--steps", "1"], "--steps must be at least 2, got 1"),
    "no json": (["--steps", "3", "--out", "grid.npz"], "--out must end in .json, got grid.npz"),
    "no iterations": (["--steps", "3", "--iterations", "0"], "--iterations must be at least 1"),
    "eta by reference": (["--steps", "3", "--learn", "eta"], "--learn needs --against data"),
    "eta of none": (
        ["--steps", "3", "--against", "data", "--learn", "eta", "--sampler", "dpmpp_2m"],
        "dpmpp_2m takes",
    ),
    "noise against a reference": (
        ["--steps", "3", "--sampler", "ddpm"],
        "--against reference is for deterministic samplers, ddpm draws noise",
    ),
    "what sample refuses": (["--steps", "3", "--sampler", "heun"], "cannot begin at alpha = 0"),
    "seed": (["--steps", "3", "--seed", str(2**70)], "--seed must lie in"),
    "eta out of range": (
        ["--steps", "3", "--against", "data", "--learn", "eta", "--eta", "2", "--sampler", "ddim"],
        "--eta to learn from must lie in [0, 1], got 2",
    ),
    "guidance of none": (
        ["--steps", "3", "--against", "data", "--learn", "guidance"],
        "--learn guidance needs --guidance",
    ),
}


@pytest.mark.parametrize("case", MISTAKES)
def test_mistakes(case, run, tmp_path, capsys):
    options, words = MISTAKES[case]
    out = [] if "--out" in options else ["--out", str(tmp_path / "g.json")]
    before = _run._cache_size()
    assert words in complaint(["learn-grid", str(run), *out, *options], capsys)
    assert _run._cache_size() == before


def test_files_that_do_not_fit(run, learned, tmp_path, capsys):
    """Another schedule, another number of steps, no such file, and no such JSON."""
    file = json.loads(learned.read_text())
    bad = tmp_path / "bad.json"
    command = ["sample", str(run), "--out", str(tmp_path / "x.npz"), "--grid"]
    bad.write_text(json.dumps({**file, "schedule": {"name": "edm"}}))
    assert "learned on the schedule {'name': 'edm'}" in complaint([*command, str(bad)], capsys)
    assert "holds 3 steps" in complaint([*command, str(learned), "--steps", "4"], capsys)
    assert "none.json" in complaint([*command, str(tmp_path / "none.json")], capsys)
    wrong = [{"t": [0.5, 1.0]}, {"t": ["0.9", "0.5"]}, {"t": [True, 0.5]}, {"t": "987"}, {"t": []}]
    wrong += [{"t": [10**400, 1]}, {"eta": 10**400}, {"guidance": "2"}, {"t": [1.0, float("nan")]}]
    wrong += [{"t": [1.5, 0.5]}, {"sampler": 3}, {"more": 1}]
    texts = ["{", "[]", '{"t": 1}', *(json.dumps({**file, **part}) for part in wrong)]
    for text in texts:
        bad.write_text(text)
        assert "bad.json" in complaint([*command, str(bad)], capsys), text


@pytest.mark.slow
def test_ctrl_c_writes_what_is_learned(run, tmp_path, capsys, monkeypatch):
    """The first signal ends the loop after its iteration; the file is whole, the status 130."""
    path = tmp_path / "grid.json"
    options = ["--steps", "3", "--batch", "8", "--batches", "1", "--iterations", "100000"]
    seen = progress.Bar.update

    def update(bar, step, *more):
        seen(bar, step, *more)
        if step == 2:
            os.kill(os.getpid(), signal.SIGINT)

    monkeypatch.setattr(progress.Bar, "update", update)
    assert main(["learn-grid", str(run), "--out", str(path), *options]) == 130
    assert "SIGINT" in capsys.readouterr().err
    assert len(json.loads(path.read_text())["t"]) == 3
