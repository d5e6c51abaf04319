"""The file of second moments: what was written is read, of one model and schedule alone.

Truth: the arrays that went in, and numpy's own reading of the file.
"""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxdiff as jd
from jaxdiff import reverse, schedules
from jaxdiff.training import read_moments, write_moments

SCHEDULE = jd.from_betas(schedules.linear_betas(1000))
PARAMS = {"params": {"b": {"kernel": jnp.arange(6.0).reshape(2, 3)}, "a": jnp.ones(3, jnp.int32)}}


@pytest.fixture(scope="module")
def moments():
    """Of a Gaussian of the plane, on four levels."""
    model = jd.exact.gaussian(jnp.zeros(2), 0.25 * jnp.eye(2))
    x = 0.5 * jax.random.normal(jax.random.key(1), (10, 2))
    return reverse.second_moments(jax.random.key(0), model, x, jd.grids.linspace(SCHEDULE, 4))


@pytest.fixture
def path(moments, tmp_path):
    write_moments(tmp_path / "a.npz", moments, PARAMS, data="points", step=7)
    return tmp_path / "a.npz"


def equal(a, b):
    leaves = [jax.tree.leaves(tree) for tree in (a, b)]
    assert jax.tree.structure(a) == jax.tree.structure(b)
    for x, y in zip(*leaves, strict=True):
        np.testing.assert_array_equal(x, y)


def test_what_was_written_is_read(path, moments):
    equal(read_moments(path, SCHEDULE, PARAMS), moments)
    with np.load(path, allow_pickle=False) as file:  # numpy's own reading, without pickles
        np.testing.assert_array_equal(file["residual_mean"], moments.residual.mean)
        np.testing.assert_array_equal(file["t"], [1000, 667, 334, 1])
        assert file["version"] == 1


def test_gamma_alone_has_no_other_moments(tmp_path):
    levels, _ = jd.grids.linspace(SCHEDULE, 3).pairs
    alone = reverse.moments_of_gamma(levels, jnp.array([1.0, 0.9, 0.5]))
    write_moments(tmp_path / "a.npz", alone, PARAMS)
    found = read_moments(tmp_path / "a.npz", SCHEDULE, PARAMS)
    assert (found.unexplained, found.residual, found.spread) == (None, None, None)
    np.testing.assert_array_equal(found.gamma, alone.gamma)
    np.testing.assert_array_equal(found.eps.error, 0)


def test_the_order_of_a_tree_is_of_no_account_nor_is_the_last_bit_of_a_schedule(path, moments):
    swapped = {"params": dict(reversed(PARAMS["params"].items()))}
    equal(
        read_moments(path, jd.from_betas(schedules.linear_betas(1000) * (1 + 1e-7)), swapped),
        moments,
    )


def other(leaf, change):
    return {"params": {**PARAMS["params"], leaf: change(PARAMS["params"][leaf])}}


OTHERS = {
    "value": other("a", lambda a: a.at[1].set(2)),
    "dtype": other("a", lambda a: a.astype(jnp.float32)),
    "shape": other("b", lambda b: {"kernel": b["kernel"].reshape(3, 2)}),
    "name": other("b", lambda b: {"weight": b["kernel"]}),
    "more": {**PARAMS, "more": jnp.zeros(1)},
}


@pytest.mark.parametrize("case", OTHERS)
def test_other_parameters_are_refused(case, path):
    told = r"a\.npz holds moments \(data points, step 7\) of a model with other parameters"
    with pytest.raises(ValueError, match=told):
        read_moments(path, SCHEDULE, OTHERS[case])


@pytest.mark.parametrize(
    ("schedule", "words"),
    [
        (jd.from_betas(schedules.scaled_linear_betas(1000)), "alpha = .* at t = 1000, where this"),
        (jd.from_betas(schedules.linear_betas(500)), "of another schedule: t must lie in"),
        (jd.from_betas(schedules.linear_betas(1000) * (1 + 1e-3)), "of another schedule: alpha"),
    ],
)
def test_other_schedules_are_refused(schedule, words, path):
    with pytest.raises(ValueError, match=words):
        read_moments(path, schedule, PARAMS)


def changed(path, **arrays):
    """The file with other arrays, None for one less."""
    with np.load(path) as file:
        found = {**dict(file), **arrays}
    np.savez(path, **{name: value for name, value in found.items() if value is not None})


@pytest.mark.parametrize(
    ("arrays", "words"),
    [
        ({"version": np.int64(2)}, "must be of version 1 of the format, got 2"),
        ({"version": None}, "damaged, or no file of moments"),
        ({"version": np.array({}, object)}, "damaged, or no file of moments"),
        ({"sigma": None}, "is damaged"),
        ({"eps_mean": None}, "is damaged"),
        ({"eps_mean": np.ones(3)}, "is damaged: its eps must be finite"),
        ({"spread_mean": np.ones(3)}, "is damaged: its spread must be"),
        ({"residual_squares": -np.ones(4)}, "is damaged: its residual must be"),
        ({"residual_count": np.float64(0)}, "is damaged: its residual must be"),
        ({"eps_mean": np.full(4, np.nan)}, "is damaged: its eps must be"),
        ({"t": np.full(4, np.inf)}, "is damaged: its levels must be finite"),
        ({"t": np.full(3, 1.0)}, "is damaged: its levels must be finite"),
        ({"eps_mean": np.array(["a"] * 4)}, "is damaged"),
        ({"about": np.array("[")}, "is damaged"),
        ({"about": np.array("[1]")}, "is damaged"),
    ],
)
def test_altered_files_are_named(arrays, words, path):
    changed(path, **arrays)
    with pytest.raises(ValueError, match=f"a.npz.*{words}"):
        read_moments(path, SCHEDULE, PARAMS)


def test_damaged_bytes_are_named(path):
    whole = path.read_bytes()
    middle = len(whole) // 2
    for content in (b"", b"ink", whole[:-30], whole[:middle] + b"?" * 40 + whole[middle + 40 :]):
        path.write_bytes(content)
        with pytest.raises(ValueError, match=r"a\.npz"):
            read_moments(path, SCHEDULE, PARAMS)
    with pytest.raises(FileNotFoundError, match=r"b\.npz"):
        read_moments(path.with_name("b.npz"), SCHEDULE, PARAMS)


def test_what_cannot_be_written(moments, tmp_path):
    with pytest.raises(ValueError, match=r"path must end in \.npz, got .*a\.json"):
        write_moments(tmp_path / "a.json", moments, PARAMS)
    with pytest.raises(FileNotFoundError, match="there is no directory"):
        write_moments(tmp_path / "b" / "a.npz", moments, PARAMS)
