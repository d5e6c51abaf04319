"""Configurations of a study: one for each member, and which members can share a program.

What differs between members is named as on the command line, "optimizer.lr". A number that only
enters formulas is traced, and so is which of several formulas it is: the schedule, the
parametrization, the weight of the loss. Members that differ in such alone are one group; other
names, sizes, and numbers that a program's structure depends on, make further groups. Members that
differ in how they are sampled alone, "sampling.guidance", are one training.
"""

import dataclasses
import json
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxdiff import schedules
from jaxdiff.config import build
from jaxdiff.config.choice import OneOf
from jaxdiff.config.codec import from_json, to_json
from jaxdiff.config.fields import Config
from jaxdiff.config.model import build_schedule, suited_feature
from jaxdiff.data import order

__all__ = ["Group", "groups", "member", "traceable", "with_values"]


_OF_THE_STUDY = {f"training.{name}" for name in ("steps", "seconds", "log_every", "save_every")}
_SEED = "training.seed"
_FORMULAS = ("schedule.name", "parametrization.name", "loss.weight")
_AFTERWARDS = "sampling."  # what begins so changes nothing of a training
_OTHER_PARTS = ("data", "tuning")  # what members share: examples, and networks that were trained


class Group(NamedTuple):
    """Trainings that share a program.

    Attributes:
        config: that of the first member, for what all have in common.
        served: for each training, the places in the study of the members that it serves.
        traits: for each, what is traced, by dotted name: numbers, and names by their numbers as
            `choice.OneOf`; "training.seed" always is.
    """

    config: Config
    served: tuple[tuple[int, ...], ...]
    traits: tuple[dict[str, Any], ...]


def member(config: Config, values: Mapping[str, Any]) -> Config:
    """The configuration with values by dotted names in it, every one checked.

    Raises:
        ValueError: no such name, a value of the wrong type, or one that training would refuse.
    """
    tree = to_json(config)
    for name, value in values.items():
        *path, last = name.split(".")
        if name in _OF_THE_STUDY or name.split(".")[0] in _OTHER_PARTS:
            raise ValueError(f"{name}: is one for all members; say it on the command line")
        place: Any = tree
        for part in path:
            place = place.get(part) if isinstance(place, dict) else None
        if not isinstance(place, dict) or not path:
            raise ValueError(f"{name}: must be a dotted name such as optimizer.lr")
        place[last] = value
    made = from_json(tree)
    order.check_seed(made.training.seed)
    build.build_step(made)  # whose factories check their numbers
    build.ema_decays(made)
    build.check_sampling(made)
    return made


def with_values(config: Any, values: Mapping[str, Any]) -> Any:
    """The same with numbers that may be traced, unchecked."""
    for name, value in values.items():
        config = _put(config, name.split("."), value)
    return config


def _put(node: Any, path: Sequence[str], value: Any) -> Any:
    first, *rest = path
    if isinstance(node, dict):
        return {**node, first: value}  # options of a factory, which hold no parts
    new = _put(getattr(node, first), rest, value) if rest else value
    return dataclasses.replace(node, **{first: new})


def traceable(config: Config, values: Mapping[str, Any], batch: Any) -> tuple[str, ...]:
    """Which of a member's values can be traced: found out by tracing its training step.

    Args:
        config: the member's.
        values: by dotted name.
        batch: one batch, or its shapes.
    """
    return tuple(name for name in values if _can_trace(config, name, values[name], batch))


def _can_trace(config: Config, name: str, value: Any, batch: Any) -> bool:
    # Of training itself the step sees the seed alone: batches are of a size, and made outside.
    formula = isinstance(value, OneOf)
    of_training = name.startswith("training.") and name != _SEED
    if of_training or not (formula or _is_number(value)):
        return False

    def trial(value: Any, batch: Any) -> Any:
        traced = with_values(config, {name: value})
        return build.build_step(traced)(build.build_state(traced), batch)

    try:
        jax.eval_shape(trial, jax.tree.map(jnp.asarray, value), batch)
    except (jax.errors.JAXTypeError, jax.errors.JAXIndexError, TypeError, ValueError):
        return False  # a size, a branch, or a place in a structure
    return True


