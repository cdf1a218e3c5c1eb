"""The smart camera: webcam, pictures or golden frames in, the three likeliest classes out."""

from __future__ import annotations

from typing import Any

from export.bundles.folder import Bundle
from export.pages.told import about, golden_values, in_base64, report_of
from export.verify.golden import unpack_golden


def refused(bundle: Bundle) -> str:
    """Returns why a bundle is not for the camera page: it takes one grey or RGB frame and answers classes; or ""."""
    report = report_of(bundle)
    model = report["model"]
    if len(model["inputs"]) != 1 or len(model["outputs"]) != 1:
        return (
            "the camera page needs a model with one input and one output, this one has"
            f" {len(model['inputs'])} and {len(model['outputs'])}"
        )
    if not report["labels"]:
        return "the camera page shows class names, and this model's output is no classes"
    shape, dtype = model["inputs"][0]["shape"], model["inputs"][0]["dtype"]
    if dtype != "uint8" or len(shape) != 4 or shape[0] != 1 or shape[3] not in (1, 3):
        return (
            "the camera page needs a model that takes uint8[1, height, width, 1 or 3] frames, this one takes"
            f" {dtype}{shape}"
        )
    return ""


def described(bundle: Bundle) -> dict[str, Any]:
    """Returns what the camera page is told: the labels, golden frames, and the first class of each in Python."""
    report, told = report_of(bundle), about(bundle)
    golden = unpack_golden(bundle.files["golden.npz"])
    output = report["model"]["outputs"][0]["name"]
    variants = [
        {**each, "golden": golden_values(bundle, golden, variant).argmax(axis=1).tolist()}
        for each, variant in zip(told["variants"], report["variants"], strict=True)
    ]
    height, width, channels = told["input"]["shape"]
    return {
        **told,
        "input": {**told["input"], "height": height, "width": width, "channels": channels},
        "labels": report["labels"][output],
        "variants": variants,
        "golden": {"frames": in_base64(golden.frames[told["input"]["name"]]), "labels": golden.labels[output].tolist()},
    }
