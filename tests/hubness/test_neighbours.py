"""Neighbours against scikit-learn's brute force in float64; ties against the binomial law."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from sklearn.neighbors import NearestNeighbors

from jaxdiff import hubness

K = 5
X = np.random.default_rng(0).normal(size=(303, 20)).astype(np.float32)
Y = np.random.default_rng(1).normal(size=(120, 20)).astype(np.float32) + 0.3


def brute(x, y, metric, k=K):
    """[N, k] distances and indices, in float64; y None for x among themselves."""
    x = x.astype(np.float64)
    other = x if y is None else y.astype(np.float64)
    if metric == "inner":
        d = -x @ other.T
    elif metric == "cosine":
        unit = lambda a: a / np.linalg.norm(a, axis=1, keepdims=True)  # noqa: E731
        d = 1 - unit(x) @ unit(other).T
    else:
        d = ((x[:, None] - other[None]) ** 2).sum(-1)
        d = np.sqrt(d) if metric == "euclidean" else d
    if y is None:
        np.fill_diagonal(d, np.inf)
    order = np.argsort(d, axis=1)[:, :k]
    return np.take_along_axis(d, order, axis=1), order


@pytest.mark.parametrize("reference", [None, Y], ids=["among themselves", "a reference"])
@pytest.mark.parametrize("metric", hubness.METRICS)
def test_are_those_of_all_distances(metric, reference):
    found = hubness.nearest(X, reference, k=K, metric=metric)
    distance, index = brute(X, reference, metric)
    np.testing.assert_array_equal(found.index, index)  # no ties in these data
    np.testing.assert_allclose(found.distance, distance, rtol=2e-6, atol=1e-6)  # float32 sums of 20
    counts = hubness.k_occurrence(X, reference, k=K, metric=metric)
    size = len(X) if reference is None else len(reference)
    np.testing.assert_array_equal(counts, np.bincount(index.ravel(), minlength=size))


def test_are_those_of_scikit_learn():
    found = hubness.nearest(X, k=K)
    distance, index = NearestNeighbors(n_neighbors=K, algorithm="brute").fit(X).kneighbors()
    np.testing.assert_array_equal(found.index, index)
    np.testing.assert_allclose(found.distance, distance, rtol=1e-5)


@pytest.mark.parametrize("block", [1, 7, 303, 1000])
def test_blocks_do_not_matter(block):
    found, whole = (hubness.nearest(X, k=K, block=b) for b in (block, None))
    np.testing.assert_array_equal(found.index, whole.index)
    counts = hubness.k_occurrence(X, k=K, block=block)
    np.testing.assert_array_equal(counts, np.bincount(whole.index.ravel(), minlength=len(X)))


@pytest.mark.parametrize("reference", [None, Y])
def test_devices_do_not_matter(reference):
    """303 queries on 8 devices: they do not divide."""
    mesh = jax.make_mesh((8,), ("data",))
    found, whole = (hubness.nearest(X, reference, k=K, mesh=m) for m in (mesh, None))
    np.testing.assert_array_equal(found.index, whole.index)
    counts = hubness.k_occurrence(X, reference, k=K, mesh=mesh)
    np.testing.assert_array_equal(counts, hubness.k_occurrence(X, reference, k=K))


def test_ties_are_broken_alike_in_all_blocks_and_on_all_devices():
    """By the numbers of the two points alone."""
    x = np.random.default_rng(4).integers(0, 3, (101, 3)).astype(np.float32)
    whole = hubness.nearest(x, k=K).index
    np.testing.assert_array_equal(hubness.nearest(x, k=K, block=13).index, whole)
    mesh = jax.make_mesh((8,), ("data",))
    np.testing.assert_array_equal(hubness.nearest(x, k=K, mesh=mesh).index, whole)
    counts = hubness.k_occurrence(x, k=K, mesh=mesh)
    np.testing.assert_array_equal(counts, np.bincount(np.ravel(whole), minlength=101))


def test_far_from_the_origin():
    """At 1000 from it, squares of float32 are a multiple of 1/8; the mean is taken off first."""
    x = (X + np.float32(1000)).astype(np.float32)
    np.testing.assert_array_equal(hubness.nearest(x, k=K).index, brute(x, None, "euclidean")[1])


def test_near_pairs_among_far_points_are_told_apart():
    """Neighbours at 1e-3 and 2e-3 where others are at 6: the product alone cannot order them."""
    rng = np.random.default_rng(2)
    direction = rng.normal(size=(50, 20)).astype(np.float32)
    direction /= np.linalg.norm(direction, axis=1, keepdims=True)
    base = X[:50]
    x = np.concatenate([base, base + 1e-3 * direction, base + 3e-3 * direction])
    found = hubness.nearest(x, k=2)
    np.testing.assert_array_equal(found.index[:50, 0], np.arange(50, 100))
    np.testing.assert_array_equal(found.index[:50, 1], np.arange(100, 150))
    np.testing.assert_allclose(found.distance[:50, 0], 1e-3, rtol=1e-2)  # of float32 near 4


@pytest.mark.parametrize("metric", hubness.METRICS)
@pytest.mark.parametrize("far", [1e2, 1e4, 1e6])
def test_one_point_far_off_changes_no_others(far, metric):
    """It moves the mean, and squares of its size round by more than the others are apart."""
    x = np.concatenate([X[:100], np.full((1, 20), far, np.float32)])
    found = hubness.nearest(x, k=K, metric=metric).index
    if metric == "euclidean":
        np.testing.assert_array_equal(found[:100], hubness.nearest(X[:100], k=K).index)
    wanted = brute(x, None, metric)[1]
    np.testing.assert_array_equal(found[:100], wanted[:100])


@pytest.mark.parametrize("metric", hubness.METRICS)
@pytest.mark.parametrize("size", [1e-30, 1e-15, 1e15, 1e37])
def test_size_does_not_matter(size, metric):
    """Squares of these are beyond float32; distances that are not are scaled alone."""
    x = X[:80] * np.float32(size)
    found, usual = (
        hubness.nearest(x, k=K, metric=metric),
        hubness.nearest(X[:80], k=K, metric=metric),
    )
    np.testing.assert_array_equal(found.index, usual.index)
    power = {"euclidean": 1, "cosine": 0}.get(metric, 2)
    if abs(power * np.log10(size)) < 37.5:
        wanted = np.asarray(usual.distance, float) * size**power
        np.testing.assert_allclose(found.distance, wanted, rtol=1e-5)


def test_more_equals_than_candidates():
    """Of 40 points at one distance any 5 may be taken, and none of the 40 that are further."""
    x = np.concatenate([np.eye(40), 2 * np.eye(40)]).astype(np.float32)
    found = hubness.nearest(np.zeros((300, 40), np.float32), x, k=K)
    np.testing.assert_array_equal(found.distance, np.ones((300, K)))
    counts = np.bincount(np.ravel(found.index), minlength=80)
    assert not counts[40:].any()
    # 300 times 5 of 40: the mean is 37.5, the deviation 5.7.
    assert np.abs(counts[:40] - 37.5).max() < 4.5 * 5.7


def test_ties_are_broken_at_random_for_each_query():
    """n equal points: each is chosen by each other one with probability k / (n - 1)."""
    n = 400
    counts = np.asarray(hubness.k_occurrence(np.zeros((n, 3), np.float32), k=K))
    assert counts.sum() == K * n
    share = K / (n - 1)
    # The variance of 400 binomial counts is known to 7 %; four of those.
    np.testing.assert_allclose(counts.var(), (n - 1) * share * (1 - share), rtol=0.3)
    again = hubness.k_occurrence(np.zeros((n, 3), np.float32), k=K)
    np.testing.assert_array_equal(counts, again)
    other = hubness.k_occurrence(np.zeros((n, 3), np.float32), k=K, key=jax.random.key(1))
    assert (np.asarray(other) != counts).any()


def test_ties_on_a_lattice_make_no_hubs_of_the_first():
    """Half precision rounds to a lattice: counts must not depend on the order of points."""
    rng = np.random.default_rng(3)
    x = np.round(rng.normal(size=(600, 2)) * 4).astype(np.float16)
    counts = np.asarray(hubness.k_occurrence(x, k=K))
    halves = counts[:300].mean(), counts[300:].mean()
    assert abs(halves[0] - halves[1]) < 5 * counts.std() / np.sqrt(150)


def test_under_jit_and_vmap():
    x = jnp.asarray(X[:60])
    wanted = hubness.k_occurrence(x, k=3)
    run = lambda x: hubness.k_occurrence(x, k=3)  # noqa: E731
    np.testing.assert_array_equal(jax.jit(run)(x), wanted)
    both = jax.vmap(run)(jnp.stack([x, x[::-1]]))
    np.testing.assert_array_equal(both[0], wanted)
    np.testing.assert_array_equal(both[1], wanted[::-1])  # no ties


def test_slopes_of_distances():
    """d |a - b| / d a is the unit vector between them, and that of equal points is taken as 0."""
    x = np.array([[0.0, 0.0], [3.0, 4.0], [3.0, 4.0]], np.float32)
    slope = jax.grad(lambda x: jnp.sum(hubness.nearest(x, jnp.asarray(x[:2]), k=2).distance))
    plain = jax.grad(lambda x, y: jnp.sum(hubness.nearest(x, y, k=2).distance))(x, x[:2])
    np.testing.assert_allclose(plain, [[-0.6, -0.8], [0.6, 0.8], [0.6, 0.8]], rtol=1e-6)
    assert np.isfinite(slope(x)).all()


def test_double_precision(x64):
    """Neighbours that float32 cannot tell apart."""
    x = np.array([[0.0], [1.0], [-1.0 - 1e-12], [5.0]])
    found = hubness.nearest(x[:1], x[1:], k=2)
    np.testing.assert_array_equal(found.index[0], [0, 1])
    np.testing.assert_allclose(found.distance[0], [1, 1 + 1e-12], rtol=1e-15)
    mixed = hubness.nearest(x[:1].astype(np.float32), x[1:], k=2)
    assert mixed.distance.dtype == np.float64


def test_what_is_not_finite_ends_under_jit():
    x = jnp.asarray(X[:30]).at[3].set(jnp.nan)
    assert jax.jit(lambda x: hubness.k_occurrence(x, k=3))(x).sum() == 90


def test_no_matrix_of_all_distances():
    """XLA's own estimate for 20,000 points: the distances would be 1.6 GB, a block's 64 MB."""
    from jaxdiff.hubness import neighbours

    x = jax.ShapeDtypeStruct((20_000, 16), jnp.float32)
    scalar, key = jax.ShapeDtypeStruct((), jnp.int32), jax.eval_shape(lambda: jax.random.key(0))
    rows = neighbours._BLOCK // 20_000
    how = {"k": K, "metric": "euclidean", "rows": rows, "among": True, "counts": True}
    lowered = neighbours._one_device.lower(x, x, key, scalar, scalar, **how)
    assert lowered.compile().memory_analysis().temp_size_in_bytes < 600e6


GOOD = np.ones((8, 3), np.float32) * np.arange(1, 9, dtype=np.float32)[:, None]


@pytest.mark.parametrize(
    ("args", "options", "message"),
    [
        ((GOOD,), {"k": 8}, "k must be at most 7"),
        ((GOOD, GOOD), {"k": 9}, "k must be at most 8"),
        ((GOOD,), {"k": 0}, "k must be"),
        ((GOOD,), {"k": 2.5}, "k must be"),
        ((GOOD[:, 0],), {"k": 2}, r"x must be points \[N, D\]"),
        ((GOOD[:0],), {"k": 2}, r"x must be points \[N, D\]"),
        ((GOOD[:, :0],), {"k": 2}, r"x must be points \[N, D\]"),
        ((GOOD, GOOD[:, :2]), {"k": 2}, "one width, got 3 and 2"),
        ((GOOD * np.float32(np.nan),), {"k": 2}, "x must be finite"),
        ((GOOD, GOOD * np.float32(np.inf)), {"k": 2}, "reference must be finite"),
        ((GOOD.astype(int),), {"k": 2}, "x must be float"),
        ((GOOD,), {"k": 2, "metric": "manhattan"}, "metric must be one of euclidean"),
        ((GOOD * 0,), {"k": 2, "metric": "cosine"}, "cosine needs vectors that are not zero"),
        ((GOOD,), {"k": 2, "block": 0}, "block must be"),
    ],
)
def test_bad_input(args, options, message):
    with pytest.raises(ValueError, match=message):
        hubness.nearest(*args, **options)
    with pytest.raises(ValueError, match=message):
        hubness.k_occurrence(*args, **options)


def test_one_dimension_and_one_neighbour():
    """On a line the neighbour of an end is the next one; that of the middle the nearer one."""
    x = np.array([[0.0], [1.0], [3.0], [7.0]], np.float32)
    np.testing.assert_array_equal(hubness.nearest(x, k=1).index[:, 0], [1, 0, 1, 2])
