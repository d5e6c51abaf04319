"""What tests of the command line share: the smallest network, commands that must go well or not."""

import numpy as np

from jaxdiff.cli import main

EPS = ["--parametrization.name", "eps"]
SMALL = ["--model.width", "16", "--model.depth", "1", "--training.log-every", "10"]
SMALL += ["--training.devices", "1"]


def draw(run, path, *options, steps=5):
    count = [] if steps is None else ["--steps", str(steps)]
    assert main(["sample", str(run), "--out", str(path), *count, *options]) == 0
    with np.load(path, allow_pickle=False) as file:
        return dict(file)


def complaint(arguments, capsys):
    """What a command that must fail says."""
    status = main([str(a) for a in arguments])
    assert status == 2
    return capsys.readouterr().err
