"""Ladder side-tuning beside what it competes with: accuracy, trained parameters, memory, time.

    python experiments/ladder_side_tuning.py --data vaderSentiment-3.3.2.tar.gz [--quick]

MiniLM-L6 (22.6 million parameters) tells negative from positive sentences on films and products,
tuned by each method of `jaxdiff finetune` at that method's own learning rate, from the same
sentences in the same order, without dropout. Each seed divides the data anew.

1. Accuracy on the test part after the last step, its mean over seeds and the standard error of it.
2. What XLA plans for a training step beside parameters and batch: the compiled program's
   temporary memory, by batch size and length. It depends on no data and no other load.
3. Seconds of a step, the methods in turn, at the largest of these sizes.

Four ladders more: one with two heads, since attention weights are [heads, tokens, tokens] however
narrow the heads are; two whose side networks start from the backbone's rows, the largest, or those
of most Fisher information; and one whose rungs are added without gates.

Expected: no gradient goes through the frozen network, so that of its activations a ladder keeps
block outputs alone: less than half of what LoRA plans. (At 32 x 128 it is 643 of 1,402 MiB; of full
tuning's 1,608 that is two fifths and not a third, for its twelve heads; with two it is 288.)
Found with --epochs 1 --seeds 2 (figures/ladder_*): full tuning .796, ladders .769 to .784, LoRA
.772, the head alone .753, with errors of .011 by the test part alone. This task is easy; on reading
comprehension the method loses far more, Su 2022 (https://kexue.fm/archives/9138): CMRC 2018
56.5 -> 42.5, CHID 86.7 -> 69.4.

Hardware: 2 CPU cores, some 20 minutes of each with --epochs 1 --seeds 2.
"""

import math
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
import records
import timing
import tyro
from rich.console import Console

from jaxdiff import plots, training
from jaxdiff.config import finetuning
from jaxdiff.config.finetuning import METHODS, FinetuneConfig, MethodConfig, TextConfig
from jaxdiff.data import text
from jaxdiff.interop import bert
from jaxdiff.training import finetune, optim

__all__ = ["VARIANTS", "Accuracy", "Memory", "accuracies", "main", "memories", "seconds", "summary"]

VARIANTS: dict[str, tuple[str, dict[str, Any]]] = {name: (name, {}) for name in METHODS}
VARIANTS |= {
    "lst, 2 heads": ("lst", {"heads": 2}),
    "lst, pruned": ("lst", {"start": "pruned"}),
    "lst, Fisher": ("lst", {"start": "fisher"}),
    "lst, sums": ("lst", {"mix": "sum"}),
}
"""What is compared, by name: a method, and what of its numbers is not as by default."""


class Accuracy(NamedTuple):
    """One training: the accuracy on its test part, and how many parameters were trained."""

    method: str
    seed: int
    accuracy: float
    trained: int
    seconds: float


class Memory(NamedTuple):
    """Temporary memory of a training step as XLA plans it, in MiB."""

    method: str
    batch: int
    length: int
    mebibytes: float


class Task(NamedTuple):
    """The network and the sentences."""

    network: bert.Bert
    data: text.Labelled
    length: int
    batch: int
    ratio: int


def config_of(task: Task, method: str, seed: int, length: int | None = None) -> FinetuneConfig:
    """What fixes a training."""
    part = TextConfig(length=length or task.length, classes=task.data.classes)
    name, numbers = VARIANTS[method]
    chosen = MethodConfig(ratio=task.ratio, **numbers)
    return FinetuneConfig(name=name, data=part, method=chosen, seed=seed, dropout=0.0)


def step_of(config: FinetuneConfig, classifier: Any) -> Any:
    """Its training step."""
    optimizer = finetuning.build_optimizer(config)
    return training.make_train_step(finetune.text_loss(classifier), optimizer, decay=optim.linear)


