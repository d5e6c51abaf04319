"""`jaxdiff probe`. Truth: files that were written are read again; the theorem's constant."""

import csv

import matplotlib.image
import pytest

from jaxdiff.cli import main
from tests.cli.commands import complaint

QUICK = ["--steps", "3", "--seeds", "2", "--n", "8"]


@pytest.mark.slow
def test_a_table_its_file_and_pictures(tmp_path, capsys):
    out = tmp_path / "new" / "folder"
    methods = ["--methods", "urpe"]
    status = main(
        ["probe", "positions", *methods, "--tasks", "regression", *QUICK, "--out", str(out)]
    )
    assert status == 0
    shown = capsys.readouterr().out
    assert "yes: the factor" in shown
    assert "0.082031" in shown  # 63 / 768
    with (out / "probe.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [(r["method"], r["seed"]) for r in rows] == [("urpe", "0"), ("urpe", "1")]
    assert all(float(row["constant_loss"]) == 63 / 768 for row in rows)
    pictures = sorted(path.name for path in out.glob("*.png"))
    assert pictures == ["losses_regression.png", "maps_regression_urpe.png"]
    for name in pictures:
        assert matplotlib.image.imread(out / name).std() > 0


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--methods", "rope"], "got 'rope'"),
        (["--methods", "bias", "bias"], "--methods must be names, each once"),
        (["--tasks", "sorting"], "--tasks must be of regression"),
        (["--steps", "0"], "--steps must be a whole number of at least 1, got 0"),
        (["--seeds", "0"], "--seeds must"),
        (["--n", "1"], "--n must be a whole number of at least 2"),
        (["--lr", "-1"], "--lr must"),
        (["--seed", "-1"], "--seed must"),
    ],
)
def test_mistakes(options, message, capsys):
    assert message in complaint(["probe", "positions", *options], capsys)


def test_out_must_be_a_folder(tmp_path, capsys):
    (tmp_path / "file").write_text("")
    assert "Not a directory" in complaint(
        ["probe", "positions", "--out", tmp_path / "file"], capsys
    )
