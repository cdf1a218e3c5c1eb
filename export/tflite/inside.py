"""Running an artifact so that what it computes on the way can be read."""

from __future__ import annotations

from typing import Any


def open_inside(data: bytes) -> Any:
    """Returns LiteRT's ``Interpreter`` of a flatbuffer, all of whose tensors stay readable after a run.

    A delegate would own the tensors between its operations; the builtin kernels leave every one, if asked to.
    """
    from ai_edge_litert.interpreter import Interpreter, OpResolverType

    return Interpreter(
        model_content=data,
        experimental_op_resolver_type=OpResolverType.BUILTIN_WITHOUT_DEFAULT_DELEGATES,
        experimental_preserve_all_tensors=True,
    )
