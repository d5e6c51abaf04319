"""The variance of the reverse steps, from the command line.

Truth: second moments worked out again by numpy from the network's own answers; the published size
of the last noise; that what the theory orders is ordered; files that were written are read again.
"""

import json
import shutil

import jax
import jax.numpy as jnp
import matplotlib.image
import numpy as np
import pytest

from jaxdiff import training
from jaxdiff.cli import main, runs, variances
from jaxdiff.config import build
from jaxdiff.training import rundir
from tests.cli.commands import SMALL, complaint, draw

ESTIMATE = ["--levels", "20", "--n", "50"]


@pytest.fixture(scope="module")
def measured(run, tmp_path_factory):
    """The run, with its moments beside it."""
    path = tmp_path_factory.mktemp("measured") / "run"
    shutil.copytree(run, path)
    assert main(["estimate-variance", str(path), *ESTIMATE]) == 0
    return path


def moments_in(path, file=None):
    run = runs.open_run(path)
    weights = build.averaged(run.config, run.restore())
    schedule = build.build_schedule(run.config)
    return training.read_moments(file or variances.moments_path(path), schedule, weights)


@pytest.mark.slow
def test_the_moments_are_those_of_the_network(measured, run, points, tmp_path, capsys):
    """Residual and spread by numpy, of new noise: within 5 errors at each of 20 levels."""
    picture, file = tmp_path / "a.png", tmp_path / "b.npz"
    command = ["estimate-variance", run, *ESTIMATE, "--batch", "30", "--out", file]
    assert main([str(a) for a in [*command, "--draws", "2", "--plot", picture]]) == 0
    shown, said = capsys.readouterr()
    assert f"--variance analytic --moments {file} --steps" in said  # the command it goes on by
    assert matplotlib.image.imread(picture).shape == (400, 1000, 4)
    assert "Gamma" in shown
    assert "the error of the model's own mean" in " ".join(shown.split())
    found = moments_in(run, file)
    assert found.levels.t.shape == (20,)
    opening = runs.open_run(run)
    weights = build.averaged(opening.config, opening.restore())
    dataset = build.load_data(opening.config.data, "train")
    x, y = dataset.images(50), dataset.labels(50)
    denoise = build.build_denoiser(opening.config, weights).with_cond(jnp.asarray(y))
    np.testing.assert_allclose(found.spread.mean, x.var(axis=0).mean(), rtol=1e-5)
    rng = np.random.default_rng(0)
    for k in range(20):
        level = jax.tree.map(lambda a, k=k: a[k], found.levels)
        x_t = level.alpha * x + level.sigma * rng.normal(size=x.shape).astype(np.float32)
        error = np.mean((np.asarray(denoise(x_t, level).x0) - x) ** 2, axis=1)
        spread = np.hypot(error.std(ddof=1) / 50**0.5, found.residual.error[k])
        assert abs(error.mean() - found.residual.mean[k]) < 5 * spread + 1e-6, k
    # chunks and draws are of the same examples
    once = moments_in(measured)
    spread = np.hypot(once.eps.error, found.eps.error)
    np.testing.assert_array_less(abs(once.eps.mean - found.eps.mean), 5 * spread + 1e-6)


@pytest.mark.slow
def test_a_chain_has_all_its_steps_and_data_need_no_labels(points, tmp_path, capsys):
    out, bare = tmp_path / "run", tmp_path / "bare.npz"
    with np.load(points) as file:
        np.savez(bare, x=file["x"])
    chain = ["--schedule.name", "linear_betas", "--schedule.options", "num_steps", "30"]
    command = ["train", points, "--out", out, "--steps", "5", *SMALL, *chain]
    assert main([str(a) for a in command]) == 0
    assert main(["estimate-variance", str(out), "--data", str(bare), "--n", "8"]) == 0
    said = capsys.readouterr().err
    assert "bare.npz has no labels: the model is asked without one" in said
    np.testing.assert_array_equal(moments_in(out).levels.t, np.arange(30, 0, -1))
    assert "--levels must be at most 30" in complaint(
        ["estimate-variance", out, "--levels", "31"], capsys
    )
    # the published last noise: 2 values for ddpm on linear betas, else 1
    config = runs.open_run(out).config
    flags = variances.VarianceFlags(variance="analytic")
    wanted = {"ddpm": 2, "ddim": 1}
    for sampler, values in wanted.items():
        # E |noise| = std sqrt(2 / pi) is so many of the 255 steps from -1 to 1
        mean = variances.last_std(None, flags, sampler, config) * np.sqrt(2 / np.pi)
        np.testing.assert_allclose(mean, values * 2 / 255)
    assert variances.last_std(None, variances.VarianceFlags(), "ddpm", config) == np.inf
    assert variances.last_std("none", flags, "ddpm", config) == np.inf


