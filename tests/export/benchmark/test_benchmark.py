"""Counting work, timing artifacts in processes of their own, and reading what phones' tools print."""

from __future__ import annotations

import json
import shlex
from dataclasses import replace
from math import prod
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from typer.testing import CliRunner

from device_sim.cli import make_app
from export.benchmark import HostBenchmark, adb_commands, host_benchmark, open_for_benchmark, read_phone
from export.benchmark.child import MODULES
from export.benchmark.host import Artifacts, count_steps
from export.benchmark.macs import count_macs
from export.runtimes import RUNTIMES
from fl_mobile.errors import ConfigError, DataError, VerifyError

HELD = Artifacts(Path("demo/bundle"), {"float32": bytes(903_948), "int8": bytes(239_712)}, {})

# Form and spelling of the tools' own sources: tflite/tools/benchmark/benchmark_model.cc with StatWithPercentiles, and
# litert/tools/benchmark_litert_model.h. The first is as `adb shell` shows it, with every parameter the command sets.
TFLITE = """\
INFO: STARTING!
INFO: Log parameter values verbosely: [0]
INFO: Min num runs: [300]
INFO: Num threads: [{threads}]
INFO: Min warmup runs: [10]
INFO: Report the peak memory footprint: [1]
INFO: Graph: [/data/local/tmp/{recipe}.tflite]
INFO: #threads used for CPU inference: [{threads}]
INFO: Use xnnpack: [1]
INFO: Loaded model /data/local/tmp/{recipe}.tflite
INFO: Initialized TensorFlow Lite runtime.
INFO: Created TensorFlow Lite XNNPACK delegate for CPU.
INFO: The input model file size (MB): {size}
INFO: Initialized session in 3.337ms.
INFO: Running benchmark for at least 10 iterations and at least 0.5 seconds but terminate if exceeding 150 seconds.
INFO: count=2905 first=913 curr=170 min=165 max=913 avg=171.5 std=14 p5=166 median=170 p95=181
INFO: Running benchmark for at least 300 iterations and at least 1 seconds but terminate if exceeding 150 seconds.
INFO: count=5860 first=168 curr=171 min=164 max=402 avg=169.25 std=9 p5=165 median=168 p95=179
INFO: Inference timings in us: Init: 3337, First inference: 913, Warmup (avg): 171.5, Inference (avg): 169.25
INFO: Note: as the benchmark tool itself affects memory footprint, the following is only APPROXIMATE to the actual \
memory footprint of the model at runtime. Take the information at your discretion.
INFO: Memory footprint delta from the start of the tool (MB): init=1.73438 overall=2.10156
INFO: Overall peak memory footprint (MB) via periodic monitoring: 6.23438
INFO: Memory status at the end of exeution:
INFO: - VmRSS              : 6 MB
"""
OLDER = """\
Log parameter values verbosely: [0]
Num threads: [4]
Graph: [/data/local/tmp/float32.tflite]
Loaded model /data/local/tmp/float32.tflite
The input model file size (MB): 0.903948
count=1 curr=235158
count=50 first=33228 curr=33130 min=32687 max=33239 avg=33071.8 std=129
Inference timings in us: Init: 3501, First inference: 156677, Warmup (avg): 43268.1, Inference (avg): 3.30718e+04
Memory footprint delta from the start of the tool (MB): init=54.2852 overall=73.4102
"""
LITERT = """\
INFO: [benchmark_litert_model.h:71]
========== BENCHMARK RESULTS ==========
INFO: [benchmark_litert_model.h:72] Model initialization: 12.50 ms
INFO: [benchmark_litert_model.h:74] Warmup (first):       0.91 ms
INFO: [benchmark_litert_model.h:76] Warmup (avg):         0.17 ms (2905 runs)
INFO: [benchmark_litert_model.h:78] Inference (avg):      0.16 ms (300 runs)
INFO: [benchmark_litert_model.h:82] Inference (min):      0.15 ms
INFO: [benchmark_litert_model.h:84] Inference (max):      0.40 ms
INFO: [benchmark_litert_model.h:86] Inference (std):      0.01
INFO: [benchmark_litert_model.h:95] Throughput:           4.62 MB/s
INFO: [benchmark_litert_model.h:105] Init footprint:       1.73 MB
INFO: [benchmark_litert_model.h:107] Overall footprint:    2.10 MB
INFO: [benchmark_litert_model.h:112] Peak memory:          6.23 MB
"""