def accuracies(task: Task, texts: int, epochs: float, seeds: int) -> Iterator[Accuracy]:
    """Trains by every method, and tests."""
    for seed in range(seeds):
        first, _, last = text.split(task.data, seed=seed)
        chosen = first.rows(np.random.default_rng(seed).permutation(len(first))[:texts])
        steps = max(1, round(epochs * len(chosen) / task.batch))
        read = text.read_tokenizer(task.network.tokenizer, task.length)
        batches = text.Batches(read(chosen.texts), chosen.labels, task.batch, seed)
        tested = read(last.texts)
        for method in VARIANTS:
            began = time.perf_counter()
            config = config_of(task, method, seed)
            classifier = finetuning.build_classifier(config, task.network.net)
            params, importance = task.network.params, None
            if config.method.start == "fisher":
                count = min(config.method.examples, len(chosen))
                seen = text.Batches(read(chosen.texts), chosen.labels, count, seed).batch_at(0)
                some, key = text.Tokens(seen["ids"], seen["mask"]), jax.random.key(seed)
                importance = finetune.importance(key, classifier, params, some, seen["y"])
            state = finetuning.build_state(config, classifier, steps, params, importance)
            step = step_of(config, classifier)
            done = training.fit(step, state, batches, steps=steps, log_every=steps, show=False)
            logs = finetune.log_probs(classifier, done.state, tested, task.batch)
            yield Accuracy(
                method=method,
                seed=seed,
                accuracy=finetune.score(logs, last.labels).accuracy,
                trained=sum(a.size for a in state.params.values()),
                seconds=time.perf_counter() - began,
            )


def compiled(task: Task, method: str, batch: int, length: int) -> tuple[Any, Any, Any]:
    """A method's training step for a size, a state, and a batch."""
    config = config_of(task, method, 0, length)
    classifier = finetuning.build_classifier(config, task.network.net)
    state = jax.eval_shape(lambda: finetuning.build_state(config, classifier, 100))
    ids = jax.ShapeDtypeStruct((batch, length), np.int32)
    given = {"ids": ids, "mask": jax.ShapeDtypeStruct(ids.shape, bool)}
    given |= {"y": jax.ShapeDtypeStruct((batch,), np.int32)}
    step = jax.jit(step_of(config, classifier), donate_argnums=0)
    return step.lower(state, given).compile(), state, given


def memories(task: Task, batches: tuple[int, ...], lengths: tuple[int, ...]) -> Iterator[Memory]:
    """What every method's step takes at every size."""
    for method in VARIANTS:
        for batch in batches:
            for length in lengths:
                planned = compiled(task, method, batch, length)[0].memory_analysis()
                size = planned.temp_size_in_bytes / 2**20
                yield Memory(method, batch, length, size)


def seconds(task: Task, batch: int, length: int, rounds: int) -> dict[str, float]:
    """The median time of a step of each method, taken in turn."""
    runs = {}
    for method in VARIANTS:
        config = config_of(task, method, 0, length)
        classifier = finetuning.build_classifier(config, task.network.net)
        state = finetuning.build_state(config, classifier, 100, task.network.params)
        ids = np.random.default_rng(0).integers(1, task.network.net.vocab, (batch, length))
        given = {"ids": ids.astype(np.int32), "mask": ids > 0, "y": np.arange(batch) % 2}
        step = jax.jit(step_of(config, classifier))
        runs[method] = lambda step=step, state=state, given=given: step(state, given)
    taken = timing.interleaved(runs, rounds, patience=math.inf)
    return {method: float(np.median(found)) for method, found in taken.items()}


