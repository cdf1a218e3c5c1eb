"""Settings of every suite: property tests judge results, never time; one thread inside each TensorFlow op.

Temporary folders are made in memory where there is room: every round of every run syncs its files, and on a disk that
is more than half of what a small run takes.
"""

import os
import shutil
import sys
import tempfile
from pathlib import Path

import pytest
from hypothesis import settings

# Suites share processes, and the keras engine refuses a TensorFlow that some earlier test started with more.
os.environ["TF_NUM_INTRAOP_THREADS"] = "1"

IN_MEMORY, ROOM = Path("/dev/shm"), 4 << 30
if "TMPDIR" not in os.environ and os.access(IN_MEMORY, os.W_OK) and shutil.disk_usage(IN_MEMORY).free > ROOM:
    os.environ["TMPDIR"] = tempfile.tempdir = str(IN_MEMORY)

settings.register_profile("no-deadline", deadline=None)
settings.load_profile("no-deadline")


@pytest.fixture(autouse=True, scope="module")
def fresh_keras_names() -> None:
    """Keras numbers layers by what was built before in the process; a module's results must not depend on that."""
    if keras := sys.modules.get("keras"):
        keras.backend.clear_session()