def written(folder: Path, name: str, text: str) -> Path:
    path = folder / name
    path.write_text(text)
    return path


def test_the_log_of_tflites_tool(tmp_path: Path) -> None:
    log = TFLITE.format(recipe="int8", threads=2, size="0.239712")
    (run,) = read_phone(written(tmp_path, "anything.txt", log), HELD)
    assert (run.recipe, run.accelerator, run.threads, run.runs) == ("int8", "CPU", 2, 5860)
    assert (run.init_ms, run.first_ms, run.avg_ms, run.p50_ms, run.p95_ms) == (3.337, 0.913, 0.16925, 0.168, 0.179)
    assert run.peak_memory_mb == 6.23438


def test_a_log_from_logcat_and_one_with_several_runs(tmp_path: Path) -> None:
    both = [
        TFLITE.format(recipe=r, threads=t, size=s) for r, t, s in (("float32", 1, "0.903948"), ("int8", 4, "0.239712"))
    ]
    logcat = "".join(f"07-14 13:14:56.521 22838 22838 I tflite  : {line}\n" for line in "".join(both).splitlines())
    for text in ("".join(both), logcat):
        found = read_phone(written(tmp_path, "all.txt", text), HELD)
        assert [(run.recipe, run.threads) for run in found] == [("float32", 1), ("int8", 4)]


def test_an_older_tool_says_less(tmp_path: Path) -> None:
    (run,) = read_phone(written(tmp_path, "x.txt", OLDER), HELD)
    assert (run.threads, run.avg_ms, run.p50_ms, run.p95_ms, run.runs) == (4, 33.0718, None, None, 50)
    assert run.peak_memory_mb == 73.4102, "growth, where no peak is told"


def test_a_gpu_is_named(tmp_path: Path) -> None:
    log = TFLITE.format(recipe="float32", threads=1, size="0.903948").replace("Use xnnpack: [1]", "Use gpu: [1]")
    (run,) = read_phone(written(tmp_path, "x.txt", log), HELD)
    assert run.accelerator == "GPU"


def test_the_log_of_litert_2_gets_its_recipe_from_the_file_name(tmp_path: Path) -> None:
    (run,) = read_phone(written(tmp_path, "int8-2.txt", LITERT), HELD)
    assert (run.recipe, run.threads, run.runs) == ("int8", 2, 300)
    assert (run.init_ms, run.first_ms, run.avg_ms, run.peak_memory_mb) == (12.5, 0.91, 0.16, 6.23)
    (run,) = read_phone(written(tmp_path, "float32-gpu.txt", LITERT), HELD)
    assert (run.recipe, run.accelerator, run.threads) == ("float32", "GPU", None)
    with pytest.raises(DataError, match=r"run of 'log', which is no artifact .* named <recipe>-<threads>.txt"):
        read_phone(written(tmp_path, "log.txt", LITERT), HELD)


BAD = {
    "nothing": ("", "no finished run found"),
    "cut short": (TFLITE.partition("INFO: Inference timings")[0], "no finished run found"),
    "JSON of something else": ('{"latency": 3}', "not the JSON of benchmark_litert_model"),
    "half a JSON": ('{"latency": {', "not the JSON of benchmark_litert_model"),
    "time without end": (OLDER.replace("Init: 3501", "Init: 1e999"), "init_ms of 'float32' is inf"),
}


@pytest.mark.parametrize(("text", "words"), BAD.values(), ids=BAD)
def test_what_no_tool_wrote_is_refused(tmp_path: Path, text: str, words: str) -> None:
    with pytest.raises(DataError, match=words):
        read_phone(written(tmp_path, "int8-1.txt", text), HELD)


