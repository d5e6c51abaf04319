"""Truth: what was saved, bit for bit; and files put there by hand for what must be refused."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import NamedSharding
from jax.sharding import PartitionSpec as P

from jaxdiff import training
from jaxdiff.training import checkpoint


def mixed(impl="threefry2x32"):
    """Leaves of every kind that a state has."""
    return {
        "half": jnp.arange(3, dtype=jnp.bfloat16),
        "wide": jnp.array([np.nextafter(np.float32(1), np.float32(2))]),
        "key": jax.random.key(3, impl=impl),
        "step": jnp.int32(7),
        "none": (),
    }


def test_restores_every_bit(tmp_path, toy):
    with training.Checkpoints(tmp_path) as store:
        store.save(7, mixed(), {"model": {"channels": [1, 2]}, "note": None})
    back = training.restore(tmp_path, jax.eval_shape(mixed))
    jax.tree.map(np.testing.assert_array_equal, toy.bits(back), toy.bits(mixed()))
    assert back["half"].dtype == jnp.bfloat16
    assert back["key"].dtype == mixed()["key"].dtype
    config = checkpoint.read_meta(tmp_path, 7)["config"]
    assert config == {"model": {"channels": [1, 2]}, "note": None}


def test_a_donated_state_is_saved_as_it_was(tmp_path):
    """The buffers are overwritten while the save is under way, and its values must not be."""
    overwrite = jax.jit(lambda tree: jax.tree.map(lambda a: a * 2 + 1, tree), donate_argnums=0)
    tree = {"a": jnp.ones((1000, 1000)), "b": jnp.zeros((500, 500))}
    with training.Checkpoints(tmp_path) as store:
        store.save(1, tree)
        for _ in range(20):
            tree = overwrite(tree)
    back = training.restore(tmp_path, tree)
    assert np.all(back["a"] == 1)
    assert np.all(back["b"] == 0)


def test_keeps_the_newest(tmp_path):
    with training.Checkpoints(tmp_path, keep=2) as store:
        for step in (1, 2, 3):
            store.save(step, {"x": jnp.float32(step)})
    assert checkpoint.finished_steps(tmp_path) == [2, 3]
    assert training.restore(tmp_path, {"x": jnp.zeros(())}, 2)["x"] == 2


def test_newest_is_the_newest_complete_one(tmp_path):
    with training.Checkpoints(tmp_path, keep=9) as store:
        for step in (1, 2, 3):
            store.save(step, {"x": jnp.float32(step)})
    (tmp_path / "3" / "digests.json").unlink()  # the mark of a save that was finished
    (tmp_path / "9").mkdir()
    for stray in ("12.orbax-checkpoint-tmp", "notes", "007", "\u0663"):
        (tmp_path / stray).mkdir()
    assert training.latest_step(tmp_path) == 2
    with pytest.warns(UserWarning, match=r"9 is skipped: .*3 is skipped: .* step 2, is used"):
        assert training.restore(tmp_path, {"x": jnp.zeros(())})["x"] == 2


def test_empty_numeric_folders_do_not_stop_saving(tmp_path):
    (tmp_path / "9").mkdir()
    with training.Checkpoints(tmp_path) as store:
        for step in (4, 9):
            store.save(step, {"x": jnp.float32(step)})
    assert checkpoint.finished_steps(tmp_path) == [4, 9]


def test_no_checkpoint_is_none_or_an_error(tmp_path):
    assert training.latest_step(tmp_path / "absent") is None
    with pytest.raises(FileNotFoundError, match="no complete checkpoint"):
        training.restore(tmp_path, {"x": jnp.zeros(())})
    with training.Checkpoints(tmp_path) as store:
        store.save(1, {"x": jnp.zeros(())})
    with pytest.raises(FileNotFoundError, match=r"of step 5 \(there are \[1\]\)"):
        training.restore(tmp_path, {"x": jnp.zeros(())}, 5)


def test_a_step_saved_twice_is_an_error(tmp_path):
    with training.Checkpoints(tmp_path) as store:
        store.save(1, {"x": jnp.zeros(())})
        store.wait()
        with pytest.raises(FileExistsError, match="exists already"):
            store.save(1, {"x": jnp.ones(())})
    assert training.restore(tmp_path, {"x": jnp.zeros(())})["x"] == 0


def test_a_save_that_fails_is_an_error_at_once(tmp_path):
    store = training.Checkpoints(tmp_path / "run")
    (tmp_path / "run").rmdir()
    (tmp_path / "run").write_text("a file where the folder was")
    with pytest.raises(OSError, match="run"):
        store.save(1, {"x": jnp.zeros(())})


def test_a_save_that_orbax_skips_is_an_error(tmp_path, monkeypatch):
    store = training.Checkpoints(tmp_path)
    monkeypatch.setattr(store._writer, "save", lambda *args, **kwargs: None)
    store.save(1, {"x": jnp.zeros(())})
    with pytest.raises(OSError, match="step 1 was not saved"):
        store.wait()
    assert list(tmp_path.iterdir()) == []


def test_a_folder_in_the_way_is_an_error_and_stays(tmp_path):
    (tmp_path / "1").mkdir()
    (tmp_path / "1" / "thesis.tex").write_text("years of work")
    with training.Checkpoints(tmp_path) as store, pytest.raises(OSError, match="in the way"):
        store.save(1, {"x": jnp.zeros(())})
    assert (tmp_path / "1" / "thesis.tex").is_file()


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"wide": jnp.ones(2)}, r"\['wide'\] is float32\[1\], wanted float32\[2\]"),
        ({"half": jnp.ones(3)}, r"\['half'\] is bfloat16\[3\], wanted float32\[3\]"),
        ({"key": jax.random.key(3, impl="rbg")}, r"\['key'\] is key<fry>\[\], wanted key<rbg>"),
        ({"new": jnp.ones(1)}, r"\['new'\] is not in it"),
    ],
)
def test_refuses_another_tree(tmp_path, change, words):
    with training.Checkpoints(tmp_path) as store:
        store.save(7, mixed())
    with pytest.raises(ValueError, match=words):
        training.restore(tmp_path, {**mixed(), **change})


def test_refuses_a_leaf_too_many(tmp_path):
    with training.Checkpoints(tmp_path) as store:
        store.save(7, mixed())
    fewer = {name: leaf for name, leaf in mixed().items() if name != "step"}
    with pytest.raises(ValueError, match=r"\['step'\] is in it, but not wanted"):
        training.restore(tmp_path, fewer)


def test_eight_devices_read_what_one_wrote(tmp_path):
    values = jnp.arange(16.0)
    with training.Checkpoints(tmp_path) as store:
        store.save(1, {"x": values})
    rows = NamedSharding(jax.make_mesh((8,), ("data",)), P("data"))
    target = {"x": jax.ShapeDtypeStruct((16,), jnp.float32, sharding=rows)}
    back = training.restore(tmp_path, target)["x"]
    assert back.sharding == rows
    np.testing.assert_array_equal(back, values)


def test_refuses_to_keep_none(tmp_path):
    with pytest.raises(ValueError, match="keep must be at least 1"):
        training.Checkpoints(tmp_path, keep=0)
    with pytest.raises(ValueError, match="keep_best must not be negative"):
        training.Checkpoints(tmp_path, keep_best=-1)


@pytest.mark.parametrize(
    ("step", "words"), [(-1, "must be above 15"), (12, r"must be above 15, .* got 12")]
)
def test_refuses_a_step_that_is_not_the_newest(tmp_path, step, words):
    with training.Checkpoints(tmp_path) as store:
        store.save(15, {"x": jnp.zeros(())})
    with training.Checkpoints(tmp_path) as store, pytest.raises(ValueError, match=words):
        store.save(step, {"x": jnp.ones(())})
    assert checkpoint.finished_steps(tmp_path) == [15]


def test_refuses_a_negative_first_step(tmp_path):
    with training.Checkpoints(tmp_path) as store, pytest.raises(ValueError, match=r">= 0, got -1"):
        store.save(-1, {"x": jnp.zeros(())})


def test_keeps_the_best_besides_the_newest(tmp_path):
    with training.Checkpoints(tmp_path, keep=1, keep_best=2) as store:
        for step, score in enumerate([0.4, 0.1, float("nan"), 0.3, None, 0.9]):
            store.save(step, {"x": jnp.float32(step)}, score=score)
    assert checkpoint.finished_steps(tmp_path) == [1, 3, 5]
    assert checkpoint.best_step(tmp_path) == 1
