"""`jaxdiff finetune`: from labelled texts to a tuned classifier, in a run directory."""

import dataclasses
import json
import math
import shlex
import shutil
import signal
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, NamedTuple

import jax
import jax.numpy as jnp
import tyro
from rich.console import Console

from jaxdiff import training
from jaxdiff.cli import train
from jaxdiff.cli.say import say
from jaxdiff.config import codec, finetuning
from jaxdiff.config.finetuning import FinetuneConfig, MethodName
from jaxdiff.data import files, text
from jaxdiff.interop import bert
from jaxdiff.models.sentence import SentenceClassifier
from jaxdiff.training import checkpoint, finetune, interrupt, optim, rundir
from jaxdiff.training.comparison import config_differences

__all__ = ["main", "read_config", "restored"]

# What may be changed on a resume: the rest fixes the numbers of a run.
_FREE = {"epochs": 3.0, "steps": None, "log_every": 20, "save_every": None}


@dataclasses.dataclass(frozen=True)
class Finetune:
    """Tune a trained network to the classes of labelled texts, into a run directory.

    The data are a table, .tsv (tabs, no quotes) or .csv, whose first line names the columns text
    and label; or vaderSentiment-3.3.2.tar.gz, with sentences on films and products. Parts for
    validation and test are taken from it, no text in two of them. The methods: lst, a ladder of
    small blocks beside the frozen network; full; lora; adapter; bitfit; prompt; and head, the
    last layer alone. lst needs little memory and does well where classes are easy to tell; on
    reading comprehension large losses are reported, see the README. The
    checkpoint that is best on the validation part is tested. Ctrl-C and SIGTERM save a checkpoint
    and end; the same command with --resume goes on.
    """

    data: str
    """The path of the texts."""
    out: Path | None = None
    """The run directory to write: config.json, log.csv, evaluation.csv, checkpoints/, test.json."""
    method: MethodName = "lst"
    """How it is tuned."""
    test: str | None = None
    """Texts to test on, of the same classes; instead of a part of --data."""
    resume: bool = False
    """Go on with the run in --out, or begin if there is none."""
    overwrite: bool = False
    """Begin anew in --out, whose run is removed."""
    dry_run: bool = False
    """Print the resolved configuration, train nothing."""
    config: Annotated[FinetuneConfig, tyro.conf.arg(name="")] = dataclasses.field(
        default_factory=FinetuneConfig
    )


class _Parts(NamedTuple):
    """The texts that are trained on, chosen by, and tested on."""

    train: text.Labelled
    validation: text.Labelled
    test: text.Labelled


class _Job(NamedTuple):
    """What was asked for, checked.

    Attributes:
        out: the run directory.
        config, parts: the configuration and its texts.
        directory: where the network's files are.
        classifier, tokenizer: what is tuned, and what makes its tokens.
        abstract: shapes and dtypes of its state.
        call: the arguments of `training.fit` that say how long and where to.
    """

    out: Path
    config: FinetuneConfig
    parts: _Parts
    directory: Path
    classifier: SentenceClassifier
    tokenizer: text.Tokenizer
    abstract: training.TrainState
    call: dict[str, Any]


def main(arguments: Sequence[str]) -> int:
    """Runs the command; see `jaxdiff.cli.main`."""
    stored = _resumed(list(arguments))
    base = FinetuneConfig() if stored is None else stored
    source = base.data.source or tyro.MISSING
    args = tyro.cli(
        Finetune,
        prog="jaxdiff finetune",
        args=arguments,
        default=Finetune(data=source, method=base.name, test=base.data.tested, config=base),
    )
    if args.out is None and not args.dry_run:
        raise ValueError("--out RUN is needed: the directory to write the run to")
    if args.resume and args.overwrite:
        raise ValueError("--resume goes on with a run, --overwrite removes it: give one of them")
    config, parts = _with_data(args, stored)
    steps, epoch = _lengths(config, len(parts.train))
    call = {"steps": steps, "out": args.out, "resume": args.resume, "keep": 1}
    every = min(epoch, steps) if config.save_every is None else config.save_every
    call |= {"log_every": config.log_every, "save_every": every}
    training.check(**{**call, **({"out": None} if args.overwrite else {})})
    directory = _directory(config, args)
    classifier = finetuning.build_classifier(config, bert.network(directory))
    abstract = jax.eval_shape(lambda: finetuning.build_state(config, classifier, steps))
    read = text.read_tokenizer(directory / "tokenizer.json", config.data.length)
    if read.count > classifier.net.backbone.vocab:
        raise ValueError(
            f"{directory / 'tokenizer.json'} has {read.count} tokens, the network beside it"
            f" {classifier.net.backbone.vocab}: they do not belong together"
        )
    if args.dry_run:
        values = codec.plain(dataclasses.asdict(config))
        sys.stdout.write(f"{json.dumps(values, indent=2)}\n")
        return 0
    job = _Job(args.out, config, parts, directory, classifier, read, abstract, call)
    return _run(job, overwrite=args.overwrite)


