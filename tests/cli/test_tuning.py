"""Tuning a trained run to other data, from the command line.

Truth: the averaged parameters of the first run, and samples, compared bit for bit.
"""

import json
import shutil
from pathlib import Path

import jax
import numpy as np
import pytest

from jaxdiff import config as configs
from jaxdiff.cli import main, runs
from jaxdiff.config import build
from tests.cli.commands import complaint, draw

QUICK = ["--training.log-every", "5", "--training.devices", "1"]


@pytest.fixture(scope="module")
def mirrored(points, tmp_path_factory):
    """The clusters, upside down."""
    with np.load(points) as file:
        x, y = file["x"], file["y"]
    path = tmp_path_factory.mktemp("data") / "mirrored.npz"
    np.savez(path, x=(-x).astype(np.float32), y=y)
    return path


@pytest.fixture(scope="module")
def tuned(run, mirrored, tmp_path_factory):
    """A ladder on the averages of the run, 5 steps."""
    out = tmp_path_factory.mktemp("tuned") / "lst"
    command = ["train", str(mirrored), "--from", str(run), "--method", "lst", "--out", str(out)]
    assert main([*command, "--steps", "5", *QUICK]) == 0
    return out


def same(a, b):
    jax.tree.map(np.testing.assert_array_equal, a, b)


def averages(path):
    opened = runs.open_run(Path(path))
    return build.averaged(opened.config, opened.restore())["params"]


def moments(path):
    leaves = jax.tree.leaves(runs.open_run(Path(path)).restore().opt_state)
    return sum(leaf.size for leaf in leaves if np.issubdtype(leaf.dtype, np.floating))


def test_a_ladder_is_trained_beside_the_run_as_it_is(run, tuned, mirrored):
    config, before = (runs.read_config(Path(path))[0] for path in (tuned, run))
    assert (config.tuning.method, config.tuning.classes) == ("lst", 2)
    assert (config.begins, config.data.source) == (str(run), str(mirrored))
    assert (config.model, config.schedule, config.loss) == (
        before.model,
        before.schedule,
        before.loss,
    )
    assert configs.from_json(json.loads(json.dumps(configs.to_json(config)))) == config
    assert "tuning" not in configs.to_json(before)
    params = runs.open_run(tuned).restore().params["params"]
    same(params["backbone"], averages(run))
    same(averages(tuned)["backbone"], averages(run))
    assert np.abs(params["ladder"]["side"]["out"]["kernel"]).max() > 0
    assert moments(tuned) == 2 * build.count_parameters(params["ladder"])


def test_a_tuned_run_is_sampled_as_any_run(tuned, tmp_path):
    assert draw(tuned, tmp_path / "a.npz", "--n", "4")["x"].shape == (4, 2)


