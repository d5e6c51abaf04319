"""Real processes that train as one. Truth: the same training in one process, on one device."""

import functools
import os
import signal
import socket
import subprocess
import sys
import time

import jax
import numpy as np
import pytest

from jaxdiff import data
from jaxdiff.cli import main, runs
from jaxdiff.training import checkpoint, distributed, rundir
from tests.cli.commands import complaint

SIZE = ["--model.width", "32", "--model.depth", "1", "--training.batch-size", "64"]
EVERY = ["--training.log-every", "10", "--training.save-every", "20"]


def free_port():
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return found.getsockname()[1]


def begin(source, out, *options, processes=2, devices=4, timeout=30, last=()):
    """The processes of one training, each with devices of its own; flags of the last alone."""
    address = f"127.0.0.1:{free_port()}"
    env = {**os.environ, "JAX_PLATFORMS": "cpu", "JAX_NUM_CPU_DEVICES": str(devices)}
    command = [sys.executable, "-m", "jaxdiff", "train", str(source), "--out", str(out), *EVERY]
    command += [*options, "--coordinator", address, "--processes", str(processes)]
    command += ["--timeout", str(timeout), "--process"]
    pipe = subprocess.PIPE
    commands = [[*command, str(i)] for i in range(processes)]
    commands[-1] += last
    return [
        subprocess.Popen(each, stdout=pipe, stderr=pipe, text=True, env=env) for each in commands
    ]


def ended(started, within=300):
    """Their exit statuses and last words."""
    said = [process.communicate(timeout=within)[1] for process in started]
    return [process.returncode for process in started], said


def alone(source, out, *options, devices=1):
    env = {**os.environ, "JAX_PLATFORMS": "cpu", "JAX_NUM_CPU_DEVICES": str(devices)}
    command = [sys.executable, "-m", "jaxdiff", "train", str(source), "--out", str(out), *EVERY]
    subprocess.run([*command, *options], check=True, capture_output=True, env=env, timeout=300)


def wait_for(step, out, started, within=180):
    """Until there is a checkpoint of a step."""
    last = time.monotonic() + within
    while (checkpoint.latest_step(rundir.checkpoints(out)) or 0) < step:
        assert time.monotonic() < last
        assert all(process.poll() is None for process in started)
        time.sleep(0.1)


@functools.cache
def parameters(out, step):
    return jax.tree.map(np.asarray, runs.open_run(out).restore(step).params)


@pytest.mark.slow
def test_processes_that_differ(points, tmp_path):
    """Each is told what they differ in, before anything is written."""
    out = tmp_path / "run"
    other = ["--optimizer.lr", "0.5", "--seed", "3"]
    started = begin(points, out, *SIZE, "--steps", "20", devices=1, last=other)
    codes, said = ended(started)
    assert codes == [2, 2]
    assert all("must be given the same, they differ in --optimizer.*, --seed" in s for s in said)
    assert not out.exists()


def assert_same_run(ours, theirs, step):
    """Sums of gradients in another order, 60 steps of Adam: roundings of float32 that grow a
    little. Each row of the log is held to as much."""
    rows, wanted = rundir.read_log(ours), rundir.read_log(theirs)
    assert [row["step"] for row in rows] == [row["step"] for row in wanted]
    for name in ("loss", "grad_norm", "lr"):
        np.testing.assert_allclose(
            [row[name] for row in rows], [row[name] for row in wanted], rtol=1e-4
        )
    close = lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-5)  # noqa: E731
    jax.tree.map(close, parameters(ours, step), parameters(theirs, step))


@pytest.fixture(scope="module")
def one(points, tmp_path_factory):
    out = tmp_path_factory.mktemp("together") / "one"
    alone(points, out, *SIZE, "--steps", "60")
    return out


@pytest.mark.slow
@pytest.mark.parametrize("options", [[], ["--training.fully-sharded"]], ids=["copied", "cut"])
def test_one_process_is_two(points, tmp_path, one, options):
    """And eight devices of one process are its one device."""
    status, said = ended(begin(points, tmp_path / "two", *SIZE, "--steps", "60", *options))
    assert status == [0, 0], said
    assert "60 steps in" in said[0]
    assert not [line for line in said[1].splitlines() if "Gloo" not in line]
    assert_same_run(tmp_path / "two", one, 60)
    alone(points, tmp_path / "eight", *SIZE, "--steps", "60", *options, devices=8)
    assert_same_run(tmp_path / "eight", one, 60)