def summary(rows: list[Accuracy], sizes: list[Memory], times: dict[str, float]) -> Any:
    """One row a method."""
    at = sorted({(m.batch, m.length) for m in sizes})
    planned = {(m.method, m.batch, m.length): m.mebibytes for m in sizes}
    lines = []
    for method in VARIANTS:
        mean, error = mean_of(rows, method)
        trained = next(r.trained for r in rows if r.method == method)
        cells = [f"{planned[method, *size]:.0f}" for size in at]
        lines.append(
            [method, f"{trained:,}", f"{mean:.4f} ± {error:.4f}", *cells, f"{times[method]:.3f}"]
        )
    heads = [f"MiB, {batch} x {length}" for batch, length in at]
    return timing.table(
        "Tuning to sentiment: trained parameters, accuracy, temporary memory of a step, seconds",
        ["method", "trained", "accuracy", *heads, "s/step"],
        lines,
    )


def mean_of(rows: list[Accuracy], method: str) -> tuple[float, float]:
    """The mean over seeds and its standard error, NaN of a single one."""
    found = np.array([row.accuracy for row in rows if row.method == method])
    error = found.std(ddof=1) / math.sqrt(len(found)) if len(found) > 1 else math.nan
    return float(found.mean()), float(error)


def picture(rows: list[Accuracy], sizes: list[Memory], path: Path) -> None:
    """Accuracy against memory at the largest size: above and to the left is better."""
    largest = max((m.batch, m.length) for m in sizes)
    held = {m.method: m.mebibytes for m in sizes if (m.batch, m.length) == largest}
    drawn = plots.canvas.figure(8.0, 4.5)
    size = f"{largest[0]} x {largest[1]} tokens"
    axes = drawn.add_subplot(
        xlabel=f"temporary memory of a training step of {size}, MiB", ylabel="accuracy"
    )
    for i, method in enumerate(VARIANTS):
        mean, error = mean_of(rows, method)
        how = {"color": plots.canvas.palette()[i % 10], "marker": "os^"[i // 10], "capsize": 2}
        axes.errorbar(held[method], mean, 0.0 if math.isnan(error) else error, ls="", **how)
        place = {"xytext": (5, 4), "textcoords": "offset points", "fontsize": 8}
        axes.annotate(method, (held[method], mean), **place)
    axes.set_xlim(0, 1.12 * max(held.values()))
    axes.grid(alpha=0.3)
    plots.canvas.write(drawn, path)


def main(
    data: Path,
    out: Path = Path("runs/ladder_side_tuning"),
    backbone: str = "minilm",
    seeds: int = 3,
    texts: int = 1600,
    epochs: float = 3.0,
    length: int = 48,
    batch: int = 32,
    ratio: int = 8,
    quick: bool = False,
) -> None:
    """Runs all parts, and writes accuracy.csv, memory.csv and tuning.png.

    Args:
        data: vaderSentiment-3.3.2.tar.gz, or a table of texts with labels.
        out: the directory to write to.
        backbone: as for `jaxdiff finetune`.
        seeds: how often everything is trained.
        texts: how many are trained on.
        epochs: how often each is seen.
        length: tokens of a text in training.
        batch: texts of a step in training.
        ratio: by how much the ladder's side network is narrower.
        quick: whether to run on next to nothing, to see that it runs.
    """
    batches, lengths, rounds = (8, 32), (32, 128), 5
    if quick:
        seeds, texts, epochs, length, batch = 1, 32, 1.0, 8, 16
        batches, lengths, rounds = (2,), (6, 8), 1
    console = Console()
    task = Task(bert.read(bert.find(backbone)), text.load(data), length, batch, ratio)
    sizes: list[Memory] = []
    for size in memories(task, batches, lengths):
        sizes.append(size)
        records.write(out / "memory.csv", sizes)
    times = seconds(task, max(batches), max(lengths), rounds)
    rows: list[Accuracy] = []
    for row in accuracies(task, texts, epochs, seeds):
        rows.append(row)
        console.log(*row)
        records.write(out / "accuracy.csv", rows)
    console.print(summary(rows, sizes, times))
    picture(rows, sizes, out / "tuning.png")


if __name__ == "__main__":
    tyro.cli(main)
