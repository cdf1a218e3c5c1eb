"""The drawn cases of a program's proof on any runtime, in a process of its own: the answers it must repeat.

``python -m export.training.replay FOLDER RUNTIME`` prints them as JSON.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from export.training.apart import read_program, run_apart
from export.training.proof.answers import by_program
from export.training.proof.cases import drawn
from export.training.proof.golden import Golden, golden_from_json, sketches_of
from export.training.session import SESSIONS
from fl_mobile.errors import VerifyError
from fl_mobile.storage.files import write_json

GOLDEN = "golden.json"

Replayed = tuple[Mapping[str, Sequence[float]], Sequence[float]]
"""Sketches of the answers to one case, and the right answers."""


def write_golden(folder: Path, golden: Sequence[Golden]) -> None:
    """Writes what `replay_apart` reads."""
    write_json(folder / GOLDEN, golden_to_json(golden))


def golden_to_json(golden: Sequence[Golden]) -> dict[str, Any]:
    """Returns a JSON value."""
    return {"cases": [g.to_json() for g in golden]}


def read_golden(value: Any) -> list[Golden]:
    """Reads what `golden_to_json` gave.

    Raises:
        VerifyError: It is none, or holds no case.
    """
    try:
        found = [golden_from_json(case) for case in value["cases"]]
    except (KeyError, TypeError, ValueError, AttributeError, OverflowError) as error:
        raise VerifyError(f"{GOLDEN} cannot be read ({error!r}); export the training program again") from error
    if not found:
        raise VerifyError(f"{GOLDEN} holds no case, so nothing can be proven; export the training program again")
    return found


def replay_apart(folder: Path, runtime: str) -> list[Replayed]:
    """Returns the answers of the program in ``folder`` to its golden cases, from a process of its own.

    Args:
        folder: What `write_program` and `write_golden` wrote.
        runtime: Row of `SESSIONS`.

    Raises:
        VerifyError: The runtime refuses the program, or its process ended badly.
    """
    return [(case["answers"], case["correct"]) for case in run_apart("export.training.replay", folder, runtime)]


def main(arguments: list[str]) -> None:
    """Prints the answers of one folder on one runtime; all cases on one session, as a phone keeps it."""
    folder, runtime = arguments
    tflite, contract = read_program(Path(folder))
    session = SESSIONS[runtime](tflite, contract)
    told = []
    for golden in read_golden(json.loads((Path(folder) / GOLDEN).read_text(encoding="utf-8"))):
        answers, correct = sketches_of(by_program(session, golden.case, drawn(golden.case, contract)))
        told.append({"answers": answers, "correct": correct})
    print(json.dumps(told))


if __name__ == "__main__":
    main(sys.argv[1:])
