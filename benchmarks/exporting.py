"""Export against its numbers: seconds, memory over 50 conversions, int8 latency, and where the bytes are.

    python benchmarks/exporting.py [--format json] [--seed 0] [--large]

The smart-camera CNN learns the 4,000 training digits of mnist-5k for two epochs; 100 held-out digits calibrate, 900
prove. Export is timed twice: ``export_model`` in this process, with all its proofs on every runtime, and the command
from a cold start, with its imports; EfficientNetB0 (224 px, random weights) once in this process, on 100 random
pictures for calibration and 100 for the proof. Latency comes from ``export.benchmark``: processes of their own,
recipes in turn, so that only the ratio means anything. Memory is what this process holds after free pages were given
back, after the fourth conversion (one of each core recipe) and after the fiftieth. ``--large`` does the same with
MobileNetV2 at 96 px, 0.35 and 1.0 wide (0.4 and 2.3 million weights at random), and takes minutes; it also shows what
the child process spares: ten conversions here.
"""

from __future__ import annotations

import argparse
import ctypes
import gc
import json
import os
import subprocess
import sys
import tempfile
import time
from importlib.metadata import version
from pathlib import Path
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import numpy as np
import psutil

from device_sim.datasets import Dataset, load_dataset
from device_sim.run.held_out import export_with_held_out
from export import CORE_RECIPES, RECIPES, BundleReport, export_model
from export.benchmark import host_benchmark, open_for_benchmark
from export.benchmark.latency import host_name
from export.convert.child import child_environment
from export.convert.conversion import Converter, convert_here, converter_for
from export.convert.recipes import find_recipe
from export.convert.to_tflite import to_tflite
from export.tuning.size import account_for
from fl_mobile.models import build_model

MAX_EXPORT_SECONDS, MAX_EFFICIENTNET_SECONDS = 15.0, 45.0
MAX_MEMORY_RATIO, MAX_INT8_RATIO, MAX_SIZE_ERROR = 1.2, 0.8, 0.03
CONVERSIONS = 50
LARGE_MODELS = ("mobilenet-v2-0.35", "mobilenet-v2-head")
_COMMAND = "import sys; from device_sim.cli import main; main()"


