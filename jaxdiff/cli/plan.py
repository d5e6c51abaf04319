"""What a study is, as its directory keeps it."""

from typing import Any, NamedTuple

from jaxdiff import config as configs
from jaxdiff.config import Config, members
from jaxdiff.study import halving

__all__ = ["SCORES", "Plan"]

SCORES = ("heldout_loss", "frechet")


class Plan(NamedTuple):
    """What a study is.

    Attributes:
        config: what members begin from.
        points: the values of each member, by dotted name.
        steps: how many the last ones make.
        rungs: when members are dropped, and how many stay.
        score: one of `SCORES`; lower is better.
        groups: the trainings by the programs that they share.
    """

    config: Config
    points: list[dict[str, Any]]
    steps: int
    rungs: list[halving.Rung]
    score: str
    groups: list[members.Group]

    def to_json(self) -> dict[str, Any]:
        """JSON values that tell one study from another."""
        return {
            "config": configs.to_json(self.config),
            "points": self.points,
            "steps": self.steps,
            "rungs": [list(rung) for rung in self.rungs],
            "score": self.score,
        }
