"""Truth: a Python loop over the same step; and that a run which stops goes on as if it had not."""

import os
import signal
import subprocess
import sys
import time

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxdiff import training
from jaxdiff.training import checkpoint, interrupt, rundir
from jaxdiff.training.budget import Budget

QUIET = {"show": False, "log_every": 5}


@pytest.fixture
def job(toy, key):
    """A step with everything that carries state, its first state, and data."""
    optimizer = training.adam()
    step = training.make_train_step(toy.noisy_loss, optimizer, decay=training.optim.cosine)
    return step, toy.start(key, optimizer, warmup=3), toy.Regression()


def same(a, b, toy):
    jax.tree.map(np.testing.assert_array_equal, toy.bits(a), toy.bits(b))


def test_fit_is_the_loop(toy, job):
    step, state, data = job
    expected = toy.start(jax.random.key(0), training.adam(), warmup=3, steps=12)
    jitted, losses = jax.jit(step), []
    for t in range(12):
        expected, metrics = jitted(expected, data.batch_at(t))
        losses.append(float(metrics["loss"]))
    done = training.fit(step, state, data, steps=12, **QUIET)
    same(done.state, expected, toy)
    assert [row["step"] for row in done.history] == [5, 10, 12]
    # Rows are means over the steps since the last.
    np.testing.assert_allclose(done.history[1]["loss"], np.mean(losses[5:10]), rtol=1e-5)
    np.testing.assert_allclose(done.history[2]["loss"], np.mean(losses[10:]), rtol=1e-5)
    assert done.signal is None
    assert int(state.step) == 0  # the caller's state is whole
    assert np.isfinite(state.params["w1"]).all()


@pytest.mark.parametrize("k", [4, 10])
def test_k_steps_restored_and_k_more_are_2k(tmp_path, toy, job, k):
    """Bit for bit: parameters, average, optimiser, key, statistics.

    The first half is stopped by a signal rather than planned to end there, since the number of
    steps shapes the learning rate.
    """
    step, state, data = job

    class Stopping:
        def batch_at(self, t):
            if t == k - 1:
                os.kill(os.getpid(), signal.SIGTERM)
            return data.batch_at(t)

    straight = training.fit(step, state, data, steps=2 * k, **QUIET)
    half = training.fit(step, state, Stopping(), steps=2 * k, out=tmp_path, **QUIET)
    assert half.signal == signal.SIGTERM
    assert int(half.state.step) == k
    whole = training.fit(step, state, data, steps=2 * k, out=tmp_path, resume=True, **QUIET)
    assert whole.signal is None
    same(whole.state, straight.state, toy)
    same(training.restore(rundir.checkpoints(tmp_path), state), straight.state, toy)


def test_writes_a_run_directory(tmp_path, job):
    step, state, data = job
    config = {"model": {"width": 8}}
    out = tmp_path / "new" / "run"
    done = training.fit(step, state, data, steps=12, out=out, config=config, save_every=5, **QUIET)
    assert rundir.read_config(out) == (config, 12)
    assert checkpoint.finished_steps(rundir.checkpoints(out)) == [5, 10, 12]
    assert checkpoint.read_meta(rundir.checkpoints(out), 12)["config"] == config
    rows = rundir.read_log(out)
    assert rows == done.history
    assert set(rows[0]) == {"step", "seconds", "loss", "rmse", "grad_norm", "lr"}


def test_log_goes_on_from_the_restored_step(tmp_path, job):
    step, state, data = job
    training.fit(step, state, data, steps=8, out=tmp_path, **QUIET)
    with (tmp_path / "log.csv").open("a") as file:  # written after the last checkpoint, then killed
        file.write("10,1.0,1,1,1,1\r\n11,1.")
    done = training.fit(step, state, data, steps=15, out=tmp_path, resume=True, **QUIET)
    rows = rundir.read_log(tmp_path)
    assert [row["step"] for row in rows] == [5, 8, 10, 15]
    assert rows[2:] == done.history
    assert rows[2]["seconds"] >= rows[1]["seconds"]  # time goes on as well


