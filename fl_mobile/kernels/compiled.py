"""Compiles inner loops to machine code that runs without Python's lock, so that worker threads run side by side.

`numba` compiles a function when it is first called and keeps the result in the user's cache folder, or else beside the
sources: half a minute for all of them, once per version of the loops. Where it cannot be installed the same functions
run as plain Python: the same bytes, far slower. Modules with compiled functions are imported where they are needed and
never by ``fl-mobile --help``: numba itself takes 0.2 s to import.

Compiled code stays within its arrays by construction, also for hostile bytes; nobody looks, unless
``NUMBA_BOUNDSCHECK=1`` is set, as the suites for hostile bytes do.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

from fl_mobile.kernels.cache import claim_folder, loops_hash

try:
    import numba
except ImportError:
    numba = None

F = TypeVar("F", bound=Callable[..., Any])


def _cache_folder() -> str:
    """Returns a folder of this version of the compiled loops, empty if there can be none."""
    sources = Path(__file__).parents[1]
    home = os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")
    return claim_folder([Path(home, "fl-mobile"), sources / "__pycache__"], loops_hash(sources))


_CACHE = _cache_folder() if numba else ""


def is_cold() -> bool:
    """Whether nothing of this version has been compiled yet, so that the first use takes half a minute."""
    return numba is not None and not (_CACHE and any(Path(_CACHE).rglob("*.nbi")))


def compiled(function: F) -> F:
    """Returns the function, compiled when it is first called."""
    if not numba:
        return function
    before, numba.config.CACHE_DIR = numba.config.CACHE_DIR, _CACHE
    try:
        made: F = numba.njit(nogil=True, cache=bool(_CACHE))(function)
    finally:
        numba.config.CACHE_DIR = before
    return made
