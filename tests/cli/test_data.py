"""Truth: the same examples in memory, and files that the tests wrote themselves."""

import json

import numpy as np
import pytest

from jaxdiff import config as configs
from jaxdiff.cli import main
from jaxdiff.training import rundir
from tests.cli.commands import SMALL, complaint
from tests.data import written


def resolved(arguments, capsys):
    """What a dry run says of the data."""
    assert main(["train", *map(str, arguments), "--dry-run"]) == 0
    return configs.from_json(json.loads(capsys.readouterr().out)).data


@pytest.mark.slow
def test_a_run_from_disk_is_the_run_from_memory(tmp_path):
    """Prefetched batches change no digit of the log."""
    x = np.random.default_rng(0).uniform(-1, 1, (40, 2)).astype(np.float32)
    np.save(tmp_path / "x.npy", x)
    np.savez(tmp_path / "x.npz", x=x)
    losses = []
    for name in ("x.npy", "x.npz"):
        out = tmp_path / f"run-{name}"
        command = ["train", str(tmp_path / name), "--out", str(out), "--steps", "20", *SMALL]
        assert main(command) == 0
        losses.append([row["loss"] for row in rundir.read_log(out)])
    assert losses[0] == losses[1]
    assert len(losses[0]) == 2


SMALL_UNET = ["--preset", "digits", "--model.channels", "8", "--training.batch-size", "4"]


def test_a_directory_of_idx_files(tmp_path, capsys):
    written.mnist(tmp_path / "set", ".gz", n_train=12)
    found = resolved([tmp_path / "set", *SMALL_UNET, "--model.multipliers", "1"], capsys)
    assert (found.shape, found.label_counts) == ((6, 5, 1), (4, 4, 4))  # of 12, not of 17


@pytest.mark.slow
def test_a_folder_of_pictures_of_two_sizes(tmp_path, capsys):
    written.pictures(tmp_path, ["a/1.png", "a/2.png", "b/3.png", "b/4.png"], (9, 12, 3))
    written.picture(tmp_path / "b" / "5.png", written.random_bytes(20, 9, 3))
    (tmp_path / "b" / "6.png").write_text("no picture")
    shown = [str(tmp_path), "--data.size", "8", *SMALL_UNET]
    assert main(["train", *shown, "--dry-run"]) == 0
    said = capsys.readouterr().err
    assert "warning: " in said
    assert "1 of 6 pictures cannot be read" in said
    assert "6.png" in said
    found = resolved(shown, capsys)
    assert (found.shape, found.label_counts, found.size) == ((8, 8, 3), (2, 2), 8)
    assert "unless size is given" in complaint(["train", tmp_path], capsys)
    command = ["train", tmp_path, *SMALL_UNET, "--data.size", "8", "--data.strict"]
    assert "1 of 6 pictures cannot be read" in complaint(command, capsys)
    assert "size is for a folder" in complaint(["train", "digits", "--data.size", "8"], capsys)
