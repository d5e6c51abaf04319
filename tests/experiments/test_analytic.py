"""The experiments on optimal variances run as they are told to, and trained heads learn.

Truth: the heads of exact models in closed form; the residual of what is off by b, which is b**2;
which rows a table must have.
"""

import functools
import importlib.util
import itertools
import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxdiff as jd
from jaxdiff.reverse import Moments
from tests.trajectory.chains import known

FOLDER = pathlib.Path(__file__).parents[2] / "experiments"


def load(name):
    spec = importlib.util.spec_from_file_location(name, FOLDER / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


heads, dpm, records = load("moment_heads"), load("analytic_dpm"), load("records")


def numbers(line):
    """Those of a printed row."""
    return [float(word) for word in line.replace("│", " ").replace("±", " ").split() if _is(word)]


def _is(word):
    try:
        float(word)
    except ValueError:
        return False
    return True


def test_truth_of_means_that_err(key):
    """E (eps - eps_hat)**2 and E eps**2 over draws, within five standard errors."""
    n, level = 20_000, heads.CHAIN(jnp.array(200.0))
    x, noise = heads.mixture().sample(key, n), jax.random.normal(jax.random.key(1), (n, 1))
    x_t = level.alpha * x + level.sigma * noise
    for bias in (0.0, 0.3):
        d = jax.jit(lambda model: model(x_t, level))(heads.Truth(bias))
        for name, sample in (("residual2", (noise - d.eps) ** 2), ("eps2", noise**2)):
            gap = np.asarray(sample - d.heads[name])
            assert abs(gap.mean()) < 5 * gap.std() / n**0.5


@pytest.mark.slow
def test_moment_heads_in_its_shortest_form(capsys, monkeypatch):
    monkeypatch.setattr(heads, "NET", jd.models.MLP(width=8, depth=1, out_channels=2))
    monkeypatch.setattr(heads, "trained", functools.cache(heads.trained))  # both tables ask for it
    heads.main(budgets=(2,), bias=(0.3,))
    said = capsys.readouterr().out
    rows = {name: [line for line in said.splitlines() if name in line] for name in heads.NAMES}
    for lines in rows.values():
        steps, error, spread = numbers(lines[0])
        assert steps == 2
        assert error > spread / 3  # hardly trained at all
    bounds = {
        (name, who): numbers(next(line for line in said.splitlines() if f"{name}, {who}" in line))
        for name, who in itertools.product(("npr", "sn"), ("trained", "exact"))
    }
    assert all(len(row) == 3 and row[0] == 0.3 for row in bounds.values())
    # what SN takes for exact is off by .3: its variance is 0 where Var[eps | x_t] < b**2 + 2 b eps
    assert bounds["npr", "exact"][1] < bounds["sn", "exact"][1]


def test_grids_are_padded_to_the_next_length():
    grid = jd.grids.linspace(heads.CHAIN, 7)
    for lengths, want in (((5, 10), 10), ((7,), 7), ((3,), 7)):
        filled = dpm.padded(grid, lengths)
        assert filled.num_steps == want
        assert not np.asarray(filled.levels.sigma[7:]).any()
        for ours, theirs in zip(filled.levels, grid.levels, strict=True):
            np.testing.assert_array_equal(ours[:8], theirs)


@pytest.mark.slow
def test_grids_to_compare():
    """Of N(0, 1 / 4): the chain's ends are on every path, and K = N has but one."""
    short = jd.from_betas(jd.schedules.linear_betas(24))
    chain = jd.grids.from_steps(short, np.arange(24.0, 0, -1))
    levels, _ = chain.pairs
    cov = 0.25 * levels.sigma**2 / (levels.alpha**2 * 0.25 + levels.sigma**2)
    eps = 1 - (levels.alpha / levels.sigma) ** 2 * cov
    moments = Moments(levels, *map(known, (eps, cov, cov, 0.25)))
    found = dpm.grids_of(moments, chain, (4, 24), bins=17)
    assert set(found) == {("even", 24), ("even", 4), ("least cost", 4), ("least bound", 4)}
    for (_, count), grid in found.items():
        assert grid.num_steps == count
        assert float(grid.levels.t[0]) == 24
        assert float(grid.levels.t[-1]) == 0


def test_each_variance_has_its_row():
    rows = [
        dpm.Bits(path, name, count, 3.0, 0.1, 0.0, 0.0)
        for path, name, count in itertools.product(("even", "least cost"), "ab", (5, 10))
    ]
    table = dpm.bits_rows(rows[:-1])  # one cell is empty
    assert table.row_count == 4
    assert len(table.columns) == 3


def test_samples_that_are_known_are_not_drawn_again(tmp_path):
    """By three values: their mean is 2, and its error sqrt(2 / 3) / sqrt(2) = 1 / sqrt(3)."""
    cells = [(*where, 4, seed) for where in dpm.DRAWN_BY for seed in range(3)]
    rows = [dpm.Distance(f, "even", v, 4, s, 1.0 + s) for (f, v, _, s) in cells]
    records.write(tmp_path / "seeds.csv", rows)
    known_rows = dpm.known_distances(tmp_path / "seeds.csv")
    assert known_rows == rows
    nothing = dict.fromkeys(("models", "kinds"))
    grids, real = {("even", 4): None}, np.zeros((2, 4, 4, 1))
    how = {"n": 2, "seeds": 3, "batch": 2, "features": np.ravel, "known": known_rows}
    assert not list(dpm.distance_table(**nothing, grids=grids, real=real, **how))
    lines = dpm.distance_rows(known_rows, (0.0, 0.0))
    assert list(lines.columns[1].cells) == ["2.00 ± 0.58"] * 12
    means = dpm.over_seeds(known_rows)
    assert [(m.seeds, m.distance) for m in means] == [(3, 2.0)] * 12
    np.testing.assert_allclose([m.error for m in means], 3**-0.5)
    assert dpm.known_distances(tmp_path / "none.csv") == []


@pytest.mark.slow
def test_trained_heads_approach_the_truth():
    """Errors fall by more than the root of the budget while they are large, sqrt(300 / 1000) =
    .55, and are a tenth of the spread or so at its end; with a mean that is off NPR wins."""
    early, late = (heads.errors(heads.trained(0.0, steps), 0.0) for steps in (300, 1000))
    for name in heads.NAMES:
        error, spread = late[name]
        assert error < 0.75 * early[name][0]
        assert error < 0.25 * spread
    bounds = heads.bounds(heads.trained(0.3, 1000))
    (npr, npr_error), (sn, sn_error) = bounds["npr"], bounds["sn"]
    assert npr + 4 * npr_error < sn - 4 * sn_error
    exact = heads.bounds(heads.Truth(0.3))["npr"]
    assert npr > exact[0] - 4 * exact[1]


@pytest.mark.slow
def test_digits_in_their_shortest_form(tmp_path, capsys):
    dpm.main("digits", tmp_path, quick=True)
    bits = records.read(tmp_path / "likelihood.csv")
    names = {"small", "large", "analytic", "residual", "NPR", "SN", "learned"}
    assert {(r["path"], r["variance"], int(r["steps"])) for r in bits} == set(
        itertools.product(("even", "least cost", "least bound"), names, (3, 10))
    )
    assert all(np.isfinite(float(r["bits"])) for r in bits)
    assert {float(r["gain"]) for r in bits if r["variance"] == "analytic"} == {0.0}
    scores = records.read(tmp_path / "samples.csv")
    ddim = names - {"large", "learned"}
    assert {(r["forward"], r["path"], r["variance"]) for r in scores} == {
        *itertools.product(("DDPM",), ("even", "least cost"), names),
        *itertools.product(("DDIM",), ("even", "least cost"), ddim),
    }
    assert all(float(r["distance"]) > 0 for r in scores)
    for picture in ("samples.png", "paths.png"):
        assert (tmp_path / picture).stat().st_size > 1000
    assert "bits/dim" in capsys.readouterr().out
