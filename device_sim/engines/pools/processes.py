"""A trainer in a process of its own, for work that holds Python's lock."""

from __future__ import annotations

import contextlib
import multiprocessing
import re
import signal
import sys
from collections.abc import Callable, Iterator, Sequence
from multiprocessing.connection import Connection
from multiprocessing.reduction import ForkingPickler
from pathlib import Path
from typing import Any, TypeVar

from device_sim.engines.records import Trainer
from fl_mobile.errors import ConfigError, FlMobileError, RunError
from fl_mobile.kernels.memory import hold_freed_memory
from fl_mobile.table import admit_rows, own_rows

T = TypeVar("T")

ENDED_SECONDS = 5
"""How long a worker may take to end by itself once its pipe is closed."""


class ProcessWorker:
    """A worker process; starts at once, and is asked for its trainer by the first `call`.

    Args:
        open_trainer: Makes the trainer, in the new process; must be picklable.

    Raises:
        ConfigError: This is a worker's process: what it imports for the model starts a run of its own.
    """

    shares_memory = False

    def __init__(self, open_trainer: Callable[[], Trainer]) -> None:
        if multiprocessing.current_process().daemon:
            raise ConfigError(
                "a run starts when this module is imported, and every worker of engine.pool processes imports it for"
                ' the model: put what starts the run below `if __name__ == "__main__":`, or the model into a module of'
                " its own"
            )
        context = multiprocessing.get_context("spawn")  # a fork would copy TensorFlow's threads in the middle of work
        self._pipe, child = context.Pipe()
        self._process = context.Process(
            target=_serve, args=(child, open_trainer, own_rows()), daemon=True, name="engine-worker"
        )
        with _main_as_needed(open_trainer):
            self._process.start()
        child.close()

    def call(self, work: Callable[..., T], *args: Any) -> T:
        """Returns ``work(trainer, *args)``.

        Raises:
            RunError: The process died, e.g. because the machine ran out of memory.
        """
        try:
            self._pipe.send((work, args))
            fine, result = self._pipe.recv()
        except (EOFError, ConnectionError):
            self._process.join(1)
            code = self._process.exitcode
            why = (
                "if the machine is out of memory, use fewer engine.workers"
                if code is None or code <= 0  # by a signal
                else "what it wrote on stderr says why"
            )
            raise RunError(
                f"an engine worker process died (exit code {code}); {why}. Continue with --resume."
            ) from None
        if not fine:
            raise result
        answer: T = result
        return answer

    def close(self) -> None:
        """Ends the process."""
        self._pipe.close()
        self._process.join(ENDED_SECONDS)
        if self._process.is_alive():
            self._process.kill()
            self._process.join()  # else it stays behind as a zombie as long as this program runs


_GUARD = re.compile(r"__name__\s*(==|!=|in\b)|(==|!=)\s*__name__")


@contextlib.contextmanager
def _main_as_needed(open_trainer: Callable[[], Trainer]) -> Iterator[None]:
    """Lets workers be started from anywhere: a script is imported by them only if what they need is in it.

    Raises:
        ConfigError: It is in a script that would start its run again, in a notebook, or has no name that leads to it.
    """
    main = sys.modules["__main__"]
    file = getattr(main, "__file__", None)  # a notebook and `python -c` have none, and are not imported
    try:
        needed = b"__main__" in bytes(ForkingPickler.dumps(open_trainer))
    except Exception as error:  # objects say in many ways that they cannot travel
        raise ConfigError(f"engine.pool processes cannot send the model there ({error}). {_ELSEWHERE}") from None
    if needed and file is None:
        raise ConfigError(f"engine.pool processes: the model is in no module that workers could import. {_ELSEWHERE}")
    if needed and not _GUARD.search(_text_of(str(file))):
        raise ConfigError(
            f"{file}: engine.pool processes starts Python anew for every worker and imports this script there for the"
            f" model, which would start the run again. {_ELSEWHERE} Or put what starts it below `if __name__ =="
            ' "__main__":`.'
        )
    kept: dict[str, Any] = {name: vars(main)[name] for name in ("__file__", "__spec__") if name in vars(main)}
    if not needed:
        vars(main).pop("__file__", None)
        vars(main)["__spec__"] = None
    try:
        yield
    finally:
        vars(main).update(kept)


_ELSEWHERE = "Put the function that builds it into a module, or use engine.pool threads."


def _text_of(file: str) -> str:
    try:
        return Path(file).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError):
        return "__name__ =="


def _serve(pipe: Connection, open_trainer: Callable[[], Trainer], rows: Sequence[tuple[str, str]]) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the program that asked; it closes the pipe
    desk = Desk(open_trainer, rows)
    with contextlib.suppress(EOFError, ConnectionError):  # who asked has closed the pipe, or was killed
        while True:
            work, args = pipe.recv()
            pipe.send(desk.call(work, *args))


class Desk:
    """A trainer in another process than who asks for its work; what fails is an answer, the first failure included.

    Args:
        open_trainer: Makes the trainer.
        rows: Rows of the user's own that the other process has loaded.
    """

    def __init__(self, open_trainer: Callable[[], Trainer], rows: Sequence[tuple[str, str]] = ()) -> None:
        hold_freed_memory()
        self._fine, self._trainer = _attempt(admit_rows, rows)
        if self._fine:
            self._fine, self._trainer = _attempt(open_trainer)

    def call(self, work: Callable[..., Any], *args: Any) -> tuple[bool, Any]:
        """Returns whether ``work(trainer, *args)`` was fine, and what it returned, or else the exception."""
        return _attempt(work, self._trainer, *args) if self._fine else (False, self._trainer)


def _attempt(work: Callable[..., Any], *args: Any) -> tuple[bool, Any]:
    try:
        return True, work(*args)
    except (FlMobileError, OSError) as error:
        return False, error
    except Exception as error:  # its class may exist only here, or not survive the way back
        return False, RuntimeError(f"in an engine worker process: {type(error).__name__}: {error}")
