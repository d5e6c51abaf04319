"""The experiment on ladder side-tuning runs as it is told to. Truth: which rows there must be, and
a mean by hand."""

import csv
import importlib.util
import pathlib

import pytest

from tests import small_bert

pytest.importorskip("tokenizers", reason="needs the library tokenizers")
pytest.importorskip("safetensors", reason="needs the library safetensors")

FOLDER = pathlib.Path(__file__).parents[2] / "experiments"


def load(name):
    spec = importlib.util.spec_from_file_location(name, FOLDER / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


ladder = load("ladder_side_tuning")


def read(path):
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


@pytest.mark.slow
def test_in_its_shortest_form(tmp_path, capsys, monkeypatch):
    """Every method in every table, in the picture, and on the terminal."""
    monkeypatch.setenv("COLUMNS", "200")
    data = small_bert.table(tmp_path / "words.tsv", small_bert.sentences(80))
    backbone = str(small_bert.directory(tmp_path))
    ladder.main(data, tmp_path / "out", backbone, ratio=2, quick=True)
    shown = capsys.readouterr().out
    assert all(f"│ {method} " in shown for method in ladder.VARIANTS)
    accuracy, memory = (read(tmp_path / "out" / f"{n}.csv") for n in ("accuracy", "memory"))
    assert [row["method"] for row in accuracy] == list(ladder.VARIANTS)
    assert all(0 <= float(row["accuracy"]) <= 1 for row in accuracy)
    assert len(memory) == 2 * len(ladder.VARIANTS)
    assert (tmp_path / "out" / "tuning.png").stat().st_size > 1000


def test_mean_and_error_by_hand():
    """Of .8 and .9: .85, and a deviation of .0707 over the root of two."""
    rows = [ladder.Accuracy("lst", i, a, 7, 0.0) for i, a in enumerate((0.8, 0.9))]
    mean, error = ladder.mean_of(rows, "lst")
    assert mean == pytest.approx(0.85)
    assert error == pytest.approx(0.05)
