"""Truth: IEEE 754's half precision, Student's table, exact powers of two, and plain counting.

What the studies measure is not pinned. That every claim finds its numbers is tested on made-up
ones; a real run, in its smallest form, is slow and held to what must be so at any size.
"""

import csv
import importlib
import pathlib
import types

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxdiff.denoiser import make_denoiser

FOLDER = pathlib.Path(__file__).parents[2] / "experiments"

with pytest.MonkeyPatch.context() as patch:
    patch.syspath_prepend(str(FOLDER))
    made, studies, recipe = map(importlib.import_module, ("su_training", "su_studies", "su_recipe"))

TINY = made.Plan(channels=8, batch=8, steps=3, short=3, seeds=2, n=20, calls=(2, 3))


def test_half_precision_loses_what_ieee_says():
    """2**-24 is its least number: half of it and less rounds to 0, ties to even."""
    full = {"a": np.float32([2**-24, 2**-25, 1.1 * 2**-25, 2**-30, 0]), "b": np.ones(2, np.float32)}
    half = jax.tree.map(lambda a: a.astype(np.float16), full)
    share, error = studies.lost(half, full)
    assert share == 2 / 6  # of the six that are not 0
    gone = [0, 2**-25, 0.9 * 2**-25, 2**-30]  # 1.1 * 2**-25 becomes 2**-24
    # to the rounding of 1.1 * 2**-25 in float32, 1e-7
    np.testing.assert_allclose(error, np.linalg.norm(gone) / np.sqrt(2), rtol=1e-6)
    assert studies.lost({"a": np.float16([np.inf, 1])}, {"a": np.ones(2)})[1] == np.inf


def test_high_pass_adds_the_variance_of_noise():
    """Of 40,000 squares of 2x2, each shared by four, within five standard errors of .5 %."""
    y, x = np.mgrid[:20, :20]
    plane = np.broadcast_to((3 * x - 2 * y + 1.0)[None, :, :, None], (100, 20, 20, 1))
    assert studies.high_pass(plane) == 0
    board = (-1.0) ** (x + y)[None, :, :, None]
    assert studies.high_pass(0.5 * board) == 1  # d = +-4 * .5 / 2
    noise = np.random.default_rng(0).normal(size=plane.shape)
    assert abs(studies.high_pass(plane + 0.3 * noise) / 0.09 - 1) < 5 * 0.01


@pytest.mark.parametrize(
    ("differences", "word"),
    [
        ((2.0, 2.1, 2.2), "holds"),
        ((1.0, 2.0, 3.0), "cannot be told"),
        ((-1.0, -1.1), "does not hold"),
        ((0.0, 0.0), "does not hold"),
        ((5.0,), "cannot be told"),
        ((np.inf, 3.0), "holds"),
        ((np.inf, np.nan), "cannot be told"),
        ((-np.inf, -np.inf), "does not hold"),
        ((np.inf, -1.0), "cannot be told"),
    ],
)
def test_verdicts(differences, word):
    assert recipe.judge(differences)[2] == word


def test_the_interval_is_students():
    """The .975 quantile with 2 degrees of freedom is 4.303 in every table of it."""
    mean, half, _ = recipe.judge([1.0, 2.0, 3.0])
    assert mean == 2
    np.testing.assert_allclose(half, 4.303 / np.sqrt(3), rtol=1e-4)  # to the table's digits


class Affine(nn.Module):
    @nn.compact
    def __call__(self, x, t):
        slope, shift = (self.param(name, nn.initializers.ones, ()) for name in ("slope", "shift"))
        return slope * jnp.tanh(x) + shift * t[:, None, None, None] / 1000


def test_the_gradient_of_a_sum_is_that_of_a_mean_times_its_size():
    """Exactly: times 64, a power of two, in one program."""
    gradient = made.gradient_of(Affine(), (8, 8, 1))
    params = {"params": {"slope": jnp.asarray(0.7), "shift": jnp.asarray(0.1)}}
    batch = {"x": jax.random.normal(jax.random.key(0), (2, 8, 8, 1))}
    mean, total = (gradient(params, batch, 0, factor) for factor in (1.0, 64.0))
    jax.tree.map(lambda m, s: np.testing.assert_array_equal(64 * m, s), mean, total)
    assert all(leaf != 0 for leaf in jax.tree.leaves(mean))


