"""What commands tell the user, word by word."""

from rich.console import Console

__all__ = ["say"]


def say(console: Console, *lines: str) -> None:
    """Prints lines as they are: a path may hold [brackets], and a long command stays whole."""
    console.print(*lines, sep="\n", highlight=False, markup=False, soft_wrap=True)
