"""A proven bundle as a web page: its artifacts, labels and golden frames beside the page's own files and LiteRT.js."""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping
from importlib.resources import files
from pathlib import Path
from typing import Any

from export.bundles.folder import ANYONE, ARTIFACTS, Bundle, Trust, read_bundle
from export.model.serving import SIGNATURE
from export.runtimes import real_values
from export.runtimes.browser import Resource, litertjs_resources
from export.tflite.graph import read_graph
from export.verify.bundle import verify_bundle
from export.verify.golden import Golden, unpack_golden
from fl_mobile.errors import ExportError

PAGE_FILES = ("camera.css", "camera.js", "classifier.js", "frame.js", "icon.svg")


def camera_resources(path: Path, trust: Trust = ANYONE) -> dict[str, Resource]:
    """Returns everything the camera page of the bundle at ``path`` asks for, by path; ``/`` is the page.

    Only what the bundle's manifest vouches for is in it, and the bundle has passed `verify_bundle`.

    Args:
        path: The bundle folder.
        trust: Whose signature is wanted; by default none is.

    Raises:
        VerifyError: The bundle is not signed as wanted, damaged, or does not answer as it did when it was written.
        ExportError: Its model does not take camera frames.
        ConfigError: LiteRT.js cannot be had; the message says how to get it.
    """
    bundle = read_bundle(path, trust)
    bundle.expect(ARTIFACTS)
    refuse_other_inputs(bundle)
    verify_bundle(path, trust=trust)
    page = files("export.camera") / "page"
    own = {f"/{name}": Resource.of(name, (page / name).read_bytes()) for name in PAGE_FILES}
    artifacts = {f"/{name}": Resource.of(name, data) for name, data in bundle.files.items() if name.endswith(".tflite")}
    return {
        **litertjs_resources(),
        **artifacts,
        **own,
        "/": Resource.of("index.html", (page / "index.html").read_bytes()),
        "/bundle.json": Resource.of("bundle.json", json.dumps(describe_bundle(bundle)).encode()),
    }


def refuse_other_inputs(bundle: Bundle) -> None:
    """Raises ``ExportError`` unless the model takes one grey or RGB camera frame of bytes."""
    model = json.loads(bundle.files["report.json"])["model"]
    if len(model["inputs"]) != 1 or len(model["outputs"]) != 1:
        raise ExportError(
            f"{bundle.path}: the camera page needs a model with one input and one output, this one has"
            f" {len(model['inputs'])} and {len(model['outputs'])}"
        )
    if not json.loads(bundle.files["report.json"])["labels"]:
        raise ExportError(f"{bundle.path}: the camera page shows class names, and this model's output is no classes")
    shape, dtype = model["inputs"][0]["shape"], model["inputs"][0]["dtype"]
    if dtype != "uint8" or len(shape) != 4 or shape[0] != 1 or shape[3] not in (1, 3):
        raise ExportError(
            f"{bundle.path}: the camera page needs a model that takes uint8[1, height, width, 1 or 3] frames, this one"
            f" takes {dtype}{shape}"
        )


def describe_bundle(bundle: Bundle) -> dict[str, Any]:
    """Returns what the page must know about a proven bundle, as JSON values."""
    report = json.loads(bundle.files["report.json"])
    golden = unpack_golden(bundle.files["golden.npz"])
    model = report["model"]
    (entry,), (output,) = model["inputs"], model["outputs"]
    _, height, width, channels = entry["shape"]
    return {
        "name": f"{bundle.path.resolve().parent.name}/{bundle.path.resolve().name}",
        "weights": model["weights_sha256"],
        "heldOut": report["held_out"]["samples"],
        "labels": report["labels"][output["name"]],
        "input": {"name": entry["name"], "height": height, "width": width, "channels": channels},
        "variants": [_variant(bundle, variant, golden) for variant in report["variants"]],
        "golden": {
            "frames": base64.b64encode(golden.frames[entry["name"]].tobytes()).decode(),
            "labels": golden.labels[output["name"]].tolist(),
        },
    }


def _variant(bundle: Bundle, variant: Mapping[str, Any], golden: Golden) -> dict[str, Any]:
    end = read_graph(bundle.files[variant["file"]]).signature(SIGNATURE).outputs[0]
    return {
        "recipe": variant["recipe"],
        "url": f"/{variant['file']}",
        "bytes": variant["bytes"],
        "accuracy": variant["accuracy"],
        "suits": variant["suits"],
        "signature": SIGNATURE,
        "output": {"name": end.name, "dtype": end.dtype, "scale": end.scale, "zeroPoint": end.zero_point},
        # The first class of each golden frame as LiteRT in Python answered it when the bundle was written.
        "golden": real_values(end, golden.outputs[variant["recipe"]][end.name]).argmax(axis=1).tolist(),
    }
