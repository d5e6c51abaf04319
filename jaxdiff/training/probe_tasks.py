"""Probes of positions: what a network is to say of each token, what a constant can, who counts.

n tokens, places i = 1..n. Two tasks on tokens that are all the same, two on random ones:

    regression      i / n               a constant's mean squared error: (n^2 - 1) / (12 n^2)
    classification  i, of n classes     a constant's cross entropy ln n, accuracy 1 / n
    pi              i, of random tokens (position identification)       the same
    etp             the tokens at 2, 4, .., n, then n / 2 times the end (even-token prediction)
                                        a constant's accuracy 1/2

Source: pi and etp: Luo et al. 2022, arXiv:2205.13401, section 5.1; identical tokens: Su 2022,
https://kexue.fm/archives/9105.
"""

import dataclasses
import math
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import Array

from jaxdiff.models import Transformer, attention, positions

__all__ = ["METHODS", "TASKS", "Constant", "Method", "Task", "Verdict", "method", "verdict"]


class Constant(NamedTuple):
    """What the best answer that is the same everywhere reaches."""

    loss: float
    accuracy: float


@dataclasses.dataclass(frozen=True)
class Task:
    """A question to a network of tokens.

    Attributes:
        draw: (key, batch, n, vocab) to tokens, int [batch, n], and answers [batch, n].
        outputs: (n, vocab) to how long an answer of the network is.
        best: (n, vocab) to the best constant.
        batch: how many examples a step takes; 1 where all are the same.
    """

    draw: Callable[[Array, int, int, int], tuple[Array, Array]]
    outputs: Callable[[int, int], int]
    best: Callable[[int, int], Constant]
    batch: int

    def score(self, said: Array, wanted: Array, n: int) -> tuple[Array, Array]:
        """Loss [batch, n] and whether the answer is right.

        Args:
            said: [batch, N, outputs].
            wanted: [batch, N]: float, of which 1 / n is one place, or int, a class.
            n: the length that answers are in units of.
        """
        if jnp.issubdtype(wanted.dtype, jnp.floating):
            error = said[..., 0] - wanted
            return error**2, jnp.abs(error) < 0.5 / n
        log_p = jax.nn.log_softmax(said)
        loss = -jnp.take_along_axis(log_p, wanted[..., None], axis=-1)[..., 0]
        return loss, jnp.argmax(said, axis=-1) == wanted


def _places(batch: int, n: int) -> Array:
    return jnp.broadcast_to(jnp.arange(n)[None], (batch, n))


def _random(key: Array, batch: int, n: int, vocab: int) -> Array:
    return jax.random.randint(key, (batch, n), 0, vocab)


def _draw_regression(key: Array, batch: int, n: int, vocab: int) -> tuple[Array, Array]:
    del key, vocab
    return jnp.zeros((batch, n), int), (_places(batch, n) + 1.0) / n


def _draw_classification(key: Array, batch: int, n: int, vocab: int) -> tuple[Array, Array]:
    del key, vocab
    return jnp.zeros((batch, n), int), _places(batch, n)


def _draw_pi(key: Array, batch: int, n: int, vocab: int) -> tuple[Array, Array]:
    return _random(key, batch, n, vocab), _places(batch, n)


