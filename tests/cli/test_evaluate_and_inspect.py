"""The tables that `evaluate` and `inspect` print and write."""

import csv
import json

from jaxdiff.cli import main
from tests.cli.commands import complaint, draw


def test_evaluate_prints_and_writes_the_table(run, tmp_path, capsys):
    draw(run, tmp_path / "a.npz", "--n", "60")
    command = ["evaluate", str(run), "--samples", str(tmp_path / "a.npz")]
    for name in ("table.csv", "table.json"):
        assert main([*command, "--out", str(tmp_path / name)]) == 0
    shown = capsys.readouterr().out
    for metric in ("Frechet distance, pixels", "PCA", "MMD", "precision", "recall", "copies"):
        assert metric in shown
    records = json.loads((tmp_path / "table.json").read_text())
    with (tmp_path / "table.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [float(row["value"]) for row in rows] == [record["value"] for record in records]
    assert records[0]["n"] == 60


def test_inspect_shows_the_run(run, tmp_path, capsys):
    assert main(["inspect", str(run), "--plot", str(tmp_path / "loss.png")]) == 0
    assert (tmp_path / "loss.png").read_bytes().startswith(b"\x89PNG")
    shown = capsys.readouterr().out
    for words in ('"width": 16', "conditioning", "total", "grad_norm", "steps: 40 of 40"):
        assert words in shown
    assert "checkpoints: 40" in shown


def test_evaluation_of_too_few_samples(run, tmp_path, capsys):
    draw(run, tmp_path / "a.npz", "--n", "1")
    said = complaint(["evaluate", run, "--samples", tmp_path / "a.npz"], capsys)
    assert "samples must hold at least k + 1 = 4 examples, got 1" in said
