"""Spaces and designs. Truth: the values of a file; counts and quantiles of uniform numbers."""

import numpy as np
import pytest
from scipy import stats

from jaxdiff.study import space as spaces

TOML = """
"training.seed" = [0, 1, 2]
[optimizer]
lr = { log = [1e-4, 1e-2], points = 3 }
weight_decay = { uniform = [0, 0.1], points = 2 }
[model]
depth = { whole = [1, 3] }
"""
KNOWN = {
    "training.seed": spaces.choice(0, 1, 2),
    "optimizer.lr": spaces.axis("log", (1e-4, 1e-2), points=3),
    "optimizer.weight_decay": spaces.axis("uniform", (0, 0.1), points=2),
    "model.depth": spaces.axis("whole", (1, 3)),
}


def test_file(tmp_path):
    (tmp_path / "space.toml").write_text(TOML)
    assert spaces.read_space(tmp_path / "space.toml") == KNOWN


def test_grid_has_every_point():
    points = spaces.grid(KNOWN)
    assert len(points) == 3 * 3 * 2 * 3
    assert len({tuple(p.values()) for p in points}) == 54
    assert {p["model.depth"] for p in points} == {1, 2, 3}
    lrs = sorted({p["optimizer.lr"] for p in points})
    np.testing.assert_allclose(lrs, [1e-4, 1e-3, 1e-2])
    assert spaces.grid(KNOWN, 54) == points
    with pytest.raises(ValueError, match="members must be 54"):
        spaces.grid(KNOWN, 10)
    with pytest.raises(ValueError, match="a grid needs points"):
        spaces.grid({"lr": spaces.axis("uniform", (0, 1))})


@pytest.mark.parametrize("design", [spaces.random, spaces.sobol])
def test_marginals(design):
    """512 points: Kolmogorov and Smirnov find nothing at 1 in 10,000; choices are even to five
    deviations of a binomial, sqrt(512 / 3 * 2 / 3) = 10.7."""
    points = design(KNOWN, 512, seed=3)
    log = np.log([p["optimizer.lr"] for p in points])
    low, high = np.log([1e-4, 1e-2])
    assert stats.kstest(log, stats.uniform(low, high - low).cdf).pvalue > 1e-4
    for name, values in (("training.seed", [0, 1, 2]), ("model.depth", [1, 2, 3])):
        counts = [sum(p[name] == v for p in points) for v in values]
        assert sum(counts) == 512
        assert max(abs(c - 512 / 3) for c in counts) < 54
        assert {type(p[name]) for p in points} == {int}
    assert design(KNOWN, 512, seed=3) == points
    assert design(KNOWN, 16, seed=3) == points[:16]
    assert design(KNOWN, 16, seed=4) != points[:16]


def test_sobol_is_evener_than_chance():
    """Of 64 points each 64th of an axis holds exactly one, which is what such a sequence is."""
    space = {"a": spaces.axis("uniform", (0, 1)), "b": spaces.axis("uniform", (0, 1))}
    points = spaces.sobol(space, 64)
    for name in space:
        cells = {int(64 * p[name]) for p in points}
        assert len(cells) == 64


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("lr = 3", "lr: must be a list of values"),
        ("lr = []", "lr: choice must have a value"),
        ("lr = { log = [0, 1] }", "lr: log must be of positive numbers"),
        ("lr = { log = [1, 1] }", "low < high"),
        ("lr = { log = [1, inf] }", "low < high"),
        ("lr = { log = [1, 2, 3] }", "two numbers"),
        ('lr = { uniform = ["a", "b"] }', "two numbers"),
        ("lr = { whole = [1, 2.5] }", "two numbers"),
        ("lr = { log = [1, 2], uniform = [1, 2] }", "must say one of"),
        ("lr = { log = [1, 2], points = 0 }", "points must be"),
        ("[optimizer]", "holds no axis"),
        ("lr = [", "is no TOML"),
    ],
)
def test_refuses(text, words, tmp_path):
    (tmp_path / "space.toml").write_text(text)
    with pytest.raises(ValueError, match=words):
        spaces.read_space(tmp_path / "space.toml")


def test_refuses_numbers_of_members(tmp_path):
    for members in (0, 1.5, True):
        for design in (spaces.random, spaces.sobol):
            with pytest.raises(ValueError, match="members must be a whole number"):
                design(KNOWN, members)
    with pytest.raises(FileNotFoundError):
        spaces.read_space(tmp_path / "none.toml")
    with pytest.raises(ValueError, match="kind must be one of"):
        spaces.axis("normal", (0, 1))