def _draw_etp(key: Array, batch: int, n: int, vocab: int) -> tuple[Array, Array]:
    tokens = _random(key, batch, n, vocab)
    end = jnp.full((batch, n - n // 2), vocab)
    return tokens, jnp.concatenate([tokens[:, 1::2], end], axis=1)


def _of_places(n: int, vocab: int) -> Constant:
    del vocab
    return Constant(math.log(n), 1 / n)


def _of_etp(n: int, vocab: int) -> Constant:
    end = (n - n // 2) / n  # the entropy of: the end, or any token
    entropy = -end * math.log(end) - (1 - end) * math.log((1 - end) / vocab)
    return Constant(entropy, max(end, (1 - end) / vocab))


TASKS = {
    "regression": Task(
        _draw_regression,
        lambda n, vocab: 1,
        lambda n, vocab: Constant((n**2 - 1) / (12 * n**2), 1 / n),
        batch=1,
    ),
    "classification": Task(_draw_classification, lambda n, vocab: n, _of_places, batch=1),
    "pi": Task(_draw_pi, lambda n, vocab: n, _of_places, batch=32),
    "etp": Task(_draw_etp, lambda n, vocab: vocab + 1, _of_etp, batch=32),
}
"""By name."""


@dataclasses.dataclass(frozen=True)
class Method:
    """How a network is told positions: fields of `Transformer`, and whether a first token begins.

    Attributes:
        positions, normalise, block, causal, boundary: as `Transformer` has them.
        first: whether a token of its own stands before all.
    """

    positions: str = "none"
    normalise: str = "softmax"
    block: str = "attention"
    causal: bool = False
    boundary: bool = False
    first: bool = False

    def network(self, *, vocab: int, out: int, n: int, width: int, depth: int) -> Transformer:
        """A transformer of 4 heads for sequences of n tokens, whose tables are no longer."""
        fields = {f.name: getattr(self, f.name) for f in dataclasses.fields(self)}
        length = n + 2 * self.boundary + fields.pop("first")
        how = {"width": width, "depth": depth, "heads": 4, "length": length, "out": out}
        return Transformer(vocab=vocab + self.first, **how, **fields)


METHODS = (
    *(name for name in positions.NAMES if name != "sincos"),  # of sequences as sinusoidal
    "exp",
    "l2",
    "swish_l2",
    "gau-relu2",
    "exp+bias",
    "l2+bias",
    "swish_l2+bias",
    "gau-relu2+bias",
    "gau-softmax+bias",
    "boundary+bias",
    "bos+causal",
)
"""Methods that are compared: positions, what else is done to rows, and both."""

_OTHER = {
    "boundary": {"boundary": True},
    "bos": {"first": True},
    "causal": {"causal": True},
    **{f"gau-{name}": {"block": "gau", "normalise": name} for name in attention.NORMALISE},
    **{name: {"normalise": name} for name in attention.NORMALISE},
}


def method(name: str) -> Method:
    """A method by its name, parts joined by "+".

    Args:
        name: parts of `positions.NAMES`, "boundary" (a learned token at both ends), "bos" (one
            before all), "causal", a name of `attention.NORMALISE`, or that after "gau-".

    Raises:
        ValueError: an unknown part, or two that say how rows are normalised.
    """
    fields, places = {}, []
    for part in name.split("+"):
        if part not in _OTHER:
            places.append(part)
        elif fields.keys() & _OTHER[part].keys():
            raise ValueError(f"method {name!r} says twice how rows are normalised")
        else:
            fields |= _OTHER[part]
    known = (*positions.NAMES, *_OTHER)
    if any(part not in known for part in places):
        raise ValueError(f"method must be of {', '.join(known)}, joined by +, got {name!r}")
    where = "+".join(places) if places else "none"
    positions.split(where)
    return Method(positions=where, **fields)


class Verdict(NamedTuple):
    """Whether a method can tell positions of identical tokens, and why."""

    counts: bool
    reason: str


def verdict(how: Method) -> Verdict:
    """The theorem: whether any parameters at all tell positions of identical tokens.

        out_i = v sum_j c_ij a_ij

    where all values are v, so that it is a matter of whether these sums are equal.
    """
    absolute, relative = positions.split(how.positions)
    told = bool(relative and set(relative) - {"factor"})
    if absolute:
        return Verdict(True, "vectors of places make tokens differ")
    if how.first and how.causal:
        return Verdict(True, "weight of the first token is 1/i")
    if (how.boundary or how.first) and (told or how.causal):
        return Verdict(True, "ends are seen from a distance")
    if "factor" in relative:
        return Verdict(True, "the factor makes sums of rows differ")
    if "shaw" in relative:
        return Verdict(True, "values have positions in them")
    if how.normalise == "softmax":
        return Verdict(False, "rows sum to one")
    if told:
        return Verdict(True, "sums of rows differ with the bias")
    if how.causal and how.normalise in ("l2", "swish_l2"):
        return Verdict(True, "sums of rows grow with what is seen")
    return Verdict(False, "equal scores have equal sums")
