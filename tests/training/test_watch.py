"""What is watched under way: evaluations, the best, failures, devices, TensorBoard."""

import struct

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from tensorboardX.proto import event_pb2

from jaxdiff import training
from jaxdiff.training import checkpoint, parallel, rundir

QUIET = {"show": False, "log_every": 5}


@pytest.fixture
def job(toy, key):
    optimizer = training.adam()
    return (
        training.make_train_step(toy.noisy_loss, optimizer),
        toy.start(key, optimizer),
        toy.Regression(),
    )


def test_is_evaluated_at_each_checkpoint_and_the_best_stays(tmp_path, job):
    scores = iter([0.5, 0.1, 0.7, 0.6])
    seen = []

    def evaluate(state):
        seen.append(int(state.step))
        return {"error": next(scores), "other": 1.0}

    training.fit(
        *job, steps=20, out=tmp_path, save_every=5, keep=1, evaluate=evaluate, best="error", **QUIET
    )
    assert seen == [5, 10, 15, 20]
    assert checkpoint.finished_steps(rundir.checkpoints(tmp_path)) == [10, 20]
    assert checkpoint.best_step(rundir.checkpoints(tmp_path)) == 10
    rows = rundir.read_evaluations(tmp_path)
    assert [row["error"] for row in rows] == [0.5, 0.1, 0.7, 0.6]
    assert [row["step"] for row in rows] == seen


def test_best_names_an_entry(tmp_path, job):
    with pytest.raises(ValueError, match="best must be one of error, got 'fid'"):
        training.fit(
            *job, steps=2, out=tmp_path, evaluate=lambda s: {"error": 0.0}, best="fid", **QUIET
        )


@pytest.mark.parametrize("what", [{"evaluate": lambda s: {}}, {"tensorboard": True}])
def test_what_is_written_needs_a_directory(job, what):
    with pytest.raises(ValueError, match="need out"):
        training.fit(*job, steps=2, **what, **QUIET)


def test_an_exploding_loss_stops_and_names_the_step(tmp_path, toy, key, job):
    class Growing(toy.Regression):
        def batch_at(self, t):
            batch = super().batch_at(t)
            return {**batch, "y": batch["y"] * (1e3 if t >= 12 else 1)}

    with pytest.raises(
        FloatingPointError, match=r"at step 15, above 100 times .* checkpoint is that of step 10"
    ):
        training.fit(*job[:2], Growing(), steps=50, out=tmp_path, save_every=10, **QUIET)
    assert checkpoint.sound_step(rundir.checkpoints(tmp_path)) == 10


def test_parameters_that_are_not_finite_are_not_saved(tmp_path, toy, key):
    """The loss of the only step is finite, what it leads to is not."""
    step = training.make_train_step(toy.quiet_loss, training.adam(clip=None))
    state = toy.start(key, training.adam(clip=None), lr=3e38)
    state.params["w1"] = state.params["w1"] + 3e38
    with pytest.raises(FloatingPointError, match="step 1; the last good checkpoint is none"):
        training.fit(step, state, toy.Regression(), steps=1, out=tmp_path, **QUIET)
    assert checkpoint.finished_steps(rundir.checkpoints(tmp_path)) == []


def test_goes_on_from_the_newest_sound_checkpoint(tmp_path, toy, job):
    """With the newest one altered, it ends bit for bit as if nothing had happened."""
    options = {"steps": 20, "save_every": 5, **QUIET}
    straight = training.fit(*job, **options)
    training.fit(*job, out=tmp_path, **options)
    damaged = rundir.checkpoints(tmp_path) / "20" / "state" / "manifest.ocdbt"
    damaged.write_bytes(damaged.read_bytes()[::-1])
    with pytest.warns(UserWarning, match="20 is skipped: .* step 15, is used"):
        again = training.fit(*job, out=tmp_path, resume=True, **options)
    jax.tree.map(np.testing.assert_array_equal, toy.bits(again.state), toy.bits(straight.state))
    assert (rundir.checkpoints(tmp_path) / "20.damaged").is_dir()
    assert [row["step"] for row in rundir.read_log(tmp_path)] == [5, 10, 15, 20]


def test_another_config_is_listed_on_resume(tmp_path, job):
    training.fit(*job, steps=2, out=tmp_path, config={"a": {"b": 1}, "c": 2}, **QUIET)
    with pytest.warns(UserWarning, match=r"another config: a.b 1 -> 3; d None -> 4"):
        training.fit(
            *job,
            steps=3,
            out=tmp_path,
            config={"a": {"b": 3}, "c": 2, "d": 4},
            resume=True,
            **QUIET,
        )


def test_eight_devices_have_the_loss_curve_of_one(toy, job):
    step, state, data = job
    one = training.fit(step, state, data, steps=30, **QUIET)
    eight = training.fit(step, state, data, steps=30, mesh=parallel.mesh(8), **QUIET)
    # The sums of a batch are taken in another order: roundings of float32, carried through 30
    # steps of Adam, whose quotient of moments multiplies them at small gradients.
    for a, b in zip(one.history, eight.history, strict=True):
        np.testing.assert_allclose(a["loss"], b["loss"], rtol=1e-4)
    assert len(eight.state.params["w1"].sharding.device_set) == 8


