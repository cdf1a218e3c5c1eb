"""Freed memory is kept: the next array of the size costs no page faults."""

from __future__ import annotations

import subprocess
import sys

import pytest

FAULTS = """
import resource, sys
import numpy as np
from fl_mobile.kernels.memory import hold_freed_memory
if sys.argv[1] == "held":
    assert hold_freed_memory() and hold_freed_memory()
def faults(times):
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(times):
        first, second = np.ones(1 << 20), np.ones(1 << 20)
        del first, second
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before
faults(5)
print(faults(40))
"""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="glibc's malloc alone is told")
def test_arrays_of_one_size_are_no_new_memory_each_time() -> None:
    held, fresh = (
        int(subprocess.run([sys.executable, "-c", FAULTS, how], check=True, capture_output=True, timeout=60).stdout)
        for how in ("held", "as it is")
    )
    assert held < 2_000 < fresh
