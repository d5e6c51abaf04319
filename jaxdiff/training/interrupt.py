"""SIGTERM and Ctrl-C as a request that a loop looks at between steps."""

import contextlib
import dataclasses
import signal
import threading
from collections.abc import Iterator
from types import FrameType

__all__ = ["Interrupt", "catch"]


@dataclasses.dataclass
class Interrupt:
    """Whether to stop.

    Attributes:
        signal: the first signal that came, None if none did.
    """

    signal: int | None = None


@contextlib.contextmanager
def catch() -> Iterator[Interrupt]:
    """Holds SIGTERM and Ctrl-C back until the end of the block; a second one aborts at once.

    Earlier handlers are put back. Outside the main thread, where Python allows no handlers,
    signals do what they did before.
    """
    caught = Interrupt()

    def handle(number: int, frame: FrameType | None) -> None:
        if caught.signal is not None:
            raise KeyboardInterrupt
        caught.signal = number

    if threading.current_thread() is not threading.main_thread():
        yield caught
        return
    before = {number: signal.signal(number, handle) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield caught
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
