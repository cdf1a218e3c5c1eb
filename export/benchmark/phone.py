"""The same artifacts on a real phone: the commands to run there, and their results read back.

Three tools can be read, each in the format its source prints (read 2026-11, google-ai-edge/LiteRT):

* ``benchmark_model`` of TFLite, its log, from the shell or from ``adb logcat``
  (tflite/tools/benchmark/benchmark_model.cc): ``Inference timings in us: Init: 92318, First inference: …``
* ``benchmark_model`` of LiteRT 2, its log (litert/tools/benchmark_litert_model.h): ``Inference (avg): 0.12 ms``
* ``ai_edge_litert.tools.benchmark_litert_model --result_json`` (JSON)
"""

from __future__ import annotations

import json
import math
import re
import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from export.benchmark.host import Artifacts
from fl_mobile.errors import DataError, VerifyError, nearest

_PLACE = "/data/local/tmp"
_BINARY = "android_aarch64_benchmark_model"
_DOWNLOAD = (
    "https://storage.googleapis.com/tensorflow-nightly-public/prod/tensorflow/release/lite/tools/nightly/latest/"
    + _BINARY
)
_MAX_LOG_BYTES = 16 * 2**20
_RUN_START = "Log parameter values verbosely"  # the first line benchmark_model logs, once a run
_NUMBER = r"([0-9]+(?:\.[0-9]+)?(?:e[+-]?[0-9]+)?)"


@dataclass(frozen=True)
class PhoneRun:
    """One run of a benchmark tool. None is what the tool did not say.

    Attributes:
        recipe: Name of the recipe.
        accelerator: ``"CPU"``, ``"GPU"`` or ``"NPU"``.
        threads: CPU threads.
        init_ms: Making the session.
        first_ms: First inference.
        avg_ms: Mean of the warm inferences.
        p50_ms: Their median.
        p95_ms: Nineteen of twenty are faster.
        runs: Warm inferences.
        peak_memory_mb: Highest memory of the tool with the artifact in it, or its growth where only that is told.
        file: Where the run was read from.
    """

    recipe: str
    accelerator: str
    threads: int | None
    init_ms: float
    first_ms: float
    avg_ms: float
    p50_ms: float | None
    p95_ms: float | None
    runs: int | None
    peak_memory_mb: float | None
    file: str

    def __post_init__(self) -> None:
        for name, value in vars(self).items():
            if isinstance(value, int | float) and not 0 <= value < math.inf:
                raise DataError(
                    f"{self.file}: {name} of {self.recipe!r} is {value}, expected a finite number from 0 on"
                )


def adb_commands(artifacts: Artifacts, threads: Sequence[int] = (1, 2), runs: int = 300) -> list[str]:
    """Returns the shell commands that measure ``artifacts`` on the phone that ``adb`` sees, and read the result."""
    lines = [
        f"curl -O {_DOWNLOAD}",
        f"adb push {_BINARY} {_PLACE}/benchmark_model",
        f"adb shell chmod +x {_PLACE}/benchmark_model",
    ]
    logs = []
    for recipe in artifacts.data:
        lines.append(f"adb push {shlex.quote(str(artifacts.path / f'{recipe}.tflite'))} {_PLACE}/{recipe}.tflite")
        ways = [(str(count), f"--num_threads={count} --use_xnnpack=true") for count in threads]
        if recipe == "float16":
            ways.append(("gpu", "--use_gpu=true"))
        for name, options in ways:
            logs.append(f"{recipe}-{name}.txt")
            lines.append(_on_phone(recipe, f"{options} --num_runs={runs} --warmup_runs=10", logs[-1]))
    profiled = list(artifacts.data)[-1]
    csv = f"{_PLACE}/{profiled}.csv"
    profile = (
        f"--num_threads=1 --enable_op_profiling=true --op_profiling_output_mode=csv --op_profiling_output_file={csv}"
    )
    read = [part for log in logs for part in ("--read", log)]
    return [
        *lines,
        shlex.join(["fl-mobile", "benchmark", str(artifacts.path), *read]),
        f"# Time of every operation, which slows the run down: {_on_phone(profiled, profile, 'profile.txt')}",
        f"# adb pull {csv}",
    ]


