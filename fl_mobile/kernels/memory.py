"""Keeps freed memory in the process: clients' arrays are of one size, and fresh pages cost more than sums over them."""

from __future__ import annotations

import ctypes
import functools
import sys

_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3  # <malloc.h> of glibc
_LARGEST_HELD = 32 << 20
"""Bytes of the largest array that is taken from kept memory: the most that glibc allows."""
_HELD = 256 << 20
"""Bytes a process may keep free."""


@functools.cache
def hold_freed_memory() -> bool:
    """Tells glibc to keep freed arrays for the next ones; returns whether it does. Elsewhere nothing is changed.

    By default every array of a hundred kilobytes is new memory from the kernel, which clears it page by page.
    """
    if not sys.platform.startswith("linux"):
        return False
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (OSError, AttributeError):  # another C library
        return False
    return bool(mallopt(_M_MMAP_THRESHOLD, _LARGEST_HELD) and mallopt(_M_TRIM_THRESHOLD, _HELD))
