"""Truth: traces written by hand, and what others have counted of the published networks."""

import csv
import gzip
import json

import bench_throughput
import jax
import pytest

from jaxdiff.config import build


def trace(folder, threads, events):
    """A file as the profiler leaves it, of (thread, name, microseconds, arguments)."""
    names = [
        {"ph": "M", "pid": 1, "tid": i, "name": "thread_name", "args": {"name": name}}
        for i, name in enumerate(threads)
    ]
    spans = [
        {"ph": "X", "pid": 1, "tid": i, "name": name, "dur": dur, "args": args}
        for i, name, dur, args in events
    ]
    folder = folder / "plugins" / "profile" / "now"
    folder.mkdir(parents=True)
    with gzip.open(folder / "machine.trace.json.gz", "wt") as file:
        json.dump({"traceEvents": [*names, *spans, {}]}, file)


def test_operations_of_a_processor(tmp_path):
    """Kinds are summed; what is not XLA's own, and a loop around others, is left out."""
    of = {"hlo_op": "x"}
    trace(
        tmp_path,
        ["python"],
        [
            (0, "dot.3", 1000, of),
            (0, "dot.14.1", 2000, of),
            (0, "tanh_fusion", 1000, of),
            (0, "while.2", 4000, of),
            (0, "PjitFunction(step)", 9000, {}),
        ],
    )
    assert bench_throughput.operations(tmp_path) == [
        {"name": "dot", "count": 2, "ms": 3.0, "share": 0.75},
        {"name": "tanh_fusion", "count": 1, "ms": 1.0, "share": 0.25},
    ]


def test_operations_of_a_gpu(tmp_path):
    """Lines that the profiler derives from streams repeat their time, and do not count."""
    trace(
        tmp_path,
        ["Stream #13(Compute)", "XLA Ops"],
        [
            (0, "loop_add_fusion_7", 3000, {"hlo_op": "loop_add_fusion.7"}),
            (0, "sm90_gemm_bf16", 1000, {}),  # from a library, without a name of XLA's
            (1, "loop_add_fusion_7", 3000, {"hlo_op": "loop_add_fusion.7"}),
        ],
    )
    found = {row["name"]: row["share"] for row in bench_throughput.operations(tmp_path)}
    assert found == {"loop_add_fusion": 0.75, "sm90_gemm_bf16": 0.25}


PUBLISHED = {
    "ddpm-cifar10": 6.1e9,  # Fang et al. 2023, arXiv:2305.10924, table 1
    "dit-b2-latent": 23.01e9,  # Peebles and Xie 2023, arXiv:2212.09748, table 4
}
"""Multiplications of one call of the network, for one image."""


@pytest.mark.slow
@pytest.mark.parametrize("name", PUBLISHED)
def test_operations_of_the_published_networks(name):
    """A multiplication and its addition are two operations. XLA also counts norms and softmax,
    some percent, and leaves out products with the zeros around an image, some percent of a UNet."""
    config = bench_throughput.configured(name)
    params = jax.eval_shape(lambda: build.build_state(config)).params
    counted = bench_throughput.network_flops(config, params, 2) / 2
    assert counted == pytest.approx(2 * PUBLISHED[name], rel=0.08)


@pytest.mark.slow
def test_quick(tmp_path):
    rows = bench_throughput.main(tmp_path, networks=("dit-b2-latent",), quick=True)
    assert [row["work"] for row in rows] == ["training", "sampling"]
    for row in rows:
        seconds = row["ms"] / 1e3
        assert row["images_per_second"] * seconds == pytest.approx(row["batch"])
        assert row["share"] * row["matmul_tflop_per_second"] * seconds == pytest.approx(
            row["gflop"] / 1e3
        )
        assert row["mib_planned"] > 0
    # By both factors of each product there is a gradient: a step is some three calls of the
    # network, and sampling here is three.
    assert rows[0]["gflop"] / rows[1]["gflop"] == pytest.approx(1, rel=0.25)
    with (tmp_path / "throughput.csv").open(newline="") as file:
        assert len(list(csv.DictReader(file))) == 2
    with (tmp_path / "operations.csv").open(newline="") as file:
        kinds = list(csv.DictReader(file))
    for work in ("training", "sampling"):
        shares = [float(kind["share"]) for kind in kinds if kind["work"] == work]
        assert sum(shares) == pytest.approx(1)
        assert shares == sorted(shares, reverse=True)
