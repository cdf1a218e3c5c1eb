"""``verify_bundle``: prove again, on this computer, that a bundle is what its report says.

Layers in this order, and the first failure ends it (``export.bundles.folder.LAYERS``):

1. signature: ``manifest.sig`` fits the bytes of ``manifest.json`` and a key that was given;
2. hash: the manifest lists every file, with its length and SHA-256;
3. flatbuffer: builtin operations, weights, signature and labels as reported, read without running anything;
4. parity: golden frames on every installed runtime, in child processes; on request the Keras model and data.

Nothing is given to a native loader before its hash was compared.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from export.bundles.folder import ANYONE, ARTIFACTS, Bundle, Signature, Trust, canonical_json, layer, read_bundle
from export.bundles.phone_task import TASK_FILE, check_replay, check_task, lines_of, unpack_replay
from export.convert.recipes import AUTO, Recipe, find_recipe, is_file_name, is_plain, is_recipe
from export.model.serving import SIGNATURE, Described, described
from export.report.report import signature_json
from export.runtimes import RUNTIMES, choose_runtimes, missing_runtimes, real_values
from export.runtimes.isolated import isolated_replies
from export.tflite.graph import Graph, TensorInfo, read_graph
from export.tflite.metadata import label_file, read_metadata
from export.verify.golden import Golden, unpack_golden
from export.verify.measured import check_parity, measure_parity, reference_of
from export.verify.parity import Parity, value_range
from export.verify.targets import refused_by, runtimes_among
from fl_mobile.errors import ConfigError, ExportError, VerifyError


@dataclass(frozen=True)
class Replay:
    """One artifact on one runtime over the golden frames.

    ``max_abs_diff`` in probability, of an output that is none as a share of the range of its values; infinite when the
    runtime did not answer. ``problem`` says what is wrong, empty when nothing is. Where ``decides`` is true there is
    none, because then the bundle is refused.
    """

    recipe: str
    runtime: str
    frames: int
    max_abs_diff: float
    decides: bool = True
    problem: str = ""


class ReplayError(VerifyError):
    """Artifacts that answer differently on a runtime that decides; ``problems`` says by recipe what was found."""

    def __init__(self, message: str, problems: Mapping[str, str]) -> None:
        super().__init__(message)
        self.problems = dict(problems)


@dataclass(frozen=True)
class BundleProof:
    """What was proven.

    Attributes:
        path: The bundle.
        signature: Of its manifest; read it before you believe the rest.
        files: Number of files whose SHA-256 was compared.
        replays: One per artifact and installed runtime.
        missing_runtimes: Runtime → why it was not asked.
        parities: One per artifact when the Keras model and data were given.
    """

    path: Path
    signature: Signature
    files: int
    replays: tuple[Replay, ...]
    missing_runtimes: Mapping[str, str]
    parities: tuple[Parity, ...]

    @property
    def notes(self) -> tuple[str, ...]:
        """What runtimes that do not decide answered differently, one line each."""
        return tuple(replay.problem for replay in self.replays if replay.problem)


def verify_bundle(
    path: Path,
    *,
    model: Any = None,
    x: Any = None,
    y: Any = None,
    runtimes: Sequence[str] = (),
    trust: Trust = ANYONE,
) -> BundleProof:
    """Returns the proof that the bundle at ``path`` is whole and answers as it did when it was written.

    Args:
        path: The bundle folder.
        model: The Keras model it was made from, to compare weights and, with ``x`` and ``y``, answers.
        x: Held-out frames, of several inputs as ``frames_for`` takes them.
        y: Their classes, of several outputs by name.
        runtimes: Names from ``RUNTIMES`` to replay on instead of every installed one that starts no browser; all of
            them decide. Otherwise those decide that ship (``Runtime.ships``) and the targets the bundle was made for.
        trust: Whose signature is wanted; by default none is, and the proof says what was not checked.

    Raises:
        ConfigError: A runtime is not known or not here.
        VerifyError: It is damaged, or behaves differently; the message names the layer, the file and what differed.
    """
    if (x is None) != (y is None) or (model is None and x is not None):
        raise VerifyError("comparing with Keras needs the model, held-out frames x and classes y together")
    chosen = choose_runtimes(runtimes)
    bundle = read_bundle(Path(path), trust)
    with layer("flatbuffer"):
        bundle.expect(ARTIFACTS)
        content = _read_content(bundle, model)
        _check_targets(bundle, content)
    deciding = _deciding(chosen, [*runtimes, *runtimes_among(content.targets)])
    with layer("parity"):
        return BundleProof(
            path=bundle.path,
            signature=bundle.signature,
            files=len(bundle.files),
            replays=_replay(bundle, content, chosen, deciding),
            missing_runtimes={} if runtimes else missing_runtimes(),
            parities=_against_keras(content, x, y),
        )


@dataclass(frozen=True)
class _Content:
    """What the parity layer needs.

    Attributes:
        graphs: Artifacts by recipe.
        golden: Golden frames.
        units: Of each output's difference.
        targets: Runtimes and hardware that decide besides the runtimes that ship.
        described: The Keras model, if it was given.
        gates: Recipe → the one with the tolerance that holds; another for those that were searched.
    """

    graphs: Mapping[str, Graph]
    golden: Golden
    units: Mapping[str, float]
    targets: tuple[str, ...]
    described: Described | None
    gates: Mapping[str, Recipe]


def _read_content(bundle: Bundle, model: Any) -> _Content:
    """Reads the files of a bundle and holds each against the others."""
    report = _report_of(bundle)
    try:
        golden = unpack_golden(bundle.files["golden.npz"])
        graphs = {v["recipe"]: _check_artifact(bundle, v) for v in report["variants"]}
        _check_labels(bundle, report, golden)
        _check_complete(bundle, graphs, golden)
        _check_task(bundle, report, golden)
        _check_metadata(bundle, report, graphs)
        found = None if model is None else _described(model, report, graphs)
        _check_weights(bundle, report, found)
        targets = tuple(map(str, report.get("targets", ())))
        heads = {end["name"]: end["head"] for end in report["model"]["outputs"]}
        gates = {v["recipe"]: _gates(bundle, v["recipe"], v.get("conversion", "")) for v in report["variants"]}
        units = {name: value_range(rows) if heads[name] == "values" else 1.0 for name, rows in golden.keras.items()}
    except (KeyError, TypeError, IndexError, AttributeError) as error:
        raise VerifyError(f"{bundle.path}: report.json lacks what a bundle must say ({error!r})") from error
    return _Content(graphs=graphs, golden=golden, units=units, targets=targets, described=found, gates=gates)


def _gates(bundle: Bundle, recipe: str, conversion: str) -> Recipe:
    judged = recipe == AUTO.name or not is_recipe(recipe)
    if conversion and not (judged and is_plain(conversion)):
        raise VerifyError(f"{bundle.path / 'report.json'}: {recipe} is not judged by {conversion!r}")
    return replace(find_recipe(conversion or recipe), name=recipe)


def _report_of(bundle: Bundle) -> dict[str, Any]:
    for name in ("report.json", "golden.npz"):
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
    own = bool(variant.get("conversion")) and is_file_name(variant["recipe"])
    if not (own or is_recipe(variant["recipe"])) or variant["file"] not in bundle.files:
        raise VerifyError(f"{where}: the report names it, but it is not a known recipe with a file")
    try:
        graph = read_graph(bundle.files[variant["file"]])
        signature = signature_json(graph)
    except VerifyError as error:
        raise VerifyError(f"{where}: {error}") from error
    if graph.foreign_ops:
        raise VerifyError(f"{where}: operations no plain runtime has: {', '.join(graph.foreign_ops)}")
    found = {"ops": list(graph.ops), "weights": graph.weights, "signature": signature, "bytes": graph.file_bytes}
    for key, value in found.items():
        if variant[key] != value:
            raise VerifyError(f"{where}: {key} differ from the report: expected {variant[key]}, found {value}")
    return graph


def _check_labels(bundle: Bundle, report: Mapping[str, Any], golden: Golden) -> None:
    for output, wanted in report["labels"].items():
        file, classes = label_file(output, len(golden.keras)), golden.keras[output].shape[1]
        if file not in bundle.files:
            raise VerifyError(f"{bundle.path / file} is missing; the report names the classes of {output!r}")
        try:
            labels = bundle.files[file].decode().splitlines()
        except UnicodeDecodeError as error:
            raise VerifyError(f"{bundle.path / file} is not UTF-8: {error}") from error
        if labels != wanted or len(labels) != classes:
            raise VerifyError(
                f"{bundle.path / file}: expected the {classes} labels of report.json in their order,"
                f" found {len(labels)}: {', '.join(labels[:5])}…"
            )


def _check_task(bundle: Bundle, report: Mapping[str, Any], golden: Golden) -> None:
    """What an app is told of the task fits the files it names, the model, and the golden examples."""
    told, where = report.get("task"), str(bundle.path / TASK_FILE)
    if (told is None) != (TASK_FILE not in bundle.files):
        raise VerifyError(f"{where} and report.json are at odds: one of them says nothing of the task")
    if told is None:
        return
    if bundle.files[TASK_FILE] != canonical_json(told):
        raise VerifyError(f"{where} says something else than report.json")
    source, answer = told["input"], told["output"]
    if golden.frames.keys() != {source["name"]} or golden.keras.keys() != {answer["name"]}:
        raise VerifyError(f"{where}: the model's input and output are not {source['name']} and {answer['name']}")
    frames, rows = golden.frames[source["name"]], golden.keras[answer["name"]]
    try:
        check_task(told, bundle.files, (1, *frames.shape[1:]), (1, *rows.shape[1:]), where=where)
        tokens = lines_of(bundle.files[source["vocabulary"]]) if "vocabulary" in source else None
        if tokens is not None and not (frames.min() >= 0 and frames.max() < len(tokens)):
            raise ExportError(
                f"{where}: golden examples hold tokens beyond the {len(tokens)} of {source['vocabulary']}"
            )
        if "replay" in source:
            check_replay(unpack_replay(bundle.files[source["replay"]]), frames.shape[2], rows.shape[-1], where=where)
    except (ExportError, ConfigError) as error:
        raise VerifyError(str(error)) from error


def _check_complete(bundle: Bundle, graphs: Mapping[str, Graph], golden: Golden) -> None:
    files = {name.removesuffix(".tflite") for name in bundle.files if name.endswith(".tflite")}
    for what, names in (("artifact", files), ("golden output", set(golden.outputs))):
        if names != graphs.keys():
            odd = ", ".join(sorted(names ^ graphs.keys()))
            raise VerifyError(f"{bundle.path}: every variant of the report needs one {what}; at odds: {odd}")
    for recipe, graph in graphs.items():
        signature = graph.signature(SIGNATURE)
        for ends, stored in ((signature.inputs, golden.frames), (signature.outputs, golden.keras)):
            if {end.name for end in ends} != stored.keys():
                raise VerifyError(
                    f"{bundle.path}: {recipe}.tflite has {', '.join(end.name for end in ends)},"
                    f" golden.npz {', '.join(stored)}"
                )


def _check_metadata(bundle: Bundle, report: Mapping[str, Any], graphs: Mapping[str, Graph]) -> None:
    """An app may read the names inside the artifact instead of those beside it: both must be the same."""
    wanted, tokens = {output: tuple(labels) for output, labels in report["labels"].items()}, {}
    if told := report.get("task"):
        source, answer = told["input"], told["output"]
        if "names" in answer:
            wanted[answer["name"]] = lines_of(bundle.files[answer["names"]])
        if "vocabulary" in source:
            tokens[source["name"]] = lines_of(bundle.files[source["vocabulary"]])
    for recipe, graph in graphs.items():
        where, signature = f"{bundle.path / recipe}.tflite", graph.signature(SIGNATURE)
        try:
            found = read_metadata(bundle.files[f"{recipe}.tflite"])
        except VerifyError as error:
            raise VerifyError(f"{where}: {error}") from error
        if found.labels != wanted:
            raise VerifyError(f"{where}: the labels inside it are not those of report.json in their order")
        if found.vocabularies != tokens:
            raise VerifyError(f"{where}: the vocabulary inside it is not {', '.join(tokens) or 'none'} of task.json")
        for told, ends in ((found.inputs, signature.inputs), (found.outputs, signature.outputs)):
            if sorted(told) != sorted(end.name for end in ends):
                raise VerifyError(f"{where}: its metadata names {', '.join(told)}, which are not the signature's")


def _check_targets(bundle: Bundle, content: _Content) -> None:
    for recipe, graph in content.graphs.items():
        if problems := refused_by(content.targets, graph):
            raise VerifyError(f"{bundle.path / recipe}.tflite: {'; '.join(problems)}")


def _deciding(chosen: Sequence[str], wanted: Sequence[str]) -> frozenset[str]:
    """Returns whose differences are faults; where none that ships is here, all are."""
    return frozenset(name for name in chosen if RUNTIMES[name].ships or name in wanted) or frozenset(chosen)


def _replay(bundle: Bundle, content: _Content, runtimes: Sequence[str], deciding: frozenset[str]) -> tuple[Replay, ...]:
    artifacts = {recipe: bundle.files[f"{recipe}.tflite"] for recipe in content.graphs}
    replies = isolated_replies(runtimes, artifacts, content.golden.frames)
    replays = tuple(
        _judged(recipe, runtime, reply, content, decides=runtime in deciding)
        for (runtime, recipe), reply in replies.items()
    )
    faults = [replay for replay in replays if replay.decides and replay.problem]
    if faults:
        problems = {recipe: "; ".join(r.problem for r in faults if r.recipe == recipe) for recipe in content.graphs}
        told = {recipe: words for recipe, words in problems.items() if words}
        raise ReplayError(f"{bundle.path}: {'; '.join(told.values())}", told)
    return replays


def _judged(
    recipe: str, runtime: str, reply: Mapping[str, np.ndarray] | VerifyError, content: _Content, *, decides: bool
) -> Replay:
    frames = len(next(iter(content.golden.frames.values())))
    if isinstance(reply, VerifyError):
        return Replay(
            recipe=recipe,
            runtime=runtime,
            frames=frames,
            max_abs_diff=float("inf"),
            decides=decides,
            problem=str(reply),
        )
    where, allowed = f"{recipe}.tflite on {runtime}", content.gates[recipe].tolerance.replay_abs
    ends = content.graphs[recipe].signature(SIGNATURE).outputs
    units, golden = content.units, content.golden
    worst = float(
        np.max(
            [
                _apart(where=where, end=end, raw=reply[end.name], golden=golden, recipe=recipe) / units[end.name]
                for end in ends
            ]
        )
    )
    problem = (
        ""
        if worst <= allowed
        else f"{where}: golden outputs differ by up to {worst:.3g} in probability, allowed {allowed:g}"
    )
    return Replay(recipe=recipe, runtime=runtime, frames=frames, max_abs_diff=worst, decides=decides, problem=problem)


def _apart(where: str, end: TensorInfo, raw: np.ndarray, golden: Golden, recipe: str) -> float:
    """Returns the largest difference of one output from its golden rows, as the artifact answers it."""
    rows, expected = real_values(end, raw), real_values(end, golden.outputs[recipe][end.name])
    if rows.shape != expected.shape:
        raise VerifyError(f"{where}: golden.npz holds outputs {expected.shape}, the artifact answers {rows.shape}")
    return float(np.abs(rows - expected).max())


def _described(model: Any, report: Mapping[str, Any], graphs: Mapping[str, Graph]) -> Described:
    """Returns the given model as the bundle was made from it."""
    entries = next(iter(graphs.values())).signature(SIGNATURE).inputs
    forms = {entry.name: entry.dtype for entry in entries}
    return described(model, forms, classes=bool(report["labels"]), batch=entries[0].shape[0])


def _check_weights(bundle: Bundle, report: Mapping[str, Any], model: Described | None) -> None:
    if model is None:
        return
    found, expected = model.serving.weights_sha256, bundle.manifest.get("weights_sha256")
    if found != expected or report["model"]["weights_sha256"] != expected:
        raise VerifyError(f"{bundle.path}: made from weights {expected}, the given model has {found}")


def _against_keras(content: _Content, x: Any, y: Any) -> tuple[Parity, ...]:
    if content.described is None or x is None or y is None:
        return ()
    reference = reference_of(content.described, x, y)
    return tuple(
        check_parity(measure_parity(reference, content.gates[recipe], graph))
        for recipe, graph in content.graphs.items()
    )
