"""The probe of all methods. Truth: the theorem of rows that sum to one, in closed form."""

import importlib.util
import pathlib

import numpy as np
import pytest

from jaxdiff.training.probe_tasks import METHODS, method, verdict

PATH = pathlib.Path(__file__).parents[2] / "experiments" / "position_probe.py"
_spec = importlib.util.spec_from_file_location(PATH.stem, PATH)
position_probe = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(position_probe)


@pytest.mark.slow
def test_quick(tmp_path):
    rows = position_probe.main(("urpe",), ("regression",), out=tmp_path, quick=True)
    assert [(row.method, row.seed) for row in rows] == [("urpe", 0), ("urpe", 1)]
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "position_probe_maps_regression.png",
        "position_probe_regression.csv",
        "position_probe_regression.png",
    ]


@pytest.mark.slow
def test_every_method_does_what_the_theorem_says(tmp_path):
    """In 1500 steps of 32 tokens: (n^2 - 1) / (12 n^2) to 1e-4 where it cannot, below half of it
    where it can. Of URPE and absolute positions 1e-5, as expected."""
    rows = position_probe.main(METHODS, ("regression",), out=tmp_path)
    for name in METHODS:
        losses = [row.loss for row in rows if row.method == name]
        if verdict(method(name)).counts:
            assert max(losses) < 0.04, name
        else:
            np.testing.assert_allclose(losses, 1023 / 12288, atol=1e-4, err_msg=name)
        if name in ("urpe", "factor", "learned", "sinusoidal"):
            assert max(losses) < 1e-5, name


@pytest.mark.slow
def test_random_tokens(tmp_path):
    """Without positions the answer is equivariant, at ln 32 but for chance; URPE learns it."""
    rows = position_probe.main(("none", "urpe"), ("pi",), steps=700, out=tmp_path)
    losses = {name: [r.loss for r in rows if r.method == name] for name in ("none", "urpe")}
    np.testing.assert_allclose(losses["none"], np.log(32), atol=0.02)
    assert max(losses["urpe"]) < 0.5 * np.log(32)
