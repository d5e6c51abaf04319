"""A second stage of training: heads on a trained run, from the command line.

Truth: the averaged parameters of the first run, compared bit for bit.
"""

import shutil
from pathlib import Path

import jax
import numpy as np
import pytest

from jaxdiff.cli import main, runs
from jaxdiff.config import build
from tests.cli.commands import SMALL, complaint, draw

QUICK = ["--training.log-every", "5", "--training.devices", "1"]
CHAIN = ["--schedule.name", "linear_betas", "--schedule.options", "num_steps", "30"]
CHAIN += ["--parametrization.name", "eps"]


@pytest.fixture(scope="module")
def staged(run, points, tmp_path_factory):
    """Heads of NPR, 5 steps, on the averages of the run."""
    out = tmp_path_factory.mktemp("staged") / "npr"
    command = ["train", str(points), "--preset", "npr", "--from", str(run), "--out", str(out)]
    assert main([*command, "--steps", "5", *QUICK]) == 0
    return out


def same(a, b):
    jax.tree.map(np.testing.assert_array_equal, a, b)


def averages(path):
    opened = runs.open_run(Path(path))
    return build.averaged(opened.config, opened.restore())["params"]


def test_a_stage_trains_heads_on_the_run_as_it_is(run, staged):
    config = runs.read_config(staged)[0]
    assert (config.preset, config.begins) == ("npr", str(run))
    assert config.variance.heads == ("npr",)
    assert config.optimizer.lr == 1e-4
    assert config.model == runs.read_config(run)[0].model
    state = runs.open_run(staged).restore()
    same(state.params["params"]["backbone"], averages(run))
    same(averages(staged)["backbone"], averages(run))
    assert np.abs(state.params["params"]["heads"]["residual2"]["out"]["kernel"]).max() > 0


@pytest.mark.slow
def test_a_stage_is_sampled_as_any_run(run, staged, tmp_path):
    """By DDIM, which takes no variance: the samples are those of the first run."""
    ours = draw(staged, tmp_path / "a.npz", "--n", "4")["x"]
    # two programs of one network round otherwise
    np.testing.assert_allclose(ours, draw(run, tmp_path / "b.npz", "--n", "4")["x"], atol=1e-5)


@pytest.mark.slow
def test_the_end_of_a_stage_says_how_its_head_is_used(staged, points, tmp_path, capsys):
    out = tmp_path / "npr"
    shutil.copytree(staged, out)
    assert main(["train", str(points), "--out", str(out), "--resume", "--steps", "6", *QUICK]) == 0
    assert f"jaxdiff sample {out} --sampler ddpm --variance npr --out" in capsys.readouterr().err


@pytest.mark.slow
def test_a_stage_is_resumed_with_its_run_or_without(run, staged, points, tmp_path, capsys):
    out = tmp_path / "npr"
    shutil.copytree(staged, out)
    resume = ["train", str(points), "--out", str(out), "--resume", *QUICK]
    assert main([*resume, "--steps", "7"]) == 0
    assert main([*resume, "--steps", "9", "--preset", "npr", "--from", str(run)]) == 0
    state = runs.open_run(out).restore()
    assert int(state.step) == 9
    same(state.params["params"]["backbone"], averages(run))
    said = complaint([*resume, "--from", tmp_path, "--steps", "11"], capsys)
    assert f"the run was begun from {run}" in said


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--preset", "sn"], "--preset sn is a second stage: give --from RUN"),
        (["--from", "{run}"], "--from {run} goes with --preset npr or sn, or with --method, got"),
        (["--from", "{run}", "--preset", "mlp"], "or with --method, got --preset mlp"),
        (["--from", "{tmp}", "--preset", "sn"], "is not a run directory"),
        (
            ["--from", "{run}", "--preset", "sn", "--model.width", "32"],
            "keeps the network of its run, got model.width 16 -> 32",
        ),
        (
            ["--from", "{run}", "--preset", "sn", "--data.no-labels"],
            "the run is of another network",
        ),
        (
            ["--from", "{run}", "--preset", "sn", "--overwrite", "--out", "{run}"],
            "--out must be another directory than --from",
        ),
        (
            ["--preset", "mlp", "--variance.heads", "npr", *SMALL],
            "would be trained on a network that is not",
        ),
        (
            ["--preset", "mlp", "--variance.heads", "learned", *SMALL],
            "trained by the bound of a chain, got the continuous schedule.name cosine",
        ),
    ],
)
def test_what_does_not_go_together_is_refused(arguments, words, run, points, tmp_path, capsys):
    names = {"run": run, "tmp": tmp_path}
    command = ["train", points, *(a.format(**names) for a in arguments)]
    if "--out" not in command:
        command += ["--out", tmp_path / "new"]
    said = complaint([*command, "--training.devices", "1"], capsys)
    assert words.format(**names) in said
    assert not (tmp_path / "new").exists()


@pytest.mark.slow
def test_both_from_the_start_and_a_learned_range(points, tmp_path):
    for i, more in enumerate((["npr", "sn", "--variance.no-frozen"], ["learned"])):
        out = tmp_path / str(i)
        command = ["train", str(points), "--out", str(out), "--steps", "20", *SMALL, *CHAIN]
        assert main([*command, "--variance.heads", *more]) == 0
        draw(out, tmp_path / "a.npz", "--n", "2", "--sampler", "ddpm")
