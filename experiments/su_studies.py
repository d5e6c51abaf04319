"""What `su_recipe.py` measures: each study as a list of jobs, each job some numbers.

A study yields jobs, (name, function of nothing -> numbers), so that who runs them knows how many
there are. Trainings that several jobs share are made by the first of them.
"""

import functools
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from su_training import (
    DTYPES,
    FACES,
    FACES_BATCH,
    OPTIMIZERS,
    SCHEDULE,
    Normed,
    Plan,
    denoiser_of,
    gradient_of,
    halves,
    heldout_loss,
    init_of,
    loss_of,
    network,
    normed_apply,
    normed_loss,
    sampled_model,
    sum_trained,
    trained,
)

from jaxdiff import gaussian, grids, metrics
from jaxdiff.denoiser import Denoiser, make_denoiser
from jaxdiff.samplers import ddim, ddpm, example_keys, sample

__all__ = ["SAMPLERS", "STUDIES", "Job", "Number", "high_pass", "lost"]

SAMPLERS = {"small": ddpm("small"), "large": ddpm("large"), "noise-free": ddim()}
LEVELS = 1000 * (np.arange(10) + 0.5) / 10  # steps that stand for all, in equal shares


class Number(NamedTuple):
    """One measurement; `at` is D, a step of the chain or a number of steps, 0 where none is."""

    study: str
    case: str
    at: float
    measure: str
    seed: int
    value: float


Job = tuple[str, Callable[[], list[Number]]]


def lost(half: Any, full: Any) -> tuple[float, float]:
    """What a gradient in half precision lacks.

    Returns:
        Of the entries that `full` has, the share that is 0 in `half`; and the norm of their
        difference over that of `full`, infinite where `half` overflows.
    """
    half, full = (
        np.concatenate([np.ravel(a) for a in jax.tree.leaves(tree)]).astype(np.float64)
        for tree in (half, full)
    )
    finite = np.isfinite(half).all()
    error = np.linalg.norm(half - full) / np.linalg.norm(full) if finite else np.inf
    return float(np.mean(half[full != 0] == 0)), float(error)


def high_pass(x: np.ndarray) -> float:
    """Mean square of (x00 - x01 - x10 + x11) / 2; noise of variance v has v, a plane 0."""
    d = x[:, :-1, :-1] - x[:, :-1, 1:] - x[:, 1:, :-1] + x[:, 1:, 1:]
    return float(np.mean(np.square(d, dtype=np.float64)) / 4)


def underflow(plan: Plan) -> Iterator[Job]:
    """What one gradient in half precision lacks, new and after a short training, by D."""
    small = halves(plan.data)[0].example_shape
    for dtype in DTYPES[1:]:
        for shape, ready in ((small, False), (small, True), (FACES, False)):
            for seed in range(plan.seeds):
                yield (
                    f"gradient in {dtype} of {shape[0]} pixels",
                    functools.partial(_underflow, plan, dtype, seed, shape, ready),
                )


def _underflow(
    plan: Plan, dtype: str, seed: int, shape: tuple[int, ...], ready: bool
) -> list[Number]:
    batch = 4 if shape == FACES else plan.batch
    x = halves(plan.data)[0].with_batches(batch, seed=seed).batch_at(0)["x"]
    if shape == FACES:
        x = jnp.repeat(jax.image.resize(x[..., :1], (batch, *FACES[:2], 1), "nearest"), 3, axis=-1)
    nets = [network(plan.channels, "A", "rows", d) for d in ("float32", dtype)]
    params = sum_trained(plan, seed) if ready else denoiser_of(nets[0], shape, seed).params
    size, found = int(np.prod(shape)), []
    share = batch / FACES_BATCH if shape == FACES else 1.0  # of as large a batch as the recipe's
    for name, factor in (("mean", share), ("sum", share * size)):
        full, half = (gradient_of(net, shape)(params, {"x": x}, seed, factor) for net in nets)
        case = f"{dtype} {name}, {'trained' if ready else 'new'}"
        for measure, value in zip(("zeros", "error"), lost(half, full), strict=True):
            found.append(Number("underflow", case, size, measure, seed, value))
    return found


def precision(plan: Plan) -> Iterator[Job]:
    """Held-out loss, in float32, of what was trained in each dtype, by optimiser and factor."""
    shape = halves(plan.data)[0].example_shape
    size = float(np.prod(shape))
    tiny = size / float(np.prod(FACES)) * plan.batch / FACES_BATCH
    factors = {"sum": size, "mean": 1.0, "tiny": tiny}
    for dtype in DTYPES:
        for optimizer in OPTIMIZERS:
            for name, factor in factors.items():
                for seed in range(plan.seeds):
                    case = f"{dtype} {optimizer} {name}"
                    yield case, functools.partial(_precision, plan, case, factor, seed)


def _precision(plan: Plan, case: str, factor: float, seed: int) -> list[Number]:
    dtype, optimizer, _ = case.split()
    shape = halves(plan.data)[0].example_shape
    module, exact = (network(plan.channels, "A", "rows", d) for d in (dtype, "float32"))
    params = denoiser_of(exact, shape, seed).params
    loss_fn = loss_of(module, shape)
    state = trained(plan, loss_fn, params, plan.short, seed, factor=factor, optimizer=optimizer)
    value = float(heldout_loss(plan.data, exact)(state.ema))
    return [Number("precision", case, 0, "loss", seed, value if np.isfinite(value) else np.inf)]


def norm(plan: Plan) -> Iterator[Job]:
    """Loss by step of the chain, and samples, under each set of statistics of a norm."""
    for kind in ("batch", "group"):
        for seed in range(plan.seeds):
            yield f"{kind} norm", functools.partial(_norm, plan, kind, seed)


