"""What a dataset is once it is in memory: checked when it is made, read-only afterwards."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from fl_mobile.errors import ConfigError, DataError
from fl_mobile.models.ends import Port, inputs_of_rows
from fl_mobile.tasks.heads import Head, targets_of
from fl_mobile.tasks.table import AUTO, CLASSES, CLASSIFICATION, task_row
from fl_mobile.tasks.weighted import checked_weights, weighted, with_weights

CHARACTERS, WORDS = "characters", "words"
TOKENS = (CHARACTERS, WORDS)
"""What texts are cut into."""

MAX_ARRAY_BYTES = 4 << 30
"""Nothing a file declares makes a loader allocate more than this at once."""


@dataclass(frozen=True)
class Samples:
    """Inputs and their targets.

    Attributes:
        x: ``uint8[n, height, width, channels]`` raw pixels (0..255), ``float32[n, ...]`` features, or ``int32[n, ...]``
            tokens.
        y: ``int64[n]`` class numbers from 0; of other tasks ``int64[n, ...]`` or ``float32[n, ...]``, see
            `fl_mobile.tasks`.
        weight: ``float32[n]``: what the loss of an example is multiplied by, and how often metrics count it; None is 1.
    """

    x: np.ndarray
    y: np.ndarray
    weight: np.ndarray | None = None

    def __post_init__(self) -> None:
        if self.x.dtype not in (np.uint8, np.float32, np.int32) or self.x.ndim < 2:
            raise DataError(
                f"x: expected uint8[n, height, width, channels], float32[n, ...] or int32[n, ...] tokens,"
                f" got {self.x.dtype}{self.x.shape}."
            )
        if self.y.dtype not in (np.int64, np.float32) or self.y.shape[:1] != self.x.shape[:1]:
            raise DataError(
                f"y: expected int64[{len(self.x)}], or targets of another task, got {self.y.dtype}{self.y.shape}."
            )
        if not len(self.y):
            raise DataError("No examples: x and y are empty.")
        for name, part in (("x", self.x), ("y", self.y)):
            if part.dtype == np.float32 and not np.isfinite(part).all():
                bad = int(len(part) - np.isfinite(part.reshape(len(part), -1)).all(axis=1).sum())
                raise DataError(f"{name}: {bad} of {len(part)} examples hold NaN or Inf. Clean the data first.")
        if self.weight is not None:
            object.__setattr__(self, "weight", checked_weights("weight", self.weight, len(self.y)))
        for name in ("x", "y"):  # views, so that the caller's own arrays stay writable
            view = getattr(self, name).view()
            view.flags.writeable = False
            object.__setattr__(self, name, view)

    def __len__(self) -> int:
        return len(self.y)

    def at(self, rows: np.ndarray) -> Samples:
        """Returns some examples, by index or ``bool[n]``."""
        return Samples(self.x[rows], self.y[rows], None if self.weight is None else self.weight[rows])


@dataclass(frozen=True)
class Scaling:
    """Mean and spread of every feature, and of every number that is to be told.

    Attributes:
        mean: ``float64[features]``.
        spread: ``float64[features]`` standard deviations; 1 of a feature that never changes.
        target_mean: ``float64[k]``; empty where targets are no numbers.
        target_spread: ``float64[k]``.
        source: What they were measured on, in words.
    """

    mean: np.ndarray
    spread: np.ndarray
    target_mean: np.ndarray
    target_spread: np.ndarray
    source: str


@dataclass(frozen=True)
class Ends:
    """Several inputs, or several targets: what lies end to end in rows of ``x`` and ``y``.

    Attributes:
        ports: Of several inputs, which ``x`` ``float32[n, numbers]`` holds joined; empty where there is one.
        labels: Head → names of its classes, tags or numbers; empty where there is one target.
    """

    ports: tuple[Port, ...] = ()
    labels: Mapping[str, tuple[str, ...]] = field(default_factory=dict)


@dataclass(frozen=True)
class Dataset:
    """A training and a held-out part with the same inputs and targets.

    Attributes:
        labels: Names of classes, tags or numbers; their number is how many there are.
        device_of: ``int64[n_train]`` natural device of each training example (a writer, a folder), or None.
        source: Where the bytes came from, in words for a report.
        fingerprint: SHA-256 (hex) over both parts, the labels and ``device_of``: equal means the same data and split.
        public: Training examples that no device holds, set aside for the server's own update; None if it makes none.
        task: Row of `fl_mobile.tasks.TASKS`: what the targets are.
        why: Why it is that task, in words.
        scaling: Of features and numbers that are to be standardised; None leaves them as they are.
        columns: Names of the features of a table, in order; empty where they have none.
        ends: Of several inputs or targets; None where there is one of each.
        statistics_bytes: That devices sent before round 1, so that scaling, vocabulary or counts of classes are known.
        class_counts: Of each class on all devices, where they were asked for it; else empty.
    """

    name: str
    train: Samples
    test: Samples
    labels: tuple[str, ...]
    device_of: np.ndarray | None
    source: str
    fingerprint: str
    public: Samples | None = None
    task: str = CLASSIFICATION
    why: str = "the dataset has classes"
    scaling: Scaling | None = None
    columns: tuple[str, ...] = ()
    ends: Ends | None = None
    statistics_bytes: int = 0
    class_counts: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        if self.train.x.shape[1:] != self.test.x.shape[1:] or self.train.x.dtype != self.test.x.dtype:
            raise DataError(
                f"{self.name}: training inputs are {self.train.x.dtype}{self.train.x.shape[1:]} "
                f"but test inputs are {self.test.x.dtype}{self.test.x.shape[1:]}."
            )
        if (self.train.weight is None) != (self.test.weight is None):
            raise DataError(f"{self.name}: weights of training and of test examples come together.")
        for part, samples in (("train", self.train), ("test", self.test)):
            check_targets(f"{self.name}: {part}", self.task, samples.y, self.labels)
        if self.train.y.shape[1:] != self.test.y.shape[1:] or self.train.y.dtype != self.test.y.dtype:
            raise DataError(
                f"{self.name}: training targets are {self.train.y.dtype}{self.train.y.shape[1:]}"
                f" but test targets are {self.test.y.dtype}{self.test.y.shape[1:]}."
            )
        if self.device_of is not None and (
            self.device_of.dtype != np.int64 or self.device_of.shape != self.train.y.shape[:1]
        ):
            raise DataError(
                f"{self.name}: device_of: expected int64[{len(self.train)}], "
                f"got {self.device_of.dtype}{self.device_of.shape}."
            )

    @property
    def num_classes(self) -> int:
        """How many outputs a model has for an example or a position: classes, tags or numbers."""
        if self.heads:
            return sum(math.prod(head.answer) for head in self.heads)
        return len(self.labels) or math.prod(self.train.y.shape[1:])

    @property
    def trained_task(self) -> str:
        """The task as engines train and score it: with the weights of examples, where they have some."""
        return self.task if self.train.weight is None else weighted(self.task, self.train.y.shape[1:])

    def trained_targets(self, y: np.ndarray, weight: np.ndarray | None = None) -> np.ndarray:
        """Returns targets as `trained_task` has them; without weights each example counts as one."""
        if self.train.weight is None:
            return y
        return with_weights(y, np.ones(len(y), np.float32) if weight is None else weight)

    @property
    def input_shape(self) -> tuple[int, ...]:
        """Shape of one example, e.g. ``(28, 28, 1)``."""
        return tuple(self.train.x.shape[1:])

    @property
    def ports(self) -> tuple[Port, ...]:
        """The inputs, where there are several."""
        return self.ends.ports if self.ends else ()

    @property
    def heads(self) -> tuple[Head, ...]:
        """The heads, where there are several targets."""
        return task_row(self.task).heads

    def inputs(self, x: np.ndarray) -> Any:
        """Returns inputs as the author's model takes them: by name where there are several."""
        return inputs_of_rows(self.ports, x) if self.ports else x

    def told(self, y: np.ndarray) -> dict[str, np.ndarray]:
        """Returns each head's targets, classes as ``int64``."""
        found = targets_of(self.heads, y)
        whole = [head.name for head in self.heads if task_row(head.task).kind == CLASSES]
        return {name: part.astype(np.int64) if name in whole else part for name, part in found.items()}

    @property
    def told_to_builders(self) -> dict[str, Any]:
        """What a model's builder is told of inputs and outputs: by name where there are several."""
        shape: Any = self.input_shape
        scale: Any = self.input_scale
        classes: Any = self.num_classes
        if self.ports:
            shape = {port.name: port.shape for port in self.ports}
            scale = {port.name: 1 / 255 if port.dtype == "uint8" else 1.0 for port in self.ports}
        if self.heads:
            classes = {head.name: head.answer[-1] for head in self.heads}
        return {"input_shape": shape, "input_scale": scale, "num_classes": classes}

    @property
    def input_scale(self) -> float:
        """What a model's first layer multiplies by: 1/255 for raw pixels, 1 for features."""
        return 1 / 255 if self.train.x.dtype == np.uint8 else 1.0


