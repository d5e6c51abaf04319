"""What commands tell the user, word by word, and what they were asked for."""

from rich.console import Console
from rich.measure import Measurement
from rich.table import Table

__all__ = ["say", "show"]


def say(console: Console, *lines: str) -> None:
    """Prints lines as they are: a path may hold [brackets], and a long command stays whole."""
    console.print(*lines, sep="\n", highlight=False, markup=False, soft_wrap=True)


def show(*tables: Table) -> None:
    """Prints the result of a command on stdout, where a pipe finds it and progress is not.

    In a pipe or a file a table is as wide as it wants to be: there is no window to fit.
    """
    console = Console()
    for table in tables:
        if not console.is_terminal:
            wanted = Measurement.get(console, console.options.update_width(1000), table)
            console.width = max(console.width, wanted.maximum)
        console.print(table)
