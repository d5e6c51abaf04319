"""How many members one program may have at once, by XLA's own estimate of its memory.

For n members at once of K, on one device,

    bytes = b + a K + t n

with `a` of a member's state and batch, which are there all the time, `t` of what its step needs
besides, and `b` of the program; found from the compiled programs of two and of four members.
"""

import math
from typing import Any

import jax
import jax.numpy as jnp

from jaxdiff.study.population import StateOf, StepOf, Traits

__all__ = ["bytes_of", "fitting", "limit"]

_SPARE = 0.9  # of what a device has: others use some, and memory falls into pieces


def limit() -> int | None:
    """The bytes that the first device has; None where it does not say, as a CPU."""
    stats = jax.local_devices()[0].memory_stats() or {}
    return stats.get("bytes_limit")


def bytes_of(
    step_of: StepOf, state_of: StateOf, traits: Traits, batch: Any, members: int
) -> tuple[int, int]:
    """Bytes of the arguments of the step of so many members at once, and what it needs besides.

    Args:
        step_of, state_of: from traits to a step and to a state.
        traits: those of one member.
        batch: one batch, or its shapes.
        members: how many.
    """
    many = lambda tree: jax.tree.map(  # noqa: E731
        lambda a: jax.ShapeDtypeStruct((members, *jnp.shape(a)), jnp.result_type(a)), tree
    )
    traits = many(traits)
    states = jax.eval_shape(jax.vmap(state_of), traits)
    step = jax.jit(jax.vmap(lambda t, s, b: step_of(t)(s, b)), donate_argnums=1)
    found = step.lower(traits, states, many(batch)).compile().memory_analysis()
    out = found.output_size_in_bytes - found.alias_size_in_bytes
    return found.argument_size_in_bytes, found.temp_size_in_bytes + out


def fitting(
    step_of: StepOf,
    state_of: StateOf,
    traits: Traits,
    batch: Any,
    members: int,
    *,
    limit: int,
    devices: int = 1,
) -> int:
    """How many members at once do not need more memory than there is.

    Args:
        step_of, state_of, traits, batch: as for `bytes_of`.
        members: how many there are in all.
        limit: bytes of a device; a tenth is spared.
        devices: over how many they are spread.

    Returns:
        A number in 1..members.

    Raises:
        ValueError: the states of all do not fit, or not even one member's step beside them.
    """
    (a2, t2), (a4, t4) = (bytes_of(step_of, state_of, traits, batch, n) for n in (2, 4))
    state, temporary = (a4 - a2) / 2, max((t4 - t2) / 2, 1)
    here = math.ceil(members / devices)
    left = _SPARE * limit - max(t2 - 2 * temporary, 0) - here * state
    if left < temporary:
        raise ValueError(
            f"{here} members on a device need {(here * state + temporary) / 2**20:,.0f} MiB, a"
            f" member's step {temporary / 2**20:,.0f} of them, got {limit / 2**20:,.0f} MiB:"
            " fewer members, or smaller ones"
        )
    return min(members, devices * int(left / temporary))
