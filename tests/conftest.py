"""Settings of every suite: property tests judge results, never time; one thread inside each TensorFlow op.

Temporary folders are made in memory where there is room: every round of every run syncs its files, and on a disk that
is more than half of what a small run takes.
"""

import os
import re
import shutil
import sys
import tempfile
from pathlib import Path

import pytest
from hypothesis import settings

from tests.postgres import database, postgres

__all__ = ["database", "postgres"]

# Suites share processes, and the keras engine refuses a TensorFlow that some earlier test started with more.
os.environ["TF_NUM_INTRAOP_THREADS"] = "1"

IN_MEMORY, ROOM = Path("/dev/shm"), 4 << 30
if "TMPDIR" not in os.environ and os.access(IN_MEMORY, os.W_OK) and shutil.disk_usage(IN_MEMORY).free > ROOM:
    os.environ["TMPDIR"] = tempfile.tempdir = str(IN_MEMORY)

LONGEST = "tests/newcomer/"
"""Begins first: at its place in the alphabet it would run beside an idle worker for a minute."""

settings.register_profile("no-deadline", deadline=None)
settings.load_profile("no-deadline")


@pytest.hookimpl(tryfirst=True)  # before `-m "not slow"` chooses
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Marks as slow the rows of a test that its ``sample`` does not match: CI plays a few, check-all every one."""
    played: dict[str, list[bool]] = {}
    for item in items:
        if mark := item.get_closest_marker("sample"):
            matches = re.fullmatch(mark.args[0], item.callspec.id) is not None  # type: ignore[attr-defined]
            played.setdefault(item.nodeid.partition("[")[0], []).append(matches)
            if not matches:
                item.add_marker(pytest.mark.slow)
    for test, rows in played.items():
        if len(rows) > 1 and not any(rows):
            raise pytest.UsageError(f"{test}: its sample is none of its {len(rows)} rows")
    items.sort(key=lambda item: LONGEST not in item.nodeid)


@pytest.fixture(autouse=True, scope="module")
def fresh_keras_names() -> None:
    """Keras numbers layers by what was built before in the process; a module's results must not depend on that."""
    if keras := sys.modules.get("keras"):
        keras.backend.clear_session()
