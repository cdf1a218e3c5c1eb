"""``tf.lite.Interpreter``: the interpreter inside the ``tensorflow`` wheel, announced for removal but still there."""

from __future__ import annotations

import warnings
from pathlib import Path

from export.runtimes.runtime import InterpreterSession, Runtime, missing_module

_INTERPRETER = "python/interpreter.py"


def _missing() -> str | None:
    """Looks for the interpreter's file: importing TensorFlow to find out would take seconds."""
    from importlib.util import find_spec

    reason = missing_module("tensorflow", "pip install tensorflow")
    spec = None if reason else find_spec("tensorflow")
    if spec is not None and spec.origin and not Path(spec.origin).with_name("lite").joinpath(_INTERPRETER).exists():
        return "this tensorflow no longer has tf.lite.Interpreter: pip install 'tensorflow<2.22', or rely on litert"
    return reason


def _load(data: bytes, signature: str, threads: int) -> InterpreterSession:
    import tensorflow as tf

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # "tf.lite.Interpreter is deprecated": known, and the reason for litert
        return InterpreterSession.load(tf.lite.Interpreter, data, signature, threads)


TF_LITE = Runtime("tf-lite", _missing, _load, "tf.lite.Interpreter (tensorflow), CPU")