def test_binary_missing_and_foreign_results_are_refused(tmp_path: Path) -> None:
    (tmp_path / "proto").write_bytes(b"\x0a\x12\x09\0\0\0")
    with pytest.raises(DataError, match=r"binary data \(--result_file_path writes that\)"):
        read_phone(tmp_path / "proto", HELD)
    with pytest.raises(DataError, match="No such file"):
        read_phone(tmp_path / "absent", HELD)
    other = TFLITE.format(recipe="int8", threads=1, size="0.239730")
    with pytest.raises(VerifyError, match=r"int8.tflite on the phone has about 239,730 bytes, the bundle's 239,712"):
        read_phone(written(tmp_path, "x.txt", other), HELD)
    with pytest.raises(DataError, match=r"'int9', which is no artifact .* Did you mean 'int8'"):
        read_phone(written(tmp_path, "x.txt", TFLITE.format(recipe="int9", threads=1, size="0.2")), HELD)


LINES = [*TFLITE.format(recipe="int8", threads=1, size="0.239712").splitlines(), *LITERT.splitlines()]


@given(st.lists(st.sampled_from([*LINES, "Graph: [", "Init: 1..e5", "{"]), max_size=30))
def test_any_lines_are_runs_or_a_plain_error(tmp_path_factory: pytest.TempPathFactory, lines: list[str]) -> None:
    path = written(tmp_path_factory.mktemp("log"), "int8-1.txt", "\n".join(lines))
    try:
        found = read_phone(path, HELD)
    except (DataError, VerifyError):
        return
    assert {run.recipe for run in found} == {"int8"}


def test_the_commands_measure_every_artifact_and_name_logs_that_can_be_read(tmp_path: Path) -> None:
    held = replace(HELD, path=Path("my demo/bundle"), data={**HELD.data, "float16": bytes(9)})
    lines = adb_commands(held, (1, 4), 50)
    for recipe in held.data:
        assert f"adb push 'my demo/bundle/{recipe}.tflite' /data/local/tmp/{recipe}.tflite" in lines
    runs = [line for line in lines if line.startswith("adb shell '/data")]
    assert len(runs) == 2 * len(held.data) + 1, "float16 on the GPU as well"
    assert all("--num_runs=50" in line and "--report_peak_memory_footprint=true" in line for line in runs)
    logs = [line.rpartition("> ")[2] for line in runs]
    (back,) = [shlex.split(line) for line in lines if line.startswith("fl-mobile")]
    assert back == ["fl-mobile", "benchmark", "my demo/bundle", *(part for log in logs for part in ("--read", log))]
    for line, log in zip(runs, logs, strict=True):
        (run,) = read_phone(written(tmp_path, log, LITERT), held)
        assert f"/{run.recipe}.tflite" in line
        assert (run.accelerator == "GPU") == ("--use_gpu=true" in line)
        assert run.threads is None or f"--num_threads={run.threads} " in line


def test_every_runtime_that_needs_no_asking_can_be_timed() -> None:
    assert set(MODULES) == {name for name, runtime in RUNTIMES.items() if not runtime.on_request}


@pytest.fixture(scope="module")
def measured(whole_bundle: Path) -> HostBenchmark:
    artifacts, told = open_for_benchmark(whole_bundle), []
    found = host_benchmark(artifacts, threads=(1, 2), runs=60, progress=told.append)
    assert len(told) == count_steps(artifacts, (1, 2))
    return found


@pytest.mark.tf
def test_a_bundle_is_measured_and_left_alone(measured: HostBenchmark, whole_bundle: Path) -> None:
    report = json.loads((whole_bundle / "report.json").read_text())
    assert measured.parameters == report["model"]["parameters"]
    assert [(size.recipe, size.bytes, size.zipped_bytes, size.weights) for size in measured.sizes] == [
        (v["recipe"], v["bytes"], v["zipped_bytes"], v["weights"]) for v in report["variants"]
    ]
    assert [(t.recipe, t.threads) for t in measured.times] == [("float32", 1), ("float32", 2), ("int8", 1), ("int8", 2)]
    for time in measured.times:
        assert 0 < time.p50_ms <= time.p90_ms <= time.p99_ms
        assert min(time.init_ms, time.first_ms) > 0
        assert time.runs == 60
        assert time.peak_memory_bytes is None or time.peak_memory_bytes > 0
        assert time.tool_p50_ms is not None
    assert "not a phone" in measured.label
    assert json.loads(json.dumps(measured.to_json(), allow_nan=False))["times"][0]["recipe"] == "float32"
    open_for_benchmark(whole_bundle)  # compares every file with the manifest again


