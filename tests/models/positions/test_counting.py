"""Which methods tell positions of identical tokens.

Truth: the theorem of Luo et al. 2022 (arXiv:2205.13401): where rows of weights sum to one and all
values are v, every output is v, for any parameters; the witness and its converse by hand.
"""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxdiff.models import Transformer, positions
from jaxdiff.models.attention import Attend
from tests.models.positions import formula

N = 7
TOKENS = np.full((1, N), 2)
BLIND = ("none", "bias", "t5", "xl", "deberta", "alibi", "rotary")
SEEING = (
    "factor",
    "urpe",
    "shaw",
    "learned",
    "sinusoidal",
    "sincos",
    "rotary+factor",
    "learned+bias",
)


def outputs(tokens=TOKENS, draws=3, scale=2.0, **fields):
    """The outputs [draws, N, width] of networks whose every weight is drawn from N(0, scale**2)."""
    fields = {"depth": 1, "length": 5 * N, **fields}
    net = Transformer(vocab=4, width=16, heads=2, hidden=16, **fields)
    sets = [formula.drawn(net, tokens, seed=seed, scale=scale) for seed in range(draws)]
    together = jax.tree.map(lambda *leaves: np.stack(leaves), *sets)
    return np.asarray(jax.jit(jax.vmap(net.apply, (0, None)))(together, tokens))[:, 0]


def spread(out):
    """The largest distance of outputs at two positions, as a part of the largest output."""
    return np.ptp(out, axis=1).max(axis=-1) / np.abs(out).max(axis=(1, 2))


@pytest.mark.slow
@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("name", BLIND)
@pytest.mark.parametrize("causal", [False, True])
def test_rows_that_sum_to_one_cannot_count(name, causal):
    """Weights so large that softmax is nearly a choice; float64, in which rounding is far below
    the 1e-6 of the claim, shows that it is no matter of precision."""
    assert spread(outputs(positions=name, causal=causal, depth=2 - causal, scale=5.0)).max() < 1e-6


def test_nor_in_float32():
    """Rounding alone: some 1e-7 a layer, times what norms make of it."""
    assert spread(outputs(positions="bias", depth=4, norm="post")).max() < 1e-5


@pytest.mark.slow
@pytest.mark.parametrize("name", SEEING)
def test_others_can(name):
    assert spread(outputs(positions=name)).min() > 1e-3


def test_every_name_is_spoken_of():
    assert set(positions.NAMES) <= {*BLIND, *SEEING}


@pytest.mark.slow
@pytest.mark.parametrize("how", ["exp", "l2", "swish_l2", "relu2"])
def test_other_normalisations_count_with_a_bias_alone(how):
    """Rows of equal scores have equal sums, whatever these are; a bias makes them differ."""
    rows = {"normalise": how, "scale": 0.5}
    assert spread(outputs(positions="none", **rows)).max() < 1e-5
    assert spread(outputs(positions="bias", **rows)).min() > 1e-3


@pytest.mark.parametrize("how", ["relu2", "softmax"])
def test_gated_units(how):
    rows = {"block": "gau", "normalise": how, "scale": 0.5}
    assert spread(outputs(positions="none", **rows)).max() < 1e-5
    told = spread(outputs(positions="bias", **rows))
    assert told.max() > 1e-2 if how == "relu2" else told.max() < 1e-5  # relu may leave nothing


def test_marked_ends_are_counted_from():
    """Tokens are no longer identical, so that a bias can tell how far the ends are."""
    assert spread(outputs(positions="bias", boundary=True, scale=0.5)).min() > 1e-2
    assert spread(outputs(positions="none", boundary=True, scale=0.5)).max() < 1e-5
    first = np.array([[1] + [2] * (N - 1)])  # a beginning that is seen from further and further
    how = {"positions": "none", "scale": 0.5}
    assert spread(outputs(first, causal=True, **how)[:, 1:]).min() > 1e-2
    assert spread(outputs(first, **how)[:, 1:]).max() < 1e-5


@pytest.mark.usefixtures("x64")
def test_training_free_witness():
    """Scores of zero, c = n for i >= j and else 0, values of one: token i of n gets i exactly."""
    part = positions.relative("factor", heads=1, dim=2, span=(N - 1,))
    table = np.where(np.arange(-(N - 1), N) >= 0, float(N), 0.0)[:, None]
    zeros, ones = np.zeros((1, N, 1, 2)), np.ones((1, N, 1, 1))
    variables = {"params": {"position": {"table": table}}}
    out = Attend(part).apply(variables, zeros, zeros, ones, None)
    np.testing.assert_allclose(out.ravel(), np.arange(1, N + 1), rtol=1e-12)
    # Padding does not change the count of what is before it, in units of n / (keys seen).
    seen = np.arange(N)[None] < 4
    out = Attend(part).apply(variables, zeros, zeros, ones, seen)
    np.testing.assert_allclose(out.ravel()[:4], np.arange(1, 5) * N / 4, rtol=1e-12)


def test_witness_with_a_beginning():
    """Causal, uniform weights: token i gives the beginning a weight of 1 / i."""
    value = jnp.zeros((1, N, 1, 1)).at[0, 0].set(1.0)
    zeros = jnp.zeros((1, N, 1, 2))  # values may be of another length
    out = Attend(causal=True).apply({}, zeros, zeros, value, None)
    np.testing.assert_allclose(out.ravel(), 1 / np.arange(1, N + 1), rtol=1e-6)
