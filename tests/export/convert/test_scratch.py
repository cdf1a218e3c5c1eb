"""Temporary folders go away, and a full one is told as a full disk."""

from __future__ import annotations

import errno
import subprocess
import sys
from pathlib import Path

import pytest

from export.convert.scratch import scratch_folder

pytestmark = pytest.mark.tf


def test_tensorflow_out_of_disk_is_an_os_error_that_names_the_way_out() -> None:
    """TensorFlow's own words for a real full device."""
    import tensorflow as tf

    with pytest.raises(OSError, match="TMPDIR") as caught, scratch_folder("test") as folder:
        tf.io.write_file("/dev/full", "x" * 100_000)
    assert caught.value.errno == errno.ENOSPC
    assert not Path(folder).exists()


def test_no_room_at_all_is_told_before_anything_is_compiled() -> None:
    """A limit on the size of files stands for a temporary disk that is full; in a process of its own, as it lasts."""
    limited = "import resource; resource.setrlimit(resource.RLIMIT_FSIZE, (100, 100)); "
    code = "from export.convert.scratch import check_scratch; check_scratch()"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0
    done = subprocess.run([sys.executable, "-c", limited + code], capture_output=True, text=True)
    assert "OSError: [Errno 27] File too large for temporary files (set TMPDIR to another disk)" in done.stderr


def test_other_errors_come_through() -> None:
    with pytest.raises(ValueError, match="something else"), scratch_folder("test") as folder:
        raise ValueError(f"something else in {folder}")


def test_the_folder_goes_with_what_is_in_it() -> None:
    with scratch_folder("test") as folder:
        (Path(folder) / "left").write_bytes(b"x")
    assert not Path(folder).exists()
