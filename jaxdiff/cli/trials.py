"""Running a study: groups of members step by step, compared on the way, saved and resumed.

STUDY/study.json        what the study is: configuration, members, rungs, score
STUDY/rungs.json        what was decided so far: scores, and who stays
STUDY/groups/G/         checkpoints of a group's trainings, one leading axis of them
STUDY/log.csv           losses: step, member, loss; twice where a study that was killed went on
"""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from rich.console import Console

from jaxdiff import training
from jaxdiff.cli.cohort import Cohort
from jaxdiff.cli.plan import Plan
from jaxdiff.cli.say import say
from jaxdiff.config import build, members
from jaxdiff.data import Dataset, files
from jaxdiff.study import halving
from jaxdiff.training import interrupt, progress

__all__ = ["Comparison", "Trials"]


class Comparison(NamedTuple):
    """Who was compared, and who stays.

    Attributes:
        step: after how many steps.
        scores: of each member that was left, by its number; None of one that failed.
        kept: who stays.
    """

    step: int
    scores: dict[int, float | None]
    kept: list[int]


class Trials:
    """A study under way in a directory."""

    def __init__(self, plan: Plan, dataset: Dataset, out: Path, *, layout: str | None = None):
        """Begins the members of each group, or goes on with what the directory holds.

        Args:
            plan: the study.
            dataset: what all are trained on.
            out: its directory.
            layout: one of `study.population.LAYOUTS`; the one that is expected to be faster if
                None.

        Raises:
            ValueError: a member that training would refuse, or a directory of another study.
        """
        self.plan, self._out = plan, out
        self.compared = _read_rungs(out)
        alive = self.compared[-1].kept if self.compared else list(range(len(plan.points)))
        self._cohorts = [
            Cohort(i, group, plan, dataset, out, layout, alive)
            for i, group in enumerate(plan.groups)
        ]

    def run(self, caught: interrupt.Interrupt, console: Console) -> bool:
        """Trains and compares to the end; False where a signal stopped it, all being saved.

        Args:
            caught: asked between steps.
            console: where it is shown how far things are.
        """
        for step, stay in self._ends():
            if not self._trained(step, caught, console):
                return False
            if stay is None:
                continue
            scores = self._scores(step, caught, console)
            if caught.signal is not None:
                return False
            numbers = sorted(scores)
            best = halving.survivors([scores[m] for m in numbers], stay)
            kept = [numbers[i] for i in best] if step < self.plan.steps else numbers
            clean = {m: s if np.isfinite(s) else None for m, s in scores.items()}
            self.compared.append(Comparison(step, clean, kept))
            _write_rungs(self._out, self.compared)
            for cohort in self._cohorts:
                cohort.keep(kept)
        return True

    def _ends(self) -> list[tuple[int, int | None]]:
        """After how many steps members are still to be compared, and how many stay.

        First the last comparison's, with None, where a state of that step was lost.
        """
        done = self.compared[-1].step if self.compared else 0
        behind = any(cohort.served and cohort.step < done for cohort in self._cohorts)
        ends = [end for end in (*self.plan.rungs, (self.plan.steps, 1)) if end[0] > done]
        return [(done, None), *ends] if behind else ends

    def _trained(self, step: int, caught: interrupt.Interrupt, console: Console) -> bool:
        """Whether all were trained to a step, and saved, before a signal came."""
        made = 0
        with progress.Bar(0, self._ahead(step), console=console, unit="member-step") as bar:

            def told(steps: int, loss: float) -> None:
                nonlocal made
                made += steps
                bar.update(made, made + self._ahead(step), loss)

            for cohort in self._cohorts:
                if not cohort.advance(step, caught, told):
                    return False
        for cohort in self._cohorts:
            cohort.wait()
        return True

    def _ahead(self, step: int) -> int:
        """How many steps of trainings are still to be made from here to the end, at the most."""
        trainings = sum(len(cohort.served) for cohort in self._cohorts)
        total = sum(len(cohort.served) * (step - cohort.step) for cohort in self._cohorts)
        for end, stay in (*self.plan.rungs, (self.plan.steps, 1)):
            if end > step:
                total += trainings * (end - step)
                step = end
            trainings = min(trainings, stay)
        return total

    def _scores(self, step: int, caught: interrupt.Interrupt, console: Console) -> dict[int, float]:
        """Of each member that is left; of fewer where a signal came."""
        count = sum(len(places) for cohort in self._cohorts for places in cohort.served)
        name, scores = self.plan.score, {}
        say(console, f"step {step}: comparing {count} members by {name}")
        with progress.Bar(0, count, console=console, unit="member", number=name) as bar:
            for cohort in self._cohorts:
                for member, score in cohort.scores():
                    scores[member] = score
                    bar.update(len(scores), count, score)
                    if caught.signal is not None:
                        return scores
        return scores

    def best(self) -> int | None:
        """The member with the lowest score at the end, None where all failed."""
        scores = {m: s for m, s in self.compared[-1].scores.items() if s is not None}
        return min(scores, key=scores.__getitem__, default=None)

    def state(self, member: int) -> training.TrainState:
        """The state of a member as that of an ordinary run."""
        config = members.member(self.plan.config, self.plan.points[member])
        wanted = jax.eval_shape(lambda: build.build_state(config))
        mine = next(c for c in self._cohorts if member in sum(c.served, ())).state(member)
        leaves = [
            a if jnp.issubdtype(a.dtype, jax.dtypes.prng_key) else jnp.asarray(a, like.dtype)
            for a, like in zip(jax.tree.leaves(mine), jax.tree.leaves(wanted), strict=True)
        ]
        return jax.tree.unflatten(jax.tree.structure(wanted), leaves)

    def close(self) -> None:
        """Waits for what is being saved."""
        for cohort in self._cohorts:
            cohort.close()


def _write_rungs(out: Path, compared: Sequence[Comparison]) -> None:
    rows = [c._asdict() for c in compared]
    with files.replacing(out / "rungs.json") as file:
        file.write(json.dumps(rows, indent=1).encode())


def _read_rungs(out: Path) -> list[Comparison]:
    path = out / "rungs.json"
    if not path.is_file():
        return []
    try:
        rows = json.loads(path.read_text(encoding="utf-8"))
        return [
            Comparison(r["step"], {int(m): s for m, s in r["scores"].items()}, r["kept"])
            for r in rows
        ]
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"{path} is damaged: {error!r}") from error
