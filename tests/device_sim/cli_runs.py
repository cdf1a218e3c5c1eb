"""The real `fl-mobile` command in a process of its own, and a small experiment that trains in a second."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.device_sim.warm_start import run_warm

SMALL = (
    *("--set", "data.dataset=digits", "--set", "data.devices=12", "--set", "train.cohort=4"),
    *("--set", "train.epochs=1", "--set", "model.name=logistic", "--set", "output.keep-updates=4"),
    *("--set", "upload.codec=q4+deflate"),
)
START = "import sys; from device_sim.cli import main; sys.argv[0] = 'fl-mobile'; main()"


@dataclass(frozen=True)
class Ended:
    """What a finished command left."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        """stdout as JSON: fails if anything else is printed there."""
        return json.loads(self.out)


def command(*arguments: str | Path) -> list[str]:
    return [sys.executable, "-c", START, *map(str, arguments)]


def interruptible() -> None:
    """For ``preexec_fn``: tests started with ``&`` from a script inherit an ignored SIGINT and would pass it on."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


def environment(**more: str) -> dict[str, str]:
    plain = {k: v for k, v in os.environ.items() if not k.startswith(("TF_", "FL_MOBILE"))}
    return {**plain, "COLUMNS": "100", "PYTHONUNBUFFERED": "1", **more}


def fl_mobile(
    *arguments: str | Path, cwd: Path | None = None, before: Callable[[], None] | None = None, cold: bool = False
) -> Ended:
    """Runs the command to its end in a process of its own; see `warm_start` for how it starts.

    ``before`` runs in the child, e.g. to set a limit; with it, or ``cold``, Python is started as a shell would.
    """
    if not (before or cold):
        return Ended(*run_warm(list(map(str, arguments)), cwd or Path.cwd(), environment()))
    done = subprocess.run(
        command(*arguments), capture_output=True, text=True, cwd=cwd, env=environment(), preexec_fn=before, timeout=1200
    )
    return Ended(done.returncode, done.stdout, done.stderr)


def the_message(ended: Ended) -> str:
    """Returns the one message of a failed command, after checking that it is one and no traceback."""
    assert "Traceback" not in ended.err + ended.out, ended.err
    messages = re.findall(r"^fl-mobile: (.*(?:\n  .*)*)", ended.err, re.MULTILINE)
    assert len(messages) == 1, ended.err
    assert ended.err.rstrip().endswith(messages[0].rstrip()), "the message comes last"
    return str(messages[0])
