"""``tflite_runtime`` 2.14: what many shipped apps and single-board computers still run."""

from __future__ import annotations

from export.runtimes.runtime import InterpreterSession, Runtime, missing_module

_INSTALL = "pip install 'fl-mobile[tflite-runtime]' in an environment of its own (Python ≤ 3.11, numpy < 2)"


def _missing() -> str | None:
    reason = missing_module("tflite_runtime.interpreter", _INSTALL)
    if reason is None:
        import numpy as np

        if int(np.__version__.split(".")[0]) >= 2:
            return f"tflite_runtime was built for numpy 1 and this is numpy {np.__version__}: {_INSTALL}"
    return reason


def _load(data: bytes, signature: str, threads: int) -> InterpreterSession:
    from tflite_runtime.interpreter import Interpreter

    return InterpreterSession.load(Interpreter, data, signature, threads)


TFLITE_RUNTIME = Runtime("tflite-runtime", _missing, _load, "tflite-runtime 2.14 Interpreter, CPU")
