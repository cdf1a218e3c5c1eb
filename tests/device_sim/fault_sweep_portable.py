"""The fault sweep by Python's own means, for machines without strace: coarser, and it runs everywhere.

Before every audit event of the file system, and before `os.fsync`, the fork is killed or gets an `OSError`; a limit on
the size of files stands for the disk that fills up in the middle of a write, which no audit event tells of.

``python -m tests.device_sim.fault_sweep_portable --start new [NAME …]`` prints one JSON line a point.
"""

from __future__ import annotations

import argparse
import errno
import json
import os
import random
import resource
import shutil
import signal
from dataclasses import asdict
from functools import partial
from pathlib import Path

from tests.device_sim.broken_fork import Call, count_or_break
from tests.device_sim.fault_sweep import CONFIGURATIONS, STARTS, Outcome, Sweep, scratch_folder

ERRORS = {"disk full": errno.ENOSPC, "I/O error": errno.EIO}
FAULTS = ("kill -9", *ERRORS)


def events(sweep: Sweep) -> list[Call]:
    """Returns the file-system events of a run without faults."""
    run, log = sweep.begin(), sweep.scratch / "events"  # outside the run: writing it down is no event
    record = os.open(log, os.O_CREAT | os.O_WRONLY | os.O_TRUNC)

    def note(_: int, event: str, __: str) -> None:
        os.write(record, f"{event}\n".encode())

    ended = sweep.play(run, before=lambda: count_or_break(run, note))
    assert ended.code == 0, ended.told
    os.close(record)
    shutil.rmtree(run)
    return [Call(event, number, f"{event} {number}") for number, event in enumerate(log.read_text().splitlines(), 1)]


def raise_at(sweep: Sweep, call: Call, fault: str) -> Outcome:
    """Kills the run before one event, or makes it fail."""
    run = sweep.begin()
    return sweep.outcome(fault, call, sweep.play(run, before=lambda: break_at(run, call.number, fault)))


def walk(sweep: Sweep, rng: random.Random) -> Outcome:
    """Starts one run again and again, each time with a fault at a random event, until it has finished."""
    run, faults = sweep.begin(), 0
    while True:
        number, fault = rng.randint(1, 150), rng.choice(FAULTS)
        ended = sweep.play(run, before=partial(break_at, run, number, fault))
        if ended.code == 0:
            return sweep.outcome("all of them", Call("walk", faults, f"{faults} random events"), ended)
        faults += 1


def break_at(run: Path, wanted: int, fault: str) -> None:
    """From now on in this process: the wanted event kills it, or fails."""

    def act(number: int, _: str, __: str) -> None:
        if number != wanted:
            return
        if fault == "kill -9":
            os.kill(os.getpid(), signal.SIGKILL)
        raise OSError(ERRORS[fault], os.strerror(ERRORS[fault]))

    count_or_break(run, act)


def no_file_above(sweep: Sweep, limit: int) -> Outcome:
    """Lets every write past ``limit`` bytes of a file fail."""
    run = sweep.begin()
    ended = sweep.play(run, before=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (limit, resource.RLIM_INFINITY)))
    call = Call("write", limit, f"write past {limit} bytes")
    return sweep.outcome("disk full", call, ended, "" if ended.code else "the fault did not fire")


def sizes(sweep: Sweep) -> list[int]:
    """Returns the sizes of the files a finished run leaves, rising, each once."""
    return sorted({file.stat().st_size for file in sweep.finished.rglob("*") if file.is_file()})


def main() -> None:
    """Sweeps every ``--every``-th event and every size of file; one JSON line a point on stdout."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"{', '.join(CONFIGURATIONS)}; default all")
    parser.add_argument("--start", choices=STARTS, required=True)
    parser.add_argument("--every", type=int, default=1, metavar="N", help="break only each N-th event")
    parser.add_argument("--walks", type=int, default=0, metavar="N", help="and so many runs broken again and again")
    options = parser.parse_args()
    told = os.dup(1)
    os.dup2(2, 1)
    for name in options.names or CONFIGURATIONS:
        with scratch_folder() as scratch:
            sweep = Sweep(name, options.start, scratch, events=False)
            found = events(sweep)[:: options.every]
            outcomes = [raise_at(sweep, call, fault) for call in found for fault in FAULTS]
            outcomes += [no_file_above(sweep, size - 1) for size in sizes(sweep)]
            outcomes += [walk(sweep, random.Random(seed)) for seed in range(options.walks)]
            os.write(told, "".join(json.dumps(asdict(o)) + "\n" for o in outcomes).encode())


if __name__ == "__main__":
    main()
