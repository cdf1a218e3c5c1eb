"""The strip chart: a recording of the test part is played, and the model says what goes on, window by window."""

from __future__ import annotations

from typing import Any

from export.bundles.folder import Bundle
from export.bundles.phone_task import RECORDING, lines_of, unpack_replay
from export.pages.told import about, in_base64, task_of, with_golden


def refused(bundle: Bundle) -> str:
    """Returns why a bundle is not for the sensor page: it tells classes of windows and brings a recording; or ""."""
    told = task_of(bundle)
    if (
        told is None
        or told["input"]["holds"] != RECORDING
        or "replay" not in told["input"]
        or "names" not in told["output"]
    ):
        return (
            "the sensor page needs a model that tells classes of recordings, and a recording in the bundle"
            f"{'' if told is None else '; this one is of task ' + told['task']}"
        )
    return ""


def described(bundle: Bundle) -> dict[str, Any]:
    """Returns what the sensor page is told: the recording, its channels, the labels, and golden examples."""
    told = task_of(bundle)
    assert told is not None
    source, shown = told["input"], unpack_replay(bundle.files[told["input"]["replay"]])
    recording = {
        **{key: source[key] for key in ("window", "hop", "hertz", "channels")},
        "signal": in_base64(shown.signal.astype("float32")),
        "truth": shown.truth.tolist(),
        "cuts": shown.cuts.tolist(),
    }
    labels = lines_of(bundle.files[told["output"]["names"]])
    return {**with_golden(bundle, about(bundle)), "labels": labels, "recording": recording}