def test_running_statistics_that_are_the_batchs_own_change_nothing():
    """Their update by a hundredth is undone, which leaves 100 roundings of float32."""
    module = made.Normed(4, "batch")
    x, t = jax.random.normal(jax.random.key(0), (6, 4, 4, 1)), jnp.arange(6.0)
    variables = made.init_of(module, (4, 4, 1))(jax.random.key(1))
    params, stats = variables["params"], variables["batch_stats"]

    @jax.jit
    def outputs(params, stats):
        variables = {"params": params, "batch_stats": stats}
        y, new = module.apply(variables, x, t, True, mutable=["batch_stats"])
        own = jax.tree.map(lambda a, b: 100 * a - 99 * b, new["batch_stats"], stats)
        running = made.normed_apply(module, False)
        return y, running((params, own), x, t), running((params, stats), x, t)

    mine, same, other = outputs(params, stats)
    np.testing.assert_allclose(same, mine, atol=1e-3)
    assert np.max(np.abs(other - mine)) > 0.05


@pytest.mark.slow
def test_a_row_of_another_step_does_not_speak():
    module = made.network(8, "B", "rows")
    params = made.denoiser_of(module, (8, 8, 1)).params
    apply, x, t = jax.jit(module.apply), jnp.ones((1, 8, 8, 1)), jnp.array([3.0])
    before = apply(params, x, t)
    kernel = params["params"]["net"]["vector"]["kernel"]
    for step, moves in ((5, False), (3, True)):
        params["params"]["net"]["vector"]["kernel"] = kernel.at[step].add(10.0)
        assert bool(np.any(apply(params, x, t) != before)) == moves


@pytest.fixture
def made_up(monkeypatch):
    """Studies without networks: gradients, losses and samples that no one has computed."""
    model = make_denoiser(lambda params, x, t: x, {}, parametrization="eps", time_feature="steps")

    def gradient_of(module, shape):
        small = np.float32([1, 1e-9])
        cast = lambda a: a.astype(module.dtype).astype(np.float32)  # noqa: E731
        return lambda params, batch, seed, factor: {"a": cast(jnp.asarray(small * factor))}

    def by_level(source, module):
        cases = ("mixed", "running", "one level") if module.norm == "batch" else ("group",)
        return lambda weights: {case: np.ones(len(studies.LEVELS)) for case in cases}

    def drawn(key, denoise, grid, shape, *, sampler):
        return np.random.default_rng(grid.num_steps).normal(size=shape)

    monkeypatch.setattr(studies.metrics, "frechet_distance", lambda x, y: x.var() / y.var())
    state = types.SimpleNamespace(params={}, ema={}, aux={})
    for name, fake in {
        "denoiser_of": lambda module, shape, seed: model,
        "gradient_of": gradient_of,
        "heldout_loss": lambda source, module: lambda params: 0.5,
        "init_of": lambda module, shape: lambda key: {"params": {}},
        "loss_of": lambda module, shape: None,
        "sample": drawn,
        "sampled_model": lambda plan, net, code, seed: model,
        "sum_trained": lambda plan, seed: {},
        "trained": lambda plan, loss_fn, params, steps, seed, **how: state,
        "_losses_by_level": by_level,
    }.items():
        monkeypatch.setattr(studies, name, fake)


def test_every_claim_finds_its_numbers(made_up, tmp_path, capsys):
    recipe.main(TINY, out=tmp_path)
    with (tmp_path / "numbers.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    numbers = [
        studies.Number(**{**r, "at": float(r["at"]), "value": float(r["value"])}) for r in rows
    ]
    assert len({n[:-1] for n in numbers}) == len(numbers)  # each once
    for claim in recipe.CLAIMS:
        assert len(recipe.paired(claim, numbers)) == TINY.seeds, claim
    zeros = {n.value for n in numbers if n.measure == "zeros" and n.case == "float16 mean, new"}
    assert zeros == {0.5}  # 1e-9 of the two is lost
    said = " ".join(capsys.readouterr().out.split())
    assert all(f"{name}: mean over seeds" in said for name in studies.STUDIES)
    for name in ("underflow", "norm", "sigma"):
        assert (tmp_path / f"{name}.png").stat().st_size > 1000


def test_unknown_study():
    with pytest.raises(ValueError, match="studies must be of underflow, precision, norm"):
        recipe.main(TINY, studies=("dropout",))


@pytest.mark.slow
def test_a_real_run(tmp_path):
    recipe.main(TINY, out=tmp_path)
    with (tmp_path / "numbers.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    value = {(r["case"], float(r["at"]), r["measure"], r["seed"]): float(r["value"]) for r in rows}
    for (case, at, measure, seed), share in value.items():
        if measure == "zeros" and "mean" in case:
            assert share >= value[case.replace("mean", "sum"), at, measure, seed]
    losses = [float(r["value"]) for r in rows if r["measure"] in ("loss", "Frechet")]
    assert np.isfinite(losses).all()
    assert np.min(losses) > 0
