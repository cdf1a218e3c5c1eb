"""What a runtime is to us: a reason why it cannot run here, or a session made from checked bytes."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np


class Session(Protocol):
    """A loaded artifact. Not for two threads at once."""

    def run(self, inputs: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Returns the raw outputs by name for inputs by name, stored dtypes both ways, e.g. ``uint8[1, 10]``."""
        ...


@dataclass(frozen=True)
class Runtime:
    """One engine that runs ``.tflite`` files.

    Attributes:
        name: Key in ``RUNTIMES``.
        missing: Returns why it cannot be used here and how to get it, or None when it can.
        load: Makes a session from flatbuffer bytes that ``read_graph`` accepted, a signature key and a number of
            threads. May raise anything on bytes it does not like; ``open_session`` translates.
        what: For people.
    """

    name: str
    missing: Callable[[], str | None]
    load: Callable[[bytes, str, int], Session]
    what: str


@dataclass(frozen=True)
class InterpreterSession:
    """A session of any of the three ``Interpreter`` classes, which share one API."""

    interpreter: Any
    runner: Any

    @classmethod
    def load(cls, interpreter_class: Any, data: bytes, signature: str, threads: int) -> InterpreterSession:
        """Allocates ``data`` in a new interpreter of ``interpreter_class``."""
        interpreter = interpreter_class(model_content=data, num_threads=threads)
        interpreter.allocate_tensors()
        return cls(interpreter, interpreter.get_signature_runner(signature))

    def run(self, inputs: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Runs one frame."""
        return dict(self.runner(**inputs))


def missing_module(module: str, install: str) -> str | None:
    """Returns how to get ``module`` when it is not installed, without importing it."""
    from importlib.util import find_spec

    try:
        found = find_spec(module) is not None
    except ModuleNotFoundError:  # the parent package is absent
        found = False
    return None if found else f"{module} is not installed: {install}"
