"""Help, version and the overview."""

import subprocess
import sys

import pytest

from jaxdiff.cli import main


@pytest.mark.parametrize("command", ["train", "sample", "evaluate", "likelihood", "inspect"])
def test_help(command, capsys):
    assert main([command, "--help"]) == 0
    shown = capsys.readouterr().out
    assert "usage: jaxdiff" in shown
    if command == "train":
        assert "--model.channels" in shown
        assert "--optimizer.lr" in shown


def test_help_of_a_preset_shows_its_network(capsys):
    assert main(["train", "x.npz", "--preset", "mlp", "--help"]) == 0
    shown = capsys.readouterr().out
    assert "--model.width" in shown
    assert "--model.channels" not in shown


def test_overview_is_quick():
    """It imports no network, optimiser, plotting or parsing library."""
    code = "import sys; from jaxdiff.cli import main; s = main(['--help']); print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    shown, modules = done.stdout.rsplit("jaxdiff inspect", 1)
    for command in ("train", "sample", "inspect"):
        assert command in shown
    heavy = {"flax", "optax", "orbax", "tyro", "matplotlib", "sklearn", "diffrax"}
    assert not heavy & set(modules.split())


def test_no_command_and_version(capsys):
    assert main([]) == 0
    assert "usage: jaxdiff COMMAND" in capsys.readouterr().out
    assert main(["--version"]) == 0
    assert capsys.readouterr().out.strip()[0].isdigit()
