"""Names of methods, absolute positions, grids, and what cannot be. Truth: formulas by hand."""

import jax.numpy as jnp
import numpy as np
import pytest

from jaxdiff.models import positions
from jaxdiff.models.positions import base, tables
from tests.models.positions import formula


@pytest.mark.parametrize(
    ("name", "wanted"),
    [
        ("none", (None, ())),
        ("learned", ("learned", ())),
        ("urpe", (None, ("bias", "factor"))),
        ("sinusoidal+rotary+factor", ("sinusoidal", ("rotary", "factor"))),
        ("none+t5", (None, ("t5",))),
    ],
)
def test_split(name, wanted):
    assert positions.split(name) == wanted


@pytest.mark.parametrize("name", ["", "Bias", "t5,factor", "bias+bias", "urpe+bias", "learned+"])
def test_unknown_names(name):
    with pytest.raises(ValueError, match=r"positions must be of none, .*, got"):
        positions.split(name)
    with pytest.raises(ValueError, match="one absolute part"):
        positions.split("learned+sinusoidal")


def test_learned_places_on_a_grid_are_the_same_in_a_smaller_one():
    part = positions.absolute("learned", (3, 4))
    variables = {"params": {"table": formula.normal(0, 12, 5).astype(np.float32)}}
    whole = part.apply(variables, (3, 4), 5)[0].reshape(3, 4, 5)
    np.testing.assert_array_equal(whole, variables["params"]["table"].reshape(3, 4, 5))
    small = part.apply(variables, (2, 3), 5)[0].reshape(2, 3, 5)
    np.testing.assert_array_equal(small, whole[:2, :3])
    for shape in ((4, 4), (3, 5)):
        with pytest.raises(ValueError, match="at most 3 x 4 tokens, got"):
            part.apply(variables, shape, 5)
    with pytest.raises(ValueError, match="made for 2 axes, got a grid 12"):
        part.apply(variables, (12,), 5)


def test_sinusoidal_is_the_formula():
    """Each axis a half: sines, then cosines, of frequencies 1 .. 1 / 10000."""
    part = positions.absolute("sinusoidal", (3, 4))
    out = part.apply({}, (3, 4), 8)[0].reshape(3, 4, 8)
    w = np.array([1.0, 1e-4])
    for r, c in np.ndindex(3, 4):
        waves = [np.sin(r * w), np.cos(r * w), np.sin(c * w), np.cos(c * w)]
        np.testing.assert_allclose(out[r, c], np.concatenate(waves), atol=1e-6)
    for width in (6, 4):
        with pytest.raises(ValueError, match="width must divide by 4 and be 8 or more"):
            part.apply({}, (3, 4), width)


def test_displacements():
    """Row by row, against two loops."""
    places = [(r, c) for r in range(2) for c in range(3)]
    wanted = [[np.subtract(a, b) for b in places] for a in places]
    np.testing.assert_array_equal(base.displacements(6, (2, 3), 2), wanted)
    for shape, axes in (((2, 4), 2), ((2, 3), 1), (None, 2)):
        with pytest.raises(ValueError, match="shape must hold the 6 tokens along"):
            base.displacements(6, shape, axes)


def test_table_index_never_wraps():
    """-9 and 9 are the first and last row, -2 and 2 of a span of two as well."""
    rows = base.table_index(np.array([[-9], [-2], [0], [2], [9]]), (2,))
    count = base.table_size((2,))
    assert count == 5
    np.testing.assert_array_equal(rows, [0, 0, 2, 4, 4])
    rows = base.table_index(np.array([[-9, 9], [0, 0], [1, -1]]), (1, 3))
    count = base.table_size((1, 3))
    assert count == 21
    np.testing.assert_array_equal(rows, [6, 10, 16])


@pytest.mark.parametrize(
    ("buckets", "reach", "causal", "message"),
    [
        (2, 128, False, "buckets must be at least 4"),
        (7, 128, False, "even where both ways"),
        (1, 128, True, "buckets must be at least 4"),
        (32, 8, False, "reach must be more than 8 of 32 buckets, got 8"),
    ],
)
def test_bad_buckets(buckets, reach, causal, message):
    with pytest.raises(ValueError, match=message):
        tables.bucket(np.arange(3), buckets, reach, causal=causal)


def test_rotary_needs_pairs_for_each_axis():
    h = jnp.ones((1, 4, 1, 6))
    part = positions.relative("rotary", heads=1, dim=6, span=(1, 1), shape=(2, 2))
    with pytest.raises(ValueError, match="divisible by 4, got 6"):
        part.apply({}, h, method="rotate")


def test_two_scales_at_once_are_refused():
    one = positions.DeBERTa(heads=1, dim=4)
    both = positions.Several(heads=1, dim=4, parts=(one, one.clone()))
    with pytest.raises(ValueError, match="two parts want scales of their own"):
        both.scale(4)


def test_equal_fields_make_equal_parts():
    make = lambda: positions.relative("urpe", heads=2, dim=4, span=(3,))  # noqa: E731
    assert make() == make()
    assert hash(make()) == hash(make())
