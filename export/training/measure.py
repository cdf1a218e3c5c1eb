"""Measures a training program in a process of its own, so that memory is the program's and not TensorFlow's.

``python -m export.training.measure FOLDER`` reads ``train.tflite`` and ``train.json`` and prints one JSON object. Only
NumPy and the runtime are loaded. Times are this host's, never a phone's.
"""

from __future__ import annotations

import json
import math
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np

from export.training.apart import read_program, run_apart
from export.training.contract import Contract
from export.training.session import TrainingSession, open_session


def measure_apart(folder: Path, *, steps: int = 20) -> dict[str, float]:
    """Returns what `measure` finds for the program in ``folder``, from a new process.

    Raises:
        VerifyError: The process ended badly; the message holds its last words.
    """
    result: dict[str, float] = run_apart("export.training.measure", folder, steps)
    return result


def measure(tflite: bytes, contract: Contract, steps: int) -> dict[str, float]:
    """Returns seconds and bytes of one worker, then of a second beside it.

    Keys: ``first_step_seconds`` (load, set weights, one step), ``step_ms_1_thread`` and ``step_ms_2_threads`` (median),
    ``worker_bytes`` (memory the first worker takes), ``step_bytes`` (the part of it that the first step added, to the
    loaded program with its weights), ``peak_bytes`` (most it took at any moment), ``extra_worker_bytes`` (the second
    worker), ``process_bytes`` (in all).
    """
    rng = np.random.default_rng(0)
    weights = {w.path: rng.uniform(0.01, 0.05, w.shape).astype(np.float32) for w in contract.weights}
    x, y = _batch(contract, rng)
    before, start = _resident_bytes(), time.perf_counter()
    first = open_session(tflite, contract, threads=1)
    first.set_weights(weights)
    loaded = _resident_bytes()
    first.train(x, y, learning_rate=0.0)
    first_step = time.perf_counter() - start
    one = _median_ms(first, x, y, steps)
    after_one, peak = _resident_bytes(), _peak_bytes()
    extra = _started(open_session(tflite, contract, threads=1), weights, x, y)
    extra.train(x, y, learning_rate=0.0)
    after_two = _resident_bytes()
    two = _median_ms(_started(open_session(tflite, contract, threads=2), weights, x, y), x, y, steps)
    return {
        "first_step_seconds": first_step,
        "step_ms_1_thread": one,
        "step_ms_2_threads": two,
        "worker_bytes": after_one - before,
        "step_bytes": after_one - loaded,
        "peak_bytes": peak - before,
        "extra_worker_bytes": after_two - after_one,
        "process_bytes": after_two,
    }


def _started(session: TrainingSession, weights: Any, x: np.ndarray, y: np.ndarray) -> TrainingSession:
    session.set_weights(weights)
    session.train(x, y, learning_rate=0.0)
    return session


def _median_ms(session: TrainingSession, x: np.ndarray, y: np.ndarray, steps: int) -> float:
    times = []
    for _ in range(steps):
        start = time.perf_counter()
        session.train(x, y, learning_rate=0.0)
        times.append((time.perf_counter() - start) * 1e3)
    return float(np.median(times))


def _batch(contract: Contract, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    port = next(p for p in contract.signature("train").inputs if p.name == "x")
    x = rng.standard_normal(port.shape) if port.dtype == "float32" else rng.integers(0, 2, port.shape)
    target = next(p for p in contract.signature("train").inputs if p.name == "y")
    return x.astype(port.dtype), (np.arange(math.prod(target.shape)) % 2).reshape(target.shape)


def _resident_bytes() -> int:
    """Returns the process's resident memory; Linux only, like the measurements themselves."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * 4096


def _peak_bytes() -> int:
    """Returns the most memory this program has held; ``getrusage`` would count its parent's as well."""
    status = Path("/proc/self/status").read_text()
    return next(int(line.split()[1]) * 1024 for line in status.splitlines() if line.startswith("VmHWM:"))


def main(arguments: list[str]) -> None:
    """Prints the measurement of one folder."""
    steps = int(arguments[1]) if len(arguments) > 1 else 20
    print(json.dumps(measure(*read_program(Path(arguments[0])), steps)))


if __name__ == "__main__":
    main(sys.argv[1:])