def read_phone(path: Path, artifacts: Artifacts) -> list[PhoneRun]:
    """Returns the runs in the result file at ``path``, checked to be of ``artifacts``.

    A log may hold several runs. The recipe is read from the ``Graph`` line, else from a file name that begins with it
    (``int8-1.txt``).

    Raises:
        DataError: No benchmark tool wrote this, or the recipe cannot be told.
        VerifyError: The artifact on the phone is not the bundle's.
    """
    try:
        with path.open("rb") as file:
            data = file.read(_MAX_LOG_BYTES + 1)
    except OSError as error:
        raise DataError(f"{path}: {error.strerror}. Give the file that the tool's output went to.") from None
    if len(data) > _MAX_LOG_BYTES or b"\0" in data:
        raise DataError(
            f"{path}: expected the text or JSON a benchmark tool prints, found"
            f" {'more than 16 MiB' if len(data) > _MAX_LOG_BYTES else 'binary data (--result_file_path writes that)'}."
        )
    text = data.decode("utf-8", errors="replace")
    found = _json_runs(text, path) if text.lstrip().startswith("{") else _log_runs(text, path)
    if not found:
        raise DataError(
            f"{path}: no finished run found. Expected 'Inference timings in us: …' of TFLite's benchmark_model, the"
            " results table of LiteRT's, or the JSON of benchmark_litert_model --result_json."
        )
    for run, model_bytes, tolerance_bytes in found:
        _check_same(run, model_bytes, tolerance_bytes, artifacts)
    return [run for run, _, _ in found]


def _on_phone(recipe: str, options: str, log: str) -> str:
    tool = f"{_PLACE}/benchmark_model --graph={_PLACE}/{recipe}.tflite --report_peak_memory_footprint=true {options}"
    return f"adb shell '{tool} 2>&1' > {log}"


def _log_runs(text: str, path: Path) -> list[tuple[PhoneRun, float | None, float]]:
    starts = [match.start() for match in re.finditer(_RUN_START, text)] or [0]
    parts = [text[a:b] for a, b in zip([0, *starts[1:]], [*starts[1:], len(text)], strict=True)]
    found = []
    for part in parts:
        run = _tflite_run(part, path) or _litert_run(part, path)
        if run:
            size = _first(rf"input model file size \(MB\): {_NUMBER}", part)
            # Printed with six digits, in units of a million bytes.
            found.append((run, None if size is None else 1e6 * size, 1 + 1e-5 * 1e6 * (size or 0)))
    return found


def _tflite_run(text: str, path: Path) -> PhoneRun | None:
    timings = re.search(
        rf"Inference timings in us: Init: {_NUMBER}, First inference: {_NUMBER}, Warmup \(avg\): {_NUMBER},"
        rf" Inference \(avg\): {_NUMBER}",
        text,
    )
    if not timings:
        return None
    init_us, first_us, _, avg_us = map(float, timings.groups())
    counted = re.findall(r"count=[^\n]*", text)  # warm-up, then the runs that count
    last = dict(re.findall(rf"(\w+)={_NUMBER}", counted[-1])) if counted else {}
    grown = _first(rf"Memory footprint delta[^\n]*overall={_NUMBER}", text)
    return PhoneRun(
        *_identity(text, path),
        init_ms=init_us / 1e3,
        first_ms=first_us / 1e3,
        avg_ms=avg_us / 1e3,
        p50_ms=float(last["median"]) / 1e3 if "median" in last else None,
        p95_ms=float(last["p95"]) / 1e3 if "p95" in last else None,
        runs=int(float(last["count"])) if "count" in last else None,
        peak_memory_mb=_first(rf"Overall peak memory footprint[^\n]*: {_NUMBER}", text) or grown,
        file=str(path),
    )


