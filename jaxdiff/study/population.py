"""Trainings side by side: members that differ in numbers alone share one program.

A member is its traits, {name: number}, of which its state and its step are functions:

    state_of(traits) -> state,    step_of(traits) -> step(state, batch) -> (state, metrics)

Traits are traced, so that a member in a population is computed as the same training alone. How
members are laid out is a matter of speed:

    "vmap"   one step of all as one program, spread over devices
    "each"   one program, called for every member in turn, each on a device of its own turn

On a CPU vmapped convolutions are several times slower than one after another, and matrix products
that fill the cores gain nothing: there "each", and "vmap" for small members, whose time is that of
calling them. On an accelerator "vmap", which is expected and was not measured. See `prefer`.
"""

from collections.abc import Callable, Iterable, Sequence
from typing import Any, Protocol

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.sharding import AxisType, Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

__all__ = ["LAYOUTS", "Population", "Traits", "begin", "columns", "prefer", "stacked", "unstacked"]

Traits = dict[str, Any]
StateOf = Callable[[Traits], Any]
StepOf = Callable[[Traits], Callable[[Any, Any], tuple[Any, dict[str, Array]]]]
SMALL = 3e8
"""Floating-point operations of a member's step below which "vmap" is faster on two CPU cores: MLPs
of width 32 and 128 gain 2.2 and 1.4 over one member in a loop by it, .75 and 1.2 by "each"; one of
width 512 has .9 and 1.0, a small DiT .9 and 1.2, the 8x8 UNet .2 and 1.6."""


class Population(Protocol):
    """Members under training."""

    def __len__(self) -> int:
        """How many there are."""
        ...

    def advance(self, batches: Sequence[Any]) -> list[dict[str, Array]] | dict[str, Array]:
        """One step of every member, each with its batch; their metrics, as `columns` takes them."""
        ...

    def states(self) -> Any:
        """All states as one tree with a leading axis of members."""
        ...

    def keep(self, chosen: Sequence[int]) -> None:
        """Drops all but the chosen members, whose order becomes theirs."""
        ...


def begin(
    layout: str,
    state_of: StateOf,
    step_of: StepOf,
    traits: Sequence[Traits],
    *,
    states: Any = None,
    devices: Sequence[Any] | None = None,
    chunk: int | None = None,
) -> Population:
    """Members before their first step, or with states that they are given.

    Args:
        layout: one of `LAYOUTS`.
        state_of: pure, from traits to a state.
        step_of: pure, from traits to a step.
        traits: those of each member, of equal names.
        states: a tree with a leading axis of members, as `Population.states` gives it.
        devices: where they are trained; all local ones unless given.
        chunk: how many at once, by "vmap"; the others wait, so that less memory is needed (see
            `memory`). All unless given.

    Raises:
        ValueError: an unknown layout, no members, or members of different names or of none; or a
            chunk of none, or of members that are computed in turn anyway.
    """
    if layout not in LAYOUTS:
        raise ValueError(f"layout must be one of {', '.join(LAYOUTS)}, got {layout!r}")
    names = {tuple(sorted(member)) for member in traits}
    if len(names) != 1 or names == {()}:
        given = "none" if not names else " and ".join(", ".join(n) or "nothing" for n in names)
        raise ValueError(f"members must have traits of equal names, got {given}")
    devices = list(devices or jax.local_devices())
    if chunk is not None and (layout != "vmap" or chunk < 1):
        raise ValueError(f"chunk must be >= 1, and is for layout vmap, got {chunk} for {layout}")
    if chunk is not None and chunk < len(traits):
        return _Chunks(state_of, step_of, list(traits), states, devices, chunk)
    return LAYOUTS[layout](state_of, step_of, list(traits), states, devices)


def prefer(
    step_of: StepOf, state_of: StateOf, traits: Traits, batch: Any, backend: str | None = None
) -> str:
    """The layout that is expected to be faster for such members.

    Args:
        step_of: from traits to a step.
        state_of: from traits to a state.
        traits: those of one member.
        batch: one batch, or its shapes.
        backend: "cpu", "gpu" or "tpu"; the default one of this process unless given.

    Returns:
        "vmap" on an accelerator; on a CPU only of members without a convolution whose step takes
        fewer than `SMALL` operations. Measured by `experiments/bench_study.py`.
    """
    if (backend or jax.default_backend()) != "cpu":
        return "vmap"
    state = jax.eval_shape(state_of, traits)
    lowered = jax.jit(lambda t, s, b: step_of(t)(s, b)).lower(traits, state, batch)
    if "stablehlo.convolution" in lowered.as_text():
        return "each"
    cost = lowered.cost_analysis() or {}
    return "vmap" if cost.get("flops", np.inf) < SMALL else "each"


def stacked(trees: Sequence[Any]) -> Any:
    """Trees of equal structure as one with a leading axis."""
    return jax.tree.map(lambda *leaves: jnp.stack(leaves), *trees)


def unstacked(tree: Any, index: int) -> Any:
    """One of them."""
    return jax.tree.map(lambda a: a[index], tree)


