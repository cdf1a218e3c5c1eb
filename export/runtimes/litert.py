"""``ai_edge_litert.interpreter.Interpreter``: the runtime of today's Android ``litert`` AAR, CPU with XNNPACK."""

from __future__ import annotations

from export.runtimes.runtime import InterpreterSession, Runtime, missing_module


def _load(data: bytes, signature: str, threads: int) -> InterpreterSession:
    from ai_edge_litert.interpreter import Interpreter

    return InterpreterSession.load(Interpreter, data, signature, threads)


LITERT = Runtime(
    "litert",
    lambda: missing_module("ai_edge_litert.interpreter", "pip install 'ai-edge-litert>=2.1'"),
    _load,
    "LiteRT Interpreter (ai-edge-litert), CPU",
    ships=True,
)