def groups(config: Config, points: Sequence[Mapping[str, Any]], batch: Any) -> list[Group]:
    """The groups of a study, as few as there can be.

    Args:
        config: what members begin from, as `build_data` returns it.
        points: the values of each member by dotted name.
        batch: one batch, or its shapes.

    Returns:
        Groups in the order of their first members.

    Raises:
        ValueError: naming the member whose values do not fit.
    """
    checked = [_checked(config, i, point) for i, point in enumerate(points)]
    known = _known(checked, points)
    kinds: dict[str, tuple[str, ...]] = {}
    found: dict[str, dict[str, list[int]]] = {}  # by program, then by training
    traits = []
    for i, point in enumerate(points):
        mine = _of_training(checked[i], point, known)
        # Whether a value can be traced depends on what else is chosen: asked once for each choice.
        kind = _key({n: point[n] for n in mine if not _is_number(point[n])})
        if kind not in kinds:
            kinds[kind] = traceable(checked[i], mine, batch)
        traced = kinds[kind]
        choices = [mine[n].names for n in traced if isinstance(mine[n], OneOf)]
        fixed = _key({n: point[n] for n in mine if n not in traced})
        trainings = found.setdefault(f"{traced} {choices} {fixed}", {})
        trainings.setdefault(_key({n: point[n] for n in mine}), []).append(i)
        traits.append({_SEED: _whole(checked[i].training.seed)} | {n: mine[n] for n in traced})
    made = []
    for trainings in found.values():
        served = tuple(map(tuple, trainings.values()))
        made.append(Group(checked[served[0][0]], served, tuple(traits[i] for i, *_ in served)))
    return made


def _checked(config: Config, number: int, point: Mapping[str, Any]) -> Config:
    """The member's configuration; where it cannot be, the error says which member."""
    try:
        return member(config, point)
    except ValueError as error:
        told = ", ".join(f"{name} {value}" for name, value in point.items())
        raise ValueError(f"member {number} ({told}): {error}") from error


def _known(
    checked: Sequence[Config], points: Sequence[Mapping[str, Any]]
) -> dict[tuple[str, Any], tuple[str, ...]]:
    """The names that an axis of formulas takes, by axis and clock; those of one can be one_of."""
    found: dict[tuple[str, Any], dict[str, None]] = {}
    for config, point in zip(checked, points, strict=True):
        for name in _FORMULAS:
            if isinstance(point.get(name), str):
                found.setdefault((name, _clock(config, name)), {})[point[name]] = None
    return {key: tuple(names) for key, names in found.items()}


def _clock(config: Config, name: str) -> Any:
    """What schedules must share to be one of several; nothing of other formulas."""
    if name != "schedule.name":
        return None
    return schedules.whole_steps(build_schedule(config)), suited_feature(config)


def _of_training(
    config: Config, point: Mapping[str, Any], known: Mapping[tuple[str, Any], tuple[str, ...]]
) -> dict[str, Any]:
    """What of a point matters before samples are drawn; formulas by their numbers among those."""
    mine = {n: v for n, v in point.items() if not n.startswith(_AFTERWARDS)}
    for name in _FORMULAS:
        names = known.get((name, _clock(config, name)), ()) if name in mine else ()
        if len(names) > 1:
            mine[name] = OneOf(names, names.index(mine[name]))
    if _SEED in mine:
        mine[_SEED] = _whole(mine[_SEED])
    return mine


def _whole(seed: int) -> int:
    """The seed in 32 bits, as `jax.random.key` takes it."""
    return int(np.int64(seed).astype(np.int32))


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _key(values: Mapping[str, Any]) -> str:
    return json.dumps(values, sort_keys=True)
