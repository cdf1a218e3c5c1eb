"""``tf.lite.Interpreter``: the interpreter inside the ``tensorflow`` wheel, announced for removal but still there."""

from __future__ import annotations

import warnings

from export.runtimes.runtime import InterpreterSession, Runtime, missing_module


def _missing() -> str | None:
    reason = missing_module("tensorflow", "pip install tensorflow")
    if reason is None:
        import tensorflow as tf

        if not hasattr(tf.lite, "Interpreter"):
            return f"tensorflow {tf.__version__} no longer has tf.lite.Interpreter"
    return reason


def _load(data: bytes, signature: str, threads: int) -> InterpreterSession:
    import tensorflow as tf

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # "tf.lite.Interpreter is deprecated": known, and the reason for litert
        return InterpreterSession.load(tf.lite.Interpreter, data, signature, threads)


TF_LITE = Runtime("tf-lite", _missing, _load, "tf.lite.Interpreter (tensorflow), CPU")