def test_resume_of_nothing_begins(tmp_path, toy, job):
    step, state, data = job
    fresh = training.fit(step, state, data, steps=3, out=tmp_path, resume=True, **QUIET)
    same(fresh.state, training.fit(step, state, data, steps=3, **QUIET).state, toy)


def test_resume_at_the_end_does_nothing(tmp_path, toy, job):
    step, state, data = job
    done = training.fit(step, state, data, steps=3, out=tmp_path, **QUIET)
    again = training.fit(step, state, data, steps=3, out=tmp_path, resume=True, **QUIET)
    same(done.state, again.state, toy)
    assert again.history == []


def test_nan_stops_and_the_last_good_checkpoint_stays(tmp_path, job):
    step, state, data = job

    class Spoilt:
        def batch_at(self, t):
            batch = data.batch_at(t)
            return {**batch, "y": batch["y"] * (jnp.nan if t == 12 else 1)}

    with pytest.raises(
        FloatingPointError, match=r"nan at step 13; .* checkpoint is that of step 10"
    ):
        training.fit(step, state, Spoilt(), steps=100, out=tmp_path, save_every=10, **QUIET)
    assert checkpoint.finished_steps(rundir.checkpoints(tmp_path)) == [10]
    back = training.restore(rundir.checkpoints(tmp_path), state)
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(back.params))


def test_refuses_to_write_over_a_run(tmp_path, job):
    step, state, data = job
    training.fit(step, state, data, steps=2, out=tmp_path, **QUIET)
    with pytest.raises(ValueError, match="holds a run of 2 steps"):
        training.fit(step, state, data, steps=2, out=tmp_path, **QUIET)
    with pytest.raises(ValueError, match=r"has made 2 steps already, got steps=1"):
        training.fit(step, state, data, steps=1, out=tmp_path, resume=True, **QUIET)
    assert rundir.read_config(tmp_path)[1] == 2


@pytest.mark.parametrize(
    ("bad", "words"),
    [
        ({}, "either steps or seconds"),
        ({"steps": 1, "seconds": 1.0}, "either steps or seconds"),
        ({"steps": 0}, "steps must be a positive"),
        ({"steps": 1.5}, "steps must be a positive"),
        ({"seconds": 0.0}, "seconds must be positive"),
        ({"seconds": float("inf")}, "seconds must be positive"),
        ({"steps": 1, "log_every": 0}, "log_every must be"),
        ({"steps": 1, "save_every": 0}, "save_every must be"),
        ({"steps": 1, "keep": 0}, "keep must be"),
        ({"steps": 1, "resume": True}, "resume=True needs out"),
        ({"steps": 1, "explode": 1.0}, "explode must be above 1"),
        ({"steps": 1, "best": "loss"}, "best='loss' needs evaluate"),
    ],
)
def test_refuses(job, bad, words):
    with pytest.raises(ValueError, match=words):
        training.fit(*job, show=False, **bad)


def test_refuses_metrics_that_are_no_scalars(toy, key):
    def loss(params, batch, key, hyper, aux):
        return params["w1"].sum(), ({"per_example": batch["y"]}, aux)

    step = training.make_train_step(loss, training.adam())
    with pytest.raises(ValueError, match=r"scalars, got shapes .*per_example.*16"):
        training.fit(step, toy.start(key), toy.Regression(), steps=1, show=False)


def test_out_below_a_file_is_an_error(tmp_path, job):
    (tmp_path / "file").write_text("")
    with pytest.raises(OSError, match="file"):
        training.fit(*job, steps=1, out=tmp_path / "file" / "run", **QUIET)


class Clock:
    """A machine of a given pace, for the arithmetic of a budget."""

    def __init__(self, budget, pace):
        self.budget, self.pace, self.now, self.step, self.total = budget, pace, 0.0, 0, np.inf

    def run(self):
        self.now, self.step = 20.0, 1  # compilation
        while self.step < self.total:
            if self.budget.is_due(self.now):
                self.total = self.budget.measure(self.step, self.now)
                if self.step >= self.total:
                    break
            self.now, self.step = self.now + 1 / self.pace(self.now), self.step + 1
        return self


