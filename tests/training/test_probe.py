"""The position probe. Truth: tasks and constants by numpy, the theorem of rows that sum to one, and
that a causal network says of the beginning of a sequence what it says of the beginning alone."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

from jaxdiff.training import probe
from jaxdiff.training.probe_tasks import METHODS, TASKS, Constant, Method, method, verdict
from tests.models.positions import formula

N, VOCAB = 8, 5
SMALL = {"n": N, "vocab": VOCAB, "width": 16, "depth": 1}


@pytest.mark.parametrize("name", TASKS)
def test_tasks_are_what_they_are_called(name, key):
    tokens, wanted = TASKS[name].draw(key, 3, N, VOCAB)
    assert tokens.shape == wanted.shape == (3, N)
    places = np.broadcast_to(np.arange(N), (3, N))
    if name in ("regression", "classification"):
        np.testing.assert_array_equal(tokens, 0)
    else:
        assert len(np.unique(tokens)) == VOCAB  # 24 draws: all but one in 2e-2 have them all
    if name == "regression":
        np.testing.assert_allclose(wanted, (places + 1) / N)
    elif name == "etp":
        np.testing.assert_array_equal(wanted[:, :4], tokens[:, [1, 3, 5, 7]])
        np.testing.assert_array_equal(wanted[:, 4:], VOCAB)
    else:
        np.testing.assert_array_equal(wanted, places)
    outputs = TASKS[name].outputs(N, VOCAB)
    assert outputs == {"regression": 1, "etp": VOCAB + 1}.get(name, N)


@pytest.mark.parametrize(("n", "vocab"), [(8, 5), (32, 50), (7, 3)])
def test_constants(n, vocab):
    """The variance of 1/n .. 1 by numpy; entropies of the distribution of answers by SciPy."""
    places = np.arange(1, n + 1)
    assert TASKS["regression"].best(n, vocab).loss == pytest.approx(np.var(places / n))
    for name in ("classification", "pi"):
        best = TASKS[name].best(n, vocab)
        assert best == pytest.approx((stats.entropy(np.ones(n) / n), 1 / n))
    tokens = n // 2
    p = np.array([tokens / n / vocab] * vocab + [(n - tokens) / n])
    assert TASKS["etp"].best(n, vocab) == pytest.approx((stats.entropy(p), p.max()))


def test_published_constants():
    """n = 128: 1365.25 in units of places, 4.852, as Luo et al. have their floor."""
    assert TASKS["regression"].best(128, 10).loss * 128**2 == pytest.approx(1365.25)
    assert TASKS["pi"].best(128, 10).loss == pytest.approx(4.852, abs=5e-4)


def test_scores():
    """Right is what rounds to the place; cross entropy by SciPy."""
    said = jnp.array([[[0.10], [0.30], [0.38]]])
    loss, right = TASKS["regression"].score(said, jnp.array([[0.125, 0.25, 0.375]]), N)
    np.testing.assert_allclose(loss, [[0.025**2, 0.05**2, 0.005**2]], rtol=1e-5)
    np.testing.assert_array_equal(right, [[True, True, True]])  # half a place is .0625
    _, right = TASKS["regression"].score(said + 0.04, jnp.array([[0.125, 0.25, 0.375]]), N)
    np.testing.assert_array_equal(right, [[True, False, True]])
    logits = formula.normal(0, 1, 2, 3)
    loss, right = TASKS["pi"].score(jnp.asarray(logits, jnp.float32), jnp.array([[0, 2]]), N)
    p = np.exp(logits) / np.exp(logits).sum(-1, keepdims=True)
    np.testing.assert_allclose(loss, -np.log(p[0, [0, 1], [0, 2]])[None], rtol=1e-5)
    np.testing.assert_array_equal(right[0], logits[0].argmax(-1) == [0, 2])


@pytest.mark.parametrize(
    ("name", "wanted"),
    [
        ("none", Method()),
        ("urpe", Method(positions="urpe")),
        ("exp+bias", Method(positions="bias", normalise="exp")),
        ("bias+exp", Method(positions="bias", normalise="exp")),
        ("gau-relu2+t5", Method(positions="t5", block="gau", normalise="relu2")),
        ("boundary+bias", Method(positions="bias", boundary=True)),
        ("bos+causal", Method(first=True, causal=True)),
        ("learned+factor+causal", Method(positions="learned+factor", causal=True)),
    ],
)
def test_names(name, wanted):
    assert method(name) == wanted


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("", "method must be of none, learned"),
        ("rope", "joined by \\+, got 'rope'"),
        ("exp+l2", "says twice how rows are normalised"),
        ("gau-exp+l2", "says twice"),
        ("causal+causal", "says twice"),
        ("bias+bias", "positions must be of"),
        ("learned+sinusoidal", "one absolute part"),
    ],
)
def test_wrong_names(name, message):
    with pytest.raises(ValueError, match=message):
        method(name)


SOME = ("exp+alibi", "l2+causal", "exp+causal", "boundary", "bos+rotary", "boundary+causal")


@pytest.mark.slow
@pytest.mark.parametrize("name", SOME)
def test_verdicts_on_drawn_networks(name):
    _check_verdict(name)


@pytest.mark.slow
@pytest.mark.parametrize("name", METHODS)
def test_verdicts_of_all(name):
    _check_verdict(name)


def _check_verdict(name):
    """Some weights give different answers at identical tokens if they can, none if they cannot."""
    how = method(name)
    net = how.network(vocab=VOCAB, out=1, n=N, width=16, depth=1)
    tokens = np.zeros((1, N + how.first), int)
    tokens[:, : int(how.first)] = VOCAB
    sets = [formula.drawn(net, tokens, seed=seed, scale=0.7) for seed in range(4)]
    together = jax.tree.map(lambda *leaves: np.stack(leaves), *sets)
    said = jax.jit(jax.vmap(lambda v: net.apply(v, tokens)))(together)[:, 0, int(how.first) :, 0]
    apart = np.ptp(said, axis=1).max() / np.abs(said).max()
    assert (apart > 1e-2) == verdict(how).counts
    if not verdict(how).counts:
        assert apart < 1e-5  # rounding, times what norms make of it


@pytest.mark.slow
def test_training_leaves_what_cannot_count_at_the_constant(key):
    """Whatever is learned, the loss of answers that are all the same is at least the constant's;
    learned positions fall below it."""
    best = TASKS["regression"].best(N, VOCAB)
    blind = probe.train(key, method("bias"), TASKS["regression"], steps=40, seeds=2, **SMALL)
    said = blind.answers(jnp.zeros((1, N), int))
    assert said.shape == (2, 1, N, 1)
    assert np.ptp(said, axis=2).max() < 1e-5
    assert blind.loss.min() >= best.loss - 1e-6
    assert probe.standing(blind.loss.mean(), blind.accuracy.mean(), best) == "fails"
    assert blind.losses.shape == (2, 1)
    np.testing.assert_array_equal(blind.steps, [40])
    how = {"steps": 150, "seeds": 2, "lr": 1e-2}
    able = probe.train(key, method("learned+factor"), TASKS["regression"], **how, **SMALL)
    assert probe.standing(able.loss.mean(), able.accuracy.mean(), best) == "passes"
    assert able.losses[:, -1].max() < able.losses[:, 0].min()
    np.testing.assert_array_equal(able.steps, [75, 150])
    assert np.isnan(able.near).all()  # learned positions have no place beyond n


@pytest.mark.slow
def test_a_causal_network_does_not_see_what_follows(key):
    """So in the first n places of 2 n it is as right as on n."""
    how = {"steps": 60, "seeds": 2, "lr": 1e-2}
    found = probe.train(key, method("bos+causal"), TASKS["regression"], **how, **SMALL)
    np.testing.assert_array_equal(found.near, found.accuracy)
    whole, half = (found.answers(jnp.zeros((1, m), int)) for m in (2 * N, N))
    np.testing.assert_allclose(whole[:, :, :N], half, atol=1e-5)


@pytest.mark.slow
def test_weights_and_factors(key):
    """Factors are Toeplitz, and the weights without them rows of a softmax."""
    found = probe.train(key, method("urpe"), TASKS["pi"], steps=3, seeds=2, **SMALL)
    factors, weights = found.factors(1), found.weights(jnp.arange(N) % VOCAB, 1)
    assert list(factors) == [f"head {h}" for h in range(4)]
    assert list(weights) == [f"block_0, head {h}" for h in range(4)]
    for head, c in factors.items():
        np.testing.assert_array_equal(c[1:, 1:], c[:-1, :-1])
        np.testing.assert_allclose((weights[f"block_0, {head}"] / c).sum(-1), 1, atol=1e-5)
    table = found.params["relative"]["parts_1"]["table"][1]
    assert factors["head 2"][3, 1] == table[N - 1 + 2, 2]  # i - j = 2
    none = found._replace(net=found.net.clone(positions="bias"))
    assert none.factors() == {}


@pytest.mark.slow
def test_compare_and_its_rows(key):
    """A method has the same numbers whatever else is compared; stopping keeps what was begun."""
    how = {"steps": 2, "seeds": 2, **SMALL}
    both = probe.compare(key, ("factor", "none"), ("etp",), **how)
    assert list(both) == [("etp", "factor"), ("etp", "none")]
    rows = probe.rows_of(both, n=N, vocab=VOCAB)
    assert [(r.method, r.seed) for r in rows] == [
        ("factor", 0), ("factor", 1), ("none", 0), ("none", 1),
    ]  # fmt: skip
    assert rows[0].counts
    assert rows[2].reason == "rows sum to one"
    seen = []
    alone = probe.compare(
        key, ("none", "bias"), ("etp",),
        on_step=lambda *told: seen.append(told) or True, **how,
    )  # fmt: skip
    assert list(alone) == [("etp", "none")]
    assert seen[0][:3] == ("etp", "none", 2)
    np.testing.assert_array_equal(alone["etp", "none"].loss, both["etp", "none"].loss)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"n": 1}, "n must be a whole number of at least 2, got 1"),
        ({"vocab": 0}, "vocab must be"),
        ({"seeds": 0}, "seeds must be"),
        ({"steps": 0}, "steps must be"),
        ({"steps": 1.5}, "steps must be"),
        ({"lr": 0.0}, "lr must"),
        ({"lr": float("nan")}, "lr must"),
        ({"width": 6}, "heads=4 must divide width=6"),
    ],
)
def test_bad_numbers(given, message, key):
    with pytest.raises(ValueError, match=message):
        probe.train(key, method("none"), TASKS["pi"], **{**SMALL, **given})


def test_unknown_tasks(key):
    with pytest.raises(ValueError, match=r"tasks must be of regression, .*, got 'sorting'"):
        probe.compare(key, ("none",), ("pi", "sorting"))


def test_standing():
    best = Constant(1.0, 0.5)
    found = [(0.1, 0.76), (0.97, 0.76), (0.1, 0.74), (0.98, 1.0), (2.0, 0.0), (float("nan"), 1.0)]
    wanted = ["passes", "passes", "partly", "fails", "fails", "fails"]
    assert [probe.standing(*numbers, best) for numbers in found] == wanted
