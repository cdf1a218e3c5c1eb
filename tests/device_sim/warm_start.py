"""Processes for `fl-mobile` commands that start in milliseconds: forked off one that has imported, and done nothing.

Importing TensorFlow, Keras and numba is most of a short command's time, and a suite runs a hundred of them. The parent
here imports them once, starts no thread of theirs and never trains; each command is a process of its own forked off it,
with its own arguments, folder, environment and files for stdout and stderr. What is about starting itself (what is
loaded, what libraries print, signals, limits) is tested with `cli_runs.fl_mobile(..., cold=True)`.
"""

from __future__ import annotations

import atexit
import faulthandler
import json
import os
import subprocess
import sys
import tempfile
import traceback
from functools import cache
from importlib import import_module
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
TRAINS = ("simulate", "sweep", "export")
"""Verbs that need TensorFlow, unless they end before with a mistake."""
SECONDS_TO_END = 500
"""A command that takes longer ends with the stacks of its threads on stderr, and with exit code 1."""


def run_warm(arguments: list[str], folder: Path, env: dict[str, str]) -> tuple[int, str, str]:
    """Returns exit code, stdout and stderr of ``fl-mobile`` with these arguments."""
    trains = bool(arguments) and arguments[0] in TRAINS and "--help" not in arguments
    parent = _parent(trains)
    assert parent.stdin is not None
    assert parent.stdout is not None
    with tempfile.TemporaryDirectory(prefix="warm-") as made:
        out, err = Path(made, "out"), Path(made, "err")
        job = {"arguments": arguments, "folder": str(folder), "env": env, "out": str(out), "err": str(err)}
        parent.stdin.write(json.dumps(job) + "\n")
        parent.stdin.flush()
        code = int(parent.stdout.readline())
        return code, out.read_text(encoding="utf-8"), err.read_text(encoding="utf-8")


@cache
def _parent(trains: bool) -> subprocess.Popen[str]:
    parent = subprocess.Popen(
        [sys.executable, "-c", f"from tests.device_sim.warm_start import serve; serve({trains})"],
        cwd=ROOT,
        env=os.environ | {"TF_CPP_MIN_LOG_LEVEL": "3", "PYTHONUNBUFFERED": "1"},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    atexit.register(parent.kill)
    return parent


def serve(trains: bool) -> None:
    """The parent: one job a line on stdin, one exit code a line on stdout."""
    for name in ("device_sim.cli", "device_sim.run.loop", "device_sim.run.finish", "fl_mobile.kernels.compiled"):
        import_module(name)
    if trains:
        from fl_mobile.models.keras_start import import_keras

        import_keras()
    answers = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)
    for line in sys.stdin:
        if child := os.fork():
            answers.write(f"{os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])}\n")
        else:
            _become_the_command(**json.loads(line))


def _become_the_command(arguments: list[str], folder: str, env: dict[str, str], out: str, err: str) -> None:
    """Never returns."""
    for number, path, how in ((0, os.devnull, os.O_RDONLY), (1, out, os.O_WRONLY), (2, err, os.O_WRONLY)):
        os.dup2(os.open(path, how | (os.O_CREAT if number else 0)), number)
    faulthandler.dump_traceback_later(SECONDS_TO_END, exit=True)
    os.chdir(folder)
    os.environ.clear()
    os.environ.update(env)
    code: Any = 1
    try:
        import device_sim.cli

        sys.argv = ["fl-mobile", *arguments]
        device_sim.cli.main()
        code = 0
    except SystemExit as ended:
        code = ended.code
    except BaseException:
        traceback.print_exc()
    finally:
        atexit._run_exitfuncs()
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code if isinstance(code, int) else int(code is not None))
