"""Where errors end: whatever goes wrong in any verb becomes one message on stderr and one exit code, here."""

from __future__ import annotations

import contextlib
import errno
import functools
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from typing import ParamSpec

import typer

from device_sim.run.interrupt import INTERRUPTED, CtrlC, stop_if_interrupted
from fl_mobile.errors import FlMobileError
from fl_mobile.table import own_parts_named

SYSTEM_ERROR = 12
DEBUG_VARIABLE = "FL_MOBILE_DEBUG"
_NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
_P = ParamSpec("_P")


def reported(verb: Callable[_P, None]) -> Callable[_P, None]:
    """Returns ``verb`` with its errors told to the user; ``FL_MOBILE_DEBUG=1`` lets them through with a traceback."""

    @functools.wraps(verb)
    def run(*args: _P.args, **kwargs: _P.kwargs) -> None:
        try:
            with _ctrl_c_counted(), own_parts_named():
                verb(*args, **kwargs)
                sys.stdout.flush()
                stop_if_interrupted()
        except BrokenPipeError:
            # Whoever read our output has gone (`| head`): end without a word, and without Python's own complaint.
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            raise typer.Exit(1) from None
        except (FlMobileError, OSError, KeyboardInterrupt) as error:
            if debugging():
                raise
            _tell(f"fl-mobile: {message_of(error)}")
            raise typer.Exit(exit_code_of(error)) from None

    return run


def _tell(message: str) -> None:
    try:
        print(message, file=sys.stderr, flush=True)
    except OSError:  # the log is on the full disk as well; the exit code still tells, if Python has nothing to flush
        os.dup2(os.open(os.devnull, os.O_WRONLY), 2)


@contextlib.contextmanager
def _ctrl_c_counted() -> Iterator[None]:
    # A process started with SIGINT ignored (`&` in a script) keeps ignoring it, as every Unix program does.
    before = signal.getsignal(signal.SIGINT)
    if before is not signal.default_int_handler or threading.current_thread() is not threading.main_thread():
        yield
        return
    hook = sys.unraisablehook
    signal.signal(signal.SIGINT, CtrlC())
    sys.unraisablehook = lambda lost: None if lost.exc_type is KeyboardInterrupt else hook(lost)
    try:
        yield
    finally:
        sys.unraisablehook = hook
        signal.signal(signal.SIGINT, before)


def debugging() -> bool:
    """Returns whether tracebacks and library chatter are wanted."""
    return os.environ.get(DEBUG_VARIABLE, "") not in ("", "0")


def exit_code_of(error: BaseException) -> int:
    """Returns the exit code of an error that `reported` catches."""
    if isinstance(error, FlMobileError):
        return error.exit_code
    return INTERRUPTED if isinstance(error, KeyboardInterrupt) else SYSTEM_ERROR


def message_of(error: BaseException) -> str:
    """Returns what the user reads.

    >>> message_of(OSError(errno.ENOSPC, "No space left on device", "runs/a/checkpoint.npz"))
    'runs/a/checkpoint.npz: No space left on device. Make room and try again; files already written are whole.'
    """
    if isinstance(error, KeyboardInterrupt):
        return str(error) or "interrupted"
    if not isinstance(error, OSError) or not error.strerror:
        return str(error)
    where = f"{os.fspath(error.filename)}: " if isinstance(error.filename, str | os.PathLike) else ""
    hint = ". Make room and try again; files already written are whole." if error.errno in _NO_ROOM else ""
    return f"{where}{error.strerror}{hint}"


def exit_codes() -> list[tuple[int, str]]:
    """Returns every exit code with its meaning, rising; the error tree's rows come from the tree itself."""
    kinds: list[type[FlMobileError]] = [FlMobileError, *FlMobileError.__subclasses__()]
    tree = [(kind.exit_code, _first_line(kind)) for kind in kinds]
    others = [
        (0, "Success."),
        (2, "A command line that cannot be read."),
        (SYSTEM_ERROR, "The operating system refused: a full disk, no permission."),
        (INTERRUPTED, "Ctrl-C; what was finished is saved."),
    ]
    return sorted(tree + others)


def _first_line(kind: type[FlMobileError]) -> str:
    # The root's docstring speaks of the tree; as an exit code it is what no more precise row covers.
    return "Any other error." if kind is FlMobileError else (kind.__doc__ or kind.__name__).splitlines()[0]
