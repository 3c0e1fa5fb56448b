"""Ctrl-C and SIGTERM wait for what must be done as a whole."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from types import FrameType
from typing import Final

_SIGNALS: Final = (signal.SIGINT, signal.SIGTERM)


@contextmanager
def uninterrupted() -> Iterator[None]:
    """Keep the two signals that people send until the block has ended; then they do what they always do.

    Python raises KeyboardInterrupt between any two steps of the main thread, also between a line that is
    written and the note that it was. Other threads are never interrupted.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    came: list[int] = []

    def note(number: int, _frame: FrameType | None) -> None:
        came.append(number)

    def send_again() -> None:
        for number in came[:1]:
            os.kill(os.getpid(), number)

    with ExitStack() as stack:  # each is undone, also where another one raises
        stack.callback(send_again)
        for number in _SIGNALS:
            if signal.getsignal(number) is not None:  # else it is not Python's to put back
                stack.callback(signal.signal, number, signal.signal(number, note))
        yield
