"""Memory over rounds, and the time to the first one: ``python benchmarks/scale.py --format json``.

``million``: 1,000,000 devices whose pictures are made when they are asked, 1,000 a round. ``w1``: the CNN, 10 devices ×
600 examples a round. ``start``: from the command to the first finished round of an MLP, 100 devices a round.
Every run is a process of its own; resident memory is read after each round.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

RUNS: dict[str, tuple[str, ...]] = {
    "million": (
        *("data.dataset=synthetic", "data.partition=on-demand", "data.devices=1000000", "train.cohort=1000"),
        *("data.image-size=16x16", "model.name=mlp", "train.epochs=1", "train.rounds=100", "output.recipes=[]"),
    ),
    "w1": (
        *("data.dataset=synthetic", "data.partition=on-demand", "data.devices=100", "data.examples-per-device=600"),
        *("data.image-size=28x28", "train.epochs=1", "train.batch-size=32", "train.rounds=200", "output.recipes=[]"),
    ),
    "start": (
        *("data.dataset=synthetic", "data.partition=on-demand", "data.devices=1000", "train.cohort=100"),
        *("data.image-size=28x28", "model.name=mlp", "train.epochs=1", "train.rounds=1", "output.recipes=[]"),
    ),
}

CHILD = """
import contextlib, json, sys, time
import psutil
from pathlib import Path
from device_sim.experiment_file import parse_experiment
from device_sim.federation import open_federation
from device_sim.run_folder import create
from device_sim.simulate import simulate
experiment = parse_experiment("", json.loads(sys.argv[2]))
federation = open_federation(experiment)
with contextlib.closing(federation.engine):
    for done in simulate(federation, create(Path(sys.argv[1]), experiment)):
        print(json.dumps([time.time(), psutil.Process().memory_info().rss, done.accuracy]), flush=True)
"""


def play(name: str, rounds: int | None) -> dict[str, Any]:
    """Returns seconds to the first round, seconds a round, and resident megabytes over the run."""
    changes = [*RUNS[name], *([f"train.rounds={rounds}"] if rounds else [])]
    with tempfile.TemporaryDirectory() as folder:
        started = time.time()
        command = [sys.executable, "-c", CHILD, str(Path(folder) / "run"), json.dumps(changes)]
        ended = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    lines = [json.loads(line) for line in ended.stdout.splitlines()]
    megabytes = [line[1] / 1e6 for line in lines]
    settled = megabytes[min(5, len(megabytes) - 1)]
    return {
        "rounds": len(lines),
        "first_round_seconds": lines[0][0] - started,
        "seconds_a_round": (lines[-1][0] - lines[0][0]) / max(1, len(lines) - 1),
        "peak_mb": max(megabytes),
        "after_round_5_mb": settled,
        "growth_after_round_5": megabytes[-1] / settled - 1,
        "accuracy": lines[-1][2],
    }


def main() -> None:
    """Prints what was measured."""
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--format", choices=("text", "json"), default="text")
    options.add_argument("--runs", nargs="*", choices=RUNS, default=list(RUNS))
    options.add_argument("--rounds", type=int, help="instead of 100, 200 and 1")
    chosen = options.parse_args()
    found = {name: play(name, chosen.rounds) for name in chosen.runs}
    if chosen.format == "json":
        print(json.dumps(found, indent=2))
        return
    for name, row in found.items():
        print(f"{name:8}", *(f"{key} {value:.3g}" for key, value in row.items()), sep="  ")


if __name__ == "__main__":
    main()
