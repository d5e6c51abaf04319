"""From an autoencoder to samples that are decoded. Truth: numpy and the codec by hand; files that
were written; runs that were not interrupted.
"""

import json
import os
import shutil
import subprocess
import sys

import jax
import numpy as np
import pytest

from jaxdiff.cli import main
from jaxdiff.cli import runs as opened
from jaxdiff.config import build, latents
from jaxdiff.config.fields import DataConfig
from jaxdiff.keys import example_keys
from jaxdiff.samplers import make_sampler, sample
from tests.cli.commands import complaint

pytestmark = pytest.mark.slow

CODER = ["--model.channels", "2", "--model.groups", "1", "--model.latents", "2"]
FAST = ["--training.log-every", "4", "--optimizer.ema-decay", "0.5", "--training.devices", "1"]
NETWORK = ["--model.width", "8", "--model.depth", "1", "--model.heads", "1"]
TRAIN = ["--training.batch-size", "8", "--optimizer.warmup", "0", *NETWORK, *FAST]


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    """Dark and bright images of 4x4."""
    rng = np.random.default_rng(0)
    y = np.arange(40) % 2
    x = np.where(y == 0, -0.6, 0.6)[:, None, None, None] + 0.1 * rng.normal(size=(40, 4, 4, 1))
    path = tmp_path_factory.mktemp("data") / "images.npz"
    np.savez(path, x=x.astype(np.float32), y=y)
    return path


@pytest.fixture(scope="module")
def coder(images, tmp_path_factory):
    """An autoencoder of 8 steps, with the picture of its reconstructions."""
    out = tmp_path_factory.mktemp("runs") / "coder"
    command = ["autoencoder", str(images), "--out", str(out), "--steps", "8", *CODER, *FAST]
    assert main([*command, "--plot", str(out.parent / "coder.png")]) == 0
    return out


@pytest.fixture(scope="module")
def run(images, coder, tmp_path_factory):
    """A model in its latents, of 8 steps, watched."""
    out = tmp_path_factory.mktemp("runs") / "model"
    watch = ["--training.evaluate", "--training.samples", "4", "--sampling.steps", "3"]
    command = ["train", str(images), "--data.latents", str(coder), "--out", str(out)]
    assert main([*command, "--steps", "8", *watch, *TRAIN]) == 0
    return out


def drawn(run, path, *options):
    command = ["sample", str(run), "--out", str(path), "--n", "6", "--steps", "3", "--chunk", "6"]
    assert main([*command, *options]) == 0
    return np.load(path)


def test_what_an_autoencoder_leaves(coder, images):
    """The moments are those of the posterior's draws of the training images."""
    told = json.loads((coder / "latents.json").read_text())
    assert (coder.parent / "coder.png").read_bytes().startswith(b"\x89PNG")
    codec = build.open_codec(DataConfig(latents=str(coder))).codec
    config = opened.open_run(coder).config
    x = build.load_data(config.data, "train").images()
    assert config.data.shape == (4, 4, 1)
    assert told["count"] == len(x) * 2 * 2
    # those of other draws: standard errors of numbers that are not independent, six of them
    z = np.asarray(jax.jit(type(codec).encode)(codec, jax.random.key(9), x))
    error = 1 / np.sqrt(len(x))
    np.testing.assert_allclose(z.mean((0, 1, 2)), 0, atol=6 * error)
    np.testing.assert_allclose(z.std((0, 1, 2)), 1, atol=6 * error)


def test_samples_are_decoded(run, coder, tmp_path):
    """As by hand: the model's own latents through the decoder, clipped; also under way."""
    config = opened.open_run(run).config
    assert config.data.shape == (2, 2, 2)
    assert config.data.bins is None
    ours = drawn(run, tmp_path / "a.npz", "--label", "1")
    assert ours["x"].shape == (6, 4, 4, 1)
    weights = build.averaged(config, opened.open_run(run).restore())
    denoise = build.build_denoise(config, weights, np.full(6, 1, np.int32))
    keys = example_keys(jax.random.key(0), 6)
    z = sample(keys, denoise, build.build_grid(config, "uniform", 3), (6, 2, 2, 2),
               sampler=make_sampler("ddim"))  # fmt: skip
    codec = build.open_codec(DataConfig(latents=str(coder))).codec
    x = np.clip(jax.jit(type(codec).decode)(codec, z), -1, 1)
    np.testing.assert_allclose(ours["x"], x, rtol=1e-5, atol=1e-6)
    assert (run / "samples" / "step_00000008.png").is_file()


def test_a_run_that_was_stopped_ends_in_the_same_bits(run, images, coder, tmp_path):
    """4 steps and 4 more; the schedule of the learning rate is that of 8 from the start."""
    command = ["train", str(images), "--data.latents", str(coder), "--steps", "8", *TRAIN]
    watch = ["--sampling.steps", "3"]
    first = [*command, "--out", str(tmp_path / "b"), "--training.save-every", "4", *watch]
    assert main(first) == 0
    for step in (tmp_path / "b" / "checkpoints").glob("*8"):
        shutil.rmtree(step)
    assert main([*first, "--resume"]) == 0
    ends = [opened.open_run(p).restore() for p in (run, tmp_path / "b")]
    for ours, theirs in zip(*(jax.tree.leaves(e.params) for e in ends), strict=True):
        np.testing.assert_array_equal(ours, theirs)


