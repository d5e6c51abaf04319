"""Weights of others into a run and out of it again.

Truth: the parameters that were written come back to the bit; what of a noise level a network is
told, and the sign of its noise, by hand from score_sde's code.
"""

import json

import jax
import numpy as np
import pytest

from jaxdiff import grids, interop, models
from jaxdiff.cli import main, runs
from jaxdiff.config import build
from jaxdiff.schedules import ve
from tests.cli.commands import complaint, draw
from tests.interop.test_weights import IMAGE, drawn, same

pytest.importorskip("safetensors")

UNET = models.UNet(
    channels=8,
    multipliers=(1, 2),
    blocks=1,
    groups=4,
    attention=(4,),
    head_channels=8,
    resample="conv_around",
    endpoint=False,
    num_classes=3,
)
SONG = models.SongUNet(
    channels=8,
    multipliers=(1, 2),
    blocks=1,
    attention=(),
    embedding="fourier",
    waves=2,
    encoder="residual",
    taps=(1.0, 3.0, 3.0, 1.0),
)
SCHEDULER = {"beta_schedule": "linear", "beta_start": 1e-4, "beta_end": 0.02, "clip_sample": False}


@pytest.fixture(scope="module")
def pipeline(tmp_path_factory):
    """A pipeline's folder, with parameters drawn at random."""
    folder = tmp_path_factory.mktemp("pipeline")
    params = drawn(UNET)
    params["conditioning"]["label"]["embedding"][-1] = 0  # theirs have no null label
    interop.write_diffusers(folder / "unet", UNET, params, IMAGE)
    (folder / "scheduler").mkdir()
    (folder / "scheduler" / "scheduler_config.json").write_text(json.dumps(SCHEDULER))
    return folder, params


@pytest.fixture(scope="module")
def imported(pipeline, tmp_path_factory):
    out = tmp_path_factory.mktemp("imported") / "run"
    assert main(["import", str(pipeline[0]), "--out", str(out)]) == 0
    return out


def test_diffusers_becomes_a_run_and_weights_again(pipeline, imported, tmp_path):
    run = runs.open_run(imported)
    state = run.restore()
    assert int(state.step) == 0
    same(jax.tree.map(np.asarray, state.ema), {"params": pipeline[1]})
    config = run.config
    assert (config.schedule.name, config.parametrization.name) == ("linear_betas", "eps")
    assert not config.sampling.clip
    assert config.data.label_counts == (1, 1, 1)
    assert main(["export-weights", str(imported), "--out", str(tmp_path / "back")]) == 0
    theirs = "diffusion_pytorch_model.safetensors"
    one, two = (p / theirs for p in (pipeline[0] / "unet", tmp_path / "back"))
    same(interop.read_safetensors(one), interop.read_safetensors(two))


@pytest.mark.slow
def test_samples_at_once(imported, tmp_path):
    found = draw(imported, tmp_path / "x.npz", "--n", "3")
    assert found["x"].shape == (3, *IMAGE)
    assert np.isfinite(found["x"]).all()


@pytest.mark.slow
def test_score_sde_gives_noise(tmp_path):
    """Its network h of images in [0, 1] and log sigma there has the score h / sigma, so that the
    noise is -h; in [-1, 1] sigma is twice that. The weights come back to the bit."""
    params = drawn(SONG)
    weights = interop.to_score_sde(SONG, params, IMAGE)
    file, out = tmp_path / "w.safetensors", tmp_path / "run"
    interop.write_safetensors(file, weights)
    options = ["--format", "score_sde", "--size", "8"]
    assert main(["import", str(file), "--out", str(out), *options]) == 0
    run = runs.open_run(out)
    state = run.restore()
    level = jax.tree.map(lambda a: a[3], grids.uniform(ve(0.02, 100.0), 8).levels)
    x = np.random.default_rng(0).normal(size=(2, *IMAGE)).astype(np.float32)
    said = jax.jit(build.build_denoiser(run.config, state.ema))(x, level)
    sigma = np.full(2, level.sigma)
    h = jax.jit(SONG.apply)({"params": params}, x, np.log(sigma / 2))
    np.testing.assert_allclose(said.eps, -h, atol=1e-5)
    assert run.config.schedule.options == {"sigma_min": 0.02, "sigma_max": 100.0}
    back = tmp_path / "back.safetensors"
    assert main(["export-weights", str(out), "--out", str(back), *options[:2]]) == 0
    same(interop.read_safetensors(back), weights)


def test_mistakes(pipeline, imported, tmp_path, capsys):
    out, folder = tmp_path / "run", pipeline[0]
    file = tmp_path / "w.safetensors"
    file.write_bytes(b"nothing")
    pickled = tmp_path / "w.pkl"
    pickled.write_bytes(b"c__builtin__\neval\n.")
    for options, words in (
        ([tmp_path / "nowhere"], "no data file"),
        ([folder, "--size", "8"], "--size is of adm and score_sde, not of diffusers"),
        ([folder, "--format", "gan"], "--format must be one of diffusers, edm, adm, score_sde"),
        ([file, "--format", "adm", "--heads", "4"], "--size is needed"),
        ([file, "--format", "edm"], "cannot be read"),
        ([pickled, "--format", "edm"], "needs torch"),
    ):
        if "torch" in words and _has_torch():
            words = "no weights that can be read safely"
        assert words in complaint(["import", *options, "--out", out], capsys)
        assert not out.exists()
    assert "holds a run" in complaint(["import", folder, "--out", imported], capsys)
    scheduler = folder / "scheduler" / "scheduler_config.json"
    for changes, words in (
        ({"beta_schedule": "exp"}, "beta_schedule must be one of linear"),
        ({"beta_schedule": None}, "beta_schedule must be one of linear"),
        ({"beta_end": 0.03}, "beta_start and beta_end must be 0.0001 and 0.02"),
        ({"prediction_type": "flow"}, "prediction_type must be one of"),
    ):
        scheduler.write_text(json.dumps({**SCHEDULER, **changes}))
        assert words in complaint(["import", folder, "--out", out], capsys)
    flow = {"_class_name": "FlowMatchEulerDiscreteScheduler", "shift": 3.0}
    scheduler.write_text(json.dumps(flow))
    words = "beta_schedule is missing: FlowMatchEulerDiscreteScheduler is no chain of betas"
    assert words in complaint(["import", folder, "--out", out], capsys)
    scheduler.write_text(json.dumps(SCHEDULER))
    for path, command in (
        (folder / "unet", ["import", folder, "--out"]),
        (imported, ["export-weights", imported, "--out"]),
    ):  # a config.json of something else stays
        before = (path / "config.json").read_bytes()
        assert "of something else" in complaint([*command, path], capsys)
        assert (path / "config.json").read_bytes() == before
    for command in (["import", folder], ["export-weights", imported]):
        words = "--order is of adm, not of diffusers"
        assert words in complaint([*command, "--out", out, "--order", "new"], capsys)
    for options, words in (
        (["--out", tmp_path / "x.bin", "--format", "edm"], "--out must end in .safetensors"),
        (["--out", tmp_path / "x.safetensors"], "--out must be a folder for diffusers"),
        (["--out", tmp_path / "x.safetensors", "--format", "edm"], "a SongUNet or a DhariwalUNet"),
    ):
        assert words in complaint(["export-weights", imported, *options], capsys)


def _has_torch():
    try:
        import torch  # noqa: F401
    except ImportError:
        return False
    return True
