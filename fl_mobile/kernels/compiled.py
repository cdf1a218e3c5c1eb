"""Compiles inner loops to machine code that runs without Python's lock, so that worker threads run side by side.

What a run needs of it is made ahead of time, by `make` and for wheels (`fl_mobile/kernels/built.py`). Whatever a set
does not hold `numba` compiles when it is first called and keeps in the user's cache folder, or else beside the sources:
a minute for all of them, once per version of the loops. Where numba cannot be installed the same functions run as plain
Python: the same bytes, far slower. Modules with compiled functions are imported where they are needed and never by
``fl-mobile --help``: numba itself takes 0.2 s to import.

Compiled code stays within its arrays by construction, also for hostile bytes; nobody looks, unless
``NUMBA_BOUNDSCHECK=1`` is set, as the suites for hostile bytes do.
"""

from __future__ import annotations

import functools
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

from fl_mobile.kernels import private_api
from fl_mobile.kernels.built import LoopCache, find_set
from fl_mobile.kernels.cache import claim_folder, loops_hash, versioned

try:
    import numba
    from numba.core.caching import FunctionCache, NullCache
except ImportError:
    numba = None

F = TypeVar("F", bound=Callable[..., Any])

_SOURCES = Path(__file__).parents[1]

LOOPS = loops_hash(_SOURCES) if numba else ""
"""The version of the loops."""


BESIDE = Path(__file__).parent
"""Where wheels and images have a set."""


def _parents() -> list[Path]:
    home = os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")
    return [Path(home, "fl-mobile"), _SOURCES / "__pycache__"]


@functools.cache
def cache_folder() -> Path | None:
    """Returns the folder of this version of the loops, made if need be; None where nothing can be written."""
    folder = claim_folder(_parents(), LOOPS)
    return Path(folder) if folder else None


def built_set() -> Path | None:
    """Returns the file with the machine code of all loops that a run needs, None if there is none that fits.

    It lies in `BESIDE`, or else with what is compiled here.
    """
    return find_set((BESIDE, *(versioned(parent, LOOPS) for parent in _parents())), LOOPS)


def is_cold() -> bool:
    """Whether nothing was built or compiled of this version, so that its first use takes a minute."""
    return which_code() == "none yet"


def which_code() -> str:
    """Returns what runs: ``built`` ahead of time, ``cached`` of earlier runs, ``none yet``, or ``plain Python``."""
    if not numba or numba.config.DISABLE_JIT:
        return "plain Python"
    if built_set():
        return "built"
    folders = (versioned(parent, LOOPS) for parent in _parents())
    return "cached" if any(any(folder.rglob("*.nbi")) for folder in folders) else "none yet"


def compiled(function: F) -> F:
    """Returns the function, whose machine code is read, or else compiled, when it is first called."""
    if not numba:
        return function
    made: F = numba.njit(nogil=True)(function)
    if made is not function:  # it is where NUMBA_DISABLE_JIT is set
        private_api.set_cache(made, LoopCache(function, built_set, _own_cache(function)))
        _share_code_of_constants(made)
    return made


def _share_code_of_constants(made: Any) -> None:
    """Lets loops that call this one with constants share its code: numba would compile it again for each number.

    LLVM puts constants into what it inlines all the same.
    """
    ask, plain = made.get_call_template, numba.types.unliteral
    made.get_call_template = lambda args, names: ask(
        tuple(map(plain, args)), {name: plain(kind) for name, kind in names.items()}
    )


def _own_cache(function: Callable[..., Any]) -> Any:
    """Returns what numba keeps of a function in the user's folder."""
    folder = cache_folder()
    if folder is None:
        return NullCache()
    before, numba.config.CACHE_DIR = numba.config.CACHE_DIR, str(folder)
    try:
        return FunctionCache(function)
    finally:
        numba.config.CACHE_DIR = before