def test_other_commands(run, images, tmp_path, capsys):
    """evaluate compares images; likelihood is of latents, as it says, and of a density alone."""
    drawn(run, tmp_path / "a.npz")
    command = ["evaluate", str(run), "--samples", str(tmp_path / "a.npz"), "--bootstrap", "2"]
    assert main([*command, "--k", "1", "--k-coverage", "1"]) == 0
    assert main(["inspect", str(run)]) == 0
    assert "latents" in capsys.readouterr().out
    likelihood = ["likelihood", str(run), "--method", "elbo", "--n", "4", "--steps", "2"]
    assert "holds floats" in complaint(likelihood, capsys)
    assert main([*likelihood, "--density"]) == 0
    assert "in latents of" in capsys.readouterr().out


def test_export_decodes(run, tmp_path):
    """The same samples as `jaxdiff sample`, by a program that holds the decoder."""
    pytest.importorskip("flatbuffers", reason="needs the extra export")
    program, out = tmp_path / "p.npz", tmp_path / "b.npz"
    command = ["export", str(run), "--out", str(program), "--steps", "3", "--platforms", "cpu"]
    assert main([*command, "--no-guided"]) == 0
    assert main(["serve-file", str(program), "--out", str(out), "--n", "6"]) == 0
    np.testing.assert_allclose(
        np.load(out)["x"], drawn(run, tmp_path / "a.npz")["x"], rtol=1e-5, atol=1e-6
    )


def test_mistakes(run, coder, images, tmp_path, capsys):
    """All before any compile: nothing is drawn or trained."""
    train = ["train", images, "--out", tmp_path / "x", *TRAIN]
    gone = tmp_path / "gone"
    assert "there is no run" in complaint([*train, "--data.latents", gone], capsys)
    assert "holds a model of the data" in complaint([*train, "--data.latents", run], capsys)
    clip = [*train, "--data.latents", coder, "--sampling.clip"]
    assert "--sampling.no-clip" in complaint(clip, capsys)
    augment = [*train, "--data.latents", coder, "--data.augment", "0.1"]
    assert "data.augment" in complaint(augment, capsys)
    digits = ["train", "digits", *train[2:], "--data.latents", coder]
    assert "is for examples [4, 4, 1], digits holds [8, 8, 1]" in complaint(digits, capsys)
    unfinished = tmp_path / "unfinished"
    shutil.copytree(coder, unfinished)
    (unfinished / "latents.json").unlink()
    assert "not trained to its end" in complaint([*train, "--data.latents", unfinished], capsys)
    assert "holds an autoencoder, which draws" in complaint(
        ["sample", coder, "--out", tmp_path / "a.npz"], capsys
    )
    assert "jaxdiff autoencoder resumes it" in complaint(
        ["train", images, "--out", coder, "--resume"], capsys
    )
    assert "holds a model of the data" in complaint(
        ["autoencoder", images, "--out", run, "--resume"], capsys
    )
    nested = ["autoencoder", images, "--out", tmp_path / "y", "--data.latents", coder]
    assert "no data.latents" in complaint([*nested, "--steps", "1"], capsys)


def test_a_changed_autoencoder_is_an_error(run, coder, images, tmp_path, capsys):
    """Scaled otherwise; and a run whose autoencoder lies elsewhere now goes on by its new path."""
    moved, other = tmp_path / "moved", tmp_path / "other"
    shutil.copytree(run, moved)
    shutil.copytree(coder, other)
    record = json.loads((moved / "config.json").read_text())
    record["config"]["data"]["latents"] = str(other)
    (moved / "config.json").write_text(json.dumps(record))
    assert drawn(moved, tmp_path / "a.npz")["x"].shape == (6, 4, 4, 1)
    told = json.loads((other / "latents.json").read_text())
    told["std"][0] *= 2
    (other / "latents.json").write_text(json.dumps(told))
    asked = ["sample", moved, "--out", tmp_path / "b.npz"]
    assert "has changed since" in complaint(asked, capsys)
    assert "has changed since" in complaint(
        ["train", images, "--out", moved, "--resume", "--steps", "9"], capsys
    )
    over = ["train", images, "--data.latents", other, "--out", other, "--overwrite"]
    assert "another directory than --data.latents" in complaint([*over, "--steps", "1"], capsys)
    (other / "latents.json").write_text(json.dumps({**told, "mean": told["mean"][:1]}))
    assert "mean and std must be of 2 channels" in complaint(asked, capsys)
    told["weights"] = "0"
    (other / "latents.json").write_text(json.dumps(told))
    assert "of other parameters" in complaint(asked, capsys)


def test_the_recipe_is_chosen_before_jax_begins(images, coder):
    """Truth: the shape of latents that were encoded; and JAX, which takes a number of devices only
    before it has begun, in a process of its own."""
    part = DataConfig(source=str(images), latents=str(coder))
    assert latents.read_shape(coder) == build.load_seen(part, "train").example_shape
    code = (
        "import sys, jax; from jaxdiff.cli import train; train._base(sys.argv[1:]);"
        " jax.config.update('jax_num_cpu_devices', 3); assert jax.device_count() == 3"
    )
    command = [sys.executable, "-c", code, str(images), "--data.latents", str(coder)]
    env = {**os.environ, "JAX_PLATFORMS": "cpu", "XLA_FLAGS": ""}
    ran = subprocess.run(command, capture_output=True, text=True, env=env)
    assert ran.returncode == 0, ran.stderr