def _litert_run(text: str, path: Path) -> PhoneRun | None:
    wanted = ("Model initialization", r"Warmup \(first\)", r"Inference \(avg\)")
    values = [_first(rf"{name}:\s+{_NUMBER} ms", text) for name in wanted]
    if None in values:
        return None
    init_ms, first_ms, avg_ms = (float(value) for value in values if value is not None)
    runs = _first(r"Inference \(avg\):[^\n]*\((\d+) runs\)", text)
    return PhoneRun(
        *_identity(text, path),
        init_ms=init_ms,
        first_ms=first_ms,
        avg_ms=avg_ms,
        p50_ms=_first(rf"Inference \(median\):\s+{_NUMBER} ms", text),
        p95_ms=_first(rf"Inference \(p95\):\s+{_NUMBER} ms", text),
        runs=None if runs is None else int(runs),
        peak_memory_mb=_first(rf"Peak memory:\s+{_NUMBER} MB", text)
        or _first(rf"Overall footprint:\s+{_NUMBER} MB", text),
        file=str(path),
    )


def _json_runs(text: str, path: Path) -> list[tuple[PhoneRun, float | None, float]]:
    try:
        result = json.loads(text)
        latency, accelerators = result["latency"], result["accelerators"]
        run = PhoneRun(
            recipe=PurePosixPath(str(result["model"])).stem,
            accelerator=next((a for a in ("NPU", "GPU") if a in accelerators), "CPU"),
            threads=int(result["num_threads"]),
            init_ms=float(latency["init_ms"]),
            first_ms=float(latency["warmup_first_ms"]),
            avg_ms=float(latency["avg_ms"]),
            p50_ms=float(latency["median_ms"]),
            p95_ms=float(latency["p95_ms"]),
            runs=int(latency["num_runs"]),
            peak_memory_mb=None,
            file=str(path),
        )
        model_bytes = 2**20 * float(result["model_size_mb"])
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise DataError(f"{path}: not the JSON of benchmark_litert_model --result_json ({error!r})") from None
    return [(run, model_bytes, 0.006 * 2**20)]  # printed with two decimals


def _identity(text: str, path: Path) -> tuple[str, str, int | None]:
    """Returns recipe, accelerator and threads: from the log's own parameters, else from the file's name."""
    graph = re.search(r"Graph: \[([^\]]*)\]", text)
    name = PurePosixPath(graph[1]).stem if graph else re.sub(r"-(\d+|gpu|npu)$", "", path.stem)
    threads = _first(r"Num threads: \[(\d+)\]", text) or _first(r"-(\d+)$", path.stem)
    gpu = re.search(r"Use gpu: \[1\]", text) or path.stem.endswith("-gpu")
    return name, "GPU" if gpu else "NPU" if path.stem.endswith("-npu") else "CPU", None if not threads else int(threads)


def _first(pattern: str, text: str) -> float | None:
    match = re.search(pattern, text)
    return float(match[1]) if match else None


def _check_same(run: PhoneRun, model_bytes: float | None, tolerance_bytes: float, artifacts: Artifacts) -> None:
    if run.recipe not in artifacts.data:
        raise DataError(
            f"{run.file}: a run of {run.recipe!r}, which is no artifact of {artifacts.path}."
            f"{nearest(run.recipe, artifacts.data)} A log without a Graph line is named <recipe>-<threads>.txt."
        )
    expected = len(artifacts.data[run.recipe])
    if model_bytes is not None and abs(model_bytes - expected) > tolerance_bytes:
        raise VerifyError(
            f"{run.file}: {run.recipe}.tflite on the phone has about {model_bytes:,.0f} bytes, the bundle's"
            f" {expected:,}. Push the bundle's file and run again."
        )