def test_budget_ends_in_time():
    steady = Clock(Budget(100.0, 0.0), lambda now: 10.0).run()
    # 20 s of compilation, 80 s at 10 steps a second, the first step before.
    assert abs(steady.step - 801) <= 1
    assert abs(steady.now - 100) <= 0.2
    # At half the pace from second 60 on, only the stretch up to the next measurement is misjudged.
    slowed = Clock(Budget(100.0, 0.0), lambda now: 10.0 if now < 60 else 5.0).run()
    assert abs(slowed.now - 100) < 5
    # The whole budget went into compiling: the one step that was made is all.
    assert Clock(Budget(15.0, 0.0), lambda now: 10.0).run().step <= 2


def test_seconds_end_in_time_with_a_decayed_rate(tmp_path, job):
    step, state, data = job
    slow = lambda s, b: step(s, b)  # noqa: E731
    began = time.monotonic()
    done = training.fit(slow, state, data, seconds=4.0, out=tmp_path, **QUIET)
    took = time.monotonic() - began
    total = int(done.state.step)
    assert total > 10
    assert took < 8.0  # a busy machine may double the last stretch, not the whole
    assert rundir.read_config(tmp_path)[1] == total == int(done.state.hyper["steps"])
    peak = max(row["lr"] for row in done.history)
    assert done.history[-1]["lr"] < 0.05 * peak
    # A resumed run knows its end, whatever seconds it is given.
    again = training.fit(slow, state, data, seconds=60.0, out=tmp_path, resume=True, **QUIET)
    assert int(again.state.step) == total


def test_a_new_plan_does_not_compile_again(tmp_path, toy, key):
    traces = []

    def loss(params, batch, key, hyper, aux):
        traces.append(1)
        return toy.quiet_loss(params, batch, key, hyper, aux)

    step = training.make_train_step(loss, training.adam(), decay=training.optim.linear)
    training.fit(step, toy.start(key), toy.Regression(), seconds=1.5, **QUIET)
    assert len(traces) == 1


def test_handlers_are_put_back_and_a_second_signal_aborts():
    before = signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)
    with interrupt.catch() as caught:
        os.kill(os.getpid(), signal.SIGINT)
        assert caught.signal == signal.SIGINT
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), signal.SIGINT)
    assert (signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)) == before


SCRIPT = """
import sys, time, jax, jax.numpy as jnp
from jaxdiff import training

class Data:
    def batch_at(self, step):
        if step == 20:
            print("ready", flush=True)
        time.sleep(0.01 if step > 20 and sys.argv[2] == "forever" else 0)
        return {"x": jnp.full((4, 1), float(step % 7))}

def loss(params, batch, key, hyper, aux):
    return jnp.mean((batch["x"] * params["w"][None] - jax.random.normal(key)) ** 2), ({}, aux)

opt = training.adam()
hyper = {"lr": 0.01, "ema_decay": 0.99}
state = training.init_state(jax.random.key(0), {"w": jnp.ones(1)}, opt, hyper=hyper)
step = training.make_train_step(loss, opt)
steps = 10**6 if sys.argv[2] == "forever" else int(sys.argv[2])
done = training.fit(step, state, Data(), steps=steps, out=sys.argv[1], resume=True, show=False)
print(int(done.state.step), float(done.state.params["w"][0]).hex(), done.signal)
"""


def run_script(out, steps):
    command = [sys.executable, "-c", SCRIPT, str(out), steps]
    env = {**os.environ, "JAX_PLATFORMS": "cpu"}
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=env)


@pytest.mark.slow
def test_sigterm_saves_exits_0_and_the_run_resumes(tmp_path):
    stopped = run_script(tmp_path / "a", "forever")
    assert stopped.stdout.readline() == "ready\n"
    stopped.send_signal(signal.SIGTERM)
    words = stopped.communicate(timeout=60)[0].split()
    assert stopped.returncode == 0
    step = int(words[0])
    assert step >= 20
    assert words[2] == str(int(signal.SIGTERM))
    assert training.latest_step(rundir.checkpoints(tmp_path / "a")) == step
    # It goes on, and ends where a run without a break ends.
    resumed = run_script(tmp_path / "a", str(step + 30)).communicate(timeout=60)[0]
    straight = run_script(tmp_path / "b", str(step + 30)).communicate(timeout=60)[0]
    assert resumed.split()[-3:] == straight.split()[-3:]
