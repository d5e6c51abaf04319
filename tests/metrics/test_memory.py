"""50,000 examples of 2,048 features: what they take beyond themselves.

Truth: what the operating system counted as the most memory that a process of its own held. Data
are of rank 2,048 with known moments; distances are checked at some rows by differences.
"""

import json
import subprocess
import sys

import pytest

_START = """
import json, resource, sys, time
import numpy as np
from jaxdiff import metrics
from jaxdiff.metrics import distances, errors, frechet

def most():  # kilobytes on Linux
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024

generator = np.random.default_rng(0)
n, distances.TILE, width = int(sys.argv[1]), int(sys.argv[2]), 2048
x = generator.standard_normal((n, width), np.float32)
y = generator.standard_normal((n, width), np.float32)
y *= np.float32(1.1)
y += np.float32(0.1)
before, start = most(), time.monotonic()
"""
_END = """
print(json.dumps({"beyond": most() - before, "seconds": time.monotonic() - start, **found}))
"""
_MOMENTS = """
a, b = metrics.moments(x), metrics.moments(y)
found = {"distance": metrics.frechet_from_moments(a, b)}
"""
_RESAMPLE = """
counts = np.bincount(generator.integers(n, size=n), minlength=n)
a, b = frechet._weighted_moments(x, counts), frechet._weighted_moments(y, counts)
found = {"distance": frechet._squared(a, b, frechet._overlap_by_eigenvalues(a.cov, b.cov))}
"""
_NEIGHBOURS = """
shares = metrics.precision_recall(x, y)
near = distances.nearest(x, y)
some = [0, n // 2, n - 1]
parts = np.array_split(np.arange(n), 50)  # so that the check itself takes no memory
exact = [
    float(np.sqrt(min(np.min(np.sum((x[i] - y[p].astype(float)) ** 2, axis=1)) for p in parts)))
    for i in some
]
found = {"near": near[some].tolist(), "exact": exact, "precision": shares.precision}
"""
_KERNEL = """
estimate = metrics.mmd2_estimate(x, y, metrics.polynomial())
gaussian = metrics.mmd2_estimate(x, y, metrics.rbf(64.0))
found = {"value": estimate.value, "gaussian": gaussian.value}
"""


def measured(program, n, tile=4096):
    done = subprocess.run(
        [sys.executable, "-c", _START + program + _END, str(n), str(tile)],
        capture_output=True,
        text=True,
        check=True,
    )
    return json.loads(done.stdout)


@pytest.mark.slow
def test_moments_and_frechet_of_50000():
    """Two gigabytes beyond the features; the distance is |m|^2 + .01 D and a bias.

    Of E |C_x - C_y|^2 / 4 for n-samples the bias is D (D + 1) / (2 n) near C = I, and 2 D / n of
    the means; 10 % more for the factor 1.1, and higher orders in D / n.
    """
    found = measured(_MOMENTS, 50_000)
    assert found["beyond"] < 2e9
    truth, bias = 2048 * (0.1**2 + 0.1**2), 1.1 * 2048 * 2049 / (2 * 50_000)
    assert found["distance"] == pytest.approx(truth + bias, rel=0.05)


@pytest.mark.slow
def test_a_resample_of_50000():
    found = measured(_RESAMPLE, 50_000)
    assert found["beyond"] < 2e9
    # as above; of n draws 1 - 1/e are different, and repeats add as much variance as there was
    assert found["distance"] == pytest.approx(2048 * 0.02 + 2 * 1.1 * 2048 * 2049 / 1e5, rel=0.1)


@pytest.mark.slow
@pytest.mark.parametrize("program", [_NEIGHBOURS, _KERNEL], ids=["neighbours", "kernel"])
def test_tables_take_no_more_for_more_examples(program):
    """What they hold are tiles, whatever N: so 9,000 examples stand for 50,000."""
    found = measured(program, 9000)
    # distances, their scales and a mask or a power: some four tables of 134 MB, with their features
    assert found["beyond"] < 1e9
    if "near" in found:
        assert found["near"] == pytest.approx(found["exact"], rel=1e-9)
    small, large = (measured(program, n, tile=1024)["beyond"] for n in (4500, 9000))
    # no copy of 4,500 more examples, 37 MB even in float32: only a mask of bytes, 9 MB, while
    # features are checked, and what the allocator keeps
    assert large - small < 30e6