@pytest.mark.slow
def test_what_is_not_trained_yet_draws_what_its_run_draws(run, mirrored, tmp_path):
    """With a learning rate of 0 a ladder, adapters and LoRA leave the network as it is."""
    wanted = draw(run, tmp_path / "a.npz", "--n", "4")["x"]
    for method, *more in (
        ("lst",),
        ("adapter", "--tuning.width", "2"),
        ("lora", "--tuning.layers", "*/in"),
    ):
        out = tmp_path / method
        command = ["train", str(mirrored), "--from", str(run), "--method", method, *more]
        command += ["--out", str(out), "--steps", "1", "--optimizer.lr", "0", *QUICK]
        assert main(command) == 0
        # two programs of one network round otherwise
        drawn = draw(out, tmp_path / f"{method}.npz", "--n", "4")["x"]
        np.testing.assert_allclose(drawn, wanted, atol=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("method", ["lst", "bitfit"])
def test_it_is_resumed_bit_for_bit(method, run, mirrored, tmp_path, capsys):
    def command(out, steps):
        return ["train", str(mirrored), "--out", str(out), "--steps", steps, *QUICK, *constant]

    constant = ["--optimizer.decay", "constant"]
    first, second = tmp_path / "first", tmp_path / "second"
    begin = ["--from", str(run), "--method", method]
    assert main([*command(first, "8"), *begin]) == 0
    assert main([*command(second, "4"), *begin]) == 0
    assert main([*command(second, "8"), "--resume"]) == 0
    one, two = (runs.open_run(path).restore() for path in (first, second))
    same(one.params, two.params)
    same(one.ema, two.ema)
    said = complaint([*command(second, "9"), "--resume", "--method", "full"], capsys)
    assert f"--method full: the run was begun with {method}" in said


@pytest.mark.slow
@pytest.mark.parametrize("method", ["full", "head", "bitfit"])
def test_parts_of_the_network_itself_are_trained(method, run, mirrored, tmp_path):
    out = tmp_path / "run"
    command = ["train", str(mirrored), "--from", str(run), "--method", method, "--out", str(out)]
    assert main([*command, "--steps", "5", *QUICK]) == 0
    old, new = averages(run), averages(out)["backbone"]
    moved = jax.tree.map(lambda a, b: not np.array_equal(a, b), old, new)
    assert all(jax.tree.leaves(moved["out"]))
    assert moved["block_0"]["in"]["bias"] == (method != "head")
    assert moved["block_0"]["in"]["kernel"] == (method == "full")


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--method", "lst"], "--method lst tunes a network: give --from RUN"),
        (["--method", "side", "--from", "{run}"], "--method must be one of lst, full, lora"),
        (["--method", "lst", "--from", "{tmp}"], "is not a run directory"),
        (["--method", "lst", "--from", "{tuned}"], "is tuned already: begin from {run}"),
        (["--preset", "npr", "--from", "{tuned}"], "is tuned already: begin from {run}"),
        (
            ["--method", "lst", "--from", "{run}", "--preset", "mlp"],
            "--method lst takes the recipe of --from, got --preset mlp",
        ),
        (
            ["--method", "lst", "--from", "{run}", "--tuning.ratio", "3"],
            "ratio must divide width of the network, 16, got 3",
        ),
        (
            ["--method", "lora", "--from", "{run}"],
            "layers must name some of",
        ),
        (
            ["--method", "head", "--from", "{run}", "--tuning.head", "last"],
            "trained must name some of",
        ),
        (
            ["--method", "lst", "--from", "{run}", "--model.width", "32"],
            "keeps the network of its run, got model.width 16 -> 32",
        ),
        (
            ["--method", "lst", "--from", "{run}", "--data.no-labels"],
            "is conditioned on 2 classes, {points} has none",
        ),
        (
            ["--method", "lst", "--from", "{run}"],
            "the network of {run} is for examples [2], those of {wide} are [3]: the run is of",
        ),
        (["--preset", "mlp", "--tuning.rank", "3"], "--tuning.* are of a trained network"),
    ],
)
def test_what_cannot_be_tuned_is_refused(arguments, words, run, tuned, points, tmp_path, capsys):
    names = {"run": run, "tmp": tmp_path, "tuned": tuned, "points": points}
    names["wide"] = tmp_path / "wide.npz"
    with np.load(points) as file:
        np.savez(names["wide"], x=np.pad(file["x"], [(0, 0), (0, 1)]), y=file["y"])
    data = names["wide" if "{wide}" in words else "points"]
    command = ["train", data, *(a.format(**names) for a in arguments)]
    said = complaint([*command, "--out", tmp_path / "new", "--training.devices", "1"], capsys)
    assert words.format(**names) in " ".join(said.split())
    assert not (tmp_path / "new").exists()


def test_a_run_with_heads_is_not_tuned(run, points, tmp_path, capsys):
    heads = tmp_path / "heads"
    shutil.copytree(run, heads)
    path = heads / "config.json"
    path.write_text(path.read_text().replace('"heads": []', '"heads": ["npr"]'))
    said = complaint(["train", points, "--method", "lst", "--from", heads], capsys)
    assert "has heads for the variance: tune the run below" in said
