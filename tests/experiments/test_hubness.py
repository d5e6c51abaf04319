"""The studies of hubness in their short form: they run, and say what they should."""

import csv

import bench_hubness
import hubness_dimensions
import hubness_latents
import numpy as np
import pytest
from scipy import stats


@pytest.mark.slow
def test_dimensions(tmp_path):
    hubness_dimensions.main(tmp_path, quick=True)
    with open(tmp_path / "hubness_dimensions.csv", newline="") as file:
        rows = {(r["kind"], int(r["dim"])): r for r in csv.DictReader(file)}
    assert len(rows) == 6
    # Hubs of a Gaussian are a matter of dimension, and not of the sphere.
    share = {where: float(r["antihubs"]) for where, r in rows.items()}
    assert share["normal", 32] > 2 * share["normal", 2]
    assert share["normal", 32] > 1.5 * share["sphere", 32]
    assert (tmp_path / "hubness_dimensions.png").stat().st_size > 5000


def test_counts_and_distances():
    counts, far = hubness_dimensions.counted("normal", 400, 64, 0)
    assert counts.sum() == 5 * 400
    assert stats.spearmanr(counts, far)[0] < -0.5
    np.testing.assert_allclose(far.mean(), 8, rtol=0.02)  # sqrt(d - 1/2), known to 1/(8 sqrt(800))


@pytest.mark.slow
def test_benchmark(capsys):
    bench_hubness.main(quick=True)
    told = " ".join(capsys.readouterr().out.split())  # titles break where tables are narrow
    assert "equal to theirs for 100.0000%" in told
    assert "memory" in told


@pytest.mark.slow
def test_latents(tmp_path):
    hubness_latents.main(tmp_path, quick=True)
    with open(tmp_path / "hubness_latents.csv", newline="") as file:
        rows = {(r["model"], r["latents"]): r for r in csv.DictReader(file)}
    assert len(rows) == 3 * len(hubness_latents.KINDS)
    radius = {kind: float(rows["GAN", kind]["radius"]) for kind in hubness_latents.KINDS}
    # Hubs lie nearer to 0, as do those that are chosen for it; truncation has the same radius.
    assert radius["hubs"] < 0.9 * radius["random"] < radius["antihubs"]
    np.testing.assert_allclose(radius["truncated"], radius["hubs"], rtol=0.01)
    assert (tmp_path / "hubness_latents.png").stat().st_size > 5000
