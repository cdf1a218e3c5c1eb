"""Breaks a served run at every file-system call it makes, runs it again and compares: `tests.device_sim.fault_sweep`,
with a database and clients.

    python -m tests.device_sim.deploy.fault_sweep [--every N] [--postgres]

prints one JSON line a point that broke a law, and a summary. Wants Linux and strace.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import re
import shutil
import signal
import sys
import tempfile
import traceback
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

from device_sim.experiment.toml import parse_experiment
from device_sim.run.folder import RunFolder
from device_sim.run.log import read_rounds
from device_sim.run.loop import restore
from fl_mobile.errors import FlMobileError
from fl_mobile.tensors import weights_hash
from tests.device_sim.broken_fork import HUNG, Call, Ended, in_fork, parse_trace
from tests.device_sim.deploy.local import play
from tests.device_sim.fault_sweep import FAULTS
from tests.device_sim.numpy_engine import numpy_federation
from tests.postgres import running

EXPERIMENT = """
[data]
devices = 4
[train]
rounds = 2
cohort = 2
epochs = 1
learning-rate = 0.5
[upload]
codec = "ecsq:step=1,rounding=rdo"
memory = "error-feedback"
[output]
keep-updates = 0
timeline-rounds = 0
recipes = []
[fleet]
link = "ideal"
dropout-rate = 0.0
"""


class Sweep:
    """A scratch folder, and what a run leaves when nothing breaks.

    Args:
        empty: Gives the URL of an empty database, for every run that begins; empty is SQLite in the run's folder.
    """

    def __init__(self, scratch: Path, empty: Callable[[], str] = lambda: "") -> None:
        self.scratch, self.experiment, self.empty = scratch, parse_experiment(EXPERIMENT, ()), empty
        assert play(self.experiment, scratch / "finished") == [2, 2]
        self.expected = self.left(scratch / "finished")

    def left(self, folder: Path) -> tuple[str, list[object]]:
        """Returns the hash of the model, and what every round says of its packets."""
        run, federation = RunFolder(folder / "run"), numpy_federation(self.experiment)
        rounds = [(r.round_num, r.cohort, r.accepted, r.upload_bytes, r.accuracy, r.dropped) for r in read_rounds(run)]
        return weights_hash(restore(federation, run)[0].weights), rounds

    def run(self, strace: list[str], database: str) -> Ended:
        """Plays in a fork."""
        return in_fork(lambda: self._play(database), strace)

    def calls(self) -> list[Call]:
        """Returns every call that touches the run's or the clients' files."""
        ended = self.run(["-f", "-y", "-s", "0", "-e", "trace=%file,%desc"], self.empty())
        assert ended.code == 0, ended.told
        calls = list(parse_trace(ended.trace, self.scratch / "here"))
        shutil.rmtree(self.scratch / "here")
        return calls

    def wrong(self, call: Call, fault: str) -> str:
        """Returns which law a point breaks, or an empty string."""
        row = FAULTS[fault]
        when = f"{call.number}+" if row.lasting else str(call.number)
        inject, database = f"inject={call.name}:{row.action}:when={when}", self.empty()
        ended = self.run(["-e", f"trace={call.name}", "-e", inject], database)
        fired = ended.code == -signal.SIGKILL if fault == "kill -9" else "(INJECTED)" in ended.trace
        out = "" if fired else f"the fault did not fire: {ended}"
        if ended.code == HUNG:
            out = out or f"it hung: {ended.told[-500:]}"
        no_room = ended.code == 1 and re.search("no-room|no answer", ended.told)
        if ended.code not in (0, 7, 12, -signal.SIGKILL) and not no_room:
            out = out or f"ended with {ended.code}: {ended.told[-500:]}"
        again = self.run([], database)
        if again.code:
            out = out or f"cannot be resumed: {again.told[-500:]}"
        elif (found := self.left(self.scratch / "here")) != self.expected:
            out = out or f"another end: {found} instead of {self.expected}"
        shutil.rmtree(self.scratch / "here", ignore_errors=True)
        return out

    def _play(self, database: str) -> int:
        from sqlalchemy.exc import OperationalError

        try:
            play(self.experiment, self.scratch / "here", database=database)
        except FlMobileError as error:
            print(error)
            return error.exit_code
        except (OSError, OperationalError) as error:
            print(error)
            return 12
        except BaseException:
            traceback.print_exc()
            return 99
        return 0


def points(calls: list[Call]) -> list[tuple[Call, str]]:
    """Returns every fault with every call it can happen to."""
    return [(call, name) for name, row in FAULTS.items() for call in calls if re.fullmatch(row.calls, call.name)]


@contextlib.contextmanager
def sweeping(empty: Callable[[], str] = lambda: "") -> Iterator[Sweep]:
    """Gives a sweep in a folder of its own."""
    with tempfile.TemporaryDirectory(prefix="served-") as folder:
        yield Sweep(Path(folder), empty)


def main() -> None:
    """Sweeps; exit code 1 if a point broke a law."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--every", type=int, default=1, metavar="N")
    parser.add_argument("--postgres", action="store_true", help="rows in PostgreSQL, files as ever")
    options = parser.parse_args()
    count: Counter[str] = Counter()
    with contextlib.ExitStack() as stack:
        empty = stack.enter_context(running()).empty if options.postgres else lambda: ""
        sweep = stack.enter_context(sweeping(empty))
        chosen = points(sweep.calls())[:: options.every]
        for done, (call, fault) in enumerate(chosen):
            if done % 100 == 0:
                print(f"{done} of {len(chosen)} points", file=sys.stderr, flush=True)
            wrong = sweep.wrong(call, fault)
            count[f"{fault}, {'broken' if wrong else 'survived'}"] += 1
            if wrong:
                print(
                    json.dumps({"fault": fault, "call": call.text, "number": call.number, "wrong": wrong}), flush=True
                )
    print(json.dumps(dict(sorted(count.items()))))
    sys.exit(any(name.endswith("broken") for name in count))


if __name__ == "__main__":
    main()
