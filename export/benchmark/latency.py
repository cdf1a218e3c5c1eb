"""How long one frame takes on this computer, which is not a phone.

Useful to compare recipes with each other; a phone's own figure comes from ``benchmark_model`` on the phone.
"""

from __future__ import annotations

import os
import platform
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from export.convert.quiet import captured_stderr
from export.model.serving import SIGNATURE
from export.runtimes import open_session
from export.tflite.graph import read_graph

LABEL = "this host, not a phone"
_WARMUP_RUNS = 10
_RUNS = 100


@dataclass(frozen=True)
class Latency:
    """Time per frame in milliseconds, with how it was taken.

    Attributes:
        p50_ms: Median.
        p90_ms: Nine of ten runs are faster.
        load_ms: Making the session, once per app start.
        runtime: Name of the runtime.
        threads: CPU threads.
        warmup_runs: Runs before the clock counts.
        runs: Runs that count.
        host: Processor and core count.
        label: Says that the figure is not a phone's.
    """

    p50_ms: float
    p90_ms: float
    load_ms: float
    runtime: str
    threads: int
    warmup_runs: int
    runs: int
    host: str
    label: str = LABEL


def host_latency(
    data: bytes, frame: Mapping[str, np.ndarray], *, runtime: str = "litert", threads: int = 1, runs: int = _RUNS
) -> Latency:
    """Returns the time per frame of the artifact ``data`` on ``frame``: input name → value without batch.

    Raises:
        VerifyError: The artifact cannot run on that frame.
        ConfigError: The runtime is not known or not installed.
    """
    graph, seconds = read_graph(data), []
    size = graph.signature(SIGNATURE).inputs[0].shape[0]
    batch = {name: np.repeat(value[None], size, axis=0) for name, value in frame.items()}
    with captured_stderr():
        start = time.perf_counter()
        session = open_session(runtime, graph, threads=threads)
        load_seconds = time.perf_counter() - start
        for _ in range(_WARMUP_RUNS):
            session.run(batch)
        for _ in range(runs):
            start = time.perf_counter()
            session.run(batch)
            seconds.append(time.perf_counter() - start)
        del session
    p50, p90 = np.percentile(seconds, [50, 90])
    return Latency(
        p50_ms=round(float(p50) * 1e3, 4),
        p90_ms=round(float(p90) * 1e3, 4),
        load_ms=round(load_seconds * 1e3, 3),
        runtime=runtime,
        threads=threads,
        warmup_runs=_WARMUP_RUNS,
        runs=runs,
        host=host_name(),
    )


def host_name() -> str:
    """Returns processor model and core count of this computer."""
    model = platform.processor() or platform.machine()
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:  # not Linux: the platform's word must do
        lines = []
    for line in lines:
        if line.startswith("model name"):
            model = line.split(":", 1)[1].strip()
            break
    return f"{model}, {os.cpu_count()} cores"
