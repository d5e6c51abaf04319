"""Spaces of hyperparameters, and which of their points a study looks at.

A space is {name: axis}; in TOML, names with dots or nested tables,

    "optimizer.lr" = { log = [1e-4, 1e-2] }           even in the logarithm
    "optimizer.weight_decay" = { uniform = [0, 0.1] }
    "model.depth" = { whole = [1, 4] }                whole numbers, both ends
    "schedule.name" = ["cosine", "linear_vp"]         any values, equally often

and for a grid with how many points a continuous axis has, { log = [1e-4, 1e-2], points = 4 }.
"""

import dataclasses
import itertools
import math
import os
import tomllib
import warnings
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

__all__ = ["DESIGNS", "Axis", "Space", "axis", "choice", "grid", "random", "read_space", "sobol"]

_KINDS = ("log", "uniform", "whole", "choice")


@dataclasses.dataclass(frozen=True)
class Axis:
    """The values of one hyperparameter; `axis` makes one.

    Attributes:
        kind: "log", "uniform", "whole" or "choice".
        values: (low, high), or the choices.
        points: how many points of a grid lie on it, None where it was not said.
    """

    kind: str
    values: tuple[Any, ...]
    points: int | None = None

    def at(self, u: float) -> Any:
        """The value at a place u in [0, 1) of it."""
        if self.kind == "choice":
            return self.values[min(int(u * len(self.values)), len(self.values) - 1)]
        low, high = self.values
        if self.kind == "log":
            return float(low * (high / low) ** u)
        if self.kind == "uniform":
            return float(low + (high - low) * u)
        return int(min(low + math.floor(u * (high - low + 1)), high))

    def on_grid(self) -> list[Any]:
        """Its points on a grid: all choices and whole numbers, else `points` of it with both ends.

        Raises:
            ValueError: it is continuous, and does not say how many.
        """
        if self.kind == "choice":
            return list(self.values)
        if self.kind == "whole" and self.points is None:
            return list(range(self.values[0], self.values[1] + 1))
        if self.points is None:
            raise ValueError(f"a grid needs points for {self.kind} = {list(self.values)}")
        places = np.linspace(0, 1, self.points) if self.points > 1 else [0.5]
        if self.kind == "whole":
            return sorted({round(self.values[0] + u * (self.values[1] - self.values[0]))
                           for u in places})  # fmt: skip
        return [self.at(u) for u in places]


Space = Mapping[str, Axis]
"""Axes by name."""


def axis(kind: str, values: Any, *, points: int | None = None) -> Axis:
    """An axis.

    Args:
        kind: "log" or "uniform" between two numbers, "whole" with both ends, or "choice" of any.
        values: (low, high), or what is chosen from.
        points: how many points of a grid lie on it, where it is no choice.

    Raises:
        ValueError: naming what does not fit.
    """
    if kind not in _KINDS:
        raise ValueError(f"kind must be one of {', '.join(_KINDS)}, got {kind!r}")
    values = tuple(values)
    if points is not None and (type(points) is not int or points < 1 or kind == "choice"):
        raise ValueError(f"points must be a whole number >= 1 of no choice, got {points!r}")
    if kind == "choice":
        if not values:
            raise ValueError("choice must have a value, got none")
        return Axis(kind, values)
    number = int if kind == "whole" else (int, float)
    if len(values) != 2 or any(not isinstance(v, number) or isinstance(v, bool) for v in values):
        raise ValueError(f"{kind} must be [low, high], two numbers, got {list(values)}")
    low, high = values
    if not (math.isfinite(low) and math.isfinite(high) and low < high):
        raise ValueError(f"{kind} must be [low, high] with low < high, got {list(values)}")
    if kind == "log" and low <= 0:
        raise ValueError(f"log must be of positive numbers, got {list(values)}")
    return Axis(kind, values, points)


def choice(*values: Any) -> Axis:
    """An axis of these values."""
    return axis("choice", values)


def read_space(path: str | os.PathLike) -> dict[str, Axis]:
    """Reads a space from a TOML file.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it is no TOML, holds no axis, or one that is not understood.
    """
    path = Path(path).expanduser()
    if not path.is_file():
        raise FileNotFoundError(f"there is no file {path}")
    try:
        values = tomllib.loads(path.read_text(encoding="utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ValueError(f"{path} is no TOML: {error}") from error
    space = dict(_axes(values, "", path))
    if not space:
        raise ValueError(f'{path} holds no axis, such as "optimizer.lr" = {{ log = [1e-4, 1e-2] }}')
    return space


def _axes(values: Mapping[str, Any], prefix: str, path: Path) -> list[tuple[str, Axis]]:
    found: list[tuple[str, Axis]] = []
    for key, value in values.items():
        name = prefix + key
        if isinstance(value, Mapping) and not set(value) & {*_KINDS, "points"}:
            found += _axes(value, f"{name}.", path)
            continue
        try:
            found.append((name, _axis(value)))
        except (ValueError, TypeError) as error:
            raise ValueError(f"{path}: {name}: {error}") from error
    return found


def _axis(value: Any) -> Axis:
    if isinstance(value, list):
        return choice(*value)
    if not isinstance(value, Mapping):
        raise ValueError(f"must be a list of values, or {{ log = [low, high] }}, got {value!r}")
    rest = dict(value)
    points = rest.pop("points", None)
    if len(rest) != 1:
        raise ValueError(f"must say one of {', '.join(_KINDS)}, got {', '.join(value)}")
    ((kind, values),) = rest.items()
    return axis(kind, values, points=points)


def random(space: Space, members: int, seed: int = 0) -> list[dict[str, Any]]:
    """Independent points.

    Args:
        space: axes by name.
        members: how many points, >= 1.
        seed: of the draw.

    Returns:
        A dict of values by name for each; the first ones are the same for any number.
    """
    _check_members(members)
    places = np.random.default_rng(seed).random((members, len(space)))
    return _points(space, places)


def sobol(space: Space, members: int, seed: int = 0) -> list[dict[str, Any]]:
    """Points of a scrambled Sobol sequence, which leave no part of the space out.

    Args:
        space: axes by name.
        members: how many points, >= 1; evenest where it is a power of 2.
        seed: of the scrambling.

    Source: Sobol 1967; Owen's scrambling, by SciPy.
    """
    _check_members(members)
    from scipy.stats import qmc

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # that members is no power of 2
        places = qmc.Sobol(len(space), rng=np.random.default_rng(seed)).random(members)
    return _points(space, places)


def grid(space: Space, members: int | None = None, seed: int = 0) -> list[dict[str, Any]]:
    """All points of a grid.

    Args:
        space: axes by name; continuous ones say how many points they have.
        members: how many points it must have; whatever it has if None.
        seed: unused; every design has one.

    Raises:
        ValueError: a continuous axis without points, or a grid of another size.
    """
    sides = [one.on_grid() for one in space.values()]
    size = math.prod(map(len, sides))
    if members not in (None, size):
        raise ValueError(f"members must be {size}, the points of the grid, got {members}")
    return [dict(zip(space, point, strict=True)) for point in itertools.product(*sides)]


DESIGNS: dict[str, Callable[..., list[dict[str, Any]]]] = {
    "random": random,
    "sobol": sobol,
    "grid": grid,
}
"""How points are chosen, by name."""


def _points(space: Space, places: np.ndarray) -> list[dict[str, Any]]:
    return [
        {name: one.at(u) for (name, one), u in zip(space.items(), row, strict=True)}
        for row in places
    ]


def _check_members(members: int) -> None:
    if type(members) is not int or members < 1:
        raise ValueError(f"members must be a whole number >= 1, got {members!r}")