def test_samples_by_variance_and_trajectory(measured, tmp_path):
    sampled = {
        name: draw(measured, tmp_path / "a.npz", "--n", "8", "--sampler", *options)["x"]
        for name, options in {
            "small": ["ddpm"],
            "small by name": ["ddpm", "--variance", "small"],
            "large": ["ddpm", "--variance", "large"],
            "analytic": ["ddpm", "--variance", "analytic"],
            "by residual": ["ddpm", "--variance", "analytic", "--by", "residual"],
            "loud": ["ddpm", "--variance", "analytic", "--last-values", "none"],
            "ddim": ["ddim", "--variance", "analytic"],
            "optimal": ["ddpm", "--variance", "analytic", "--trajectory", "optimal"],
            "optimal small": ["dpmpp_2m", "--trajectory", "optimal"],
        }.items()
    }
    np.testing.assert_array_equal(sampled.pop("small by name"), sampled["small"])
    for x in sampled.values():
        assert np.isfinite(x).all()
    different = [x.tobytes() for x in sampled.values()]
    assert len(set(different)) == len(different)


@pytest.mark.slow
def test_the_bound_by_variance_and_trajectory(measured, tmp_path):
    """By the residual of the same examples the variance is the best: no bound with another one
    number a level is higher on them, of so few but for what noise differs; nor on even steps."""
    found = {}
    common = ["likelihood", measured, "--method", "elbo", "--density", "--split", "train"]
    common += ["--n", "50", "--labels", "--steps", "8", "--draws", "8"]
    for name, options in {
        "small": ["--variance", "small"],
        "large": ["--variance", "large"],
        "analytic": ["--variance", "analytic", "--by", "residual"],
        "optimal": ["--variance", "analytic", "--by", "residual", "--trajectory", "optimal"],
    }.items():
        command = [*common, *options, "--out", tmp_path / "a.json"]
        assert main([str(a) for a in command]) == 0
        found[name] = json.loads((tmp_path / "a.json").read_text())
    assert found["optimal"]["how"].startswith(
        "8 steps, variance analytic, by residual, trajectory optimal"
    )
    nats = {name: numbers["nats"] for name, numbers in found.items()}
    error = found["analytic"]["nats_errors"]["probes"] * 3
    assert nats["analytic"] > max(nats["small"], nats["large"]) - error
    assert nats["optimal"] > nats["analytic"] - error


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--variance", "analytic", "--raw"], "of a model with other parameters"),
        (["--variance", "analytic", "--moments", "{tmp}/no.npz"], "jaxdiff estimate-variance"),
        (["--trajectory", "optimal", "--moments", "{points}"], "no file of moments"),
        (["--variance", "analytic", "--sampler", "heun"], "--variance is of the samplers ddpm"),
        (["--last-values", "1", "--sampler", "heun"], "--last-values is of the samplers ddpm"),
        (["--by", "x0"], "--by x0 needs --variance analytic"),
        (["--trajectory", "optimal", "--grid", "karras"], "got --grid karras as well"),
        (["--trajectory", "optimal", "--steps", "21"], "--steps must be at most 20"),
        (["--variance", "npr"], "needs a model with that head, {run} has none: jaxdiff train"),
    ],
)
def test_mistakes_of_sampling(arguments, words, measured, points, tmp_path, capsys):
    places = {"{tmp}": tmp_path, "{points}": points}
    for name, place in places.items():
        arguments = [argument.replace(name, str(place)) for argument in arguments]
    command = ["sample", measured, "--out", tmp_path / "a.npz", "--sampler", "ddpm", *arguments]
    assert words.replace("{run}", str(measured)) in complaint(command, capsys)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--levels", "1"], "--levels must be at least 2, got 1"),
        (["--n", "0"], "--n must be at least 1, got 0"),
        (["--seed", "-1"], "--seed must lie in"),
        (["--out", "a.json"], "--out must end in .npz"),
        (["--raw", "--ema", "0.1"], "--ema and --raw say different"),
        (["--data", "digits"], "[8, 8, 1], the model is of [2]"),
    ],
)
def test_mistakes_of_estimating(arguments, words, run, capsys):
    assert words in complaint(["estimate-variance", run, *arguments], capsys)


def test_no_moments_yet_another_schedule_and_the_ode(run, measured, tmp_path, capsys):
    bound = ["likelihood", "--density", "--n", "4", "--method"]
    analytic = ["--variance", "analytic"]
    said = complaint([*bound, "elbo", run, *analytic], capsys)
    assert f"jaxdiff estimate-variance {run} makes it" in said
    said = complaint([*bound, "ode-exact", run, *analytic], capsys)
    assert "--variance is not of --method ode-exact" in said
    other = tmp_path / "run"
    shutil.copytree(measured, other)
    values, total = rundir.read_config(other)
    schedule = {**values["schedule"], "shift": 2.0}
    rundir.write_config(other, {**values, "schedule": schedule}, total)
    said = complaint([*bound, "elbo", other, *analytic], capsys)
    assert "of another schedule: alpha" in said
    assert "Traceback" not in said
