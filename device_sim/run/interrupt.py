"""A Ctrl-C that is not lost."""

from __future__ import annotations

import os
import signal

INTERRUPTED = 130
"""Exit code of a program that Ctrl-C ended."""


class CtrlC:
    """A SIGINT handler that remembers: the first raises `KeyboardInterrupt`, the second ends the process at once.

    Python drops the exception where nobody can catch it (a ``__del__``, a weakref or C++ callback), and libraries
    swallow it; `stop_if_interrupted` raises it again at the next round or step. So that it is told once, Python's
    own "Exception ignored in" of it is kept quiet.
    """

    def __init__(self) -> None:
        self.pressed = False

    def __call__(self, number: int, frame: object) -> None:
        if self.pressed:
            os._exit(INTERRUPTED)  # nothing is half written: every file is swapped in whole
        self.pressed = True
        raise KeyboardInterrupt


def stop_if_interrupted() -> None:
    """Raises `KeyboardInterrupt` if Ctrl-C was pressed and its exception got lost."""
    handler = signal.getsignal(signal.SIGINT)
    if isinstance(handler, CtrlC) and handler.pressed:
        raise KeyboardInterrupt


def forget_interrupt() -> None:
    """For a verb that Ctrl-C ends as planned: it counts as a success, and the next Ctrl-C as the first."""
    handler = signal.getsignal(signal.SIGINT)
    if isinstance(handler, CtrlC):
        handler.pressed = False
