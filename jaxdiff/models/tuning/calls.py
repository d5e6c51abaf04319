"""A network called from outside: what its modules return, and their calls done otherwise.

By `nn.intercept_methods` and `capture_intermediates`; no network knows of it. A module is named by
its path, such as "block_0/attention/query".
"""

import contextlib
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import flax.linen as nn
import jax
from jax import Array

from jaxdiff.models.tuning import paths

__all__ = ["Call", "find_blocks", "find_last", "instead", "outputs", "run", "shapes", "start"]

Call = Callable[[str, Callable, tuple, dict[str, Any]], Any]
"""`call(path, module, args, kwargs)`: what is returned instead of module(*args, **kwargs)."""


@contextlib.contextmanager
def instead(call: Call, replaced: Sequence[str] = ()) -> Iterator[None]:
    """Within it, modules are called through `call`.

    Under `nn.remat` that is inside of what is computed again, so that `call` must return what it
    makes and leave arrays nowhere else. Of modules that are `replaced`, which it never calls, no
    parameters are made or wanted: some, such as `nn.Embed`, would be made before the call.
    """

    def interceptor(module: Callable, args: Any, kwargs: Any, context: Any) -> Any:
        if context.method_name == "setup" and "/".join(context.module.path) in replaced:
            return None
        if context.method_name != "__call__":
            return module(*args, **kwargs)
        return call("/".join(context.module.path), module, args, kwargs)

    with nn.intercept_methods(interceptor):
        yield


def run(
    net: nn.Module, params: Any, args: tuple, kwargs: dict[str, Any], key: Array | None, train: bool
) -> Any:
    """The network's output; `key` is that of its dropout."""
    rngs = None if key is None else {"dropout": key}
    return net.apply({"params": params}, *args, train=train, rngs=rngs, **kwargs)


def outputs(
    net: nn.Module, params: Any, names: Sequence[str], args: tuple, kwargs: dict[str, Any]
) -> tuple[Any, dict[str, Any]]:
    """The network's output without dropout, and those of the modules of such names.

    Raises:
        ValueError: a module that is not called exactly once.
    """

    def wanted(module: nn.Module, method: str) -> bool:
        return method == "__call__" and "/".join(module.path) in names

    y, told = net.apply(
        {"params": params},
        *args,
        train=False,
        mutable=["intermediates"],
        capture_intermediates=wanted,
        **kwargs,
    )
    found = paths.flat(told.get("intermediates", {}))
    for name in names:
        times = len(found.get(f"{name}/__call__", ()))
        if times != 1:
            raise ValueError(f"a module to be read must be called once, {name} is {times} times")
    return y, {name: found[f"{name}/__call__"][0] for name in names}


def shapes(net: nn.Module, args: tuple, kwargs: dict[str, Any]) -> dict[str, tuple[Any, Any]]:
    """Of each module that returns an array, its first argument's shape and its output's.

    Modules that are called more than once, or with no array first, are left out. The network
    itself is "", the last: they are in the order of the calls' ends.
    """
    seen: dict[str, list[tuple[Any, Any]]] = {}

    def call(path: str, module: Callable, args: tuple, kwargs: dict[str, Any]) -> Any:
        y = module(*args, **kwargs)
        first = args[0] if args else None
        if hasattr(first, "shape") and hasattr(y, "shape"):
            seen.setdefault(path, []).append((first.shape, y.shape))
        return y

    with instead(call):
        _abstract(net, args, kwargs)
    return {path: found[0] for path, found in seen.items() if len(found) == 1}


def find_blocks(net: nn.Module, *args: Any, **kwargs: Any) -> tuple[str, ...]:
    """The blocks of a network: modules at its top that are given activations and something else.

    A block returns as many pixels or tokens as it is given; blocks that resample are none here.

    Args:
        net: the network.
        *args, **kwargs: what it takes; only shapes and dtypes count.

    Returns:
        Their names, in the order of the calls.
    """
    found: dict[str, None] = {}

    def call(path: str, module: Callable, args: tuple, kwargs: dict[str, Any]) -> Any:
        y = module(*args, **kwargs)
        if path and "/" not in path and len(args) > 1 and hasattr(y, "shape"):
            before = getattr(args[0], "shape", ())
            if len(before) > 1 and before[:-1] == y.shape[:-1]:
                found[path] = None
        return y

    with instead(call):
        _abstract(net, args, kwargs)
    return tuple(found)


def find_last(net: nn.Module, *args: Any, **kwargs: Any) -> str:
    """The module at the top of a network that is called last, its last layer.

    Args:
        net: the network.
        *args, **kwargs: what it takes; only shapes and dtypes count.
    """
    return [path for path in shapes(net, args, kwargs) if path][-1]


def start(net: nn.Module, key: Array, params: Any, args: tuple, kwargs: dict[str, Any]) -> Any:
    """`params`, or where that is None those of an untrained network.

    Raises:
        ValueError: parameters of other names or shapes than the network's.
    """
    if params is None:
        return net.init(key, *args, **kwargs)["params"]
    wanted = _abstract(net, args, kwargs)["params"]
    own, given = (
        {path: leaf.shape for path, leaf in paths.flat(tree).items()} for tree in (wanted, params)
    )
    for path in [*own, *given]:
        if own.get(path) != given.get(path):
            raise ValueError(
                f"backbone must hold the parameters of the network: {path} is"
                f" {given.get(path, 'missing')}, wanted {own.get(path, 'none')}"
            )
    return params


def _abstract(net: nn.Module, args: tuple, kwargs: dict[str, Any]) -> Any:
    """Shapes and dtypes of the network's variables."""
    key = jax.random.key(0)
    return jax.eval_shape(lambda a, k: net.init(key, *a, **k), args, kwargs)
