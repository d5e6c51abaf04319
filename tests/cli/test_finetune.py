"""`jaxdiff finetune` and `classify` on a BERT of twelve channels. Truth: texts whose class is one
of two words, so that any sound training tells them; and the tables that were written."""

import csv
import json
import signal

import numpy as np
import pytest

from jaxdiff.cli import main
from jaxdiff.training import checkpoint, rundir
from tests import small_bert
from tests.cli.commands import complaint

pytest.importorskip("tokenizers", reason="needs the library tokenizers")
pytest.importorskip("safetensors", reason="needs the library safetensors")

SMALL = ["--data.length", "10", "--batch-size", "16", "--log-every", "5"]
SMALL += ["--method.ratio", "4", "--method.rank", "2", "--method.width", "3", "--lr", "2e-2"]
SMALL += ["--method.prompts", "3"]
EPOCHS = ["--epochs", "4"]


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    """bert/, and words.tsv with 240 texts."""
    home = tmp_path_factory.mktemp("texts")
    small_bert.directory(home)
    small_bert.table(home / "words.tsv", small_bert.sentences(240))
    return home


def command(home, out, *options):
    given = ["finetune", "--data", home / "words.tsv", "--backbone", home / "bert", "--out", out]
    return [str(a) for a in (*given, *SMALL, *options)]


@pytest.fixture(scope="module")
def run(home):
    """Four epochs of a ladder."""
    assert main(command(home, home / "run", *EPOCHS)) == 0
    return home / "run"


def test_run_directory(run):
    """192 texts in batches of 16 are 12 steps an epoch."""
    config, total = rundir.read_config(run)
    assert total == 48
    assert config["data"]["classes"] == ["bad", "good"]
    assert [row["step"] for row in rundir.read_log(run)] == [
        5,
        10,
        12,
        15,
        20,
        24,
        25,
        30,
        35,
        36,
        40,
        45,
        48,
    ]
    rows = rundir.read_evaluations(run)
    assert [row["step"] for row in rows] == [12, 24, 36, 48]
    for row in rows:
        assert row["validation_accuracy"] + row["validation_error"] == pytest.approx(1)


def test_result(run):
    """By the best checkpoint on validation; chance is .5, with a standard error of .1."""
    result = json.loads(rundir.test_result(run).read_text())
    rows = rundir.read_evaluations(run)
    best = min(rows, key=lambda row: (row["validation_error"], row["step"]))
    assert result["step"] == best["step"]
    assert result["texts"] == 24
    p = result["accuracy"]
    assert p > 0.8
    assert result["standard_error"] == pytest.approx(np.sqrt(p * (1 - p) / 24))


def test_classify_texts(run, capsys):
    assert main(["classify", str(run), "the film was good", "bad  film"]) == 0
    lines = [line.split("\t") for line in capsys.readouterr().out.splitlines()]
    assert [line[0] for line in lines] == ["good", "bad"]
    assert all(0.5 <= float(line[1]) <= 1 for line in lines)
    assert lines[1][2] == "bad film"


def test_classify_a_table(run, home, capsys):
    """The accuracy is that of the table's own rows."""
    fresh = small_bert.sentences(50, seed=9)
    table, out = small_bert.table(home / "fresh.tsv", fresh), home / "told.csv"
    given = ["classify", str(run), "--data", str(table), "--label", "label", "--out", str(out)]
    assert main(given) == 0
    with out.open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["text"] for row in rows] == [text for text, _ in fresh]
    right = np.mean([row["class"] == label for row, (_, label) in zip(rows, fresh, strict=True)])
    assert f"accuracy {right:.4f}" in capsys.readouterr().err
    for row in rows:
        assert float(row["good"]) + float(row["bad"]) == pytest.approx(1, abs=1e-5)
        assert (float(row["good"]) > 0.5) == (row["class"] == "good")


def test_the_run_holds_all_that_it_needs(run, home, tmp_path, capsys):
    """It is used, and tested once more, where the network that it began from is gone."""
    import shutil

    copy = tmp_path / "copy"
    shutil.copytree(run, copy)
    hidden = home / "hidden"
    (home / "bert").rename(hidden)
    try:
        assert main(["classify", str(copy), "good"]) == 0
        assert capsys.readouterr().out.startswith("good")
        rundir.test_result(copy).unlink()
        assert main([*command(home, copy, *EPOCHS, "--resume")]) == 0
    finally:
        hidden.rename(home / "bert")
    assert rundir.test_result(copy).read_text() == rundir.test_result(run).read_text()


@pytest.mark.slow
def test_resumed_is_bit_for_bit(home, run, tmp_path, monkeypatch):
    """Stopped by SIGTERM in the middle of the first epoch, and gone on with."""
    from jaxdiff.data import text

    inner, seen = text.Batches.batch_at, []

    def batch_at(self, step):
        seen.append(step)
        if len(seen) == 7:
            signal.raise_signal(signal.SIGTERM)
        return inner(self, step)

    monkeypatch.setattr(text.Batches, "batch_at", batch_at)
    out = tmp_path / "run"
    assert main(command(home, out, *EPOCHS)) == 0
    assert checkpoint.finished_steps(rundir.checkpoints(out)) == [7]
    assert not rundir.test_result(out).exists()
    assert main(command(home, out, *EPOCHS, "--resume")) == 0
    assert seen == list(range(48))
    assert rundir.test_result(out).read_text() == rundir.test_result(run).read_text()
    last = [rundir.read_evaluations(where)[-1]["validation_loss"] for where in (out, run)]
    assert last[0] == last[1]


