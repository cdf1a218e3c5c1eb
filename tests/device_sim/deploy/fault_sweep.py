"""Breaks a served run at every file-system call it makes, runs it again and compares: `tests.device_sim.fault_sweep`,
with a database and clients.

    python -m tests.device_sim.deploy.fault_sweep [--every N]

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
from collections.abc import Iterator
from pathlib import Path

from device_sim.experiment.toml import parse_experiment
from device_sim.run.folder import RunFolder
from device_sim.run.log import read_rounds
from device_sim.run.loop import restore
from fl_mobile.errors import FlMobileError
from fl_mobile.tensors import weights_hash
from tests.device_sim.broken_fork import Call, Ended, in_fork, parse_trace
from tests.device_sim.deploy.local import play
from tests.device_sim.fault_sweep import FAULTS
from tests.device_sim.numpy_engine import numpy_federation

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
    """A scratch folder, and what a run leaves when nothing breaks."""

    def __init__(self, scratch: Path) -> None:
        self.scratch, self.experiment = scratch, parse_experiment(EXPERIMENT, ())
        assert play(self.experiment, scratch / "finished") == [2, 2]
        self.expected = self.left(scratch / "finished")

    def left(self, folder: Path) -> tuple[str, list[object]]:
        """Returns the hash of the model, and what every round says of its packets."""
        run, federation = RunFolder(folder / "run"), numpy_federation(self.experiment)
        rounds = [(r.round_num, r.cohort, r.accepted, r.upload_bytes, r.accuracy, r.dropped) for r in read_rounds(run)]
        return weights_hash(restore(federation, run)[0].weights), rounds

    def run(self, strace: list[str]) -> Ended:
        """Plays in a fork."""
        return in_fork(self._play, strace)

    def calls(self) -> list[Call]:
        """Returns every call that touches the run's or the clients' files."""
        ended = self.run(["-f", "-y", "-s", "0", "-e", "trace=%file,%desc"])
        assert ended.code == 0, ended.told
        calls = list(parse_trace(ended.trace, self.scratch / "here"))
        shutil.rmtree(self.scratch / "here")
        return calls

    def wrong(self, call: Call, fault: str) -> str:
        """Returns which law a point breaks, or an empty string."""
        row = FAULTS[fault]
        when = f"{call.number}+" if row.lasting else str(call.number)
        ended = self.run(["-e", f"trace={call.name}", "-e", f"inject={call.name}:{row.action}:when={when}"])
        fired = ended.code == -signal.SIGKILL if fault == "kill -9" else "(INJECTED)" in ended.trace
        out = "" if fired else f"the fault did not fire: {ended}"
        no_room = ended.code == 1 and re.search("no-room|no answer", ended.told)
        if ended.code not in (0, 7, 12, -signal.SIGKILL) and not no_room:
            out = out or f"ended with {ended.code}: {ended.told[-500:]}"
        again = self.run([])
        if again.code:
            out = out or f"cannot be resumed: {again.told[-500:]}"
        elif (found := self.left(self.scratch / "here")) != self.expected:
            out = out or f"another end: {found} instead of {self.expected}"
        shutil.rmtree(self.scratch / "here", ignore_errors=True)
        return out

    def _play(self) -> int:
        from sqlalchemy.exc import OperationalError

        try:
            play(self.experiment, self.scratch / "here")
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
def sweeping() -> Iterator[Sweep]:
    """Gives a sweep in a folder of its own."""
    with tempfile.TemporaryDirectory(prefix="served-") as folder:
        yield Sweep(Path(folder))


def main() -> None:
    """Sweeps; exit code 1 if a point broke a law."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--every", type=int, default=1, metavar="N")
    options = parser.parse_args()
    count: Counter[str] = Counter()
    with sweeping() as sweep:
        for call, fault in points(sweep.calls())[:: options.every]:
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