class _Vmap:
    """One program for all, its leading axis spread over as many devices as divide it."""

    def __init__(self, state_of, step_of, traits, states, devices, programs=None):
        self._devices = devices
        self._traits = self._spread(stacked([jax.tree.map(jnp.asarray, t) for t in traits]))
        init, self._step = programs or _at_once(state_of, step_of)
        self._states = self._spread(init(self._traits) if states is None else states)

    def __len__(self) -> int:
        return len(jax.tree.leaves(self._traits)[0])

    def advance(self, batches):
        batch = self._spread(jax.tree.map(lambda *a: np.stack(a), *batches))
        self._states, metrics = self._step(self._traits, self._states, batch)
        return metrics

    def states(self):
        return self._states

    def keep(self, chosen):
        index = np.asarray(chosen, int)
        take = lambda tree: jax.tree.map(lambda a: a[index], tree)  # noqa: E731
        self._traits, self._states = (self._spread(take(t)) for t in (self._traits, self._states))

    def _spread(self, tree):
        members = len(jax.tree.leaves(tree)[0])
        count = max(n for n in range(1, len(self._devices) + 1) if not members % n)
        if count == 1:
            return jax.device_put(tree, self._devices[0])
        mesh = Mesh(np.asarray(self._devices[:count]), ("member",), axis_types=(AxisType.Auto,))
        return jax.device_put(tree, NamedSharding(mesh, P("member")))


def _at_once(state_of: StateOf, step_of: StepOf) -> tuple[Callable, Callable]:
    """The programs of any number of members: their states, and their step."""
    step = lambda traits, state, batch: step_of(traits)(state, batch)  # noqa: E731
    return jax.jit(jax.vmap(state_of)), jax.jit(jax.vmap(step), donate_argnums=1)


class _Chunks:
    """Members in chunks of nearly equal size, each at once, one after another."""

    def __init__(self, state_of, step_of, traits, states, devices, chunk):
        self._given = (state_of, step_of), devices, chunk
        self._programs = _at_once(state_of, step_of)
        self._begin(traits, states)

    def _begin(self, traits, states):
        functions, devices, chunk = self._given
        self._traits = traits
        places = np.array_split(np.arange(len(traits)), -(-len(traits) // chunk))
        self._parts = []
        for part in places:
            own = None if states is None else jax.tree.map(lambda a, i=part: a[i], states)
            chosen = [traits[i] for i in part]
            self._parts.append(_Vmap(*functions, chosen, own, devices, self._programs))

    def __len__(self) -> int:
        return len(self._traits)

    def advance(self, batches):
        seen, first = [], 0
        for part in self._parts:
            metrics = part.advance(batches[first : first + len(part)])
            seen += [unstacked(metrics, i) for i in range(len(part))]
            first += len(part)
        return seen

    def states(self):
        join = lambda *leaves: jnp.concatenate(leaves)  # noqa: E731
        here = [jax.device_put(part.states(), self._given[1][0]) for part in self._parts]
        return jax.tree.map(join, *here)

    def keep(self, chosen):
        states = jax.tree.map(lambda a: a[np.asarray(chosen, int)], self.states())
        self._begin([self._traits[i] for i in chosen], states)


class _Each:
    """One program, called for every member; they take the devices in turn, which work at once."""

    def __init__(self, state_of, step_of, traits, states, devices):
        here = [devices[i % len(devices)] for i in range(len(traits))]
        place = lambda trees: [jax.device_put(*pair) for pair in zip(trees, here, strict=True)]  # noqa: E731
        self._traits = place([jax.tree.map(jnp.asarray, t) for t in traits])
        init = jax.jit(state_of)
        step = lambda traits, state, batch: step_of(traits)(state, batch)  # noqa: E731
        self._step = jax.jit(step, donate_argnums=1)
        if states is None:
            self._states = [init(t) for t in self._traits]
        else:
            self._states = place([unstacked(states, i) for i in range(len(traits))])

    def __len__(self) -> int:
        return len(self._traits)

    def advance(self, batches):
        seen = []
        for i, batch in enumerate(batches):
            self._states[i], metrics = self._step(self._traits[i], self._states[i], batch)
            seen.append(metrics)
        return seen

    def states(self):
        return stacked([jax.device_put(state, jax.local_devices()[0]) for state in self._states])

    def keep(self, chosen):
        self._traits = [self._traits[i] for i in chosen]
        self._states = [self._states[i] for i in chosen]


LAYOUTS: dict[str, Callable[..., Population]] = {"vmap": _Vmap, "each": _Each}
"""Layouts by name."""


def columns(metrics: Iterable[Any]) -> dict[str, np.ndarray]:
    """Metrics of some steps as means over them, {name: [members]}."""
    rows = []
    for seen in metrics:
        seen = seen if isinstance(seen, dict) else jax.tree.map(lambda *a: np.stack(a), *seen)
        rows.append({name: np.asarray(value, np.float64) for name, value in seen.items()})
    return {name: np.mean([row[name] for row in rows], axis=0) for name in rows[0]}
