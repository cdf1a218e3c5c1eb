"""Runs a module of this package on a program folder in a process of its own, and reads the one JSON value it prints.

So memory that is measured is the program's and not TensorFlow's, and bytes that bring a native runtime down do not
bring down who asked.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

from export.convert.child import child_environment
from export.training.contract import Contract, contract_from_json
from fl_mobile.errors import VerifyError
from fl_mobile.storage.files import write_atomic, write_json

PROGRAM, CONTRACT = "train.tflite", "train.json"
_TIME_LIMIT_SECONDS = 600


def write_program(folder: Path, tflite: bytes, contract: Contract) -> None:
    """Writes ``train.tflite`` and its contract ``train.json``, each whole or not at all."""
    write_atomic(folder / PROGRAM, tflite)
    write_json(folder / CONTRACT, contract.to_json())


def read_program(folder: Path) -> tuple[bytes, Contract]:
    """Returns what `write_program` wrote; the bytes are compared with the contract when a session opens them."""
    return (folder / PROGRAM).read_bytes(), contract_from_json(json.loads((folder / CONTRACT).read_text()))


def run_apart(module: str, folder: Path, *arguments: object) -> Any:
    """Returns what ``python -m <module> <folder> <arguments>`` prints.

    Raises:
        VerifyError: The process ended badly or took too long; the message holds its last words.
    """
    command = [sys.executable, "-m", module, str(folder), *map(str, arguments)]
    try:
        done = subprocess.run(
            command,
            capture_output=True,
            text=True,
            check=False,
            env=child_environment(),
            stdin=subprocess.DEVNULL,
            timeout=_TIME_LIMIT_SECONDS,
        )
    except subprocess.TimeoutExpired:
        raise VerifyError(f"the training program did not finish within {_TIME_LIMIT_SECONDS} s") from None
    if done.returncode:
        last = " ".join(done.stderr.strip().splitlines()[-1:])
        raise VerifyError(f"the training program failed: its process ended with code {done.returncode} {last}".rstrip())
    return json.loads(done.stdout)
