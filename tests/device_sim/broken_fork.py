"""Forks of this process whose file-system calls are counted and broken: by strace, or by Python itself.

A fork has everything imported already, so the calls that are counted are those of the run and no others.
"""

from __future__ import annotations

import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import traceback
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

SECONDS_TO_END = 120
HUNG = 98
"""Exit code of a fork that did not end in time; the signal that then ended it is not the one that breaks runs."""


@dataclass(frozen=True)
class Call:
    """The ``number``-th call of ``name`` in a run, counted from 1; ``text`` is how the tracer wrote it down."""

    name: str
    number: int
    text: str


@dataclass(frozen=True)
class Ended:
    """How a fork ended: exit code, minus the signal, or `HUNG`; what it said; what strace wrote down."""

    code: int
    told: str
    trace: str


def strace_is_missing() -> str:
    """Returns why strace cannot be used here, or an empty string."""
    if not shutil.which("strace"):
        return "strace is not installed"
    probe = ["strace", "-qq", "-o", os.devnull, "-e", "inject=fsync:error=EIO", "true"]
    done = subprocess.run(probe, capture_output=True, text=True)
    return "" if done.returncode == 0 else f"strace does not work here: {done.stderr.strip()}"


def in_fork(run: Callable[[], int], strace: Sequence[str] = ()) -> Ended:
    """Runs ``run`` in a fork; with ``strace`` options, every call it makes is traced."""
    here, there = socket.socketpair()
    pid = os.fork()
    if pid == 0:
        here.close()
        _be_the_fork(run, there)
    there.close()
    with here, tempfile.TemporaryDirectory(prefix="broken-fork-") as folder:
        trace = Path(folder) / "trace"
        tracer = _attached(["strace", "-o", str(trace), *strace, "-p", str(pid)]) if strace else None
        here.send(b"!")
        told, in_time = _heard(here, pid)
        _, status = os.waitpid(pid, 0)
        if tracer:
            tracer.communicate()
        code = os.waitstatus_to_exitcode(status) if in_time else HUNG
        return Ended(code, told, trace.read_text() if tracer else "")


def _be_the_fork(run: Callable[[], int], there: socket.socket) -> None:
    # It talks over a socket, because `send` is none of the calls that are broken: a full disk silences nobody.
    sys.stdout = sys.stderr = there.makefile("w")
    code = 99
    try:
        there.recv(1)
        code = run()
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stderr.flush()
        os._exit(code)


def _heard(here: socket.socket, pid: int) -> tuple[str, bool]:
    """Returns what the fork said, and whether it ended in time; it has ended in any case."""
    heard, deadline = bytearray(), time.monotonic() + SECONDS_TO_END
    try:
        here.settimeout(SECONDS_TO_END)
        while more := here.recv(65536):
            heard += more
            here.settimeout(max(0.001, deadline - time.monotonic()))  # one that waits and says so is late as well
    except TimeoutError:
        os.kill(pid, signal.SIGKILL)
        return f"{heard.decode()}\nno end within {SECONDS_TO_END} s", False
    return heard.decode(), True


def _attached(command: list[str]) -> subprocess.Popen[str]:
    tracer = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    assert tracer.stderr is not None
    if "attached" not in (line := tracer.stderr.readline()):
        raise RuntimeError(f"strace did not attach: {line}")
    return tracer


def parse_trace(text: str, below: Path) -> Iterator[Call]:
    """Yields the calls of a log of ``strace -f`` that name a path at or below ``below``.

    Raises:
        RuntimeError: Another thread than the first makes such a call: strace counts by thread, and breaks the first.
    """
    seen: Counter[str] = Counter()
    first = text.split(maxsplit=1)[0]
    for line in text.splitlines():
        if found := re.match(r"(\d+) +(\w+)\(", line):
            thread, name = found.groups()
            seen[name] += thread == first
            if str(below) in line:
                if thread != first:
                    raise RuntimeError(f"a thread writes: {line}")
                yield Call(name, seen[name], line.replace(str(below), "RUN").partition(" ")[2].strip())


EVENTS = frozenset(
    ("open", "os.fsync", "os.rename", "os.remove", "os.rmdir", "os.mkdir", "os.listdir", "os.scandir", "fcntl.flock")
)
"""Python's audit events of the file system, and `os.fsync`, which has none."""


def count_or_break(below: Path, act: Callable[[int, str, str], None]) -> None:
    """From now on every file-system event at or below ``below`` calls ``act(number, event, arguments)`` first.

    What ``act`` raises comes out of the call that the event announces.
    """
    count = 0

    def hook(event: str, arguments: tuple[object, ...]) -> None:
        nonlocal count
        if event in EVENTS and (str(below) in str(arguments) or event in ("os.fsync", "fcntl.flock")):
            count += 1
            act(count, event, str(arguments))

    sync = os.fsync

    def fsync(fd: int) -> None:
        hook("os.fsync", (fd,))
        sync(fd)

    os.fsync = fsync
    sys.addaudithook(hook)
