"""All that is used of numba beyond what it promises; tests/fl_mobile/kernels/test_private_api.py has canaries."""

from __future__ import annotations

from typing import Any


def set_cache(dispatcher: Any, cache: Any) -> None:
    """Lets a compiled function ask ``cache`` for its machine code."""
    dispatcher._cache = cache


def cache_of(dispatcher: Any) -> Any:
    """Returns what `set_cache` set."""
    return dispatcher._cache


def kept_by(cache: Any, signature: Any, codegen: Any) -> Any:
    """Returns what numba's own cache keeps of a function on disk, None if nothing."""
    return cache._cache_file.load(cache._index_key(signature, codegen))


def reduced(made: Any) -> Any:
    """Returns what numba keeps of a ``CompileResult``."""
    return made._reduce()


def rebuilt(context: Any, kept: Any) -> Any:
    """Returns the ``CompileResult`` of what `reduced` gave."""
    from numba.core.compiler import CompileResult

    return CompileResult._rebuild(context, *kept)
