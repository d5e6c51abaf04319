"""Truth: what a person reads, taken from a console that writes to memory."""

import io

import pytest
from rich.console import Console

from jaxdiff.training import progress


def shown(terminal, monkeypatch):
    """What a bar shows of 30 steps of 40, one a second."""
    clock = iter(range(1000))
    monkeypatch.setattr(progress.time, "monotonic", lambda: float(next(clock)))
    file = io.StringIO()
    console = Console(file=file, force_terminal=terminal, width=120)
    with progress.Bar(0, float("inf"), console=console) as bar:
        for step in range(1, 31):
            bar.update(step, 40.0 if step > 5 else float("inf"), 0.25 if step > 10 else None)
    return file.getvalue()


def test_a_terminal_has_a_bar_with_rate_and_loss(monkeypatch):
    text = shown(True, monkeypatch)
    assert "step 30/40" in text
    assert "loss 0.2500" in text
    assert "steps/s" in text


def test_a_file_has_a_line_now_and_then(monkeypatch):
    lines = shown(False, monkeypatch).strip().splitlines()
    assert 1 <= len(lines) < 30
    assert all(line.startswith("step ") and "loss 0.2500" in line for line in lines)


def test_what_is_counted_has_its_own_name():
    file = io.StringIO()
    console = Console(file=file, force_terminal=True, width=120)
    names = {"unit": "example", "number": "bits/dim"}
    with progress.Bar(0, 40, console=console, **names) as bar:
        bar.update(30, 40, 2.5)
    assert "example 30/40" in file.getvalue()
    assert "bits/dim 2.5000" in file.getvalue()
    assert "examples/s" in file.getvalue()


@pytest.mark.parametrize("total", [1.0, float("inf")])
def test_any_total_will_do(total):
    with progress.Bar(0, total, console=Console(file=io.StringIO(), force_terminal=True)) as bar:
        bar.update(1, total)