def _norm(plan: Plan, kind: str, seed: int) -> list[Number]:
    shape = halves(plan.data)[0].example_shape
    module = Normed(plan.channels, kind)
    variables = init_of(module, shape)(jax.random.key(seed))
    stats, loss_fn = variables.get("batch_stats", {}), normed_loss(module)
    state = trained(plan, loss_fn, variables["params"], plan.steps, seed, factor=1.0, aux=stats)
    weights = state.params, state.aux  # not the average: the running statistics are of these
    found = []
    for case, by_level in _losses_by_level(plan.data, module)(weights).items():
        rows = [(0.0, float(np.mean(by_level))), *zip(LEVELS, by_level.tolist(), strict=True)]
        found += [Number("norm", case, at, "loss", seed, value) for at, value in rows]
    running, own = (
        make_denoiser(
            normed_apply(module, of_batch),
            weights,
            parametrization="eps",
            time_feature="rounded_steps",
        )
        for of_batch in (False, True)
    )
    cases = {"group": running} if kind == "group" else {"running": running, "one level": own}
    for case, model in cases.items():
        drawn = judged(plan, "norm", case, model, "noise-free", plan.calls[-1], seed)
        found += [n._replace(at=0.0) for n in drawn]
    return found


@functools.cache
def _losses_by_level(source: str, module: Normed) -> Callable:
    """weights -> {case: [levels]}: the same x_t as one mixed batch, and level by level."""
    x0 = jnp.asarray(halves(source)[1].images(64 * len(LEVELS)))
    each = len(x0) // len(LEVELS)
    x0 = x0[: each * len(LEVELS)]
    t = jnp.repeat(jnp.asarray(LEVELS), each)
    noise = jax.random.normal(jax.random.key(0), x0.shape)
    x_t = gaussian.q_sample(x0, noise, SCHEDULE(t))
    by_level = lambda a: a.reshape(len(LEVELS), each, *a.shape[1:])  # noqa: E731

    def found(weights: Any) -> dict[str, Array]:
        running, own = (normed_apply(module, batch) for batch in (False, True))
        of_level = jax.vmap(functools.partial(own, weights))
        if module.norm == "group":
            outputs = {"group": running(weights, x_t, t - 1)}
        else:
            outputs = {
                "running": running(weights, x_t, t - 1),
                "mixed": own(weights, x_t, t - 1),
                "one level": of_level(by_level(x_t), by_level(t - 1)).reshape(x_t.shape),
            }
        return {
            case: jnp.mean(by_level((y - noise) ** 2).reshape(len(LEVELS), -1), axis=1)
            for case, y in outputs.items()
        }

    return jax.jit(found)


def embedding(plan: Plan) -> Iterator[Job]:
    """Samples of both networks, told of time in both ways, by sampler; and of data."""
    yield "data", functools.partial(_of_data, plan, "embedding", plan.calls[-1:])
    for net in "AB":
        for code in ("rows", "sines"):
            for seed in range(plan.seeds):
                yield f"network {net}, {code}", functools.partial(_embedding, plan, net, code, seed)


def _embedding(plan: Plan, net: str, code: str, seed: int) -> list[Number]:
    model, found = sampled_model(plan, net, code, seed), []
    for sampler in SAMPLERS:
        case = f"{net} {code}, {sampler}"
        found += judged(plan, "embedding", case, model, sampler, plan.calls[-1], seed)
    return found


def sigma(plan: Plan) -> Iterator[Job]:
    """Samples of network B by sampler and number of steps; and of data."""
    yield "data", functools.partial(_of_data, plan, "sigma", plan.calls)
    for sampler in SAMPLERS:
        for calls in plan.calls:
            for seed in range(plan.seeds):
                yield (
                    f"{sampler}, {calls} steps",
                    functools.partial(_sigma, plan, sampler, calls, seed),
                )


def _sigma(plan: Plan, sampler: str, calls: int, seed: int) -> list[Number]:
    model = sampled_model(plan, "B", "sines", seed)
    return judged(plan, "sigma", sampler, model, sampler, calls, seed)


def judged(
    plan: Plan, study: str, case: str, model: Denoiser, sampler: str, calls: int, seed: int
) -> list[Number]:
    """Samples of a model, the same noise for every model and sampler of a seed."""
    shape = (plan.n, *halves(plan.data)[0].example_shape)
    keys = example_keys(jax.random.key(seed), plan.n)
    grid = grids.linspace(SCHEDULE, calls)
    x = np.asarray(sample(keys, model, grid, shape, sampler=SAMPLERS[sampler]))
    return _scores(plan, study, case, calls, seed, x)


def _of_data(plan: Plan, study: str, places: tuple[int, ...]) -> list[Number]:
    x = halves(plan.data)[0].images(plan.n)
    return [n for at in places for n in _scores(plan, study, "data", at, 0, x)]


def _scores(plan: Plan, study: str, case: str, at: float, seed: int, x: np.ndarray) -> list[Number]:
    real = halves(plan.data)[1].images(2000)
    flat = np.clip(x, -1, 1).reshape(len(x), -1)
    values = {
        "Frechet": metrics.frechet_distance(flat, real.reshape(len(real), -1)),
        "noise": high_pass(x) - high_pass(real),
        "variance": float(np.sum(np.var(x, axis=0)) / np.sum(np.var(real, axis=0))),
    }
    return [Number(study, case, at, measure, seed, value) for measure, value in values.items()]


STUDIES: dict[str, Callable[[Plan], Iterator[Job]]] = {
    f.__name__: f for f in (underflow, precision, norm, embedding, sigma)
}
