"""Truth: checkpoints harmed by hand, byte by byte, and a disk that is really full."""

import errno
import subprocess

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxdiff import training
from jaxdiff.training import checkpoint


def two(folder):
    """Checkpoints of steps 1 and 2."""
    with training.Checkpoints(folder) as store:
        for step in (1, 2):
            store.save(step, {"x": jnp.full((50,), step, jnp.float32)}, {"a": 1})


def test_one_flipped_bit_in_any_file_is_noticed(tmp_path):
    two(tmp_path)
    target, rng = {"x": jnp.zeros((50,))}, np.random.default_rng(0)
    files = [path for path in (tmp_path / "2").rglob("*") if path.is_file()]
    assert len(files) > 5  # data, manifests, metadata, ours
    tried = 0
    for path in files:
        whole = path.read_bytes()
        for place in rng.choice(len(whole), min(len(whole), 8), replace=False):
            altered = bytearray(whole)
            altered[place] ^= 1 << int(rng.integers(8))
            path.write_bytes(altered)
            with pytest.raises(ValueError, match=r"damaged: .* was altered"):
                training.restore(tmp_path, target, 2)
            tried += 1
        path.write_bytes(whole)
    assert tried > 40
    assert training.restore(tmp_path, target)["x"][0] == 2  # whole again


@pytest.mark.parametrize(
    ("harm", "words"),
    [
        (lambda folder, data: data.write_bytes(data.read_bytes()[:-1]), "was altered"),
        (lambda folder, data: data.write_bytes(b""), "was altered"),
        (lambda folder, data: data.unlink(), "is missing"),
        (lambda folder, data: (folder / "digests.json").write_bytes(b"\xff"), "digests.json was"),
    ],
)
def test_a_damaged_newest_one_is_skipped_with_a_warning(tmp_path, harm, words):
    two(tmp_path)
    harm(tmp_path / "2", tmp_path / "2" / "state" / "manifest.ocdbt")
    with pytest.warns(UserWarning, match=f"2 is skipped: .*{words}.* step 1, is used"):
        assert training.restore(tmp_path, {"x": jnp.zeros((50,))})["x"][0] == 1
    with pytest.warns(UserWarning, match="is skipped"):
        checkpoint.set_aside(tmp_path, checkpoint.sound_step(tmp_path))
    with training.Checkpoints(tmp_path) as store:  # goes on from step 1 to save its own step 2
        store.save(2, {"x": jnp.full((50,), 3.0)})
    assert training.restore(tmp_path, {"x": jnp.zeros((50,))})["x"][0] == 3


def test_files_of_others_in_a_checkpoint_are_of_no_account(tmp_path):
    two(tmp_path)
    for folder in (tmp_path, tmp_path / "2", tmp_path / "2" / "state"):
        (folder / ".DS_Store").write_text("a window was opened")
    assert checkpoint.sound_step(tmp_path) == 2
    assert training.restore(tmp_path, {"x": jnp.zeros((50,))})["x"][0] == 2


def test_a_damaged_older_one_does_not_stop_the_best_from_being_kept(tmp_path):
    with training.Checkpoints(tmp_path, keep=1, keep_best=1) as store:
        store.save(1, {"x": jnp.ones(2)}, score=0.1)
        store.save(2, {"x": jnp.ones(2)}, score=0.5)
        store.wait()
        (tmp_path / "1" / "meta.json").write_text("{")
        store.save(3, {"x": jnp.ones(2)}, score=0.4)
    assert checkpoint.best_step(tmp_path) == 3
    assert checkpoint.sound_step(tmp_path) == 3


def test_what_is_in_the_way_is_set_aside(tmp_path):
    two(tmp_path)
    (tmp_path / "7").mkdir()
    (tmp_path / "7" / "thesis.tex").write_text("years of work")
    (tmp_path / "9").write_text("a file")
    checkpoint.set_aside(tmp_path, 2)
    assert (tmp_path / "7.stray" / "thesis.tex").is_file()
    assert (tmp_path / "9.stray").is_file()
    assert checkpoint.finished_steps(tmp_path) == [1, 2]


def test_none_sound_is_an_error(tmp_path):
    two(tmp_path)
    for step in "12":
        (tmp_path / step / "meta.json").unlink()
    with (
        pytest.warns(UserWarning, match="there is no sound one"),
        pytest.raises(ValueError, match=r"no checkpoint in .* is sound"),
    ):
        training.restore(tmp_path, {"x": jnp.zeros((50,))})


@pytest.fixture
def small_disk(tmp_path):
    """A file system of 2 MB, where this machine lets one be made."""
    mount = ["mount", "-t", "tmpfs", "-o", "size=2m", "none", str(tmp_path)]
    if subprocess.run(mount, capture_output=True).returncode:
        pytest.skip("no right to mount a small file system")
    yield tmp_path
    subprocess.run(["umount", "-l", str(tmp_path)], check=True)


@pytest.mark.parametrize("late", [False, True], ids=["seen before", "met under way"])
def test_a_full_disk_is_an_error_and_the_last_one_stays_sound(small_disk, monkeypatch, late):
    if late:  # as when others fill the disk meanwhile
        monkeypatch.setattr(checkpoint, "_check_space", lambda folder, state: None)
    with training.Checkpoints(small_disk, keep=9) as store:
        store.save(1, {"x": jnp.arange(1e3)})
        store.wait()
        state = {"x": jax.random.normal(jax.random.key(0), (1_000_000,))}
        with pytest.raises(OSError, match=r"step 2 was not saved \(no space left") as caught:  # noqa: PT012
            store.save(2, state)
            store.wait()
        assert caught.value.errno == errno.ENOSPC
        assert checkpoint.sound_step(small_disk) == 1
