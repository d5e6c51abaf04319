"""Populations of trainings: their members, one program for many, and which are dropped."""

from jaxdiff.study import halving, memory, population, space
from jaxdiff.study.space import Axis, axis, choice, read_space

__all__ = ["Axis", "axis", "choice", "halving", "memory", "population", "read_space", "space"]
