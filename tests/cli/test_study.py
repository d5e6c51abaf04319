"""A study from its space to its best member, which is an ordinary run.

Truth: `jaxdiff train` of the same configuration; the study without an interruption.
"""

import csv
import json
import shutil

import jax
import numpy as np
import pytest

from jaxdiff.cli import cohort, main, runs, study
from jaxdiff.config import members
from jaxdiff.training import digests, interrupt, rundir
from tests.cli.commands import SMALL, complaint, draw

SPACE = """
"optimizer.lr" = { log = [1e-3, 1e-1] }
"training.seed" = [0, 1]
"model.depth" = [1, 2]
"""
OPTIONS = [*SMALL[:2], *SMALL[4:], "--training.save-every", "4", "--training.batch-size", "16"]


@pytest.fixture(scope="module")
def space(tmp_path_factory):
    path = tmp_path_factory.mktemp("space") / "space.toml"
    path.write_text(SPACE)
    return path


def command(points, space, out, *more):
    given = ["--members", "8", "--steps", "12", "--halving", "--factor", "2"]
    return ["study", str(points), "--space", str(space), "--out", str(out), *given, *OPTIONS, *more]


@pytest.fixture(scope="module")
def done(points, space, tmp_path_factory):
    out = tmp_path_factory.mktemp("studies") / "whole"
    assert main(command(points, space, out, "--layout", "each")) == 0
    return out


def table(out):
    with (out / "results.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def test_results(done):
    """8 members, halves after 12 / 8, 12 / 4 and 12 / 2 steps (2, 3, 6), and one to the end."""
    rows = table(done)
    assert [int(row["steps"]) for row in rows] == [12, 6, 3, 3, 2, 2, 2, 2]
    assert sorted(int(row["member"]) for row in rows) == list(range(8))
    decided = json.loads((done / "rungs.json").read_text())
    for rung in decided[:-1]:
        kept = [rung["scores"][str(m)] for m in rung["kept"]]
        assert max(kept) <= min(s for m, s in rung["scores"].items() if int(m) not in rung["kept"])
    assert (done / "parallel.png").read_bytes().startswith(b"\x89PNG")


def test_the_best_is_the_training_alone(done, points, tmp_path):
    """Twelve steps of Adam in float32; on several devices sums are of another order."""
    best = runs.open_run(done / "best")
    state = best.restore()
    assert int(state.step) == 12
    row = table(done)[0]
    config = best.config
    assert config.optimizer.lr == float(row["optimizer.lr"])
    flags = ["--optimizer.lr", row["optimizer.lr"], "--training.seed", row["training.seed"]]
    flags += ["--model.depth", row["model.depth"], "--steps", "12", "--out", str(tmp_path / "run")]
    assert main(["train", str(points), *flags, *OPTIONS, "--training.devices", "1"]) == 0
    alone = runs.open_run(tmp_path / "run").restore()
    assert jax.tree.structure(alone) == jax.tree.structure(state)
    for a, b in zip(jax.tree.leaves(state.ema), jax.tree.leaves(alone.ema), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-4)
    assert len(rundir.read_log(done / "best")) >= 1
    assert draw(done / "best", tmp_path / "a.npz", "--n", "3")["x"].shape == (3, 2)
    more = ["train", str(points), *flags[:-1], str(done / "best"), "--resume", *OPTIONS]
    assert main([*more, "--steps", "14", "--training.devices", "1"]) == 0


@pytest.mark.slow
def test_interrupted_and_resumed_is_the_same(done, points, space, tmp_path, monkeypatch):
    """Stopped at every third row of the log; sums of two layouts are of another order."""
    out, count = tmp_path / "study", 0
    tell = cohort.population.columns

    def stopping(seen):
        nonlocal count
        count += 1
        if count % 3 == 0:
            current.signal = 15
        return tell(seen)

    monkeypatch.setattr(cohort.population, "columns", stopping)
    for _ in range(20):
        current = interrupt.Interrupt()
        monkeypatch.setattr(study.interrupt, "catch", lambda c=current: _given(c))
        assert main([*command(points, space, out, "--layout", "vmap"), "--resume"]) == 0
        if (out / "results.csv").exists():
            break
    assert count > 3
    ours, theirs = (
        {row["member"]: (row["steps"], float(row["heldout_loss"])) for row in table(o)}
        for o in (out, done)
    )
    assert {m: s for m, (s, _) in ours.items()} == {m: s for m, (s, _) in theirs.items()}
    for member, (_, loss) in ours.items():
        np.testing.assert_allclose(loss, theirs[member][1], rtol=1e-3)


class _given:
    """A context that gives what it is told."""

    def __init__(self, caught):
        self.caught = caught

    def __enter__(self):
        return self.caught

    def __exit__(self, *error):
        return None


def test_mistakes(done, points, space, tmp_path, capsys):
    good = command(points, space, tmp_path / "s")
    wrong = tmp_path / "wrong.toml"
    wrong.write_text('"optimizer.speed" = [1, 2]')
    for change, words in (
        (["--space", tmp_path / "none.toml"], "there is no file"),
        (["--space", wrong], "optimizer must be one of"),
        (["--members", "0"], "--members must be at least 1"),
        (["--factor", "1"], "--factor must be at least 2"),
        (["--design", "grid"], "a grid needs points"),
        (["--out", done], "holds a study: --resume"),
        (["--out", done, "--resume", "--steps", "13"], "same study, got other config, steps"),
        (["--out", points], "must be a directory"),
        (["--training.fully-sharded"], "are of one training"),
        (["--tuning.rank", "2"], "are of a trained network"),
        (["--training.seconds", "5"], "--training.seconds is of one training"),
    ):
        assert words in complaint([*good, *change], capsys)
    for axis, words in (  # of the second member alone, two of them only seen when it would sample
        ('"model.width" = [16, -3]', "member 1: width must be positive"),
        ('"sampling.steps" = [4, 0]', "member 1 (sampling.steps 0): num_steps must be"),
        (
            '"sampling.eta" = [0.0, 7.0]',
            "member 1 (sampling.eta 7.0): eta must keep",
        ),
    ):
        wrong.write_text(axis)
        few = ["--space", wrong, "--members", "2", "--design", "grid"]
        assert words in complaint([*good, *few], capsys)
    assert not (tmp_path / "s").exists()
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "mine.txt").write_text("")
    assert "is not empty" in complaint([*good, "--out", tmp_path / "other"], capsys)


