"""Trains networks on the tasks of `probe_tasks`: one program for all seeds of a method."""

import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax import Array

from jaxdiff import arrays
from jaxdiff.models import Transformer, positions
from jaxdiff.training import optim
from jaxdiff.training.probe_tasks import METHODS, TASKS, Constant, Method, Task, method, verdict

__all__ = ["Found", "Row", "compare", "rows_of", "standing", "train"]

_AT_ONCE = 100  # steps of one program, between two looks at the progress
_FRESH = 8  # batches that a network is judged on


class Found(NamedTuple):
    """What was trained, with a leading axis of seeds on every array.

    Attributes:
        net: the network.
        first: whether a token of its own stands before all.
        params: its parameters.
        steps: [points], how many steps were done.
        losses: [seeds, points], the mean loss of the steps up to each, since the last.
        loss: [seeds], on fresh examples.
        accuracy: [seeds], likewise.
        near: [seeds], the accuracy in the first n places of 2 n, NaN where there is no answer.
        far: [seeds], in the places beyond n.
    """

    net: Transformer
    first: bool
    params: Any
    steps: np.ndarray
    losses: np.ndarray
    loss: np.ndarray
    accuracy: np.ndarray
    near: np.ndarray
    far: np.ndarray

    def answers(self, tokens: Array) -> Array:
        """Of tokens [B, N]: [seeds, B, N, out]."""
        return jax.vmap(lambda p: _answers(self.net, self.first, p, tokens))(self.params)

    def weights(self, tokens: Array, seed: int = 0) -> dict[str, np.ndarray]:
        """Weights of keys, factors included, of one sequence [N]: [N, N] a block and head."""
        params = jax.tree.map(lambda a: a[seed], self.params)
        tokens = _begun(self.net, self.first, tokens[None])
        _, told = self.net.apply({"params": params}, tokens, mutable=["attention"])
        pairs = jax.tree.leaves_with_path(told["attention"])
        return {
            f"{path[0].key}, head {head}": np.asarray(own)
            for path, leaf in pairs
            for head, own in enumerate(leaf[0])
        }

    def factors(self, seed: int = 0) -> dict[str, np.ndarray]:
        """The Toeplitz factors that all blocks share, [N, N] a head; none where there are none."""
        parts = positions.split(self.net.positions)[1]
        if "factor" not in parts:
            return {}
        held = self.params["relative"]
        if len(parts) > 1:
            held = held[f"parts_{parts.index('factor')}"]
        table = np.asarray(held["table"][seed])
        i = np.arange((len(table) + 1) // 2)
        rows = i[:, None] - i[None, :] + i[-1]
        return {f"head {head}": table[rows, head] for head in range(table.shape[1])}


class Row(NamedTuple):
    """A network's result, beside the best constant and what the theorem says."""

    task: str
    method: str
    seed: int
    n: int
    steps: int
    loss: float
    accuracy: float
    constant_loss: float
    constant_accuracy: float
    near: float
    far: float
    counts: bool
    reason: str


def train(
    key: Array,
    how: Method,
    task: Task,
    *,
    n: int = 32,
    vocab: int = 50,
    seeds: int = 3,
    steps: int = 1500,
    lr: float = 1e-3,
    width: int = 64,
    depth: int = 2,
    on_step: Callable[[int, float], bool] = lambda step, loss: False,
) -> Found:
    """Trains networks of one method on one task, all seeds in one program.

    Adam, warm for a twentieth of the steps, then with a learning rate that falls linearly to 0.
    Tables are for n tokens: of 2 n, displacements beyond it count as the farthest.

    Args:
        key: a PRNG key.
        how: how positions are told.
        task: what is asked.
        n: the number of tokens, >= 2.
        vocab: how many different tokens there are, >= 1.
        seeds: how many networks, >= 1; parameters and examples differ.
        steps: of each, >= 1.
        lr: the peak learning rate, > 0.
        width: of the network.
        depth: its number of blocks.
        on_step: called with the number of steps done and the loss now and then; true ends it.

    Returns:
        What was trained, and how well.

    Raises:
        ValueError: a number is out of range.
    """
    for name, value, least in (("n", n, 2), ("vocab", vocab, 1), ("seeds", seeds, 1)):
        arrays.check_count(name, value, least)
    arrays.check_count("steps", steps, 1)
    arrays.check_range("lr", lr, 0.0, math.inf, "()")
    net = how.network(vocab=vocab, out=task.outputs(n, vocab), n=n, width=width, depth=depth)
    optimizer = optim.adam()
    hyper = {"lr": jnp.asarray(lr), "warmup": jnp.asarray(steps / 20), "steps": jnp.asarray(steps)}

    def scored(params: Any, key: Array, count: int) -> tuple[Array, Array]:
        tokens, wanted = task.draw(key, count, n, vocab)
        return task.score(_answers(net, how.first, params, tokens), wanted, n)

    def begin(key: Array) -> tuple[Any, Any]:
        tokens = jnp.zeros((1, n + how.first), int)
        params = net.init(key, tokens)["params"]
        return params, optimizer.init(params)

    def step(state: tuple[Any, Any], at: Array, key: Array) -> tuple[tuple[Any, Any], Array]:
        params, memory = state
        loss_fn = lambda p: jnp.mean(scored(p, jax.random.fold_in(key, at), task.batch)[0])  # noqa: E731
        loss, slope = jax.value_and_grad(loss_fn)(params)
        update, memory = optimizer.update(slope, memory, params)
        rate = optim.learning_rate(at, hyper, optim.linear)
        params = optax.apply_updates(params, jax.tree.map(lambda u: rate * u, update))
        return (params, memory), loss

    every = max(d for d in range(1, min(_AT_ONCE, steps) + 1) if steps % d == 0)

    @jax.jit
    @jax.vmap
    def some(state: Any, first: Array, key: Array) -> tuple[Any, Array]:
        body = lambda state, at: step(state, at, key)  # noqa: E731
        state, losses = jax.lax.scan(body, state, first + jnp.arange(every))
        return state, jnp.mean(losses)

    @jax.jit
    @jax.vmap
    def judge(params: Any, key: Array) -> tuple[Array, ...]:
        loss, right = scored(params, key, _FRESH * task.batch)
        return jnp.mean(loss), jnp.mean(right)

    starts, noises, fresh = (jax.random.split(jax.random.fold_in(key, i), seeds) for i in range(3))
    # Without jit: all methods share the small programs that draw, one a shape.
    state, points, losses = jax.vmap(begin)(starts), [], []
    for first in range(0, steps, every):
        state, loss = some(state, jnp.full(seeds, first), noises)
        points.append(first + every)
        losses.append(np.asarray(loss))
        if on_step(points[-1], float(np.mean(losses[-1]))):
            break
    loss, accuracy = (np.asarray(a) for a in judge(state[0], fresh))
    found = Found(
        net, how.first, state[0], np.array(points), np.stack(losses, 1), loss, accuracy,
        np.full(seeds, np.nan), np.full(seeds, np.nan),
    )  # fmt: skip
    return _longer(found, task, n, vocab)


def _answers(net: Transformer, first: bool, params: Any, tokens: Array) -> Array:
    return net.apply({"params": params}, _begun(net, first, tokens))[:, int(first) :]


def _begun(net: Transformer, first: bool, tokens: Array) -> Array:
    """With a token of its own before them, if `first`."""
    return jnp.pad(tokens, ((0, 0), (int(first), 0)), constant_values=net.vocab - 1)


def _longer(found: Found, task: Task, n: int, vocab: int) -> Found:
    """With the accuracy at 2 n tokens, where answers have no largest number and positions none."""
    tokens, wanted = task.draw(jax.random.key(0), task.batch, 2 * n, vocab)
    learned = positions.split(found.net.positions)[0] == "learned"
    if learned or not jnp.issubdtype(wanted.dtype, jnp.floating):
        return found
    said = jax.jit(found.answers)(tokens)
    _, right = task.score(said, 2 * wanted[None], n)
    near, far = (np.mean(part, axis=(1, 2)) for part in (right[..., :n], right[..., n:]))
    return found._replace(near=np.asarray(near), far=np.asarray(far))


def compare(
    key: Array,
    methods: Sequence[str] = METHODS,
    tasks: Sequence[str] = tuple(TASKS),
    *,
    on_step: Callable[[str, str, int, float], bool] = lambda task, method, step, loss: False,
    **how: Any,
) -> dict[tuple[str, str], Found]:
    """Trains every method on every task.

    Args:
        key: a PRNG key; a method has the same whatever others are compared.
        methods: names as `method` takes them.
        tasks: names of `TASKS`.
        on_step: called with task, method, steps done and loss; true ends it all.
        **how: as `train` takes it.

    Returns:
        By (task, method), in order; those that were begun.

    Raises:
        ValueError: an unknown name, before anything is trained.
    """
    made = {name: method(name) for name in methods}
    for name in tasks:
        if name not in TASKS:
            raise ValueError(f"tasks must be of {', '.join(TASKS)}, got {name!r}")
    found, ended = {}, False
    for task in tasks:
        for name, one in made.items():

            def told(step: int, loss: float, task: str = task, name: str = name) -> bool:
                nonlocal ended
                ended = on_step(task, name, step, loss)
                return ended

            found[task, name] = train(key, one, TASKS[task], on_step=told, **how)
            if ended:
                return found
    return found


def rows_of(found: dict[tuple[str, str], Found], *, n: int = 32, vocab: int = 50) -> list[Row]:
    """One row for each network of `compare`, at the n and vocab that it was given."""
    rows = []
    for (task, name), one in found.items():
        best, law = TASKS[task].best(n, vocab), verdict(method(name))
        for seed in range(len(one.loss)):
            numbers = [float(a[seed]) for a in (one.loss, one.accuracy, one.near, one.far)]
            rows.append(
                Row(
                    task, name, seed, n, int(one.steps[-1]), *numbers[:2], *best, *numbers[2:], *law
                )
            )
    return rows


def standing(loss: float, accuracy: float, best: Constant) -> str:
    """ "passes", "fails" or "partly".

    Args:
        loss: of networks.
        accuracy: likewise; half way from the constant's to 1 passes.
        best: what the best constant reaches; 98 % of its loss is no better than it, and fails.
    """
    if not loss < 0.98 * best.loss:
        return "fails"
    return "passes" if accuracy > (best.accuracy + 1) / 2 else "partly"
