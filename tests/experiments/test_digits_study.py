"""The study of digits: its table by hand, and its shortest form."""

import csv

import digits_study
import numpy as np
import pytest


def test_effects_by_hand():
    rows = [
        {"optimizer.lr": lr, "optimizer.ema_decay": 0.9, "schedule.name": schedule,
         "loss.weight": "plain", "frechet": distance}
        for lr, schedule, distance in (
            (2e-4, "cosine", 1.0), (2e-4, "cosine", 3.0), (2e-2, "linear_vp", np.inf),
            (2e-2, "linear_vp", 5.0),
        )
    ]  # fmt: skip
    found = {(row["axis"], row["value"]): row for row in digits_study.effects(rows)}
    cosine = found["schedule.name", "cosine"]
    assert cosine["members"] == 2
    np.testing.assert_allclose([cosine["mean"], cosine["error"], cosine["best"]], [2, 1, 1])
    linear = found["schedule.name", "linear_vp"]
    assert (linear["members"], linear["failed"], linear["mean"]) == (2, 1, 5.0)
    assert found["optimizer.lr", "0.0001 to 0.00067"]["members"] == 2
    assert found["optimizer.lr", "0.0045 to 0.03"]["members"] == 2
    assert np.isnan(found["loss.weight", "p2"]["mean"])


@pytest.mark.slow
def test_shortest_form(tmp_path):
    found = digits_study.main(tmp_path, quick=True)
    assert sum(row["members"] for row in found if row["axis"] == "schedule.name") == 4
    with (tmp_path / "digits_study.csv").open(newline="") as file:
        scores = [float(row["frechet"]) for row in csv.DictReader(file)]
    assert scores == sorted(scores)
    assert (tmp_path / "digits_study.png").read_bytes().startswith(b"\x89PNG")