@pytest.mark.slow
def test_what_is_lost_of_a_finished_study_is_made_again(done, points, space, tmp_path, capsys):
    """Truth: the study as it was; sums of several devices are of another order."""
    out = tmp_path / "study"
    shutil.copytree(done, out)
    again = command(points, space, out, "--resume")
    (seal,) = (out / "best" / "checkpoints").glob("12/digests.json")
    written = seal.stat().st_mtime_ns
    assert main(again) == 0  # nothing is left to do, and best/ may have been gone on with
    assert seal.stat().st_mtime_ns == written
    best, scores = runs.open_run(out / "best").restore(12), table(out)
    shutil.rmtree(out / "best")
    (out / "results.csv").unlink()
    for newest in (out / "groups").glob("*/12"):
        (newest / "digests.json").unlink()
    assert main(again) == 0
    assert table(out) == scores
    made = runs.open_run(out / "best").restore()
    assert int(made.step) == 12
    for a, b in zip(jax.tree.leaves(best.ema), jax.tree.leaves(made.ema), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-4)
    for meta in (out / "groups").glob("*/*/meta.json"):
        meta.write_text(meta.read_text().replace('"served"', '"members"'))
        digests.seal(meta.parent)
    assert "begun by another version" in complaint(again, capsys)


@pytest.mark.slow
def test_ctrl_c_while_members_are_compared(points, tmp_path, monkeypatch):
    """The second of four distances is the last that is asked; resumed, all are."""
    space, out = tmp_path / "space.toml", tmp_path / "study"
    space.write_text('"sampling.steps" = [2, 3, 4, 5]\n')
    given = ["study", str(points), "--space", str(space), "--design", "grid", "--steps", "4"]
    given += [*OPTIONS, "--out", str(out), "--resume"]
    current, draw_, asked = interrupt.Interrupt(), cohort.monitor.draw, []

    def stopping(config, weights):
        asked.append(config)
        if len(asked) == 2:
            current.signal = 2
        return draw_(config, weights)

    monkeypatch.setattr(cohort.monitor, "draw", stopping)
    monkeypatch.setattr(study.interrupt, "catch", lambda: _given(current))
    assert main(given) == 130
    assert len(asked) == 2
    assert not (out / "rungs.json").exists()
    current.signal = None
    assert main(given) == 0
    assert len(asked) == 6
    assert len(table(out)) == 4