@dataclass(frozen=True)
class DataOptions:
    """Options only some datasets read; None means the dataset's own default, and a set one that is not read is refused.

    Attributes:
        image_size: ``image-folder``: ``(height, width)`` in pixels every picture is cropped and scaled to.
        color: ``image-folder``: ``"rgb"`` or ``"gray"``.
        examples: ``synthetic``: number of images, training and test together.
        shape: ``synthetic``: ``(height, width, channels)``.
        classes: ``synthetic``: number of classes.
        target: ``csv``: columns that are to be told.
        device_column: ``csv``: the column that says whose a row is.
        weight_column: ``csv``: the column that says what a row weighs.
        fill: ``csv``: ``column=number`` of features whose missing cells are that number.
        window: ``har``, ``sequence-folder``: samples of an example.
        hop: And there: how many samples later the next one begins.
        tokens: Texts: a value of `TOKENS`.
        vocabulary: Texts in words: path of a public list.
    """

    image_size: tuple[int, int] | None = None
    color: str | None = None
    examples: int | None = None
    shape: tuple[int, int, int] | None = None
    classes: int | None = None
    target: tuple[str, ...] | None = None
    device_column: str | None = None
    weight_column: str | None = None
    fill: tuple[str, ...] | None = None
    window: int | None = None
    hop: int | None = None
    tokens: str | None = None
    vocabulary: str | None = None

    def __post_init__(self) -> None:
        for name, length in (("image_size", 2), ("shape", 3)):
            value = getattr(self, name)
            if value is None:
                continue
            if len(value) != length or not all(type(v) is int and v > 0 for v in value):
                raise ConfigError(f"{name.replace('_', '-')}: expected {length} positive integers, got {value!r}.")
            object.__setattr__(self, name, tuple(value))  # TOML gives lists
        for name, least in (("examples", 2), ("classes", 2), ("window", 2), ("hop", 1)):
            value = getattr(self, name)
            if value is not None and (type(value) is not int or value < least):
                raise ConfigError(f"{name}: expected an integer of at least {least}, got {value!r}.")
        if self.color not in (None, "rgb", "gray"):
            raise ConfigError(f"color: expected 'rgb' or 'gray', got {self.color!r}.")

    def given(self) -> tuple[str, ...]:
        """Names of the options that are set."""
        return tuple(name for name in self.__dataclass_fields__ if getattr(self, name) is not None)