def trained(data: Dataset, seed: int) -> Any:
    """Returns the demo's CNN with an opinion: an untrained one has nothing that export could prove."""
    import keras

    keras.utils.set_random_seed(seed)
    model = build_model("smart-camera-cnn", input_shape=(28, 28, 1), num_classes=10, input_scale=1 / 255, seed=seed)
    model.compile("adam", keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    model.fit(data.train.x.astype(np.float32), data.train.y, epochs=2, batch_size=32, verbose=0)
    return model


def exported(model: Any, data: Dataset, seed: int, folder: Path) -> tuple[BundleReport, dict[str, float]]:
    """Returns the report of the four core recipes with the seconds they took, warm and from a cold start."""
    started = time.perf_counter()
    report = export_with_held_out(
        model, folder / "core", data, seed, recipes=CORE_RECIPES, provenance={}, say=lambda _: None
    )
    warm_seconds = time.perf_counter() - started
    model.save(folder / "model.keras")
    asked = ["export", str(folder / "model.keras"), "--out", str(folder / "cold"), "--dataset", "mnist-5k", "-q"]
    started = time.perf_counter()
    command = [sys.executable, "-c", _COMMAND, *asked]
    subprocess.run(command, check=True, env=child_environment(), stdout=subprocess.DEVNULL)
    return report, {"export_model": warm_seconds, "command": time.perf_counter() - started}


def efficientnet_seconds(seed: int, folder: Path) -> float:
    """Returns how long the four core recipes of EfficientNetB0 take; no class is compared, the weights are random."""
    import keras

    keras.utils.set_random_seed(seed)
    model = keras.applications.EfficientNetB0(weights=None, classes=10)
    pictures = np.random.default_rng(seed).integers(0, 256, (200, 224, 224, 3), dtype=np.uint8)
    started = time.perf_counter()
    export_model(
        *(model, folder / "efficientnet"),
        recipes=CORE_RECIPES,
        labels=None,
        representative=pictures[:100],
        x_test=pictures[100:],
        y_test=None,
    )
    return time.perf_counter() - started


def sizes(model: Any, report: BundleReport, frames: np.ndarray) -> list[dict[str, Any]]:
    """Returns one line per plain recipe: bytes of the file, of the kernels, and the distance from what must be."""
    found = []
    for recipe in RECIPES.values():
        account = account_for(to_tflite(model, recipe, representative=frames), report.serving.kernel_weights, recipe)
        found.append(
            {
                "recipe": recipe.name,
                "bytes": account.file_bytes,
                "kernel_bytes": account.kernel_bytes,
                "graph_bytes": account.file_bytes - account.kernel_bytes,
                "error": account.error,
            }
        )
    return found


def memory(model: Any, frames: np.ndarray, convert: Converter, conversions: int) -> dict[str, float]:
    """Returns what this process holds after one conversion of each core recipe, and after all of them."""
    held = {}
    for turn in range(conversions):
        recipe = find_recipe(CORE_RECIPES[turn % len(CORE_RECIPES)])
        to_tflite(model, recipe, representative=frames, convert=convert)
        if turn in (len(CORE_RECIPES) - 1, conversions - 1):
            held[turn] = _resident_mb()
    first, last = held[len(CORE_RECIPES) - 1], held[conversions - 1]
    return {"conversions": conversions, "first_mb": first, "last_mb": last, "ratio": last / first}


def large_model(name: str, seed: int) -> Any:
    """Returns a row of the model table at 96 px without its published weights."""
    return build_model(name, input_shape=(96, 96, 3), num_classes=10, input_scale=1 / 255, seed=seed, weights="none")


def measure(seed: int, *, large: bool) -> dict[str, Any]:
    """Returns everything as one JSON value."""
    data = load_dataset("mnist-5k", seed=seed, path=None, test_fraction=0.2)
    model = trained(data, seed)
    with tempfile.TemporaryDirectory(prefix="fl-mobile-benchmark-") as name:
        report, seconds = exported(model, data, seed, Path(name))
        seconds["EfficientNetB0"] = efficientnet_seconds(seed, Path(name))
        latency = host_benchmark(open_for_benchmark(Path(name) / "core"))
    frames = data.test.x[:20]
    with converter_for(report.serving.parameters) as convert:
        kept = {"smart-camera-cnn": memory(model, frames, convert, CONVERSIONS)}
    if large:
        pictures = np.random.default_rng(seed).integers(0, 256, (4, 96, 96, 3), dtype=np.uint8)
        for name in LARGE_MODELS:
            other = large_model(name, seed)
            with converter_for(other.count_params()) as convert:
                kept[name] = memory(other, pictures, convert, CONVERSIONS)
        kept[f"{name}, no process of its own"] = memory(other, pictures, convert_here, 10)
    p50 = {(t.recipe, t.threads): t.p50_ms for t in latency.times}
    return {
        "export_seconds": seconds,
        "memory": kept,
        "int8_over_float32": {n: p50["int8", n] / p50["float32", n] for n in (1, 2)},
        "latency": latency.to_json(),
        "sizes": sizes(model, report, frames),
    }


def failures(found: dict[str, Any]) -> list[str]:
    """Returns the targets that were missed."""
    missed = [
        f"export took {seconds:.1f} s as {what}"
        for what, seconds in found["export_seconds"].items()
        if seconds > (MAX_EFFICIENTNET_SECONDS if what == "EfficientNetB0" else MAX_EXPORT_SECONDS)
    ]
    missed += [
        f"{CONVERSIONS} conversions of {what} grow memory {held['ratio']:.2f} times"
        for what, held in found["memory"].items()
        if held["ratio"] > MAX_MEMORY_RATIO and held["conversions"] == CONVERSIONS
    ]
    missed += [
        f"int8 takes {ratio:.2f} of float32 with {threads} threads"
        for threads, ratio in found["int8_over_float32"].items()
        if ratio > MAX_INT8_RATIO
    ]
    return missed + [
        f"{size['recipe']} is {size['error']:.1%} from parameters × bits + graph"
        for size in found["sizes"]
        if size["error"] > MAX_SIZE_ERROR
    ]


def table(found: dict[str, Any]) -> str:
    """Returns Markdown."""
    seconds = found["export_seconds"]
    lines = ["| what | measured | target |", "|---|--:|--:|"]
    lines += [
        f"| four core recipes, `export_model` | {seconds['export_model']:.1f} s | ≤ {MAX_EXPORT_SECONDS:.0f} s |",
        f"| the same as `fl-mobile export`, cold | {seconds['command']:.1f} s | ≤ {MAX_EXPORT_SECONDS:.0f} s |",
        f"| the same of EfficientNetB0 | {seconds['EfficientNetB0']:.1f} s | ≤ {MAX_EFFICIENTNET_SECONDS:.0f} s |",
    ]
    for what, held in found["memory"].items():
        grown = f"{held['first_mb']:.0f} → {held['last_mb']:.0f} MB, {held['ratio']:.2f}"
        target = f"≤ {MAX_MEMORY_RATIO}" if held["conversions"] == CONVERSIONS else "–"
        lines.append(f"| memory over {held['conversions']} conversions, {what} | {grown} | {target} |")
    for threads, ratio in found["int8_over_float32"].items():
        lines.append(f"| p50 int8 ÷ float32, {threads} threads | {ratio:.2f} | ≤ {MAX_INT8_RATIO} |")
    for size in found["sizes"]:
        lines.append(
            f"| bytes of `{size['recipe']}` from parameters × bits + graph | {size['bytes']:,}, {size['error']:.2%}"
            f" | ≤ {MAX_SIZE_ERROR:.0%} |"
        )
    return "\n".join(lines)


def main() -> int:
    """Prints the figures; exit code 1 when a target is missed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--format", choices=("markdown", "json"), default="markdown")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--large", action="store_true", help="MobileNetV2 as well; minutes")
    options = parser.parse_args()
    found = measure(options.seed, large=options.large)
    missed = failures(found)
    about = {
        "command": " ".join(["python", *sys.argv]),
        "host": host_name(),
        "versions": {name: version(name) for name in ("tensorflow", "keras", "ai-edge-litert")},
        "missed": missed,
    }
    if options.format == "json":
        print(json.dumps({**about, **found}, indent=2))
    else:
        print(table(found), f"\n{about}", *missed, sep="\n")
    return int(bool(missed))


def _resident_mb() -> float:
    gc.collect()
    if sys.platform == "linux":
        ctypes.CDLL("libc.so.6").malloc_trim(0)
    return psutil.Process().memory_info().rss / 1e6


if __name__ == "__main__":
    sys.exit(main())