def test_meshes():
    assert parallel.mesh(1) is None
    assert parallel.mesh().size == 8
    assert parallel.mesh(batch_size=12).size == 6
    assert parallel.mesh(batch_size=7).size == 7
    with pytest.raises(ValueError, match=r"devices must be in 1\.\.8, .* got 9"):
        parallel.mesh(9)
    with pytest.raises(ValueError, match="batch_size must be a multiple of devices=8, got 12"):
        parallel.mesh(8, batch_size=12)
    with pytest.raises(ValueError, match=r"B a multiple of 8 devices, got shapes \[12, 3\], \[\]"):
        parallel.split({"x": jnp.zeros((12, 3)), "y": 1.0}, parallel.mesh())


def events(folder):
    """What lies in the event files, by TensorFlow's framing: length, checksum, bytes, checksum."""
    for path in sorted(folder.iterdir()):
        content, place = path.read_bytes(), 0
        while place < len(content):
            (length,) = struct.unpack_from("<Q", content, place)
            yield event_pb2.Event.FromString(content[place + 12 : place + 12 + length])
            place += 16 + length


def test_tensorboard_has_the_rows_of_the_log(tmp_path, job):
    training.fit(*job, steps=10, out=tmp_path, tensorboard=True, **QUIET)
    found = {
        (event.step, value.tag): value.simple_value
        for event in events(rundir.tensorboard(tmp_path))
        for value in event.summary.value
    }
    for row in rundir.read_log(tmp_path):
        for name in ("loss", "lr", "grad_norm"):
            np.testing.assert_allclose(found[row["step"], f"train/{name}"], row[name], rtol=1e-6)


def test_a_failed_evaluation_loses_no_state(tmp_path, job):
    def evaluate(state):
        raise OSError("no room for a picture")

    with pytest.raises(OSError, match="picture"):
        training.fit(*job, steps=20, out=tmp_path, save_every=5, evaluate=evaluate, **QUIET)
    assert checkpoint.sound_step(rundir.checkpoints(tmp_path)) == 5


def test_other_columns_after_a_resume_widen_the_table(tmp_path, job):
    options = {"out": tmp_path, "resume": True, **QUIET}
    training.fit(*job, steps=5, evaluate=lambda s: {"a": 1.0}, **options)
    training.fit(*job, steps=10, evaluate=lambda s: {"b": 2.0, "a": 3.0}, **options)
    training.fit(*job, steps=15, evaluate=lambda s: {"b": 4.0}, **options)
    rows = rundir.read_evaluations(tmp_path)
    np.testing.assert_array_equal([row["a"] for row in rows], [1, 3, np.nan])
    np.testing.assert_array_equal([row["b"] for row in rows], [np.nan, 2, 4])


def test_damaged_tables_are_kept_aside_and_cut_lines_left_out(tmp_path, job):
    options = {"out": tmp_path, "resume": True, **QUIET}
    training.fit(*job, steps=10, **options)
    log = rundir.log(tmp_path)
    whole = log.read_text()
    log.write_text(whole.rstrip()[:-3])
    assert [row["step"] for row in rundir.read_log(tmp_path)] == [5]
    log.write_text(whole.replace(",", ";", 1))
    with pytest.warns(UserWarning, match=r"log.csv is damaged: .* kept as log.csv.damaged"):
        training.fit(*job, steps=15, **options)
    assert [row["step"] for row in rundir.read_log(tmp_path)] == [15]
    assert (tmp_path / "log.csv.damaged").is_file()


@pytest.mark.parametrize(("metrics", "words"), [({"step": 1.0}, "not be called"), ({}, None)])
def test_names_of_metrics(toy, key, metrics, words):
    """The table's own columns are taken; a step of one's own needs no more than a loss."""

    def step(state, batch):
        state = training.TrainState(**{**vars(state), "step": state.step + 1})
        return state, {"loss": jnp.float32(1.0), **metrics}

    run = lambda: training.fit(step, toy.start(key), toy.Regression(), steps=2, show=False)  # noqa: E731
    if words is None:
        assert [row["loss"] for row in run().history] == [1.0]
        return
    with pytest.raises(ValueError, match=words):
        run()


def test_a_run_of_no_sound_checkpoint_is_not_begun_anew(tmp_path, job):
    training.fit(*job, steps=5, out=tmp_path, **QUIET)
    (rundir.checkpoints(tmp_path) / "5" / "meta.json").write_text("{")
    with (
        pytest.warns(UserWarning, match="there is no sound one"),
        pytest.raises(ValueError, match=r"no checkpoint in .* is sound: .* to begin anew"),
    ):
        training.fit(*job, steps=9, out=tmp_path, resume=True, **QUIET)
    assert [row["step"] for row in rundir.read_log(tmp_path)] == [5]


def test_clearing_a_run_leaves_a_link_to_another_disk(tmp_path, job):
    (tmp_path / "disk").mkdir()
    (tmp_path / "run").mkdir()
    rundir.checkpoints(tmp_path / "run").symlink_to(tmp_path / "disk")
    training.fit(*job, steps=5, out=tmp_path / "run", **QUIET)
    rundir.clear(tmp_path / "run")
    assert rundir.checkpoints(tmp_path / "run").is_symlink()
    assert list((tmp_path / "disk").iterdir()) == []
    training.fit(*job, steps=5, out=tmp_path / "run", **QUIET)


def test_one_process_trains_in_a_directory(tmp_path, job):
    """Another open file of the same directory stands for another process, as flock has it."""
    with rundir.locked(tmp_path), pytest.raises(BlockingIOError, match="another process"):
        training.fit(*job, steps=2, out=tmp_path, **QUIET)
    training.fit(*job, steps=2, out=tmp_path, **QUIET)
