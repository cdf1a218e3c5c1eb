"""``verify_bundle``: prove again, on this computer, that a bundle is what its report says.

Order, cheapest and safest first: manifest → lengths and SHA-256 → flatbuffer → builtin operations, weights and
signature as reported → golden frames on every installed runtime, in child
processes → optionally the Keras model and data.
Nothing is given to a native loader before its hash was compared.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from export.bundle import Bundle, read_bundle
from export.golden import Golden, unpack_golden
from export.graph import Graph, read_graph
from export.isolated import isolated_answers
from export.recipes import find_recipe, is_recipe
from export.report import signature_json
from export.runtimes import choose_runtimes, missing_runtimes, real_values
from export.serving import SIGNATURE, describe
from export.verify import Parity, check_parity, make_reference, measure_parity
from fl_mobile.errors import VerifyError


@dataclass(frozen=True)
class Replay:
    """One artifact on one runtime over the golden frames; ``max_abs_diff`` in probability."""

    recipe: str
    runtime: str
    frames: int
    max_abs_diff: float


@dataclass(frozen=True)
class BundleProof:
    """What was proven.

    Attributes:
        path: The bundle.
        files: Number of files whose SHA-256 was compared.
        replays: One per artifact and installed runtime.
        missing_runtimes: Runtime → why it was not asked.
        parities: One per artifact when the Keras model and data were given.
    """

    path: Path
    files: int
    replays: tuple[Replay, ...]
    missing_runtimes: Mapping[str, str]
    parities: tuple[Parity, ...]


def verify_bundle(
    path: Path, *, model: Any = None, x: Any = None, y: Any = None, runtimes: Sequence[str] = ()
) -> BundleProof:
    """Returns the proof that the bundle at ``path`` is whole and answers as it did when it was written.

    Args:
        path: The bundle folder.
        model: The Keras model it was made from, to compare weights and, with ``x`` and ``y``, answers.
        x: Held-out frames.
        y: Their classes.
        runtimes: Names from ``RUNTIMES`` to replay on instead of every installed one that starts no browser.

    Raises:
        ConfigError: A runtime is not known or not here.
        VerifyError: It is damaged, or behaves differently; the message names the file and what differed.
    """
    if (x is None) != (y is None) or (model is None and x is not None):
        raise VerifyError("comparing with Keras needs the model, held-out frames x and classes y together")
    chosen = choose_runtimes(runtimes)
    bundle = read_bundle(Path(path))
    report = _report_of(bundle)
    try:
        golden = unpack_golden(bundle.files["golden.npz"])
        graphs = {v["recipe"]: _check_artifact(bundle, v) for v in report["variants"]}
        _check_labels(bundle, report, golden)
        _check_complete(bundle, graphs, golden)
        _check_weights(bundle, report, graphs, model)
    except (KeyError, TypeError, IndexError, AttributeError) as error:
        raise VerifyError(f"{bundle.path}: report.json lacks what a bundle must say ({error!r})") from error
    return BundleProof(
        path=bundle.path,
        files=len(bundle.files),
        replays=_replay(bundle, graphs, golden, chosen),
        missing_runtimes={} if runtimes else missing_runtimes(),
        parities=_against_keras(bundle, graphs, model, x, y),
    )


def _report_of(bundle: Bundle) -> dict[str, Any]:
    for name in ("report.json", "labels.txt", "golden.npz"):
        if name not in bundle.files:
            raise VerifyError(f"{bundle.path / name} is missing; every bundle has one")
    try:
        report = json.loads(bundle.files["report.json"])
    except (ValueError, RecursionError) as error:
        raise VerifyError(f"{bundle.path / 'report.json'} is not JSON: {error}") from error
    if not isinstance(report, dict) or not isinstance(report.get("variants"), list) or not report["variants"]:
        raise VerifyError(f"{bundle.path / 'report.json'} lists no variants")
    return report


def _check_artifact(bundle: Bundle, variant: Mapping[str, Any]) -> Graph:
    where = bundle.path / str(variant["file"])
    if not is_recipe(variant["recipe"]) or variant["file"] not in bundle.files:
        raise VerifyError(f"{where}: the report names it, but it is not a known recipe with a file")
    try:
        graph = read_graph(bundle.files[variant["file"]])
        signature = signature_json(graph)
    except VerifyError as error:
        raise VerifyError(f"{where}: {error}") from error
    if graph.foreign_ops:
        raise VerifyError(f"{where}: operations no plain runtime has: {', '.join(graph.foreign_ops)}")
    found = {"ops": list(graph.ops), "weights": graph.weights, "signature": signature, "bytes": graph.bytes}
    for key, value in found.items():
        if variant[key] != value:
            raise VerifyError(f"{where}: {key} differ from the report: expected {variant[key]}, found {value}")
    return graph


def _check_labels(bundle: Bundle, report: Mapping[str, Any], golden: Golden) -> None:
    try:
        labels = bundle.files["labels.txt"].decode().splitlines()
    except UnicodeDecodeError as error:
        raise VerifyError(f"{bundle.path / 'labels.txt'} is not UTF-8: {error}") from error
    if labels != report["labels"] or len(labels) != golden.keras.shape[1]:
        raise VerifyError(
            f"{bundle.path / 'labels.txt'}: expected the {golden.keras.shape[1]} labels of report.json in their order,"
            f" found {len(labels)}: {', '.join(labels[:5])}…"
        )


def _check_complete(bundle: Bundle, graphs: Mapping[str, Graph], golden: Golden) -> None:
    files = {name.removesuffix(".tflite") for name in bundle.files if name.endswith(".tflite")}
    for what, names in (("artifact", files), ("golden output", set(golden.outputs))):
        if names != graphs.keys():
            odd = ", ".join(sorted(names ^ graphs.keys()))
            raise VerifyError(f"{bundle.path}: every variant of the report needs one {what}; at odds: {odd}")


def _replay(bundle: Bundle, graphs: Mapping[str, Graph], golden: Golden, runtimes: Sequence[str]) -> tuple[Replay, ...]:
    artifacts = {recipe: bundle.files[f"{recipe}.tflite"] for recipe in graphs}
    try:
        stored = isolated_answers(runtimes, artifacts, golden.frames)
    except VerifyError as error:
        raise VerifyError(f"{bundle.path}: {error}") from error
    replays = []
    for (runtime, recipe), raw in stored.items():
        end, where = graphs[recipe].signature(SIGNATURE).outputs[0], f"{bundle.path / recipe}.tflite on {runtime}"
        rows, expected = real_values(end, raw), real_values(end, golden.outputs[recipe])
        if rows.shape != expected.shape:
            raise VerifyError(f"{where}: golden.npz holds outputs {expected.shape}, the artifact answers {rows.shape}")
        worst, allowed = float(np.abs(rows - expected).max()), find_recipe(recipe).tolerance.replay_abs
        if not worst <= allowed:
            raise VerifyError(
                f"{where}: golden outputs differ by up to {worst:.3g} in probability, allowed {allowed:g}"
            )
        replays.append(Replay(recipe, runtime, len(rows), worst))
    return tuple(replays)


def _input_dtype(graphs: Mapping[str, Graph]) -> str:
    return next(iter(graphs.values())).signature(SIGNATURE).inputs[0].dtype


def _check_weights(bundle: Bundle, report: Mapping[str, Any], graphs: Mapping[str, Graph], model: Any) -> None:
    if model is None:
        return
    found, expected = describe(model, _input_dtype(graphs)).weights_sha256, bundle.manifest.get("weights_sha256")
    if found != expected or report["model"]["weights_sha256"] != expected:
        raise VerifyError(f"{bundle.path}: made from weights {expected}, the given model has {found}")


def _against_keras(bundle: Bundle, graphs: Mapping[str, Graph], model: Any, x: Any, y: Any) -> tuple[Parity, ...]:
    if model is None or x is None or y is None:
        return ()
    reference = make_reference(model, x, y, input_dtype=_input_dtype(graphs))
    return tuple(
        check_parity(measure_parity(reference, find_recipe(recipe), bundle.files[f"{recipe}.tflite"]))
        for recipe in graphs
    )
