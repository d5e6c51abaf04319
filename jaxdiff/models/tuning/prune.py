"""A side network's start by structural pruning: the most important rows of the backbone's layers.

    importance = sum over examples of (d loss / d params)^2,  or |params|

Layers are walked through in order. Of each, the inputs are those that the layer before kept, and
of the outputs those stay whose importance, added up over the kept inputs, is the largest. Layers
of one group keep the same outputs, by the product of their importances; norms keep what they are
given. Residual connections are not followed: what is added may be other channels.

Source: Sung et al. 2022, arXiv:2206.06522, section 3.2 and appendix; the released code's "v2".
"""

from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array

from jaxdiff import arrays
from jaxdiff.models.transformer import Transformer
from jaxdiff.models.tuning import paths

__all__ = ["fisher", "prune", "transformer_plan"]


def fisher(
    loss: Callable[[Any, Any], Array], params: Any, examples: Any, *, at_once: int = 1
) -> Any:
    """The sum over examples of each one's squared gradient, as one loop.

    Args:
        loss: `loss(params, example)` -> [], of one example.
        params: a tree of arrays.
        examples: a tree of arrays with a leading axis [N, ...].
        at_once: of how many examples the gradients are in memory together; must divide N.

    Returns:
        A tree like `params`.

    Raises:
        ValueError: it does not divide.
    """
    arrays.check_count("at_once", at_once)
    number = jax.tree.leaves(examples)[0].shape[0]
    if number % at_once:
        raise ValueError(f"at_once must divide the {number} examples, got {at_once}")
    parts = jax.tree.map(lambda a: a.reshape(-1, at_once, *a.shape[1:]), examples)
    gradients = jax.vmap(jax.grad(loss), (None, 0))

    def add(total: Any, part: Any) -> tuple[Any, None]:
        squares = jax.tree.map(lambda g: jnp.sum(g**2, axis=0), gradients(params, part))
        return jax.tree.map(jnp.add, total, squares), None

    return jax.lax.scan(add, jax.tree.map(jnp.zeros_like, params), parts)[0]


def prune(
    params: Any, plan: Sequence[tuple[str, ...]], ratio: int, importance: Any = None
) -> dict[str, Any]:
    """The parameters of a network whose layers are narrower.

    Args:
        params: those of the network.
        plan: groups of modules in the order of the calls, such as `transformer_plan(net)`. Those
            with a "kernel" are pruned, group by group; tables of the first group as well; others
            keep the channels that are left.
        ratio: how many times fewer outputs each layer is to have; must divide them.
        importance: a tree like `params`, such as `fisher` makes; None for the parameters' size.

    Returns:
        A tree of what is in the plan.

    Raises:
        ValueError: a module that is not there, layers of a group that do not go together, or a
            ratio that does not divide.
    """
    arrays.check_count("ratio", ratio)
    leaves = paths.flat(params)
    weights = paths.flat(params if importance is None else importance)
    kept: Array | None = None
    found: dict[str, Array] = {}
    for group in plan:
        own = {name: _leaves(leaves, name) for name in group}
        inputs, chosen = kept, [name for name in group if "kernel" in own[name] or kept is None]
        if chosen:
            kept = _best([_matrix(weights, name, inputs) for name in chosen], group, ratio)
        for name, parts in own.items():
            for part, leaf in parts.items():
                if part == "kernel" and inputs is not None:
                    leaf = jnp.take(leaf, inputs, axis=-2)
                found[f"{name}/{part}"] = jnp.take(leaf, kept, axis=-1)
    return paths.nested(found)


def transformer_plan(net: Transformer) -> tuple[tuple[str, ...], ...]:
    """The plan for a transformer of attention and perceptrons, without a memory.

    Args:
        net: the transformer; `types` and learned absolute positions are in it.

    Raises:
        ValueError: it is of gated units, or attends to a memory.
    """
    if net.block != "attention" or net.cross:
        raise ValueError(
            "net must be of block='attention' without cross, got"
            f" block={net.block!r}, cross={net.cross}"
        )
    added = [*(["types"] if net.types else [])]
    added += ["positions"] if "learned" in net.positions.split("+") else []
    plan: list[tuple[str, ...]] = [("tokens",), *((name,) for name in added)]
    plan += [("norm_in",)] if net.norm == "post" else []
    for i in range(net.depth):
        block = f"block_{i}"
        branches: dict[str, list[tuple[str, ...]]] = {
            "attention": [
                tuple(f"{block}/attention/{name}" for name in ("query", "key", "value")),
                (f"{block}/attention/out",),
            ],
            "perceptron": [(f"{block}/perceptron/expand",), (f"{block}/perceptron/contract",)],
        }
        for name, layers in branches.items():
            norm = (f"{block}/norm_{name}",)
            plan += [*layers, norm] if net.norm == "post" else [norm, *layers]
    return tuple(plan) if net.norm == "post" else (*plan, ("norm_out",))


def _leaves(leaves: dict[str, Array], name: str) -> dict[str, Array]:
    """The parameters of a module."""
    parts = {
        path.removeprefix(f"{name}/"): leaf
        for path, leaf in leaves.items()
        if path.startswith(f"{name}/")
    }
    if not parts:
        raise ValueError(f"plan must name modules of the network, got {name!r}")
    return parts


def _matrix(weights: dict[str, Array], name: str, inputs: Array | None) -> Array:
    """The importance of a layer, [inputs that are left, outputs]."""
    parts = _leaves(weights, name)
    matrix = parts["kernel" if "kernel" in parts else "embedding"]
    return matrix if inputs is None else jnp.take(matrix, inputs, axis=0)


def _best(matrices: list[Array], group: tuple[str, ...], ratio: int) -> Array:
    """The outputs that stay, rising."""
    if len({matrix.shape for matrix in matrices}) > 1:
        shapes = [list(matrix.shape) for matrix in matrices]
        raise ValueError(f"a group of the plan must be of one shape, {group} are {shapes}")
    outputs = matrices[0].shape[-1]
    if outputs % ratio:
        raise ValueError(f"ratio must divide the {outputs} outputs of {group[0]}, got {ratio}")
    product = jnp.ones(())
    for matrix in matrices:  # squared gradients are small: three of them would come to 0
        size = jnp.max(jnp.abs(matrix))
        product = product * (matrix / jnp.where(size > 0, size, 1))
    size = jnp.sum(jnp.abs(product), axis=0)
    return jnp.sort(jax.lax.top_k(size, outputs // ratio)[1])
