"""What a ``.tflite`` says about itself: names, colour order, normalisation and the labels of its classes.

TF Lite Task Library, MediaPipe and Android Studio read it, so an app needs no file beside the artifact. The zip of
labels is appended to the file, and the file's SHA-256 covers both.

Normalisation is part of the graph here, so the metadata says mean 0, std 1: a reader that normalised as well would do
it twice.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from export.model.serving import SIGNATURE
from export.tflite.attach import attach, detach
from export.tflite.graph import Artifact, Graph, TensorInfo, read_graph
from export.tflite.metadata_schema import decode, encode
from fl_mobile.errors import ExportError, VerifyError

_FEATURE, _IMAGE = 1, 2  # members of ContentProperties
_COLORS = {1: 2, 3: 1}  # channels -> ColorSpaceType: GRAYSCALE, RGB
_NORMALIZATION = 1  # member of ProcessUnitOptions
_AXIS_LABELS, _VOCABULARY = 2, 5  # AssociatedFileType: value i of the tensor belongs to line i; token i is line i

VOCABULARY_FILE = "vocabulary.txt"
"""Tokens by number, one a line; an output whose classes are the same tokens names this file too."""


@dataclass(frozen=True)
class About:
    """What an artifact says of the model as a whole; an empty text is left out."""

    name: str
    description: str
    version: str
    license: str = ""


@dataclass(frozen=True)
class _End:
    name: str
    shape: tuple[int, ...]
    is_frame: bool
    span: tuple[float, float] | None = None


@dataclass(frozen=True)
class Metadata:
    """What was read from an artifact.

    Attributes:
        about: Of the whole model.
        inputs: Names in the order of the graph's inputs.
        outputs: Names in the order of the graph's outputs.
        labels: Output name → one label per value, for outputs that have labels.
        vocabularies: Input name → tokens by number, for inputs that are tokens of a known vocabulary.
    """

    about: About
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    labels: Mapping[str, tuple[str, ...]]
    vocabularies: Mapping[str, tuple[str, ...]]


def label_file(output: str, outputs: int) -> str:
    """Returns the name of the file with the class names of ``output``, one of a model's ``outputs``.

    >>> label_file("probabilities", 1), label_file("digit", 2)
    ('labels.txt', 'labels-digit.txt')
    """
    return "labels.txt" if outputs == 1 else f"labels-{output}.txt"


def labels_text(labels: Sequence[str]) -> bytes:
    """Returns the content of a label file: one label a line, in output order, UTF-8."""
    return "".join(f"{label}\n" for label in labels).encode()


def with_metadata(
    artifact: Artifact,
    about: About,
    labels: Mapping[str, Sequence[str]],
    spans: Mapping[str, tuple[float, float]] | None = None,
    vocabularies: Mapping[str, Sequence[str]] | None = None,
) -> bytes:
    """Returns the ``.tflite`` ``artifact`` with metadata and label files; what it computes is not touched.

    Args:
        artifact: A finished one with the signature ``serving_default``.
        about: Of the whole model.
        labels: Output name → one label per value; outputs that are no classes are left out.
        spans: Input name → least and largest value that it is declared to take.
        vocabularies: Input name → tokens by number; one at most.

    Raises:
        ExportError: The number of labels is not the number of values, or it is no fresh artifact.
    """
    graph = read_graph(artifact)
    inputs, outputs = _ends(graph, spans or {})
    widths = {end.name: end.shape[-1] for end in outputs}
    for name, names in labels.items():
        if widths.get(name) != len(names):
            raise ExportError(f"labels: output {name!r} has {widths.get(name, 'no')} values, got {len(names)} labels")
    tokens = {name: tuple(words) for name, words in (vocabularies or {}).items()}
    if len(tokens) > 1 or not tokens.keys() <= {end.name for end in inputs}:
        raise ExportError(f"vocabularies: expected that of one input at most, got {', '.join(tokens)}")
    files = {
        name: VOCABULARY_FILE if tuple(names) in tokens.values() else label_file(name, len(outputs))
        for name, names in labels.items()
    }
    texts_of = {file: labels_text(labels[name]) for name, file in files.items()}
    for words in tokens.values():
        texts_of[VOCABULARY_FILE] = labels_text(words)
    texts = {"name": about.name, "description": about.description, "version": about.version, "license": about.license}
    fields = {
        **{key: text for key, text in texts.items() if text},
        "subgraph_metadata": [
            {
                "input_tensor_metadata": [_input(end, vocabulary=end.name in tokens) for end in inputs],
                "output_tensor_metadata": [_output(end, files.get(end.name)) for end in outputs],
            }
        ],
        "min_parser_version": "1.0.0",
    }
    return attach(graph.data, encode(fields), texts_of)


def read_metadata(data: bytes) -> Metadata:
    """Returns what the artifact ``data`` says about itself.

    Args:
        data: Bytes whose flatbuffer ``read_graph`` accepted.

    Raises:
        VerifyError: There is no metadata, it is damaged, or a file that it names is missing.
    """
    attached = detach(data)
    fields = decode(attached.metadata)
    subgraph = (fields.get("subgraph_metadata") or [{}])[0]
    inputs, outputs = subgraph.get("input_tensor_metadata", []), subgraph.get("output_tensor_metadata", [])
    return Metadata(
        about=About(*(fields.get(key, "") for key in ("name", "description", "version", "license"))),
        inputs=tuple(tensor.get("name", "") for tensor in inputs),
        outputs=tuple(tensor.get("name", "") for tensor in outputs),
        labels=_lines(attached.files, outputs, _AXIS_LABELS),
        vocabularies=_lines(attached.files, inputs, _VOCABULARY),
    )


def _lines(files: Mapping[str, bytes], tensors: Sequence[Any], kind: int) -> dict[str, tuple[str, ...]]:
    return {
        tensor.get("name", ""): _labels(files, file.get("name", ""))
        for tensor in tensors
        for file in tensor.get("associated_files", [])
        if file.get("type") == kind
    }


def _labels(files: Mapping[str, bytes], name: str) -> tuple[str, ...]:
    if name not in files:
        raise VerifyError(f"its metadata names {name!r}, which is not in its zip ({', '.join(files) or 'no files'})")
    try:
        return tuple(files[name].decode().splitlines())
    except UnicodeDecodeError as error:
        raise VerifyError(f"{name} in its zip is not UTF-8: {error}") from error


def _input(end: _End, *, vocabulary: bool) -> dict[str, Any]:
    if not end.is_frame:
        feature: dict[str, Any] = {"name": end.name, "content": {"type": _FEATURE, "content_properties": {}}}
        if vocabulary:
            told = "One token per line, by its number; the first stands for all that are none."
            file = {"name": VOCABULARY_FILE, "description": told, "type": _VOCABULARY}
            return {**feature, "description": "Numbers of tokens.", "associated_files": [file]}
        if end.span is None:
            return feature
        return {**feature, "stats": {"max": [end.span[1]], "min": [end.span[0]]}}
    return {
        "name": end.name,
        "description": "Raw pixels 0..255; the graph normalises by itself.",
        "content": {"type": _IMAGE, "content_properties": {"color_space": _COLORS.get(end.shape[-1], 0)}},
        "process_units": [{"type": _NORMALIZATION, "options": {"mean": [0.0], "std": [1.0]}}],
        "stats": {"max": [255.0], "min": [0.0]},
    }


def _output(end: _End, file: str | None) -> dict[str, Any]:
    tensor = {"name": end.name, "content": {"type": _FEATURE, "content_properties": {}}}
    if file is None:
        return tensor
    label = {"name": file, "description": "One class per line, in output order.", "type": _AXIS_LABELS}
    return {**tensor, "description": "One score per class.", "associated_files": [label]}


def _ends(graph: Graph, spans: Mapping[str, tuple[float, float]]) -> tuple[list[_End], list[_End]]:
    """Returns inputs and outputs in the graph's order, by which metadata is matched."""
    try:
        signature = graph.signature(SIGNATURE)
    except VerifyError as error:
        raise ExportError(f"metadata: {error}") from error

    def end(tensor: TensorInfo) -> _End:
        frame = tensor.dtype == "uint8" and len(tensor.shape) == 4
        return _End(tensor.name, tensor.shape, frame, spans.get(tensor.name))

    return [end(tensor) for tensor in signature.inputs], [end(tensor) for tensor in signature.outputs]
