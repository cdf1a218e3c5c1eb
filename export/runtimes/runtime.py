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
        ships: Whether apps of today are built with it, so that a difference on it is a fault. The others are asked and
            told; they decide where the user names them as targets.
        on_request: Whether it is only used when somebody names it, because it starts more than a library.
    """

    name: str
    missing: Callable[[], str | None]
    load: Callable[[bytes, str, int], Session]
    what: str
    ships: bool = False
    on_request: bool = False


Forms = dict[str, tuple[tuple[int, ...], "np.dtype[Any]"]]


@dataclass(frozen=True)
class InterpreterSession:
    """A session of any of the three ``Interpreter`` classes, which share one API."""

    interpreter: Any
    runner: Any
    forms: Forms

    @classmethod
    def load(cls, interpreter_class: Any, data: bytes, signature: str, threads: int) -> InterpreterSession:
        """Allocates ``data`` in a new interpreter of ``interpreter_class``."""
        interpreter = interpreter_class(model_content=data, num_threads=threads)
        interpreter.allocate_tensors()
        runner = interpreter.get_signature_runner(signature)
        details = runner.get_input_details()
        forms = {name: (tuple(map(int, d["shape"])), np.dtype(d["dtype"])) for name, d in details.items()}
        return cls(interpreter, runner, forms)

    def run(self, inputs: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Runs one frame."""
        check_inputs(inputs, self.forms)
        return dict(self.runner(**inputs))


def check_inputs(inputs: Mapping[str, np.ndarray], forms: Forms) -> None:
    """Refuses inputs that do not fit: interpreters would resize the whole graph in silence, or read stale bytes.

    Raises:
        ValueError: A name, shape or dtype differs from the artifact's.
    """
    for name, value in inputs.items():
        if name not in forms:
            raise ValueError(f"input {name!r} is not one of {', '.join(sorted(forms))}")
        shape, dtype = forms[name]
        if value.shape != shape or value.dtype != dtype:
            raise ValueError(f"input {name!r}: expected {dtype}{list(shape)}, got {value.dtype}{list(value.shape)}")


def missing_module(module: str, install: str) -> str | None:
    """Returns how to get ``module`` when it is not installed, without importing it."""
    from importlib.util import find_spec

    try:
        found = find_spec(module) is not None
    except ModuleNotFoundError:  # the parent package is absent
        found = False
    return None if found else f"{module} is not installed: {install}"