@pytest.mark.slow
@pytest.mark.parametrize("victim", [0, 1])
def test_one_is_killed_and_the_rest_ends(points, tmp_path, one, victim):
    """In the time that was given, having said what to do; and another number of processes goes
    on from the last checkpoint to where the run would have ended."""
    out = tmp_path / "run"
    started = begin(points, out, *SIZE, "--steps", "100000", timeout=20)
    wait_for(40, out, started)
    started[victim].kill()
    began = time.monotonic()
    status, said = ended(started, within=60)
    assert time.monotonic() - began < 45
    assert status[victim] == -signal.SIGKILL
    assert status[1 - victim] != 0
    assert "start all of them again, with --resume" in said[1 - victim]
    assert "another" in said[1 - victim]
    newest = checkpoint.sound_step(rundir.checkpoints(out))
    goal = str(newest + 20)
    alone(points, out, *SIZE, "--steps", goal, "--resume", devices=2)
    assert rundir.read_log(out)[-1]["step"] == int(goal)


@pytest.mark.slow
def test_any_of_them_may_be_told_to_stop(points, tmp_path, one):
    """By SIGTERM to the second: both save the same step, and in one process the run goes on to
    its end. The length is part of the rate's decay, so it is the same all along."""
    out = tmp_path / "run"
    started = begin(points, out, *SIZE, "--steps", "60", "--training.save-every", "10")
    wait_for(10, out, started)
    started[1].send_signal(signal.SIGTERM)
    status, said = ended(started)
    assert status == [0, 0], said
    stopped = checkpoint.latest_step(rundir.checkpoints(out))
    assert "SIGTERM: saved at step" in said[0] or stopped == 60
    alone(points, out, *SIZE, "--steps", "60", "--resume", devices=8)
    assert_same_run(out, one, 60)


@pytest.mark.slow
def test_digits(tmp_path):
    """Two processes train the network of images to a checkpoint that samples are drawn from."""
    small = ["--model.channels", "8", "--model.blocks", "1", "--steps", "20", "--training.evaluate"]
    out = tmp_path / "digits"
    status, said = ended(begin("digits", out, *small, devices=1))
    assert status == [0, 0], said
    assert rundir.read_evaluations(out)[-1]["heldout_loss"] < 2
    drawn = tmp_path / "samples.npz"
    assert main(["sample", str(out), "--n", "4", "--steps", "2", "--out", str(drawn)]) == 0


@pytest.mark.slow
def test_nobody_comes(points, tmp_path):
    """The first waits no longer than it is told to, and the second finds no first."""
    for process in (0, 1):
        flags = ["--coordinator", f"127.0.0.1:{free_port()}", "--processes", "2", "--timeout", "3"]
        command = [sys.executable, "-m", "jaxdiff", "train", str(points), *SIZE, "--steps", "5"]
        command += ["--out", str(tmp_path / "run"), *flags, "--process", str(process)]
        ran = subprocess.run(command, capture_output=True, text=True, timeout=120)
        assert ran.returncode != 0
        assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (["--processes", "2"], "go together, got no coordinator and no process"),
        (["--coordinator", "here", "--processes", "2", "--process", "0"], "must be HOST:PORT"),
        (["--coordinator", "h:1", "--processes", "1", "--process", "0"], "must be 2 or more"),
        (["--coordinator", "h:1", "--processes", "2", "--process", "2"], "must be in 0..1, got 2"),
        (["--distributed", "--timeout", "0"], "timeout must be 1 second or more"),
    ],
)
def test_mistakes(points, tmp_path, capsys, flags, said):
    command = ["train", points, "--out", tmp_path / "run", *SIZE, "--steps", "5", *flags]
    assert said in complaint(command, capsys)
    assert not (tmp_path / "run").exists()


def test_shares_are_the_batch():
    """Truth: the parts joined are the whole, also over the end of an epoch and mirrored."""
    x = np.arange(-10, 10, dtype=np.float32).reshape(10, 1, 2, 1) / 10
    whole = data.from_arrays(x, np.arange(10)).with_batches(6, seed=3, flip=True)
    for step in range(4):
        batch = whole.batch_at(step)
        parts = [whole.with_share(i, 3).batch_at(step) for i in range(3)]
        for name in batch:
            assert (np.concatenate([part[name] for part in parts]) == batch[name]).all()
    with pytest.raises(ValueError, match="parts=4 must divide the batch, got 6"):
        whole.with_share(0, 4)
    with pytest.raises(ValueError, match=r"place must be in 0..2, got 3"):
        whole.with_share(3, 3)


def test_a_process_alone_has_nothing_to_agree_on():
    tree = {"a": np.ones(2)}
    assert distributed.local(tree) is tree
    assert distributed.from_first(None) is None
    assert (distributed.from_first(3), distributed.largest(4)) == (3, 4)
    with pytest.raises(ZeroDivisionError):
        distributed.by_first(lambda: 1 / 0)
