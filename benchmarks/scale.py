"""Memory over rounds, and the time to the first one: ``python benchmarks/scale.py --format json``.

``million``: 1,000,000 devices whose pictures are made when they are asked, 1,000 a round. ``w1``: the CNN, 10 devices ×
600 examples a round. ``start``: W2, an MLP and 100 devices a round, from the command to the first round on disk.
Every run is an ``fl-mobile simulate`` of its own. Its resident memory is read after each round, as the kernel gives it;
the peak is the kernel's too, of all moments. Seconds of the processor, unlike those of the clock, hardly depend on what
else the machine does; with a core for every worker the clock shows fewer.
"""

from __future__ import annotations

import argparse
import json
import os
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

COMMAND = (sys.executable, "-c", "from device_sim.cli import main; main()", "simulate", "--no-export", "--quiet")
LOOK_SECONDS = 0.005


def play(name: str, rounds: int | None) -> dict[str, Any]:
    """Returns seconds to the first round, seconds a round, and resident megabytes over the run."""
    changes = [*RUNS[name], *([f"train.rounds={rounds}"] if rounds else [])]
    with tempfile.TemporaryDirectory() as folder:
        run, started = Path(folder) / "run", time.perf_counter()
        asked = [word for change in changes for word in ("--set", change)]
        child = subprocess.Popen([*COMMAND, "--out", str(run), *asked], stdout=subprocess.DEVNULL)
        ends, megabytes, peak, cpu_seconds = watch(child, run / "rounds.jsonl", started)
        if child.wait():
            raise SystemExit(f"{name}: fl-mobile ended with code {child.returncode}")
        accuracy = json.loads((run / "rounds.jsonl").read_text().splitlines()[-1])["accuracy"]
    settled = megabytes[min(5, len(megabytes) - 1)]
    return {
        "rounds": len(ends),
        "first_round_seconds": ends[0],
        "first_round_cpu_seconds": cpu_seconds,
        "seconds_a_round": (ends[-1] - ends[0]) / max(1, len(ends) - 1),
        "peak_mb": peak,
        "after_round_5_mb": settled,
        "growth_after_round_5": megabytes[-1] / settled - 1,
        "accuracy": accuracy,
        "after_each_round_mb": [round(value) for value in megabytes],
    }


def watch(
    child: subprocess.Popen[bytes], rounds: Path, started: float
) -> tuple[list[float], list[float], float, float]:
    """Returns when each round was on disk, in seconds since ``started``, its megabytes then and at most, and the
    processor's seconds up to the first round."""
    ends: list[float] = []
    megabytes: list[float] = []
    peak = cpu_seconds = 0.0
    while child.poll() is None:
        done = rounds.read_bytes().count(b"\n") if rounds.exists() else 0
        if done > len(ends):
            cpu_seconds = cpu_seconds or processor_seconds(child.pid)
            ends += [time.perf_counter() - started] * (done - len(ends))
            megabytes += [kilobytes(child.pid, "VmRSS") / 1e3] * (done - len(megabytes))
            peak = kilobytes(child.pid, "VmHWM") / 1e3
        time.sleep(LOOK_SECONDS)
    return ends, megabytes, peak, cpu_seconds


def processor_seconds(pid: int) -> float:
    """Returns the time all threads of a process have computed."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return sum(map(int, fields[11:13])) / os.sysconf("SC_CLK_TCK")


def kilobytes(pid: int, key: str) -> float:
    """Returns a line of ``/proc/PID/status``, in thousands of bytes."""
    line = next(line for line in Path(f"/proc/{pid}/status").read_text().splitlines() if line.startswith(key))
    return int(line.split()[1]) * 1.024


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
        series = row.pop("after_each_round_mb")
        print(f"{name:8}", *(f"{key} {value:.3g}" for key, value in row.items()), sep="  ")
        print(f"{'':8}", "MB after every tenth round:", *series[::10])


if __name__ == "__main__":
    main()
