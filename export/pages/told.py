"""What every page is told about a proven bundle, as JSON values."""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping
from typing import Any

import numpy as np

from export.bundles.folder import Bundle
from export.bundles.phone_task import TASK_FILE
from export.model.serving import SIGNATURE
from export.runtimes import real_values
from export.tflite.graph import TensorInfo, read_graph
from export.verify.golden import Golden, unpack_golden
from export.verify.parity import value_range
from fl_mobile.tasks import METRICS, task_row


def report_of(bundle: Bundle) -> dict[str, Any]:
    """Returns the content of ``report.json``."""
    return dict(json.loads(bundle.files["report.json"]))


def task_of(bundle: Bundle) -> dict[str, Any] | None:
    """Returns the content of ``task.json``, None of a bundle without one."""
    return dict(json.loads(bundle.files[TASK_FILE])) if TASK_FILE in bundle.files else None


def in_base64(array: np.ndarray) -> str:
    """Returns an array's little-endian bytes."""
    return base64.b64encode(array.astype(array.dtype.newbyteorder("<")).tobytes()).decode()


def about(bundle: Bundle) -> dict[str, Any]:
    """Returns what is the same for every page but the golden answers: name, score, input and variants."""
    report, task = report_of(bundle), task_of(bundle)
    entry = report["model"]["inputs"][0]
    name = "accuracy" if task is None else task_row(task["task"]).metrics[0]
    return {
        "name": f"{bundle.path.resolve().parent.name}/{bundle.path.resolve().name}",
        "weights": report["model"]["weights_sha256"],
        "heldOut": report["held_out"]["samples"],
        "score": name,
        "share": METRICS[name].share,
        "input": {"name": entry["name"], "dtype": entry["dtype"], "shape": entry["shape"][1:]},
        "variants": [_variant(bundle, variant, name) for variant in report["variants"]],
    }


def _variant(bundle: Bundle, variant: Mapping[str, Any], score: str) -> dict[str, Any]:
    end = only_output(bundle, variant)
    told = variant["metrics"].get(score)
    return {
        "recipe": variant["recipe"],
        "url": f"/{variant['file']}",
        "bytes": variant["bytes"],
        "accuracy": variant["accuracy"] if told is None else told["artifact"],
        "suits": variant["suits"],
        "signature": SIGNATURE,
        "output": {"name": end.name, "dtype": end.dtype, "scale": end.scale, "zeroPoint": end.zero_point},
    }


def only_output(bundle: Bundle, variant: Mapping[str, Any]) -> TensorInfo:
    """Returns the output of a variant's file."""
    return read_graph(bundle.files[variant["file"]]).signature(SIGNATURE).outputs[0]


def golden_values(bundle: Bundle, golden: Golden, variant: Mapping[str, Any]) -> np.ndarray:
    """Returns what LiteRT in Python answered to the golden examples when the bundle was written, in real units."""
    end = only_output(bundle, variant)
    return real_values(end, golden.outputs[variant["recipe"]][end.name])


def with_golden(bundle: Bundle, told: dict[str, Any]) -> dict[str, Any]:
    """Returns what a page is told with golden examples, and of every variant the answers and how near they must be."""
    report, golden = report_of(bundle), unpack_golden(bundle.files["golden.npz"])
    frames = golden.frames[told["input"]["name"]]
    end = report["model"]["outputs"][0]
    unit = value_range(golden.keras[end["name"]]) if end["head"] == "values" else 1.0
    variants = [
        {
            **each,
            "values": in_base64(golden_values(bundle, golden, variant).astype(np.float32)),
            "tolerance": variant["tolerance"]["replay_abs"] * unit,
        }
        for each, variant in zip(told["variants"], report["variants"], strict=True)
    ]
    return {**told, "variants": variants, "golden": {"examples": in_base64(frames)}}