def _resumed(arguments: list[str]) -> FinetuneConfig | None:
    """The configuration of the run in --out, where --resume finds one."""
    out = train.value_of("--out", arguments)
    if "--resume" not in arguments or not out or not (Path(out) / "config.json").is_file():
        return None
    return read_config(Path(out))


def read_config(run: Path) -> FinetuneConfig:
    """The configuration of a run of `jaxdiff finetune`.

    Raises:
        FileNotFoundError: it is no run directory.
        ValueError: it is a run of something else, or damaged.
    """
    values, _ = rundir.read_config(run)
    if "backbone" not in values:
        raise ValueError(f"{run} holds no tuned classifier of texts, as jaxdiff finetune makes it")
    try:
        return finetuning.from_json(values)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{run / 'config.json'} is damaged: {error}") from error


def _with_data(args: Finetune, stored: FinetuneConfig | None) -> tuple[FinetuneConfig, _Parts]:
    """The configuration with the short flags and the classes in it, and the texts."""
    config = args.config
    part = config.data
    columns = {"text": part.text, "label": part.label}
    labelled = text.load(args.data, **columns, classes=part.classes or None)
    tested = None
    if args.test is not None:
        tested = text.load(args.test, **columns, classes=labelled.classes)
    part = dataclasses.replace(part, source=args.data, tested=args.test, classes=labelled.classes)
    part = dataclasses.replace(part, digest=text.digest(labelled, *filter(None, [tested])))
    config = dataclasses.replace(config, name=args.method, data=part)
    if stored is not None:
        _check_unchanged(stored, config)
    if not part.validation > 0:
        raise ValueError(f"data.validation must be above 0, got {part.validation}")
    shares = {"validation": part.validation, "test": part.test, "seed": config.seed}
    if tested is None:
        return config, _Parts(*text.split(labelled, **shares))
    rest = text.without(labelled, tested.texts)
    if not len(rest):
        raise ValueError(f"--test {args.test} has all texts of {args.data}: none is left")
    return config, _Parts(*text.split(rest, **{**shares, "test": 0.0})[:2], tested)


def _check_unchanged(stored: FinetuneConfig, config: FinetuneConfig) -> None:
    fixed = config_differences(*(_fixed(c) for c in (stored, config)))
    if fixed:
        raise ValueError(f"a resumed run keeps its configuration, got {fixed}")
    old, new = stored.data, config.data
    if old.digest != new.digest:
        raise ValueError(
            f"a resumed run keeps its texts, or it would be tested on some that it has learnt;"
            f" {' or '.join(filter(None, (new.source, new.tested)))} has others"
        )


def _fixed(config: FinetuneConfig) -> dict[str, Any]:
    """What of a configuration a resumed run keeps: files may have been moved."""
    part = config.data
    data = {**vars(part), "source": "", "tested": "another file" if part.tested else None}
    data["digest"] = ""  # compared by itself
    return codec.plain({**dataclasses.asdict(config), **_FREE, "data": data})


def _lengths(config: FinetuneConfig, texts: int) -> tuple[int, int]:
    """How many steps there are, in all and in an epoch."""
    if config.batch_size < 1:
        raise ValueError(f"batch_size must be at least 1, got {config.batch_size}")
    if not (config.epochs > 0 and math.isfinite(config.epochs)):
        raise ValueError(f"epochs must be positive and finite, got {config.epochs}")
    if not 0 <= config.warmup <= 1:
        raise ValueError(f"warmup must be a share of the steps in [0, 1], got {config.warmup}")
    epoch = math.ceil(texts / config.batch_size)
    wanted = max(1, round(config.epochs * texts / config.batch_size))
    return (wanted if config.steps is None else config.steps), epoch


def _directory(config: FinetuneConfig, args: Finetune) -> Path:
    """Where the network's files are: in the run, once it has begun."""
    if args.resume and args.out is not None:
        own = rundir.backbone(args.out)
        if checkpoint.latest_step(rundir.checkpoints(args.out)) is not None and own.is_dir():
            return own
    return bert.find(config.backbone)


