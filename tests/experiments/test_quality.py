"""The two experiments on a trained run, in their smallest form: what they print is what they draw.

Truth: a distance of the training half itself is the floor that the table names.
"""

import csv
import importlib.util
import pathlib

import numpy as np
import pytest

from jaxdiff import metrics
from jaxdiff.cli import main, runs
from jaxdiff.config import build
from jaxdiff.config.grid_file import read_grid
from tests.cli.commands import SMALL

FOLDER = pathlib.Path(__file__).parents[2] / "experiments"


def load(name):
    spec = importlib.util.spec_from_file_location(name, FOLDER / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    rng = np.random.default_rng(0)
    path = tmp_path_factory.mktemp("data") / "points.npz"
    np.savez(path, x=np.clip(0.3 * rng.normal(size=(200, 2)), -1, 1).astype(np.float32))
    out = path.parent / "run"
    assert main(["train", str(path), "--out", str(out), "--steps", "40", *SMALL]) == 0
    return out


@pytest.mark.slow
def test_grids_are_learned_judged_and_written(run, tmp_path, capsys):
    load("learn_grid").main(run, steps=(3,), iterations=3, n=64, seeds=2, out=tmp_path)
    said = capsys.readouterr().out
    assert "learned from" in said
    assert len(read_grid(tmp_path / "grid3.json").t) == 3
    quality = load("sampler_quality")
    quality.main(
        run,
        calls=(3,),
        samplers=("ddim", "heun"),
        learned=(tmp_path / "grid3.json",),
        n=100,
        seeds=2,
        out=tmp_path / "q.png",
        csv_out=tmp_path / "q.csv",
    )
    rows = list(csv.DictReader((tmp_path / "q.csv").open()))
    assert [row["name"] for row in rows] == ["ddim", "heun", "dpmpp_2m, learned"]
    assert all(float(row["distance"]) > 0 for row in rows)
    part = runs.open_run(run).config.data
    train, heldout = (build.load_data(part, name).images() for name in ("train", "heldout"))
    floor = metrics.frechet_distance(train, heldout)
    said = capsys.readouterr().out
    assert f"real data: {floor:.3f}" in " ".join(said.split()), said
    assert (tmp_path / "q.png").stat().st_size > 1000