@dataclass(frozen=True)
class LoadRequest:
    """What every loader gets.

    Attributes:
        seed: Decides shuffling and the split of datasets without a split of their own.
        path: The user's file or folder, or None for the places the dataset is known to be in.
        test_fraction: Held out per class where the dataset has no split of its own.
        task: Row of `fl_mobile.tasks.TASKS` that the targets are of, or ``"auto"`` to see it from them.
        heads: What is known of several targets: ``name=task:loss*weight``, the last two parts optional.
    """

    seed: int
    path: Path | None
    test_fraction: float
    options: DataOptions
    task: str = AUTO
    heads: tuple[str, ...] = ()


def make_dataset(
    name: str,
    train: Samples,
    test: Samples,
    labels: tuple[str, ...],
    *,
    source: str,
    device_of: np.ndarray | None = None,
    task: str = CLASSIFICATION,
    why: str = "the dataset has classes",
    ends: Ends | None = None,
) -> Dataset:
    """Returns the record with its fingerprint computed."""
    digest = hashlib.sha256("\0".join(labels).encode())
    if ends is not None:
        digest.update(repr((task, ends.ports, sorted(ends.labels.items()))).encode())
    for array in (train.x, train.y, test.x, test.y, device_of, train.weight, test.weight):
        if array is not None:
            digest.update(f"|{array.dtype.str}{array.shape}|".encode())
            digest.update(np.ascontiguousarray(array).data)
    return Dataset(
        name=name,
        train=train,
        test=test,
        labels=labels,
        device_of=device_of,
        source=source,
        fingerprint=digest.hexdigest(),
        task=task,
        why=why,
        ends=ends,
    )


def check_targets(what: str, task: str, y: np.ndarray, labels: tuple[str, ...]) -> None:
    """Raises `DataError` where targets are none of ``task``, or a class, tag or number has no label."""
    row = task_row(task)
    if row.heads:  # each was looked at before they were joined
        return
    if y.dtype != (np.int64 if row.kind == CLASSES else np.float32) or (row.axes not in (None, y.ndim - 1)):
        raise DataError(f"{what}: targets are {y.dtype}{y.shape}, task '{task}' has {row.targets}.")
    if row.kind == CLASSES:
        check_classes(what, np.maximum(y, 0) if row.padded else y, labels)
    elif labels and len(labels) != y.shape[1]:
        raise DataError(f"{what}: {y.shape[1]} targets an example, but {len(labels)} labels.")


def check_classes(what: str, y: np.ndarray, labels: tuple[str, ...]) -> None:
    """Raises:
    DataError: A class of ``y`` has no label.
    """
    if y.min() < 0 or y.max() >= len(labels):
        raise DataError(
            f"{what}: classes run from {y.min()} to {y.max()}, expected 0 to {len(labels) - 1} ({len(labels)} labels)."
        )


def check_array_bytes(what: str, shape: tuple[int, ...], itemsize: int) -> int:
    """Returns the bytes an array of ``shape`` takes, refusing sizes no honest file here declares.

    Raises:
        DataError: More than ``MAX_ARRAY_BYTES``.
    """
    total = itemsize
    for size in shape:
        total *= int(size)
    if total > MAX_ARRAY_BYTES or total < 0:
        raise DataError(f"{what} declares shape {shape}, {total} bytes; the limit is {MAX_ARRAY_BYTES} bytes.")
    return total
