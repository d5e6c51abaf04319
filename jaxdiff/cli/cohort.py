"""The trainings of a study that share a program: made, logged, saved and scored together."""

import csv
import dataclasses
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxdiff import metrics
from jaxdiff.cli import monitor
from jaxdiff.cli.plan import Plan
from jaxdiff.config import Config, build, members
from jaxdiff.data import Dataset
from jaxdiff.study import memory, population
from jaxdiff.training import checkpoint

__all__ = ["Cohort"]


class Cohort:
    """The trainings of one group, those that serve members which are left."""

    def __init__(
        self,
        number: int,
        group: members.Group,
        plan: Plan,
        dataset: Dataset,
        out: Path,
        layout: str | None,
        alive: Sequence[int],
    ):
        """Begins them, or goes on with what the study's directory holds of them.

        Args:
            number: of the group, which names its folder.
            group: which trainings.
            plan: the study.
            dataset: what all are trained on.
            out: the study's directory.
            layout: one of `study.population.LAYOUTS`; the one that is expected to be faster if
                None.
            alive: the members that are left.

        Raises:
            ValueError: what is saved there is of other members.
        """
        self._group, self._plan, self._dataset, self._out = group, plan, dataset, out
        self._folder = out / "groups" / str(number)
        newest = checkpoint.sound_step(self._folder)
        checkpoint.set_aside(self._folder, newest)
        self.served, self.step, self._saved = list(group.served), newest or 0, newest
        if newest is not None:
            self.served = self._saved_members(newest, set(alive))
        self._store = checkpoint.Checkpoints(self._folder, keep=2)
        left = set(sum(self.served, ())) & set(alive)
        self._population = self._begun(layout) if left else None
        self.keep(alive)

    def _saved_members(self, step: int, alive: set[int]) -> list[tuple[int, ...]]:
        """Those that the trainings of a checkpoint serve."""
        meta = checkpoint.read_meta(self._folder, step)["config"]
        served = [tuple(places) for places in meta.get("served", ())]
        saved, mine = set(sum(served, ())), set(sum(self._group.served, ()))
        if not alive & mine <= saved <= mine:
            raise ValueError(
                f"{self._folder} holds members {sorted(saved)} of a study begun by another version"
                f" of jaxdiff, wanted {sorted(alive & mine)}; begin anew in another directory"
            )
        return served

    def _begun(self, layout: str | None) -> population.Population:
        """The trainings as they were saved, or before their first step."""
        config, traits = self._group.config, [self._traits(places[0]) for places in self.served]
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
        """How many trainings at once: as many as memory is known to hold."""
        limit = memory.limit()
        if layout != "vmap" or limit is None:
            return None
        given = (step_of, state_of, traits[0], batch, len(traits))
        return memory.fitting(*given, limit=limit, devices=devices)

    def _traits(self, member: int) -> dict[str, Any]:
        """Of the training that serves a member."""
        whole = zip(self._group.served, self._group.traits, strict=True)
        return next(traits for served, traits in whole if member in served)

    def _config(self, member: int) -> Config:
        return members.member(self._plan.config, self._plan.points[member])

    def advance(self, step: int, caught: Any, told: Callable[[int, float], None]) -> bool:
        """Trains to a step, and saves; whether nothing stopped it."""
        part, seen = self._plan.config.training, []
        if not self.served:
            return True
        seeds = [self._config(places[0]).training.seed for places in self.served]
        size, flip = self._group.config.training.batch_size, self._dataset.flip
        deals = {s: self._dataset.with_batches(size, seed=s, flip=flip) for s in seeds}
        while self.step < step and caught.signal is None:
            dealt = {seed: deal.batch_at(self.step) for seed, deal in deals.items()}
            seen.append(self._population.advance([dealt[seed] for seed in seeds]))
            self.step += 1
            if self.step % part.log_every == 0 or self.step == step:
                losses = population.columns(seen)["loss"]
                _log(self._out, self.step, self.served, losses)
                told(len(seen) * len(self.served), float(np.nanmean(losses)))
                seen = []
            if self.step % part.save_every == 0 or self.step == step:
                self._save()
        if caught.signal is not None:
            self._save()
        return caught.signal is None

    def wait(self) -> None:
        """Until what is being saved is saved."""
        self._store.wait()

    def close(self) -> None:
        """Waits, and ends."""
        self._store.close()

    def _save(self) -> None:
        if self.step == self._saved:
            return
        states, self._saved = self._population.states(), self.step
        self._store.save(self.step, states, {"served": self.served})

    def keep(self, alive: Sequence[int]) -> None:
        """Drops the members that are not among these, and trainings that serve none."""
        left = [tuple(m for m in places if m in alive) for places in self.served]
        chosen = [i for i, places in enumerate(left) if places]
        if not chosen:
            self._population = None
        elif len(chosen) < len(left):
            self._population.keep(chosen)
        self.served = [left[i] for i in chosen]

    def state(self, member: int) -> Any:
        """The state of the training that serves a member."""
        place = next(i for i, places in enumerate(self.served) if member in places)
        return population.unstacked(self._population.states(), place)

    def scores(self) -> Iterator[tuple[int, float]]:
        """Of each member that is left, (member, score)."""
        if not self.served:
            return
        states = self._population.states()
        by_loss = self._plan.score == "heldout_loss"
        score = self._loss() if by_loss else self._distance()
        for i, places in enumerate(self.served):
            weights = build.averaged(self._config(places[0]), population.unstacked(states, i))
            loss = score(places[0], weights) if by_loss else None
            for member in places:
                yield member, score(member, weights) if loss is None else loss

    def _loss(self) -> Callable[[int, Any], float]:
        """The loss on held-out data of a member's weights; samples have no part in it."""
        config = self._group.config
        heldout = build.load_seen(config.data, "heldout")
        part = config.training
        # dealt alike for all members, whatever their seeds
        batches = monitor.heldout_batches(heldout, part.batch_size, part.heldout, self._plan.config)

        @jax.jit
        def validate(traits, weights, batch, key):
            return build.build_validation(members.with_values(config, traits))(weights, batch, key)

        def mean(member: int, weights: Any) -> float:
            traits = jax.tree.map(jnp.asarray, self._traits(member))
            keys = (jax.random.fold_in(jax.random.key(0), i) for i in range(len(batches)))
            pairs = zip(batches, keys, strict=True)
            rows = [validate(traits, weights, batch, key) for batch, key in pairs]
            return float(np.mean([row["heldout_loss"] for row in rows]))

        return mean

    def _distance(self) -> Callable[[int, Any], float]:
        """The Frechet distance, in pixels, of a member's samples to held-out data."""
        part = self._plan.config
        wanted = max(part.training.samples, monitor.ENOUGH)
        real = metrics.pixels(build.load_data(part.data, "heldout").images(wanted))

        def distance(member: int, weights: Any) -> float:
            x, _ = monitor.draw(self._config(member), weights)
            finite = np.isfinite(x).all()
            return float(metrics.frechet_distance(metrics.pixels(x), real)) if finite else np.inf

        return distance


def _log(out: Path, step: int, served: Sequence[Sequence[int]], losses: np.ndarray) -> None:
    """Appends losses of trainings to the study's log, for each member that they serve."""
    path = out / "log.csv"
    new = not path.exists()
    with path.open("a", newline="") as file:
        writer = csv.writer(file)
        if new:
            writer.writerow(["step", "member", "loss"])
        pairs = zip(served, losses, strict=True)
        writer.writerows([step, m, float(loss)] for places, loss in pairs for m in places)
