"""The process one artifact is timed in: nothing else has warmed its caches, and its peak memory is its own."""

from __future__ import annotations

import importlib
import json
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np

WARMUP_RUNS = 10
# Loaded before the clock starts: an app has its runtime linked in, and Python's imports say nothing about an artifact.
MODULES = {
    "litert": "ai_edge_litert.interpreter",
    "litert-compiled": "ai_edge_litert.compiled_model",
    "tf-lite": "tensorflow",
    "tflite-runtime": "tflite_runtime.interpreter",
}
_STATUS, _CLEAR_REFS = Path("/proc/self/status"), Path("/proc/self/clear_refs")


def main(arguments: Sequence[str]) -> None:
    """Times ``<artifact> <runtime> <threads> <runs>`` and writes ``<result>`` as JSON."""
    artifact, runtime, threads, runs, result = arguments
    measured = measure(Path(artifact).read_bytes(), runtime, int(threads), int(runs))
    Path(result).write_text(json.dumps(measured), encoding="utf-8")


def measure(data: bytes, runtime: str, threads: int, runs: int) -> dict[str, Any]:
    """Returns milliseconds of making the session, of its first run and of ``runs`` warm ones, and peak bytes.

    Raises:
        VerifyError: ``data`` is damaged. A runtime that refuses it raises errors of its own.
    """
    from export.model.serving import SIGNATURE
    from export.runtimes import RUNTIMES
    from export.tflite.graph import read_graph

    importlib.import_module(MODULES[runtime])
    rng = np.random.default_rng(0)
    inputs = {end.name: _random(rng, end.shape, end.dtype) for end in read_graph(data).signature(SIGNATURE).inputs}
    before = _resident_bytes("VmRSS")
    with suppress(OSError):  # not Linux, or not allowed: then the peak is unknown
        _CLEAR_REFS.write_text("5")
    clock = time.perf_counter
    start = clock()
    session = RUNTIMES[runtime].load(data, SIGNATURE, threads)
    loaded = clock()
    session.run(inputs)
    first = clock()
    for _ in range(WARMUP_RUNS):
        session.run(inputs)
    milliseconds = []
    for _ in range(runs):
        begun = clock()
        session.run(inputs)
        milliseconds.append(1e3 * (clock() - begun))
    after = _resident_bytes("VmHWM")
    return {
        "init_ms": 1e3 * (loaded - start),
        "first_ms": 1e3 * (first - loaded),
        "run_ms": milliseconds,
        "peak_memory_bytes": max(0, after - before) if before is not None and after is not None else None,
    }


def _random(rng: np.random.Generator, shape: tuple[int, ...], dtype: str) -> np.ndarray:
    """Dense kernels take the same time for any values."""
    if np.dtype(dtype).kind in "ui":
        return rng.integers(0, np.iinfo(dtype).max, shape, dtype=dtype, endpoint=True)
    return rng.random(shape).astype(dtype)


def _resident_bytes(field: str) -> int | None:
    """Returns ``VmRSS`` (now) or ``VmHWM`` (highest since the last reset) of this process, where Linux tells."""
    try:
        lines = _STATUS.read_text().splitlines()
    except OSError:
        return None
    return next((1024 * int(line.split()[1]) for line in lines if line.startswith(f"{field}:")), None)
