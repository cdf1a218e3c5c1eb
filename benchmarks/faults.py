"""Breaks a run at every file-system call it makes and counts how often it survived (issue 5).

    python benchmarks/faults.py [--format json] [--every N] [CONFIGURATION ...]

Survived means: no file is half written; a failing disk ends the command with one message and exit code 12, or does no
harm; and the same command run again, with --resume where there is a run, leaves the same bytes in every file as a run
that nothing happened to. Wants Linux and strace.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
FAULTS = ("kill -9", "disk full", "I/O error")


def sweep(names: list[str], every: int) -> list[dict[str, Any]]:
    """Returns every ``every``-th point: of new runs and of resumed runs, side by side on two cores."""

    def points(start: str) -> list[dict[str, Any]]:
        module = [sys.executable, "-m", "tests.device_sim.fault_sweep", "--start", start, "--events"]
        done = subprocess.run([*module, "--every", str(every), *names], cwd=ROOT, capture_output=True, text=True)
        if done.returncode:
            sys.exit(done.stderr)
        return [json.loads(line) for line in done.stdout.splitlines()]

    with ThreadPoolExecutor() as pool:
        return [point for part in pool.map(points, ("new", "resumed")) for point in part]


def table(points: list[dict[str, Any]]) -> dict[str, dict[str, list[int]]]:
    """Returns call → fault → [points the run survived, points]."""
    count: Counter[tuple[str, str]] = Counter()
    good: Counter[tuple[str, str]] = Counter()
    for point in points:
        for call in (point["call"]["name"], "all"):
            count[call, point["fault"]] += 1
            good[call, point["fault"]] += not point["wrong"]
    calls = [*sorted({call for call, _ in count} - {"all"}), "all"]
    return {call: {f: [good[call, f], count[call, f]] for f in FAULTS if count[call, f]} for call in calls}


def main() -> None:
    """Prints the table of the README."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", metavar="CONFIGURATION", help="of tests/device_sim/fault_sweep.py")
    parser.add_argument("--format", choices=("text", "json"), default="text")
    parser.add_argument("--every", type=int, default=1, metavar="N", help="break only at every N-th of the points")
    options = parser.parse_args()
    points = sweep(options.names, options.every)
    wrong = [p for p in points if p["wrong"]]
    rows = table(points)
    if options.format == "json":
        print(json.dumps({"calls": rows, "wrong": wrong}, indent=2))
    else:
        print(f"| call | {' | '.join(FAULTS)} |\n|---|{'---:|' * len(FAULTS)}")
        for call, row in rows.items():
            cells = (f"{row[f][0]} of {row[f][1]}" if f in row else "–" for f in FAULTS)
            print(f"| {call} | {' | '.join(cells)} |")
        for point in wrong:
            print(f"{point['configuration']}, {point['start']}, {point['fault']}: {point['call']}: {point['wrong']}")
    sys.exit(bool(wrong))


if __name__ == "__main__":
    main()