@pytest.mark.slow
def test_formulas_by_their_numbers(points, tmp_path, capsys):
    """Truth: `jaxdiff train` under the names of the best; and the study resumed from its end."""
    space, out = tmp_path / "space.toml", tmp_path / "study"
    space.write_text(
        '"schedule.name" = ["cosine", "rectified"]\n"loss.weight" = ["simple", "plain"]\n'
        '"parametrization.name" = ["v", "flow"]\n'
    )
    given = ["study", str(points), "--space", str(space), "--design", "grid", "--steps", "12"]
    given += ["--score", "heldout_loss", *OPTIONS, "--out", str(out)]
    assert main(given) == 0
    assert "8 members in 1 program, " in capsys.readouterr().err
    names = ("schedule.name", "loss.weight", "parametrization.name")
    first = table(out)[0]
    flags = [word for name in names for word in (f"--{name}", first[name])]
    flags += ["--steps", "12", "--out", str(tmp_path / "run"), "--training.devices", "1"]
    assert main(["train", str(points), *OPTIONS, *flags]) == 0
    best, alone = (runs.open_run(path).restore() for path in (out / "best", tmp_path / "run"))
    for a, b in zip(jax.tree.leaves(best.ema), jax.tree.leaves(alone.ema), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-4)
    (out / "results.csv").unlink()
    assert main([*given, "--resume"]) == 0
    assert table(out)[0] == first


@pytest.mark.slow
def test_a_training_stays_while_it_serves_a_member(points, tmp_path, monkeypatch):
    """Two learning rates by three numbers of steps, halved, and stopped in the middle.

    Truth: the same study without a stop; each rung keeps the best by the scores it wrote down.
    """
    space = tmp_path / "space.toml"
    space.write_text('"optimizer.lr" = [1e-3, 1e-2]\n"sampling.steps" = [2, 3, 9]\n')
    given = ["study", str(points), "--space", str(space), "--design", "grid", "--steps", "16"]
    given += ["--halving", "--factor", "2", *OPTIONS]
    assert main([*given, "--out", str(tmp_path / "whole")]) == 0
    current = interrupt.Interrupt()
    current.signal = 15
    with monkeypatch.context() as patch:
        patch.setattr(study.interrupt, "catch", lambda: _given(current))
        assert main([*given, "--out", str(tmp_path / "again")]) == 0
        tell = cohort.population.columns

        def stopping(seen):
            current.signal = 15
            return tell(seen)

        current.signal = None
        patch.setattr(cohort.population, "columns", stopping)
        assert main([*given, "--out", str(tmp_path / "again"), "--resume"]) == 0
        assert not (tmp_path / "again" / "results.csv").exists()
    assert main([*given, "--out", str(tmp_path / "again"), "--resume"]) == 0
    assert table(tmp_path / "again") == table(tmp_path / "whole")
    rows = table(tmp_path / "whole")
    assert [int(row["steps"]) for row in rows] == [16, 8, 8, 4, 4, 4]
    assert len(rows) == 6


@pytest.mark.slow
def test_a_member_that_fails_is_last(points, tmp_path):
    """A learning rate of 1e30 gives no number in float32; the others go on."""
    (tmp_path / "space.toml").write_text('"optimizer.lr" = [1e30, 1e-3]')
    out = tmp_path / "s"
    given = ["--design", "grid", "--steps", "6", *OPTIONS, "--optimizer.warmup", "0"]
    given += ["--model.depth", "1"]
    space = str(tmp_path / "space.toml")
    assert main(["study", str(points), "--space", space, "--out", str(out), *given]) == 0
    first, last = table(out)
    assert float(first["optimizer.lr"]) == 1e-3
    assert last["heldout_loss"] == ""
    assert members.member(runs.open_run(out / "best").config, {}).optimizer.lr == 1e-3


@pytest.mark.slow
def test_axes_of_sampling_are_compared_by_what_is_drawn(points, tmp_path, capsys):
    """Truth: one training serves both scales of guidance, whose samples `--guidance` draws too."""
    space, out = tmp_path / "space.toml", tmp_path / "study"
    space.write_text('"sampling.guidance" = [1.0, 4.0]\n')
    given = ["--members", "2", "--design", "grid", "--steps", "40", *OPTIONS]
    given += ["--sampling.sampler", "ddpm", "--sampling.steps", "4"]
    assert main(["study", str(points), "--space", str(space), "--out", str(out), *given]) == 0
    assert "2 members, 1 training in 1 program" in capsys.readouterr().err
    first, second = table(out)
    assert first["frechet"] != second["frechet"]
    with (out / "log.csv").open(newline="") as file:
        losses = [(row["step"], row["member"], row["loss"]) for row in csv.DictReader(file)]
    assert [loss for _, m, loss in losses if m == "0"] == [x for _, m, x in losses if m == "1"]
    scale = runs.open_run(out / "best").config.sampling.guidance
    assert scale == float(first["sampling.guidance"])
    drawn = [
        draw(out / "best", tmp_path / f"{i}.npz", "--n", "6", "--sampler", "ddpm", *flags)["x"]
        for i, flags in enumerate(([], ["--guidance", str(scale)], ["--guidance", str(5 - scale)]))
    ]
    assert (drawn[0] == drawn[1]).all()
    assert (drawn[0] != drawn[2]).any()
