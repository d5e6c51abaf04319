"""The command line: `jaxdiff train`, `sample`, `evaluate`, `likelihood` and others; see `COMMANDS`.

A command is a module here with `main(arguments) -> exit status`; it is imported when it is called.
Mistakes of the user end with one line on stderr and status 2, Ctrl-C with 130.
"""

import functools
import importlib
import logging
import os
import sys
import warnings
from collections.abc import Sequence
from importlib import metadata
from typing import Any

__all__ = ["COMMANDS", "main"]

COMMANDS: dict[str, str] = {
    "train": "train a model on digits or on a file, into a run directory",
    "classifier": "train a classifier of noisy images, for guidance",
    "autoencoder": "train an autoencoder, in whose latents train can learn",
    "learn-grid": "learn where a few steps of a sampler should be",
    "estimate-variance": "estimate the best variance of the reverse steps",
    "sample": "draw samples from a run, as .npz and as a picture",
    "evaluate": "compare samples with real data: distances, precision, recall, copies",
    "likelihood": "how probable real data are to a model: bits/dim with their errors",
    "finetune": "tune a trained network to labelled texts, by few parameters or all",
    "classify": "tell the classes of texts by a tuned network",
    "study": "train many members that differ in hyperparameters, as few programs",
    "probe": "which position methods of transformers can count",
    "hubness": "count how often each point is a neighbour of the others",
    "export": "write a run's sampler as a program that plain JAX runs, here or elsewhere",
    "serve-file": "draw samples by a program that export wrote",
    "import": "read the weights of another library into a run directory",
    "export-weights": "write a run's network as the weights of another library",
    "inspect": "show what a run directory holds",
}

_HELP = """\
usage: jaxdiff COMMAND ...

Diffusion models in JAX, from data to samples.

{commands}

  jaxdiff COMMAND --help    all options of a command
  jaxdiff --version

A first run, some minutes on a laptop:

  jaxdiff train digits --out run --seconds 300
  jaxdiff sample run --n 900 --out samples.npz --plot samples.png
  jaxdiff evaluate run --samples samples.npz
  jaxdiff likelihood run --method elbo --n 100 --plot terms.png
  jaxdiff inspect run --plot loss.png
"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs a command.

    Args:
        arguments: what follows `jaxdiff`; that of the process unless given.

    Returns:
        The exit status: 0 done (or stopped by SIGTERM, saved), 2 a mistake that was named on
        stderr, 130 stopped by Ctrl-C.
    """
    given = list(sys.argv[1:] if arguments is None else arguments)
    command, rest = (given[0], given[1:]) if given else ("--help", [])
    if command in ("-h", "--help"):
        lines = "\n".join(f"  {name:17} {what}" for name, what in COMMANDS.items())
        sys.stdout.write(_HELP.format(commands=lines))
        return 0
    if command == "--version":
        sys.stdout.write(f"{metadata.version('jaxdiff')}\n")
        return 0
    if command not in COMMANDS:
        return _fail("jaxdiff", f"command must be one of {', '.join(COMMANDS)}, got {command!r}")
    try:
        module = importlib.import_module(f"jaxdiff.cli.{command.replace('-', '_')}")
        with warnings.catch_warnings():
            warnings.showwarning = functools.partial(_warn, command)
            logging.getLogger("absl").setLevel(logging.CRITICAL)  # Orbax's, beside our errors
            return module.main(rest)
    except SystemExit as ending:  # the parser's, after --help or a mistake that it has explained
        return ending.code if isinstance(ending.code, int) else 2
    except KeyboardInterrupt:
        if arguments is None:  # a compiled program that still runs would crash Python's own end
            _end_at_once(130)
        return 130
    except ConnectionError as error:
        status = _fail(f"jaxdiff {command}", str(error))
        if arguments is None:  # what waits for the lost process would hold up Python's own end
            _end_at_once(status)
        return status
    except OSError as error:
        where = f": {error.filename}" if error.filename else ""
        return _fail(f"jaxdiff {command}", f"{error.strerror or error}{where}")
    except (ValueError, FloatingPointError, ImportError) as error:
        return _fail(f"jaxdiff {command}", str(error))


def _end_at_once(status: int) -> None:
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(status)


def _warn(command: str, message: Any, category: type, *where: Any, **options: Any) -> None:
    """A warning as one line on stderr, not as a place in the code."""
    sys.stderr.write(f"jaxdiff {command}: warning: {' '.join(str(message).split())}\n")


def _fail(who: str, what: str) -> int:
    """One line on stderr, whatever the message."""
    sys.stderr.write(f"{who}: error: {' '.join(what.split())}\n")
    return 2