def _run(job: _Job, *, overwrite: bool) -> int:
    """Trains, tests, and says what came of it."""
    console, config, out = Console(stderr=True), job.config, job.out
    _say_start(console, job)
    learnt, chosen, tested = (job.tokenizer(part.texts) for part in job.parts)
    params = _params(job, learnt)
    if overwrite:
        rundir.clear(out)
    size, labels = config.batch_size, job.parts.validation.labels
    step = training.make_train_step(
        finetune.text_loss(job.classifier), finetuning.build_optimizer(config), decay=optim.linear
    )
    with interrupt.catch() as caught:
        done = training.fit(
            step,
            _state(job, *params),
            text.Batches(learnt, job.parts.train.labels, size, config.seed),
            **job.call,
            config=codec.plain(dataclasses.asdict(config)),
            evaluate=finetune.Validation(job.classifier, chosen, labels, size),
            best="validation_error",
            caught=caught,
        )
        if done.signal is not None:
            name = signal.Signals(done.signal).name
            say(console, f"{name}: saved at step {int(done.state.step)}; --resume goes on")
            return 130 if done.signal == signal.SIGINT else 0
    _test(job, tested, console)
    return 0


def _params(job: _Job, tokens: text.Tokens) -> tuple[Any, Any]:
    """The trained network's parameters and their importance, each None where not wanted."""
    if job.directory == rundir.backbone(job.out):
        return None, None
    params, part = bert.read(job.directory).params, job.config.method
    if job.config.name != "lst" or part.start != "fisher":
        return params, None
    count = min(part.examples, len(job.parts.train))
    first = text.Batches(tokens, job.parts.train.labels, count, job.config.seed).batch_at(0)
    key = jax.random.key(job.config.seed)
    some = text.Tokens(first["ids"], first["mask"])
    return params, finetune.importance(key, job.classifier, params, some, first["y"])


def _state(job: _Job, params: Any, importance: Any) -> training.TrainState:
    """The state to begin with; what describes the network is kept in the run."""
    if params is None:
        return jax.tree.map(_blank, job.abstract)  # all of it is read from the checkpoint
    own = rundir.backbone(job.out)
    own.mkdir(parents=True, exist_ok=True)
    for name in ("config.json", "tokenizer.json"):
        shutil.copyfile(job.directory / name, own / name)
    steps = job.call["steps"]
    return finetuning.build_state(job.config, job.classifier, steps, params, importance)


def _blank(a: jax.ShapeDtypeStruct) -> jax.Array:
    key = jnp.issubdtype(a.dtype, jax.dtypes.prng_key)
    return jax.random.key(0) if key else jnp.zeros(a.shape, a.dtype)


def _say_start(console: Console, job: _Job) -> None:
    state, read, texts = job.abstract, job.tokenizer, job.parts.train.texts
    trained, frozen = (sum(a.size for a in leaves.values()) for leaves in (state.params, state.aux))
    sizes = ", ".join(f"{len(part):,} {name}" for name, part in job.parts._asdict().items())
    say(
        console,
        f"texts: {sizes}; classes: {', '.join(job.config.data.classes)};"
        f" {read.count_cut(texts):,} to train on are longer than {read.length} tokens and cut",
        f"{job.config.name}: {trained:,} parameters are trained, {frozen:,} are not",
    )


def restored(run: Path, abstract: training.TrainState) -> tuple[int, training.TrainState]:
    """The best checkpoint of a run, the newest one where none is judged: its step and state."""
    folder = rundir.checkpoints(run)
    step = checkpoint.best_step(folder) or checkpoint.sound_step(folder)
    if step is None:
        raise FileNotFoundError(f"{run} has no checkpoint")
    return step, training.restore(folder, abstract, step)


def _test(job: _Job, tokens: text.Tokens, console: Console) -> None:
    """Tests the best checkpoint, where there is something to test on."""
    step, state = restored(job.out, job.abstract)
    data, out = job.parts.test, job.out
    if len(data):
        found = finetune.log_probs(job.classifier, state, tokens, job.config.batch_size)
        result = finetune.score(found, data.labels)
        with files.replacing(rundir.test_result(out)) as file:
            file.write(json.dumps({"step": step, **result._asdict()}, indent=2).encode() + b"\n")
        say(
            console,
            f"test accuracy {result.accuracy:.4f} +- {result.standard_error:.4f} of"
            f" {result.texts:,} texts, by the best checkpoint, step {step}, in {out}",
        )
    words = shlex.quote(min(data.texts, key=len, default="a text"))
    say(console, f"next: jaxdiff classify {shlex.quote(str(out))} {words}")
