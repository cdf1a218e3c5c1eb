"""What an app has to know beside the graph to ask a model and to read its answers, so that it needs no Python.

In a bundle it is ``task.json``, with ``vocabulary.txt``, ``labels.txt`` and ``replay.npz`` where it names them:

```
{"task": "sequence",
 "input":  {"name", "holds": "tokens", "shape": [40], "of": "characters", "unknown": 0, "vocabulary": "vocabulary.txt"}
           {"name", "holds": "recording", "shape": [128, 6], "window", "hop", "hertz", "channels": [{"name", "unit"} …],
            "replay": "replay.npz"}
           {"name", "holds": "features", "shape": [30], "columns": ["pulse" …], "scaling": {"mean": […], "spread": […]}}
           {"name", "holds": "pixels", "shape": [28, 28, 1]}
 "output": {"name", "holds": "classes" | "bits" | "numbers", "shape", "names": "labels.txt" | "vocabulary.txt",
            "next": true, "scaling": {"mean": […], "spread": […]}},
 "files":  {"vocabulary.txt": "<SHA-256>" …}}
```
Scaling is told for people and charts: the graph takes and gives numbers in their own units.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from export.bundles.folder import canonical_json, sha256
from export.model.serving import Serving
from export.tflite.metadata import VOCABULARY_FILE, label_file, labels_text
from fl_mobile.errors import ExportError
from fl_mobile.storage.npz import Header, pack_arrays, parse_arrays
from fl_mobile.tasks import task_row

TASK_FILE, REPLAY_FILE = "task.json", "replay.npz"
CHARACTERS, WORDS = "characters", "words"
TOKENS, RECORDING, FEATURES, PIXELS = "tokens", "recording", "features", "pixels"
MOST_REPLAY_BYTES = 64 << 20
LINE_FEED = "\\n"
"""How a line feed stands in ``vocabulary.txt``, which has one token a line."""


@dataclass(frozen=True)
class Moments:
    """Mean and standard deviation of every feature or number, by which the graph scales."""

    mean: tuple[float, ...]
    spread: tuple[float, ...]

    def __post_init__(self) -> None:
        numbers = (*self.mean, *self.spread)
        if len(self.mean) != len(self.spread) or not all(map(math.isfinite, numbers)):
            raise ExportError(f"scaling: expected a finite mean and spread each, got {self.mean} and {self.spread}")


@dataclass(frozen=True, eq=False)
class Replay:
    """A recording with what it is of.

    Attributes:
        signal: ``float32[samples, channels]``.
        truth: Class of each sample, ``int32[samples]``.
        cuts: Samples at which it goes on elsewhere, rising, ``int32[n]``.
    """

    signal: np.ndarray
    truth: np.ndarray
    cuts: np.ndarray


@dataclass(frozen=True)
class Recording:
    """How windows are cut from what sensors give.

    Attributes:
        hop: Samples from the begin of a window to that of the next.
        hertz: Samples a second; None where it is not known.
        channels: Name and unit of each channel, in order; empty where they are not known.
        replay: A recording of the test part to show; None for none.
    """

    hop: int
    hertz: float | None = None
    channels: tuple[tuple[str, str], ...] = ()
    replay: Replay | None = None


@dataclass(frozen=True)
class PhoneTask:
    """What `task.json` says, before it is held against a model.

    Attributes:
        task: Row of `fl_mobile.tasks.TASKS`.
        names: Of the classes, tags or numbers along the output's last axis; empty where they have none.
        vocabulary: Tokens by number, where inputs are tokens; the first stands for all that are none.
        answers_next: Whether the answer at every step is the token after it; its names are the vocabulary then.
        recording: Where inputs are windows of recordings.
        columns: Names of features in order; empty where they have none.
        inputs: Scaling of features, which is part of the graph.
        outputs: Scaling of numbers that are told.
    """

    task: str
    names: tuple[str, ...] = ()
    vocabulary: tuple[str, ...] = ()
    answers_next: bool = False
    recording: Recording | None = None
    columns: tuple[str, ...] = ()
    inputs: Moments | None = None
    outputs: Moments | None = None

    def __post_init__(self) -> None:
        task_row(self.task)
        if self.answers_next and not self.vocabulary:
            raise ExportError("task.json: the next token is answered, but no vocabulary is given")
        odd = [token for token in self.vocabulary if not token or not token.isprintable()]
        if odd:
            raise ExportError(
                f"vocabulary: expected tokens of one printable line, got {odd[0]!r}; a line feed is written {LINE_FEED}"
            )
        if len(set(self.vocabulary)) != len(self.vocabulary):
            twice = next(token for token in self.vocabulary if self.vocabulary.count(token) > 1)
            raise ExportError(f"vocabulary: each token once, got {twice!r} more than once")

    def vocabularies(self, serving: Serving) -> dict[str, tuple[str, ...]]:
        """Returns input name → tokens; empty where inputs are none."""
        return {serving.entry.name: self.vocabulary} if self.vocabulary else {}

    def names_by_output(self, serving: Serving) -> dict[str, tuple[str, ...]]:
        """Returns output name → names along its last axis; empty where there are none."""
        names = self.vocabulary if self.answers_next else self.names
        return {serving.end.name: names} if names else {}

    def files(self, serving: Serving) -> dict[str, bytes]:
        """Returns the files of a bundle that say it, ``task.json`` last.

        Raises:
            ExportError: The model has other inputs or outputs than it says.
        """
        found: dict[str, bytes] = {}
        if self.vocabulary:
            found[VOCABULARY_FILE] = labels_text(self.vocabulary)
        if self.names and not self.answers_next:
            found[label_file(serving.end.name, 1)] = labels_text(self.names)
        if self.recording is not None and self.recording.replay is not None:
            shown = self.recording.replay
            check_replay(shown, serving.entry.shape[-1], serving.end.shape[-1], where=REPLAY_FILE)
            found[REPLAY_FILE] = bytes(pack_arrays(vars(shown)))
        told = self.to_json(serving, found)
        check_task(told, found, serving.entry.shape, serving.end.shape, where="task.json")
        return {**found, TASK_FILE: canonical_json(told)}

    def to_json(self, serving: Serving, files: Mapping[str, bytes]) -> dict[str, Any]:
        """Returns the content of ``task.json`` beside ``files``."""
        entry, end = serving.entry, serving.end
        output: dict[str, Any] = {"name": end.name, "holds": task_row(self.task).kind, "shape": list(end.shape[1:])}
        if self.answers_next:
            output |= {"names": VOCABULARY_FILE, "next": True}
        elif self.names:
            output["names"] = label_file(end.name, 1)
        if self.outputs is not None:
            output["scaling"] = _scaling(self.outputs)
        return {
            "task": self.task,
            "input": {"name": entry.name, "shape": list(entry.shape[1:]), **self._input(entry.shape, entry.dtype)},
            "output": output,
            "files": {name: sha256(data) for name, data in files.items()},
        }

    def _input(self, shape: tuple[int, ...], dtype: str) -> dict[str, Any]:
        if dtype == "uint8":
            return {"holds": PIXELS}
        if self.vocabulary:
            kind = CHARACTERS if all(len(token) == 1 for token in _spelt(self.vocabulary[1:])) else WORDS
            return {"holds": TOKENS, "of": kind, "unknown": 0, "vocabulary": VOCABULARY_FILE}
        if dtype == "int32":
            return {"holds": TOKENS}
        if self.recording is not None:
            cut = self.recording
            told = {"holds": RECORDING, "window": shape[1], "hop": cut.hop, "hertz": cut.hertz}
            channels = [{"name": name, "unit": unit} for name, unit in cut.channels]
            return {**told, "channels": channels, **({} if cut.replay is None else {"replay": REPLAY_FILE})}
        named = {"columns": list(self.columns)} if self.columns else {}
        return {"holds": FEATURES, **named, **({} if self.inputs is None else {"scaling": _scaling(self.inputs)})}


def check_task(
    told: Mapping[str, Any],
    files: Mapping[str, bytes],
    entry: Sequence[int],
    end: Sequence[int],
    *,
    where: str,
) -> None:
    """Holds what ``task.json`` says against its files and the model's only input and output, shapes with the batch.

    Raises:
        ExportError: Something does not fit; the message begins with ``where``.
    """

    def want(fits: bool, what: str) -> None:
        if not fits:
            raise ExportError(f"{where}: {what}")

    source, answer = told["input"], told["output"]
    task_row(told["task"])
    want(source["shape"] == list(entry[1:]), f"inputs are told to be {source['shape']}, the model takes {entry[1:]}")
    want(answer["shape"] == list(end[1:]), f"outputs are told to be {answer['shape']}, the model gives {end[1:]}")
    for name, digest in told["files"].items():
        want(name in files, f"{name} is missing")
        want(sha256(files[name]) == digest, f"{name} is not the file that was written: its SHA-256 differs")
    named = [part for part in (source.get("vocabulary"), answer.get("names"), source.get("replay")) if part]
    want(all(name in told["files"] for name in named), f"it names files without their SHA-256: {', '.join(named)}")
    if "names" in answer:
        count = len(lines_of(files[answer["names"]]))
        want(count == end[-1], f"{answer['names']} has {count} lines, the model answers {end[-1]} values")
    if "channels" in source:
        count, window = len(source["channels"]), source["window"]
        want(count in (0, entry[-1]), f"{count} channels are named, the model takes {entry[-1]}")
        want(window == entry[1], f"a window of {window} samples is told, the model takes {entry[1]}")
    if "columns" in source:
        count = len(source["columns"])
        want(count == entry[-1], f"{count} columns are named, the model takes {entry[-1]}")
    for side, width in ((source, entry[-1]), (answer, end[-1])):
        if "scaling" in side:
            counts = {len(side["scaling"][part]) for part in ("mean", "spread")}
            want(counts == {width}, f"scaling has {sorted(counts)} numbers, the model {width}")


def unpack_replay(data: bytes) -> Replay:
    """Returns the recording in ``replay.npz``.

    Raises:
        ExportError: The bytes are none.
    """
    try:
        return Replay(**parse_arrays(data, most_bytes=MOST_REPLAY_BYTES, check=_any_rows))
    except (ValueError, TypeError) as error:
        raise ExportError(f"{REPLAY_FILE} cannot be read: {error}") from error


def _any_rows(header: Header) -> None:
    if header.dtype.kind not in "fi" or not header.shape:
        raise ValueError(f"'{header.name}' is {header.dtype}{header.shape}, expected rows of numbers")


def check_replay(shown: Replay, channels: int, classes: int, *, where: str) -> None:
    """Holds a recording against the model that is to hear it.

    Raises:
        ExportError: It has other channels, classes that are none, or cuts outside.
    """
    signal, truth, cuts = shown.signal, shown.truth, shown.cuts
    samples = len(signal)
    if signal.shape[1:] != (channels,) or truth.shape != (samples,) or not np.isfinite(signal).all():
        raise ExportError(
            f"{where}: expected finite samples of {channels} channels with a class each, got"
            f" {list(signal.shape)} and {list(truth.shape)}"
        )
    if (
        truth.min(initial=0) < 0
        or truth.max(initial=0) >= classes
        or (np.diff(cuts, prepend=0, append=samples) < 0).any()
    ):
        raise ExportError(f"{where}: classes of samples are beyond the {classes} of the model, or cuts do not rise")


def lines_of(data: bytes) -> tuple[str, ...]:
    """Returns the names in a file of one a line.

    Raises:
        ExportError: It is not UTF-8.
    """
    try:
        return tuple(data.decode().split("\n")[:-1])
    except UnicodeDecodeError as error:
        raise ExportError(f"not UTF-8: {error}") from error


def _spelt(tokens: Sequence[str]) -> list[str]:
    return ["\n" if token == LINE_FEED else token for token in tokens]


def _scaling(moments: Moments) -> dict[str, list[float]]:
    return {"mean": list(moments.mean), "spread": list(moments.spread)}
