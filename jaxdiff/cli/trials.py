"""Running a study: groups of members step by step, compared on the way, saved and resumed.

STUDY/study.json        what the study is: configuration, members, rungs, score
STUDY/rungs.json        what was decided so far: scores, and who stays
STUDY/groups/G/         checkpoints of a group's members, one leading axis of them
STUDY/log.csv           losses: step, member, loss; twice where a study that was killed went on
"""

import csv
import dataclasses
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxdiff import config as configs
from jaxdiff import metrics, training
from jaxdiff.cli import monitor
from jaxdiff.config import Config, build, members
from jaxdiff.data import Dataset, files
from jaxdiff.study import halving, memory, population
from jaxdiff.training import checkpoint, interrupt

__all__ = ["SCORES", "Comparison", "Plan", "Trials"]

SCORES = ("heldout_loss", "frechet")


class Plan(NamedTuple):
    """What a study is.

    Attributes:
        config: what members begin from.
        points: the values of each member, by dotted name.
        steps: how many the last ones make.
        rungs: when members are dropped, and how many stay.
        score: one of `SCORES`; lower is better.
        groups: the members by the programs that they share.
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
        self.lines = [
            _Line(i, group, plan, dataset, out, layout, alive)
            for i, group in enumerate(plan.groups)
        ]

    def run(
        self,
        caught: interrupt.Interrupt,
        told: Callable[[int, float], None],
        said: Callable[[str], None],
    ) -> bool:
        """Trains and compares to the end; False where a signal stopped it, all being saved.

        Args:
            caught: asked between steps.
            told: `told(member_steps, loss)` after each step of a group.
            said: what is begun, in words.
        """
        done = {c.step for c in self.compared}
        for step, left in [*self.plan.rungs, (self.plan.steps, 1)]:
            if step in done:
                continue
            for line in self.lines:
                if not line.advance(step, caught, told):
                    return False
            count = sum(len(line.alive) for line in self.lines)
            said(f"step {step}: comparing {count} members by {self.plan.score}")
            scores = {m: s for line in self.lines for m, s in line.scores().items()}
            numbers = sorted(scores)
            best = halving.survivors([scores[m] for m in numbers], left)
            kept = [numbers[i] for i in best] if step < self.plan.steps else numbers
            clean = {m: s if np.isfinite(s) else None for m, s in scores.items()}
            self.compared.append(Comparison(step, clean, kept))
            _write_rungs(self._out, self.compared)
            for line in self.lines:
                line.keep(kept)
        return True

    def best(self) -> int | None:
        """The member with the lowest score at the end, None where all failed."""
        scores = {m: s for m, s in self.compared[-1].scores.items() if s is not None}
        return min(scores, key=scores.__getitem__, default=None)

    def state(self, member: int) -> training.TrainState:
        """The state of a member as that of an ordinary run."""
        line = next(line for line in self.lines if member in line.alive)
        config = members.member(self.plan.config, self.plan.points[member])
        wanted = jax.eval_shape(lambda: build.build_state(config))
        mine = population.unstacked(line.population.states(), line.alive.index(member))
        leaves = [
            a if jnp.issubdtype(a.dtype, jax.dtypes.prng_key) else jnp.asarray(a, like.dtype)
            for a, like in zip(jax.tree.leaves(mine), jax.tree.leaves(wanted), strict=True)
        ]
        return jax.tree.unflatten(jax.tree.structure(wanted), leaves)

    def planned(self) -> int:
        """How many steps of members there are in all."""
        total, before, left = 0, 0, len(self.plan.points)
        for step, stay in [*self.plan.rungs, (self.plan.steps, 1)]:
            total += left * (step - before)
            before, left = step, stay
        return total

    def close(self) -> None:
        """Waits for what is being saved."""
        for line in self.lines:
            line.store.close()


class _Line:
    """The members of one group, those that are left."""

    def __init__(self, number, group, plan, dataset, out, layout, alive):
        self.group, self._plan, self._dataset, self._out = group, plan, dataset, out
        self._folder = out / "groups" / str(number)
        newest = checkpoint.sound_step(self._folder)
        checkpoint.set_aside(self._folder, newest)
        self.alive, self._step, self._saved = list(group.members), newest or 0, newest
        if newest is not None:
            self.alive = checkpoint.read_meta(self._folder, newest)["config"]["members"]
        self.store = checkpoint.Checkpoints(self._folder, keep=2)
        self.population = self._begun(layout) if set(self.alive) & set(alive) else None
        self.keep(alive)

    def _begun(self, layout: str | None) -> population.Population:
        """The members as they were saved, or before their first step."""
        config, traits = self.group.config, [self._traits(m) for m in self.alive]
        steps, batch = float(self._plan.steps), self._dataset.batch_at(0)

        def state_of(traits):
            state = build.build_state(members.with_values(config, traits))
            hyper = {**state.hyper, "steps": jnp.full_like(state.hyper["steps"], steps)}
            return dataclasses.replace(state, hyper=hyper)

        def step_of(traits):
            return build.build_step(members.with_values(config, traits))

        states = None
        if self._saved is not None:
            arrays = population.stacked([jax.tree.map(jnp.asarray, dict(t)) for t in traits])
            like = jax.eval_shape(jax.vmap(state_of), arrays)
            states = checkpoint.restore(self._folder, like, self._saved)
        devices = jax.local_devices()[: self._plan.config.training.devices]
        layout = layout or population.prefer(step_of, state_of, traits[0], batch)
        return population.begin(
            layout,
            state_of,
            step_of,
            traits,
            states=states,
            devices=devices,
            chunk=self._chunk(layout, step_of, state_of, traits, batch, len(devices)),
        )

    def _chunk(self, layout, step_of, state_of, traits, batch, devices) -> int | None:
        """How many members at once: as many as memory is known to hold."""
        limit = memory.limit()
        if layout != "vmap" or limit is None:
            return None
        given = (step_of, state_of, traits[0], batch, len(traits))
        return memory.fitting(*given, limit=limit, devices=devices)

    def _traits(self, member: int) -> dict[str, Any]:
        return self.group.traits[self.group.members.index(member)]

    def _config(self, member: int) -> Config:
        return members.member(self._plan.config, self._plan.points[member])

    def advance(self, step: int, caught: Any, told: Callable[[int, float], None]) -> bool:
        """Trains to a step, and saves; whether nothing stopped it."""
        part, seen = self._plan.config.training, []
        if not self.alive:
            return True
        seeds = [self._config(m).training.seed for m in self.alive]
        size, flip = self.group.config.training.batch_size, self._dataset.flip
        deals = {s: self._dataset.with_batches(size, seed=s, flip=flip) for s in seeds}
        while self._step < step and caught.signal is None:
            dealt = {seed: deal.batch_at(self._step) for seed, deal in deals.items()}
            seen.append(self.population.advance([dealt[seed] for seed in seeds]))
            self._step += 1
            if self._step % part.log_every == 0 or self._step == step:
                losses = population.columns(seen)["loss"]
                _log(self._out, self._step, self.alive, losses)
                told(len(seen) * len(self.alive), float(np.nanmean(losses)))
                seen = []
            if self._step % part.save_every == 0 or self._step == step:
                self._save()
        if caught.signal is not None:
            self._save()
        return caught.signal is None

    def _save(self) -> None:
        if self._step == self._saved:
            return
        states, self._saved = self.population.states(), self._step
        self.store.save(self._step, states, {"members": self.alive})

    def keep(self, alive: Sequence[int]) -> None:
        """Drops the members that are not among these."""
        places = [i for i, m in enumerate(self.alive) if m in set(alive)]
        if len(places) == len(self.alive):
            return
        self.alive = [self.alive[i] for i in places]
        if places:
            self.population.keep(places)
        else:
            self.population = None

    def scores(self) -> dict[int, float]:
        """Of each member that is left."""
        if not self.alive:
            return {}
        states = self.population.states()
        if self._plan.score == "heldout_loss":
            return self._losses(states)
        found = {}
        for place, member in enumerate(self.alive):
            config = self._config(member)
            weights = build.averaged(config, population.unstacked(states, place))
            found[member] = _frechet(config, weights)
        return found

    def _losses(self, states: Any) -> dict[int, float]:
        config = self.group.config
        heldout = build.load_seen(config.data, "heldout")
        part = config.training
        batches = monitor.heldout_batches(heldout, part.batch_size, part.heldout, config)

        @jax.jit
        def validate(traits, weights, batch, key):
            return build.build_validation(members.with_values(config, traits))(weights, batch, key)

        found = {}
        for place, member in enumerate(self.alive):
            weights = build.averaged(self._config(member), population.unstacked(states, place))
            traits = jax.tree.map(jnp.asarray, self._traits(member))
            rows = [
                validate(traits, weights, batch, jax.random.fold_in(jax.random.key(0), i))
                for i, batch in enumerate(batches)
            ]
            found[member] = float(np.mean([row["heldout_loss"] for row in rows]))
        return found


def _frechet(config: Config, weights: Any) -> float:
    """Of samples to held-out data, in pixels; infinite of a member whose samples are not finite."""
    x, _ = monitor.draw(config, weights)
    if not np.isfinite(x).all():
        return float("inf")
    real = build.load_data(config.data, "heldout").images(max(len(x), monitor.ENOUGH))
    return float(metrics.frechet_distance(metrics.pixels(x), metrics.pixels(real)))


def _log(out: Path, step: int, alive: Sequence[int], losses: np.ndarray) -> None:
    """Appends losses of members to the study's log."""
    path = out / "log.csv"
    new = not path.exists()
    with path.open("a", newline="") as file:
        writer = csv.writer(file)
        if new:
            writer.writerow(["step", "member", "loss"])
        writer.writerows([step, m, float(loss)] for m, loss in zip(alive, losses, strict=True))


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
