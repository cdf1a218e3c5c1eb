"""Every artifact of a bundle on this computer: start, first run, percentiles at each thread count, memory, sizes."""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np

from export.benchmark.child import MODULES
from export.benchmark.latency import LABEL, host_name
from export.benchmark.macs import count_macs
from export.bundles.folder import ANYONE, ARTIFACTS, Bundle, Trust, read_bundle
from export.convert.child import child_environment
from export.runtimes import choose_runtimes
from export.tflite.graph import read_graph
from fl_mobile.errors import ConfigError, VerifyError, nearest

_TIME_LIMIT_SECONDS = 600
_CHILD = "import sys; from export.benchmark.child import main; main(sys.argv[1:])"
_TOOL = "ai_edge_litert.tools.benchmark_litert_model"
# Each artifact is timed in this many processes, in turn with the others, so that a busy minute hits all alike.
_REPEATS = 3


@dataclass(frozen=True)
class ArtifactSize:
    """What one artifact is, before it runs; ``macs`` is None when the amount of work depends on the data."""

    recipe: str
    bytes: int
    zipped_bytes: int
    weights: int
    macs: int | None


@dataclass(frozen=True)
class ArtifactTime:
    """One artifact at one thread count.

    Attributes:
        recipe: Name of the recipe.
        threads: CPU threads.
        init_ms: Making the session; median of the processes.
        first_ms: First run; median of the processes.
        p50_ms: Median of the warm runs of all processes.
        p90_ms: Nine of ten warm runs are faster.
        p99_ms: Ninety-nine of a hundred are faster.
        runs: Warm runs that count.
        peak_memory_bytes: Resident memory that loading and running added, at its highest; None where the system does
            not tell.
        tool_p50_ms: Median by LiteRT's own ``benchmark_litert_model`` (CompiledModel); None where it is missing.
    """

    recipe: str
    threads: int
    init_ms: float
    first_ms: float
    p50_ms: float
    p90_ms: float
    p99_ms: float
    runs: int
    peak_memory_bytes: int | None
    tool_p50_ms: float | None


@dataclass(frozen=True)
class HostBenchmark:
    """All artifacts of one bundle on this computer.

    Attributes:
        host: Processor and core count.
        runtime: Name of the runtime.
        parameters: Of the Keras model.
        sizes: One per artifact.
        times: One per artifact and thread count.
        label: Says that the figures are not a phone's.
    """

    host: str
    runtime: str
    parameters: int
    sizes: tuple[ArtifactSize, ...]
    times: tuple[ArtifactTime, ...]
    label: str = LABEL

    def to_json(self) -> dict[str, Any]:
        """Returns the measurement in JSON types."""
        return asdict(self)


@dataclass(frozen=True)
class Artifacts:
    """The checked artifacts of a bundle: recipe → flatbuffer, and what its report says of each."""

    path: Path
    data: Mapping[str, bytes]
    report: Mapping[str, Any]


def open_for_benchmark(path: Path, recipes: Sequence[str] = (), trust: Trust = ANYONE) -> Artifacts:
    """Returns the artifacts of the bundle at ``path``, all or those of ``recipes``, with their SHA-256 compared.

    Args:
        path: The bundle folder.
        recipes: Which artifacts; none for all.
        trust: Whose signature is wanted; by default none is.

    Raises:
        VerifyError: The bundle is not signed as wanted, or damaged.
        ConfigError: It has no artifact of such a recipe.
    """
    bundle = read_bundle(path, trust)
    bundle.expect(ARTIFACTS)
    report = _report_of(bundle)
    files = {variant["recipe"]: variant["file"] for variant in report["variants"]}
    for recipe in recipes:
        if recipe not in files:
            raise ConfigError(f"{path} has no artifact of recipe {recipe!r}.{nearest(recipe, files)}")
    chosen = list(dict.fromkeys(recipes)) or list(files)
    return Artifacts(path, {recipe: bundle.files[files[recipe]] for recipe in chosen}, report)