@pytest.mark.tf
def test_litert_own_tool_can_be_read_back(whole_bundle: Path, tmp_path: Path) -> None:
    import subprocess
    import sys

    result = tmp_path / "r.json"
    subprocess.run(
        [
            *(sys.executable, "-m", "ai_edge_litert.tools.benchmark_litert_model"),
            *("--model", whole_bundle / "int8.tflite", "--num_runs=20", "--num_threads=1", "--result_json", result),
        ],
        check=True,
        capture_output=True,
    )
    (run,) = read_phone(result, open_for_benchmark(whole_bundle))
    assert (run.recipe, run.accelerator, run.threads, run.runs) == ("int8", "CPU", 1, 20)


@pytest.mark.tf
def test_the_command_prints_one_json_or_tables_and_what_to_run_on_a_phone(whole_bundle: Path, tmp_path: Path) -> None:
    asked = ["benchmark", str(whole_bundle), "--recipe", "int8", "--threads", "1", "--runs", "10"]
    shown = CliRunner().invoke(make_app(), [*asked, "--quiet", "--format", "json"])
    told = json.loads(shown.stdout)
    assert (told["bundle"], [t["recipe"] for t in told["times"]]) == (str(whole_bundle), ["int8"])
    text = CliRunner().invoke(make_app(), asked)
    assert "process 1 of 3" in text.stderr
    for line in told["adb"]:
        assert line in text.stdout
    log = written(tmp_path, "int8-1.txt", LITERT)
    read = CliRunner().invoke(make_app(), ["benchmark", str(whole_bundle), "--read", str(log)])
    assert "0.910" in read.stdout
    assert CliRunner().invoke(make_app(), ["benchmark", str(tmp_path)]).exit_code == VerifyError.exit_code


@pytest.mark.tf
def test_unknown_names_and_broken_artifacts_are_refused(whole_bundle: Path) -> None:
    with pytest.raises(ConfigError, match=r"no artifact of recipe 'int88'. Did you mean 'int8'"):
        open_for_benchmark(whole_bundle, ["int88"])
    artifacts = open_for_benchmark(whole_bundle, ["int8"])
    with pytest.raises(ConfigError, match=r"does not run in a process of ours|cannot run here"):
        host_benchmark(artifacts, runtime="litert-js")
    broken = replace(artifacts, data={"int8": artifacts.data["int8"][:3000]})
    with pytest.raises(VerifyError, match=r"int8.tflite on litert: its process ended with code 1 .*VerifyError"):
        host_benchmark(broken, runs=10)


@pytest.mark.tf
@pytest.mark.parametrize("topology", ["sequential-logits", "functional-batchnorm"])
def test_macs_are_weights_times_the_places_they_are_used_at(topology: str, model_of: Any, data: Any) -> None:
    """The oracle walks the Keras layers: every kernel weight meets every position of its output once."""
    from export.convert.recipes import find_recipe
    from export.convert.to_tflite import to_tflite

    model, expected = model_of(topology), 0
    for layer in model.layers:
        kernel = next((w for w in layer.weights if len(w.shape) > 1), None)
        if kernel is not None:
            positions = prod(layer.output.shape[1:-1])
            expected += prod(kernel.shape) * positions
    for recipe in ("float32", "dynamic-int8", "int8", "int16x8"):
        artifact = to_tflite(model, find_recipe(recipe), representative=data.x_train[:30])
        assert count_macs(artifact) == expected, recipe


@pytest.mark.tf
def test_damaged_artifacts_are_counted_or_refused(whole_bundle: Path) -> None:
    good, rng = (whole_bundle / "int8.tflite").read_bytes(), np.random.default_rng(0)
    refused = 0
    for _ in range(400):
        bad = bytearray(good)
        for place in rng.integers(0, len(bad), 6):
            bad[place] = rng.integers(0, 256)
        try:
            count_macs(bytes(bad))
        except VerifyError:
            refused += 1
    assert refused > 10
