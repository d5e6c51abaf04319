"""`jaxdiff classify`: the classes of texts, by a network that `jaxdiff finetune` has tuned."""

import csv
import dataclasses
import io
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import jax
import numpy as np
import tyro
from rich.console import Console

from jaxdiff.cli import finetune as command
from jaxdiff.cli import outputs
from jaxdiff.cli.say import say
from jaxdiff.config import finetuning
from jaxdiff.data import files, text
from jaxdiff.interop import bert
from jaxdiff.training import finetune, rundir

__all__ = ["main"]


@dataclasses.dataclass(frozen=True)
class Classify:
    """Tell the classes of texts: the likeliest one, its probability, and the text.

    By the checkpoint of RUN that was best on its validation part. With --data FILE --label COLUMN
    the accuracy is told as well; a label that the run does not know is an error.
    """

    run: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="RUN")]
    """The run directory."""
    texts: Annotated[tuple[str, ...], tyro.conf.Positional, tyro.conf.arg(metavar="TEXT")] = ()
    """Texts, each in quotes."""
    data: Path | None = None
    """A table of texts, instead, .tsv or .csv."""
    text: str = "text"
    """Its column of texts, by name or number."""
    label: str | None = None
    """Its column of labels, by name or number, where there is one."""
    out: Path | None = None
    """A table to write, .csv: texts, likeliest classes, and the probability of each class."""


def main(arguments: Sequence[str]) -> int:
    """Runs the command; see `jaxdiff.cli.main`."""
    args = tyro.cli(Classify, prog="jaxdiff classify", args=arguments)
    if (args.data is None) == (not args.texts):
        raise ValueError("give either texts or --data FILE")
    if args.label is not None and args.data is None:
        raise ValueError(f"--label {args.label} is of --data, which is not given")
    outputs.check("--out", args.out, (".csv",))
    config = command.read_config(args.run)
    directory, texts, labels = rundir.backbone(args.run), args.texts, None
    if args.label is not None:
        columns = {"text": args.text, "label": args.label}
        labelled = text.load(args.data, **columns, classes=config.data.classes)
        texts, labels = labelled.texts, labelled.labels
    elif args.data is not None:
        texts = text.read_texts(args.data, text=args.text)
    classifier = finetuning.build_classifier(config, bert.network(directory))
    abstract = jax.eval_shape(lambda: finetuning.build_state(config, classifier, 1))
    tokens = text.read_tokenizer(directory / "tokenizer.json", config.data.length)(texts)
    _, state = command.restored(args.run, abstract)
    logs = finetune.log_probs(classifier, state, tokens, config.batch_size)
    _show(args, config.data.classes, texts, np.exp(logs))
    if labels is not None:
        found = finetune.score(logs, labels)
        say(
            Console(stderr=True),
            f"accuracy {found.accuracy:.4f} +- {found.standard_error:.4f} of {found.texts:,} texts",
        )
    return 0


def _show(
    args: Classify, classes: Sequence[str], texts: Sequence[str], probabilities: np.ndarray
) -> None:
    """Prints a line for each text, or writes the table."""
    likeliest = np.argmax(probabilities, axis=1)
    if args.out is None:
        for words, best, p in zip(texts, likeliest, probabilities, strict=True):
            sys.stdout.write(f"{classes[best]}\t{p[best]:.4f}\t{' '.join(words.split())}\n")
        return
    table = io.StringIO(newline="")
    writer = csv.writer(table)
    writer.writerow(["text", "class", *classes])
    for words, best, p in zip(texts, likeliest, probabilities, strict=True):
        writer.writerow([words, classes[best], *(f"{value:.6g}" for value in p)])
    with files.replacing(args.out) as file:
        file.write(table.getvalue().encode())