def host_benchmark(
    artifacts: Artifacts,
    *,
    threads: Sequence[int] = (1, 2),
    runs: int = 300,
    runtime: str = "litert",
    progress: Callable[[str], None] = lambda _: None,
) -> HostBenchmark:
    """Returns sizes and times of ``artifacts`` on this computer.

    Args:
        artifacts: As ``open_for_benchmark`` returns them.
        threads: CPU thread counts, each measured.
        runs: Warm runs that count, per artifact and thread count.
        runtime: Row of ``RUNTIMES`` that runs in a process of ours.
        progress: Told once before each of ``count_steps`` processes.

    Raises:
        ConfigError: The runtime is not known, not installed, or a browser's.
        VerifyError: An artifact is refused or ends its process.
    """
    choose_runtimes([runtime])
    if runtime not in MODULES:
        raise ConfigError(f"runtime {runtime!r} does not run in a process of ours. Take one of {', '.join(MODULES)}.")
    cells = [(recipe, count) for recipe in artifacts.data for count in threads]
    found: dict[tuple[str, int], list[dict[str, Any]]] = {cell: [] for cell in cells}
    tool: dict[tuple[str, int], float | None] = {}
    with tempfile.TemporaryDirectory(prefix="fl-mobile-benchmark-") as name:
        folder = Path(name)
        for recipe, data in artifacts.data.items():
            (folder / f"{recipe}.tflite").write_bytes(data)
        for turn in range(_REPEATS):
            for recipe, count in cells:
                progress(f"{recipe}, {count} threads, process {turn + 1} of {_REPEATS}")
                found[recipe, count].append(
                    _timed(folder=folder, recipe=recipe, runtime=runtime, threads=count, runs=-(-runs // _REPEATS))
                )
        for recipe, count in cells:
            progress(f"{recipe}, {count} threads, LiteRT's tool")
            tool[recipe, count] = _tool_median(folder, recipe, count, runs)
    return HostBenchmark(
        host=host_name(),
        runtime=runtime,
        parameters=int(artifacts.report["model"]["parameters"]),
        sizes=tuple(_size(artifacts, recipe) for recipe in artifacts.data),
        times=tuple(_summary(*cell, found[cell], tool[cell]) for cell in cells),
    )


def count_steps(artifacts: Artifacts, threads: Sequence[int]) -> int:
    """Returns how often ``host_benchmark`` will call its ``progress``."""
    return len(artifacts.data) * len(threads) * (_REPEATS + 1)


def _report_of(bundle: Bundle) -> dict[str, Any]:
    try:
        report = json.loads(bundle.files["report.json"])
        for variant in report["variants"]:
            bundle.files[variant["file"]], variant["recipe"], variant["zipped_bytes"]
        int(report["model"]["parameters"])
    except (KeyError, TypeError, ValueError) as error:
        raise VerifyError(f"{bundle.path / 'report.json'} lacks what a bundle must say ({error!r})") from error
    return dict(report)


def _size(artifacts: Artifacts, recipe: str) -> ArtifactSize:
    graph = read_graph(artifacts.data[recipe])
    variant = next(v for v in artifacts.report["variants"] if v["recipe"] == recipe)
    return ArtifactSize(
        recipe=recipe,
        bytes=graph.file_bytes,
        zipped_bytes=int(variant["zipped_bytes"]),
        weights=graph.weights,
        macs=count_macs(graph),
    )


def _summary(recipe: str, threads: int, found: list[dict[str, Any]], tool_p50_ms: float | None) -> ArtifactTime:
    runs = [value for process in found for value in process["run_ms"]]
    p50, p90, p99 = (round(float(value), 4) for value in np.percentile(runs, [50, 90, 99]))
    peaks = [process["peak_memory_bytes"] for process in found]
    return ArtifactTime(
        recipe=recipe,
        threads=threads,
        init_ms=round(statistics.median(process["init_ms"] for process in found), 3),
        first_ms=round(statistics.median(process["first_ms"] for process in found), 3),
        p50_ms=p50,
        p90_ms=p90,
        p99_ms=p99,
        runs=len(runs),
        peak_memory_bytes=None if None in peaks else max(peaks),
        tool_p50_ms=tool_p50_ms,
    )


def _timed(folder: Path, recipe: str, runtime: str, threads: int, runs: int) -> dict[str, Any]:
    result = folder / "result.json"
    result.unlink(missing_ok=True)
    arguments = [str(folder / f"{recipe}.tflite"), runtime, str(threads), str(runs), str(result)]
    _run([sys.executable, "-c", _CHILD, *arguments], f"{recipe}.tflite on {runtime}")
    if not result.exists():
        raise VerifyError(f"{recipe}.tflite on {runtime}: its process ended without a measurement")
    return dict(json.loads(result.read_text(encoding="utf-8")))


def _tool_median(folder: Path, recipe: str, threads: int, runs: int) -> float | None:
    if find_spec("ai_edge_litert") is None or find_spec(_TOOL) is None:
        return None
    result = folder / "tool.json"
    options = {"model": folder / f"{recipe}.tflite", "num_threads": threads, "num_runs": runs, "result_json": result}
    told = [f"--{name}={value}" for name, value in options.items()]
    _run([sys.executable, "-m", _TOOL, *told], f"{recipe}.tflite on LiteRT's benchmark_litert_model")
    return float(json.loads(result.read_text(encoding="utf-8"))["latency"]["median_ms"])


def _run(command: Sequence[str], what: str) -> None:
    """Runs ``command`` to its end; an artifact that takes its process down is named."""
    try:
        done = subprocess.run(
            command,
            env=child_environment(),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            timeout=_TIME_LIMIT_SECONDS,
            check=False,
        )
    except subprocess.TimeoutExpired:
        raise VerifyError(f"{what}: not finished within {_TIME_LIMIT_SECONDS} s; ask for fewer --runs") from None
    if done.returncode:
        last = done.stderr.decode(errors="replace").strip().splitlines()[-1:]
        raise VerifyError(f"{what}: its process ended with code {done.returncode} {' '.join(last)}".rstrip())
