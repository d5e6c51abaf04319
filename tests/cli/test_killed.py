"""A training that is killed, again and again: truth is the run that nobody disturbed.

Both are other processes, of the command line, on one machine, so that bits compare.
"""

import json
import os
import random
import signal
import subprocess
import sys
import time

import jax
import numpy as np
import pytest

from jaxdiff import training
from jaxdiff.cli import runs
from jaxdiff.training import checkpoint, rundir
from tests.cli.commands import SMALL

STEPS, EVERY = 3000, 50
COMMAND = [sys.executable, "-m", "jaxdiff", "train"]
OPTIONS = ["--steps", str(STEPS), *SMALL, "--training.save-every", str(EVERY)]


def begin(points, out, *options):
    """The training in a process of its own; goes on where there is something to go on from."""
    command = [*COMMAND, str(points), "--out", str(out), *OPTIONS, "--resume", *options]
    env = {**os.environ, "JAX_PLATFORMS": "cpu"}
    return subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=env)


def step_of(out):
    """The last step that the log knows of, 0 if none."""
    rows = rundir.read_log(out) if rundir.log(out).is_file() else []
    return rows[-1]["step"] if rows else 0


def state_of(out):
    run = runs.open_run(out)
    state = run.restore(STEPS)
    return jax.tree.map(np.asarray, (state.params, state.ema, state.opt_state, state.step))


@pytest.fixture(scope="module")
def undisturbed(points, tmp_path_factory):
    out = tmp_path_factory.mktemp("killed") / "straight"
    process = begin(points, out)
    process.communicate(timeout=600)
    assert process.returncode == 0
    return state_of(out)


@pytest.mark.slow
def test_killed_fifty_times_it_ends_bit_for_bit_the_same(points, tmp_path, undisturbed):
    """With -9 at random moments: it resumes each time, having lost at most one interval."""
    out, rng, kills, finished, moments = tmp_path / "run", random.Random(0), 0, False, []
    while not finished:
        before = checkpoint.latest_step(rundir.checkpoints(out)) or 0
        process = begin(points, out)
        if kills < 60:
            # From the first moments of the process on; longer ones give it time to get ahead.
            time.sleep(rng.choice([rng.uniform(0, 4), rng.uniform(3, 6)]))
            reached = step_of(out)
            process.kill()
            kills += 1
        errors = process.communicate(timeout=600)[1]
        finished = process.returncode == 0
        assert finished or process.returncode == -signal.SIGKILL, errors
        newest = checkpoint.sound_step(rundir.checkpoints(out)) or 0
        assert newest >= before
        if not finished:
            # A save that was under way at the kill, and the interval before it, are the most.
            assert newest >= reached - 2 * EVERY
            moments.append((reached, newest))
    assert kills >= 50, f"the run ended after {kills} kills: {moments}"
    # Written through a new process each time, yet the same to the bit.
    jax.tree.map(np.testing.assert_array_equal, state_of(out), undisturbed)
    log = [row["step"] for row in rundir.read_log(out)]
    assert log == list(range(10, STEPS + 1, 10))


@pytest.mark.slow
def test_sigterm_at_any_moment_exits_0_with_a_sound_checkpoint(points, tmp_path):
    """From the moment on at which the command says what it trains."""
    rng = random.Random(1)
    for trial in range(12):
        out = tmp_path / str(trial)
        process = begin(points, out)
        assert "examples" in process.stderr.readline()
        time.sleep(rng.uniform(0, 3))
        process.send_signal(signal.SIGTERM)
        errors = process.communicate(timeout=120)[1]
        assert process.returncode == 0, errors
        step = checkpoint.sound_step(rundir.checkpoints(out))
        assert step is not None
        assert f"saved at step {step}" in errors or step == STEPS
        back = runs.open_run(out).restore()
        assert int(back.step) == step


@pytest.fixture
def small_disk(tmp_path):
    """A file system of 3 MB, where this machine lets one be made."""
    mount = ["mount", "-t", "tmpfs", "-o", "size=3m", "none", str(tmp_path)]
    if subprocess.run(mount, capture_output=True).returncode:
        pytest.skip("no right to mount a small file system")
    yield tmp_path
    subprocess.run(["umount", "-l", str(tmp_path)], check=True)


@pytest.mark.slow
def test_a_full_disk_ends_in_one_line_and_the_last_checkpoint_is_sound(points, small_disk):
    out = small_disk / "run"
    process = begin(points, out, "--model.width", "48", "--training.keep", "1000")
    errors = process.communicate(timeout=300)[1]
    assert process.returncode == 2
    assert "no space left on the device" in errors
    assert "Traceback" not in errors
    step = checkpoint.sound_step(rundir.checkpoints(out))
    assert step is not None
    assert step > 0
    assert json.loads((out / "config.json").read_text())["total_steps"] == STEPS
    assert int(runs.open_run(out).restore().step) == step
    assert training.latest_step(rundir.checkpoints(out)) == step