@pytest.mark.slow
@pytest.mark.parametrize("method", ["full", "lora", "adapter", "bitfit", "prompt", "head"])
def test_every_method(method, home, tmp_path):
    """The loss falls below that of not knowing, ln 2; what is trained inside the network tells its
    classes better than chance, .5, by two standard errors of 24 texts, .1. This network was never
    trained itself: a head or prompts alone find little in it."""
    assert main(command(home, tmp_path / "run", "--method", method, "--epochs", "40")) == 0
    losses = [row["loss"] for row in rundir.read_log(tmp_path / "run")]
    assert np.mean(losses[-3:]) < min(np.log(2), losses[0])
    if method not in ("prompt", "head"):
        result = json.loads(rundir.test_result(tmp_path / "run").read_text())
        assert result["accuracy"] > 0.7


@pytest.mark.slow
def test_a_test_file(home, tmp_path, capsys):
    """What is tested on is not trained on: 20 of its 30 texts stand in the data."""
    rows = small_bert.sentences(240)[:20] + small_bert.sentences(400, seed=0)[-10:]
    table = small_bert.table(tmp_path / "test.tsv", rows)
    given = command(home, tmp_path / "run", "--steps", "1", "--test", str(table))
    assert main(given) == 0
    told = capsys.readouterr().err
    assert "198 train, 22 validation, 30 test" in told
    assert json.loads(rundir.test_result(tmp_path / "run").read_text())["texts"] == 30


def test_dry_run(home, capsys):
    given = command(home, home / "nothing", "--dry-run", "--method", "lora")
    assert main(given) == 0
    values = json.loads(capsys.readouterr().out)
    assert (values["name"], values["method"]["rank"]) == ("lora", 2)
    assert not (home / "nothing").exists()


def test_mistakes(home, run, tmp_path, capsys):
    out = tmp_path / "run"
    test = tmp_path / "test.tsv"
    test.write_text("text\tlabel\ngood\tgood\nfilm\tmiddling\n")
    small = tmp_path / "small"
    small.mkdir()
    network = json.loads((home / "bert" / "config.json").read_text())
    (small / "config.json").write_text(json.dumps({**network, "vocab_size": 11}))
    (small / "tokenizer.json").write_text((home / "bert" / "tokenizer.json").read_text())
    for options, said in (
        (["--method.ratio", "5"], "ratio must divide"),
        (["--data.length", "40"], "at most 32 tokens"),
        (["--data.length", "2"], "length must be a whole number of at least 3"),
        (["--data.text", "words"], "line 1 must name a column 'words' once"),
        (["--data.validation", "0"], "data.validation must be above 0"),
        (["--batch-size", "0"], "batch_size must be at least 1"),
        (["--save-every", "0"], "save_every must be a positive whole number"),
        (["--epochs", "-1"], "epochs must be positive"),
        (["--warmup", "2"], "warmup must be a share"),
        (["--test", home / "words.tsv"], "none is left"),
        (["--backbone", small], "has 12 tokens, the network beside it 11"),
        (["--test", str(test)], "line 3 has label 'middling', must be one of bad, good"),
        (["--backbone", str(tmp_path / "none")], "must be minilm or a directory"),
        (["--resume", "--overwrite"], "give one of them"),
    ):
        assert said in complaint(command(home, out, *options), capsys)
        assert not out.exists()
    assert "holds a run of 48 steps" in complaint(command(home, run), capsys)
    tested = complaint(command(home, run, "--resume", "--test", home / "words.tsv"), capsys)
    assert "data.tested None -> 'another file'" in tested
    more = small_bert.table(tmp_path / "more.tsv", small_bert.sentences(241))
    told = complaint([*command(home, run, *EPOCHS, "--resume"), "--data", more], capsys)
    assert "a resumed run keeps its texts" in told
    assert "lr 0.02 -> 0.1" in complaint(command(home, run, "--resume", "--lr", "0.1"), capsys)
    assert "see jaxdiff classify" in complaint(["inspect", run], capsys)


def test_overwrite_keeps_a_run_where_the_network_cannot_be_read(home, run, tmp_path, capsys):
    """The run is removed when all else is read, and not before."""
    import shutil

    copy, torn = tmp_path / "copy", tmp_path / "torn"
    shutil.copytree(run, copy)
    shutil.copytree(home / "bert", torn)
    (torn / "model.safetensors").write_bytes(b"torn")
    given = [*command(home, copy, "--steps", "1", "--overwrite"), "--backbone", torn]
    assert "cannot be read" in complaint(given, capsys)
    assert checkpoint.finished_steps(rundir.checkpoints(copy))
    assert rundir.test_result(copy).exists()


@pytest.mark.slow
def test_a_ladder_that_starts_by_what_matters(home, tmp_path):
    """The whole way with Fisher information: better than chance by two standard errors."""
    options = ["--method.start", "fisher", "--method.examples", "40", "--method.mix", "sum"]
    assert main(command(home, tmp_path / "run", *options, *EPOCHS)) == 0
    result = json.loads(rundir.test_result(tmp_path / "run").read_text())
    assert result["accuracy"] > 0.7


def test_mistakes_of_classify(run, home, tmp_path, capsys):
    unknown = tmp_path / "unknown.tsv"
    unknown.write_text("text\tlabel\ngood\tgood\nfilm\tmiddling\n")
    for options, said in (
        ([run], "give either texts or --data"),
        ([run, "a", "--data", unknown], "give either texts or --data"),
        ([run, "a", "--label", "label"], "is of --data, which is not given"),
        ([run, ""], "text 0 must have a token"),
        ([run, "--data", unknown, "--label", "label"], "line 3 has label 'middling'"),
        ([run, "a", "--out", tmp_path / "x.txt"], "--out must end in .csv"),
        ([home, "a"], "is not a run directory"),
    ):
        assert said in complaint(["classify", *options], capsys)
