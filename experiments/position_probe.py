"""Which position methods can say where tokens are, and which cannot whatever they learn?

    python experiments/position_probe.py [--tasks regression classification] [--methods all]
        [--steps 1500] [--seeds 3] [--n 32] [--out experiments/figures] [--quick]

Transformers of two blocks, 4 heads and width 64 are trained on the tasks of
`training.probe_tasks`, three seeds of a method in one program, and stand beside the best constant
and beside what the theorem says of identical tokens. Those that answer with a number are asked
again of 2 n tokens, with tables for n. Left behind: position_probe_TASK.csv, a row a network;
position_probe_TASK.png, losses by step; position_probe_maps_TASK.png, URPE's factors and weights.

Expected on identical tokens (n = 32): a softmax with whatever relative bias stays at the constant,
.08325 (31 * 33 / (12 * 32^2)) and ln 32 = 3.46574, and so do the other normalisations without a
bias, and gated units with a softmax; URPE, a factor alone, Shaw, absolute positions, unnormalised
or l2 rows with a bias, boundary tokens with a bias, and a first token under a causal mask fall
below it, most to less than 1e-5 of regression.

`pi` (random tokens) has the same constants, which are a theorem for "none" alone: tokens next to an
end are told by who is missing.

`etp` needs many times more steps (40,000 in the paper, 128 tokens):

    --tasks etp --methods none learned urpe --steps 4000 --seeds 1

draws its learning curve. After 4,000 steps URPE is at a loss of 1.31 of 2.65, right .58 of the time
where the constant half is .5 (one seed; longer runs were not made); learned positions are always
right after 1,000. Without positions 2.43 remain, for which tokens there are is known.

Hardware: 2 CPU cores; half a minute a method for identical tokens, 5 for random ones.
"""

from collections.abc import Sequence
from pathlib import Path

import jax
import numpy as np
import records
import tyro
from rich.console import Console

from jaxdiff import plots
from jaxdiff.training import probe
from jaxdiff.training.probe_tasks import METHODS, TASKS

__all__ = ["main", "report"]

FIGURES = Path(__file__).parent / "figures"
QUICK = {"steps": 4, "seeds": 2, "n": 8}


def main(
    methods: Sequence[str] = ("all",),
    tasks: Sequence[str] = ("regression", "classification"),
    steps: int = 1500,
    seeds: int = 3,
    n: int = 32,
    vocab: int = 50,
    seed: int = 0,
    out: Path = FIGURES,
    quick: bool = False,
) -> list[probe.Row]:
    """Trains, prints the table, writes files.

    Args:
        methods: their names, "all" for all.
        tasks: their names.
        steps: of each network.
        seeds: networks of each method and task.
        n: the number of tokens.
        vocab: how many random tokens there are.
        seed: of all of it.
        out: the folder.
        quick: a few steps of small networks, to see that it runs.

    Returns:
        A row a network.
    """
    names = METHODS if tuple(methods) == ("all",) else tuple(methods)
    how = {"steps": steps, "seeds": seeds, "n": n, **(QUICK if quick else {})}
    console, rows = Console(width=150), []

    def on_step(task: str, name: str, step: int, loss: float) -> bool:
        if step == how["steps"]:
            console.print(f"{task}, {name}: {loss:.6f}", highlight=False)
        return False

    for task in tasks:
        found = probe.compare(
            jax.random.key(seed), names, (task,), vocab=vocab, on_step=on_step, **how
        )
        rows += report(found, task, out, n=how["n"], vocab=vocab)
    return rows


def report(
    found: dict[tuple[str, str], probe.Found], task: str, out: Path, *, n: int, vocab: int
) -> list[probe.Row]:
    """The table on the terminal, and the files of one task."""
    rows = probe.rows_of(found, n=n, vocab=vocab)
    Console(width=150).print(plots.probe_table(rows, title=f"n = {n}"))
    records.write(out / f"position_probe_{task}.csv", rows)
    lines = {name: (one.steps, np.mean(one.losses, axis=0)) for (_, name), one in found.items()}
    best = TASKS[task].best(n, vocab).loss
    path = out / f"position_probe_{task}.png"
    plots.curves(lines, path, xlabel="step", ylabel="loss", title=task, floor=best)
    if (task, "urpe") in found:
        one = found[task, "urpe"]
        tokens = TASKS[task].draw(jax.random.key(0), 1, n, vocab)[0][0]
        maps = {f"factor, {name}": c for name, c in one.factors().items()}
        maps |= one.weights(tokens)
        plots.heat_maps(maps, out / f"position_probe_maps_{task}.png", title=f"urpe, {task}")
    return rows


if __name__ == "__main__":
    tyro.cli(main)
