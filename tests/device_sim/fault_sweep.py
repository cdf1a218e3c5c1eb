"""Breaks a run at every file-system call it makes and looks at what is left.

```
a clean run under strace ─▶ its calls: openat 1, openat 2, write 1 …           (only those below the run folder)
per call and fault:  fork ─▶ strace inject=CALL:FAULT:when=N ─▶ run ─▶ whole files? ─▶ run again ─▶ same bytes?
```
``python -m tests.device_sim.fault_sweep --start new [NAME …]`` prints one JSON line a point.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import random
import re
import shutil
import signal
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from device_sim.experiment.toml import parse_experiment, to_toml
from tests.device_sim.broken_fork import Call, Ended, count_or_break, in_fork, parse_trace
from tests.device_sim.faulty_run import simulate
from tests.device_sim.run_contents import damaged, difference, left_behind

PLAIN = """
[data]
devices = 6
[train]
rounds = 3
cohort = 2
epochs = 1
learning-rate = 0.5
[server]
algorithm = "fedadam"
learning-rate = 0.1
[upload]
codec = "ecsq:step=1,rounding=rdo"
[output]
keep-updates = 1
recipes = []
"""

CONFIGURATIONS: dict[str, tuple[str, ...]] = {
    "memory": ("upload.memory=error-feedback", "upload.budget-bytes=250", "download.mode=delta"),
    "cafe": ("upload.memory=cafe", "download.mode=full"),
    "fleet": (
        *("clock.deadline-seconds=120", "selection.over-selection=1.5", "selection.sampler=oort"),
        *("fleet.availability=diurnal", "fleet.min-battery=0.1", "fleet.interruptions-per-hour=1"),
        *("policy.name=event", "policy.min-new-examples=1", "output.timeline-rounds=2", "upload.memory=error-feedback"),
    ),
    "scaffold": ("server.algorithm=scaffold", "server.learning-rate=1"),
    "asynchronous": (
        *("clock.mode=asynchronous", "clock.buffer=2", "train.cohort=3", "output.timeline-rounds=3"),
        "fleet.dropout-rate=0.2",
    ),
}
"""Name → changes to `PLAIN`. Whatever a run can keep on disk is switched on in one of them."""

STARTS = ("new", "resumed")
"""A run from nothing; one that goes on after a kill between the log of its second round and the checkpoint."""


@dataclass(frozen=True)
class Fault:
    """What strace does to a call.

    Attributes:
        action: As strace's ``inject`` takes it.
        lasting: Whether every later call of that name fails as well: a full disk stays full.
        calls: Regular expression of the names it can happen to.
    """

    action: str
    lasting: bool
    calls: str


_MAKING = "openat|write|pwrite64|fsync|fdatasync|ftruncate|rename|renameat2?|linkat|mkdir"

FAULTS: dict[str, Fault] = {
    # A kill before a call that only looks leaves what a kill before the next one leaves.
    "kill -9": Fault("signal=KILL", False, rf"{_MAKING}|unlink|unlinkat|rmdir|close|flock|fcntl"),
    "disk full": Fault("error=ENOSPC", True, _MAKING),
    # `access` is the command line's own look at --out, before there is a run.
    "I/O error": Fault("error=EIO", False, r"(?!access)\w+"),
}


@dataclass(frozen=True)
class Outcome:
    """One point of a sweep.

    Attributes:
        ended: ``killed``, ``told`` (one message, exit code 12) or ``unharmed`` (it went on to the right end).
        wrong: What law it broke; empty if the run survived.
    """

    configuration: str
    start: str
    fault: str
    call: Call
    ended: str
    wrong: str


class Sweep:
    """One configuration in a scratch folder: its experiment, and what a run leaves when nothing breaks."""

    def __init__(self, configuration: str, start: str, scratch: Path, *, events: bool) -> None:
        self.configuration, self.start, self.scratch = configuration, start, scratch
        self._events = events
        self._experiment = scratch / "wanted.toml"
        self._experiment.write_text(to_toml(parse_experiment(PLAIN, CONFIGURATIONS[configuration])))
        self._template: Path | None = None
        self.finished = scratch / "finished"
        # Imports here all that a run imports on its way.
        assert simulate(self._experiment, self.finished, resume=False, events=events) == 0
        self.expected = left_behind(self.finished)
        if start == "resumed":
            self._template = self._half_way()

    def calls(self) -> list[Call]:
        """Returns the calls of a run without faults that touch the run folder."""
        run = self.begin()
        ended = self.play(run, ["-f", "-y", "-s", "0", "-e", "trace=%file,%desc"])
        assert ended.code == 0, ended.told
        shutil.rmtree(run)
        return list(parse_trace(ended.trace, run))

    def break_at(self, call: Call, fault: str) -> Outcome:
        """Injects one fault and returns what became of the run."""
        run, row = self.begin(), FAULTS[fault]
        when = f"{call.number}+" if row.lasting else str(call.number)
        ended = self.play(run, ["-e", f"trace={call.name}", "-e", f"inject={call.name}:{row.action}:when={when}"])
        fired = ended.code == -signal.SIGKILL if fault == "kill -9" else "(INJECTED)" in ended.trace
        return self.outcome(fault, call, ended, "" if fired else f"the fault did not fire: {ended}")

    def begin(self) -> Path:
        """Returns the folder of a run that is about to start, or to go on from half way."""
        run = self.scratch / "run"
        if self._template:
            shutil.copytree(self._template, run)
        return run

    def play(self, run: Path, strace: Sequence[str] = (), before: Callable[[], None] = lambda: None) -> Ended:
        """Runs the command in a fork, with --resume if there is a run to resume; ``before`` is called in the fork."""
        resume = (run / "experiment.toml").exists()

        def play() -> int:
            before()
            return simulate(self._experiment, run, resume=resume, events=self._events)

        return in_fork(play, strace)

    def _half_way(self) -> Path:
        checkpoints = 0

        def act(_: int, event: str, arguments: str) -> None:
            nonlocal checkpoints
            checkpoints += event == "os.rename" and "checkpoint" in arguments
            if checkpoints == 2:
                os.kill(os.getpid(), signal.SIGKILL)

        run = self.begin()
        assert self.play(run, before=lambda: count_or_break(run, act)).code == -signal.SIGKILL
        return run.rename(self.scratch / "half-way")

    def outcome(self, fault: str, call: Call, ended: Ended, wrong: str = "") -> Outcome:
        """Returns the outcome of a broken run, after looking at its files and running it again to its end."""
        run = self.scratch / "run"
        wrong = wrong or _judged(ended) or damaged(run, self.finished)
        again = self.play(run)
        if again.code != 0:
            wrong = wrong or f"cannot be resumed: {again.told}"
        elif other := difference(self.expected, left_behind(run)):
            wrong = wrong or f"other bytes at the end: {other}"
        shutil.rmtree(run)
        how = "killed" if ended.code < 0 else "unharmed" if ended.code == 0 else "told"
        return Outcome(self.configuration, self.start, fault, call, how, wrong)


def _judged(ended: Ended) -> str:
    """Returns what is wrong with how a broken run ended, or an empty string."""
    if ended.code in (0, -signal.SIGKILL):
        return ""
    messages = re.findall(r"^fl-mobile: .*", ended.told, re.MULTILINE)
    if "Traceback" in ended.told or len(messages) != 1:
        return f"not one message: {ended.told}"
    return "" if ended.code == 12 else f"exit code {ended.code} instead of 12: {messages[0]}"


def points(calls: Sequence[Call]) -> list[tuple[Call, str]]:
    """Returns every fault with every call it can happen to, so that every n-th point is an even choice of both."""
    return [(call, name) for name, row in FAULTS.items() for call in calls if re.fullmatch(row.calls, call.name)]


def chosen(every: list[tuple[Call, str]], names: str, sample: int) -> list[tuple[Call, str]]:
    """Returns the points whose call has a name that fits the regular expression, and ``sample`` of the others."""
    kept = [point for point in every if re.fullmatch(names, point[0].name)]
    others = [point for point in every if point not in kept]
    return kept + random.Random(0).sample(others, min(sample, len(others)))


def main() -> None:
    """Sweeps with strace; one JSON line a point on stdout."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"{', '.join(CONFIGURATIONS)}; default all")
    parser.add_argument("--start", choices=STARTS, required=True)
    parser.add_argument("--calls", default=r"\w+", metavar="REGEX", help="break only these calls")
    parser.add_argument("--sample", type=int, default=0, metavar="N", help="and so many points at other calls")
    parser.add_argument("--every", type=int, default=1, metavar="N", help="of those, only every N-th")
    parser.add_argument("--events", action="store_true", help="with TensorBoard's file: TensorFlow in every fork")
    parser.add_argument("--list", action="store_true", help="break nothing; tell the calls of a run")
    options = parser.parse_args()
    told = os.dup(1)
    os.dup2(2, 1)  # stdout is for the points; what a run prints goes to stderr
    for name in options.names or CONFIGURATIONS:
        with scratch_folder() as scratch:
            sweep = Sweep(name, options.start, scratch, events=options.events)
            if options.list:
                os.write(told, "".join(json.dumps(asdict(call)) + "\n" for call in sweep.calls()).encode())
                continue
            for call, fault in chosen(points(sweep.calls()), options.calls, options.sample)[:: options.every]:
                os.write(told, json.dumps(asdict(sweep.break_at(call, fault))).encode() + b"\n")


@contextlib.contextmanager
def scratch_folder() -> Iterator[Path]:
    """Yields a folder in memory where there is one: the faults are injected, whatever the disk."""
    memory = Path("/dev/shm")
    with tempfile.TemporaryDirectory(prefix="fault-sweep-", dir=memory if memory.is_dir() else None) as folder:
        yield Path(folder)


if __name__ == "__main__":
    main()
