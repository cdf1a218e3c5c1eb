"""Keeps the converter's chatter off the user's terminal, and hands it over when something went wrong."""

from __future__ import annotations

import contextlib
import logging
import os
import sys
import tempfile
import warnings
from collections.abc import Callable, Iterator


@contextlib.contextmanager
def captured_stderr() -> Iterator[Callable[[], str]]:
    """Sends file descriptor 2 to a temporary file inside the block; yields a function that reads it back.

    C++ code writes straight to the descriptor, so replacing ``sys.stderr`` is not enough. Python's own
    ``sys.stderr`` keeps pointing at the terminal, so a progress bar drawn by another thread still shows.
    The descriptor belongs to the whole process: other threads' C++ messages are caught as well.
    """
    try:
        terminal = os.dup(2)
    except OSError:  # no descriptor 2, as in some daemons: there is nothing to keep quiet
        yield lambda: ""
        return
    python_stderr = sys.stderr
    with tempfile.TemporaryFile() as log, os.fdopen(terminal, "w", buffering=1, errors="replace") as through:

        def text() -> str:
            log.seek(0)
            return log.read().decode(errors="replace")

        if _descriptor(python_stderr) == 2:
            sys.stderr = through
        os.dup2(log.fileno(), 2)
        try:
            with _python_chatter_off():
                yield text
        finally:
            os.dup2(through.fileno(), 2)
            sys.stderr = python_stderr


def _descriptor(stream: object) -> int | None:
    try:
        return stream.fileno()  # type: ignore[attr-defined, no-any-return]
    except (AttributeError, OSError, ValueError):
        return None


@contextlib.contextmanager
def _python_chatter_off() -> Iterator[None]:
    # The empty name is the root: TFMOT warns there, and the first warning would leave it a handler on our stream,
    # which is closed when the block ends.
    loggers = [logging.getLogger(name) for name in ("", "tensorflow", "absl")]
    levels = [logger.level for logger in loggers]
    handlers = logging.getLogger().handlers[:]
    for logger in loggers:
        logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)
        logging.getLogger().handlers[:] = handlers
