"""Keeps what TensorFlow and LiteRT print about themselves off the user's terminal, and nothing else.

Their C++ writes to file descriptor 2 before any logging switch is read (``TF_CPP_MIN_LOG_LEVEL`` comes too late for
the oneDNN and CUDA lines of TF 2.21), so the descriptor itself is turned away while they start and while the
process ends. Python's errors and progress still come through, and ``FL_MOBILE_DEBUG=1`` lets everything through.
"""

from __future__ import annotations

import contextlib
import logging
import os
import sys
from collections.abc import Iterator

from device_sim.cli.edge import debugging


def set_log_levels() -> None:
    """Asks the libraries themselves for less; what the user has set is kept."""
    # A worker computes on one thread, NumPy too: faster beside other workers, and the same bits on any machine.
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
    if not debugging():
        os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")


@contextlib.contextmanager
def while_loading() -> Iterator[None]:
    """Turns C++ messages away inside the block; errors reach Python as exceptions and are not lost."""
    from export.convert.quiet import captured_stderr

    if debugging():
        yield
        return
    with captured_stderr():
        yield
    logger = logging.getLogger("tensorflow")
    logger.setLevel(logging.ERROR)  # it warns of retracing when a sweep opens one model after another, as it must
    for handler in logger.handlers:
        if isinstance(handler, logging.StreamHandler):
            handler.stream = sys.stderr  # made inside the block, it holds the stand-in, which is closed now


def load_tensorflow() -> None:
    """Imports TensorFlow and lets it look for GPUs, quietly, for verbs that open many models one after another."""
    from fl_mobile.models.keras_start import import_keras

    with while_loading():
        import_keras()
        import tensorflow as tf

        tf.config.list_physical_devices()


def until_the_end() -> None:
    """Turns C++ messages away for good: LiteRT says goodbye from destructors, after Python's last line."""
    if debugging() or not {"tensorflow", "ai_edge_litert"} & sys.modules.keys():
        return
    with contextlib.suppress(OSError, ValueError):
        sys.stderr.flush()
        os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
