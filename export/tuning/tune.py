"""``tune``: Keras 3 model and public data in, a tuned Keras 3 copy out, with proof that it is what its name says.

```
model ─▶ make_twin ─▶ prune ─▶ cluster ─▶ qat ─▶ check_tuned ─▶ Keras 3 copy ─▶ to_tflite, verify as always
           equal?      each stage on a fresh twin with the weights of the one before
```
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from export.convert.quiet import captured_stderr
from export.model.ends import OUTPUT
from export.model.forms import InputForms
from export.model.frames import frames_for
from export.model.serving import Described, Serving, described, predict
from export.tuning.bridge import make_twin, tf_keras_and_tfmot, with_weights
from export.tuning.stages import STAGES, Fit, tuned_paths
from export.tuning.table import Tuning
from fl_mobile.errors import ExportError, VerifyError
from fl_mobile.seeds import rng_for
from fl_mobile.tensors import Tensors

ORIGINS = ("public", "server", "devices-agreed")
"""Where tuning examples may come from. Devices' own only under the name that says their owners agreed."""

_PROOF_FRAMES, _RANGE_FRAMES = 64, 256
# Pruning takes four weights of five away and the others must learn anew. Sharing values and rounding break little, so
# there the steps are small, nothing is dropped out and the model's own answers are the goal: mending must not move the
# model further than the damage did.
_RATE_SHARE = {"prune": 1.0, "cluster": 0.1, "qat": 0.1}
_LEARNS_ANEW = ("prune",)
# There labels are smoothed a little (Szegedy et al. 2016): a model that knows its examples by heart has no gradient
# left to learn anew from. Demo CNN at 80 %, 1,000 validation digits, seeds 0 to 4: mean +0.1 points without, +0.4 with
# it, worst seed -0.2 and 0.0, at a negative log-likelihood of .096 and .113 (.118 before tuning).
_SMOOTHING = 0.03


@dataclass(frozen=True)
class TuningSet:
    """What a model is tuned on.

    Attributes:
        x: Raw frames ``[n, ...]`` as the model takes them.
        y: Their classes, ``int[n]``.
        origin: One of ``ORIGINS``; there is no default, because whoever calls must know.
        epochs: Passes over the examples in every stage.
        learning_rate: Adam's first step size while pruning, a tenth of it in the other stages; it falls to zero over
            a stage as a cosine.
        batch_size: Examples a step.
        seed: Decides the order of examples.
    """

    x: np.ndarray
    y: np.ndarray
    origin: str
    epochs: int = 6
    learning_rate: float = 1e-3
    batch_size: int = 32
    seed: int = 0

    def __post_init__(self) -> None:
        if self.origin not in ORIGINS:
            raise ExportError(
                f"tuning set: origin must be {' or '.join(ORIGINS)}, got {self.origin!r}."
                " Examples of devices are never used unless you say that their owners agreed."
            )
        if self.epochs < 1 or self.batch_size < 1 or not 0 < self.learning_rate < math.inf:
            raise ExportError(
                f"tuning set: expected epochs ≥ 1, batch_size ≥ 1 and learning_rate > 0,"
                f" got {self.epochs}, {self.batch_size}, {self.learning_rate}"
            )
        if isinstance(self.x, Mapping):
            raise ExportError(
                f"tuning set: tuned recipes take models with one input, got frames for {', '.join(self.x)}."
                " Use recipes without tuning."
            )
        y = np.asarray(self.y)
        if y.shape != (len(self.x),) or y.dtype.kind not in "ui" or len(y) == 0:
            raise ExportError(
                f"tuning set: expected one class number per frame, got {len(self.x)} frames"
                f" and {y.dtype}{list(y.shape)}"
            )

    @property
    def sha256(self) -> str:
        """Identity of the examples: dtype, shape and bytes of frames and classes."""
        digest = hashlib.sha256()
        for array in (np.asarray(self.x), np.asarray(self.y)):
            digest.update(f"{array.dtype}{list(array.shape)}".encode())
            digest.update(np.ascontiguousarray(array).tobytes())
        return digest.hexdigest()


@dataclass(frozen=True)
class KernelReport:
    """What one tuned kernel is like: its share of zeros and its number of distinct values."""

    path: str
    weights: int
    zeros: float
    distinct: int


@dataclass(frozen=True)
class TuningReport:
    """How a model was tuned; goes into the bundle's report.

    Attributes:
        tuning: Name of the row.
        origin: As the caller said.
        examples: Number of tuning examples.
        sha256: Of the tuning set.
        epochs: Passes in every stage.
        learning_rate: First step size.
        bridge_max_abs_diff: How far the ``tf_keras`` twin's answers were from the model's before tuning.
        kernels: The tuned kernels in model order.
    """

    tuning: str
    origin: str
    examples: int
    sha256: str
    epochs: int
    learning_rate: float
    bridge_max_abs_diff: float
    kernels: tuple[KernelReport, ...]

    def to_json(self) -> dict[str, Any]:
        """Returns the report in JSON types."""
        return {**asdict(self), "kernels": [asdict(kernel) for kernel in self.kernels]}

    def sentence(self) -> str:
        """Returns what ``report.md`` says about the data."""
        return (
            f"Tuning `{self.tuning}`: {self.examples} {self.origin} examples, {self.epochs} epochs a stage,"
            f" SHA-256 `{self.sha256[:16]}…`."
        )


@dataclass(frozen=True)
class Tuned:
    """A tuned Keras 3 copy of a model, and how it came about."""

    model: Any
    report: TuningReport


def tune(
    model: Any,
    tuning: Tuning,
    data: TuningSet,
    *,
    input_dtype: InputForms = None,
    progress: Callable[[str], None] | None = None,
) -> Tuned:
    """Returns a copy of ``model`` tuned on ``data``; ``model`` itself is not changed.

    All layers train, frozen ones too, but frozen batch normalisation keeps its statistics.

    Args:
        model: A built Keras 3 Sequential or functional classifier; see ``bridge.LAYOUTS``.
        tuning: A row of ``TUNINGS``.
        data: Public or server-side examples.
        input_dtype: See ``export.model.serving.describe``.
        progress: Called with one line before each stage.

    Raises:
        ExportError: The model cannot be bridged or tuned, or the data do not fit it.
        VerifyError: A tuned kernel is not what the name promises.
    """
    return tune_described(described(model, input_dtype), tuning, data, progress or _silent)


def tune_described(found: Described, tuning: Tuning, data: TuningSet, say: Callable[[str], None]) -> Tuned:
    """Returns what ``tune`` does, of a model that was described before."""
    model, serving = found.model, found.serving
    if serving.end.head not in ("softmax", "sigmoid", "logits") or not serving.end.num_classes:
        raise ExportError(
            f"model {model.name!r}: tuned recipes take classifiers with one output unit per class. Use recipes without"
            " tuning, or end the model in Dense(2)."
        )
    x, end = frames_for(serving, data.x, "tuning frames")[serving.entry.name], serving.end
    if np.max(data.y) >= end.num_classes or np.min(data.y) < 0:
        raise ExportError(f"tuning set: expected classes 0..{end.num_classes - 1}, got up to {np.max(data.y)}")
    labels = np.eye(end.num_classes, dtype=np.float32)[np.asarray(data.y)]
    own_answers = _own_answers(model, serving, x, labels)
    smoothed = (1 - _SMOOTHING) * labels + np.float32(_SMOOTHING / end.num_classes)
    current, first_diff, paths = model, None, []
    weights: Tensors = {}
    for stage in tuning.stages:
        say(f"{tuning.name}: {stage}, {data.epochs} epochs of {len(x)} examples")
        twin = make_twin(current, x[:_PROOF_FRAMES])
        first_diff = twin.max_abs_diff if first_diff is None else first_diff
        paths = tuned_paths(twin, tuning)
        with captured_stderr():  # tf_keras warns of the kernels behind shared values, which have no gradient
            weights = STAGES[stage](
                twin,
                tuning,
                _fit_of(
                    x=x,
                    targets=smoothed if stage in _LEARNS_ANEW else own_answers,
                    data=data,
                    head=end.head,
                    stage=stage,
                ),
            )
        current = with_weights(model, weights)
    kernels = tuple(_describe_kernel(path, weights[path]) for path in paths)
    check_tuned(tuning, weights, paths)
    return Tuned(
        current,
        TuningReport(
            tuning=tuning.name,
            origin=data.origin,
            examples=len(x),
            sha256=data.sha256,
            epochs=data.epochs,
            learning_rate=data.learning_rate,
            bridge_max_abs_diff=float(first_diff or 0.0),
            kernels=kernels,
        ),
    )


def check_tuned(tuning: Tuning, weights: Tensors, paths: list[str]) -> None:
    """Checks that every kernel of ``paths`` has the zeros and shared values that the tuning's name promises.

    Raises:
        VerifyError: One has not; a mask was not applied or memberships were not.
    """
    for path in paths:
        kernel = weights[path]
        if not np.isfinite(kernel).all():
            raise VerifyError(f"kernel {path!r} is not finite after tuning; lower the tuning set's learning_rate")
        zeros = float((kernel == 0).mean())
        if zeros < tuning.sparsity - 1 / kernel.size:
            raise VerifyError(
                f"kernel {path!r}: expected {tuning.sparsity:.0%} zeros after {tuning.name!r}, found {zeros:.2%}"
            )
        if tuning.two_of_four and (bad := crowded_groups(kernel)):
            raise VerifyError(f"kernel {path!r}: {bad} groups of four input weights have more than two non-zeros")
        distinct = len(np.unique(kernel))
        if tuning.clusters and distinct > tuning.clusters:
            raise VerifyError(
                f"kernel {path!r}: expected at most {tuning.clusters} values after {tuning.name!r}, found {distinct}"
            )


def crowded_groups(kernel: np.ndarray) -> int:
    """Returns how many groups of four consecutive input weights of one output have more than two non-zeros.

    Kernels are ``[..., inputs, outputs]``; TFLite stores them output first, so a group is contiguous in the file.

    >>> crowded_groups(np.array([[1.0], [0.0], [2.0], [0.0], [1.0], [1.0], [1.0], [0.0]]))
    1
    """
    inputs = kernel.shape[-2]
    groups = np.moveaxis(kernel[..., : inputs - inputs % 4, :], -2, -1).reshape(-1, 4)
    return int((np.count_nonzero(groups, axis=1) > 2).sum())


def _silent(_: str) -> None:
    return None


def _describe_kernel(path: str, kernel: np.ndarray) -> KernelReport:
    return KernelReport(path, kernel.size, float((kernel == 0).mean()), len(np.unique(kernel)))


def _own_answers(model: Any, serving: Serving, x: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Returns ``float32[n, classes]``: the model's answers (Hinton et al. 2015), mended where they are wrong.

    Where it is wrong the true class and the one it took exchange their probabilities. The bare label would pull harder
    than the model's own answers on what it gets right: of a model that has not learnt much yet (two rounds of
    ``synthetic``, 45 %) whole classes were lost to those it had got wrong.
    """
    own = predict(model, serving, {serving.entry.name: x})[OUTPUT]
    own = own / np.maximum(own.sum(axis=1, keepdims=True), 1e-12)
    return mended(own, labels.argmax(axis=1)).astype(np.float32)


def mended(own: np.ndarray, true: np.ndarray) -> np.ndarray:
    """Returns ``own`` with the largest value of each row at the class ``true``, which gives its own for it.

    >>> mended(np.array([[0.5, 0.3, 0.2], [0.5, 0.3, 0.2]]), np.array([0, 2])).tolist()
    [[0.5, 0.3, 0.2], [0.2, 0.3, 0.5]]
    """
    rows, first = np.arange(len(own)), own.argmax(axis=1)
    found = own.copy()
    found[rows, first], found[rows, true] = own[rows, true], own[rows, first]
    return found


def _fit_of(x: np.ndarray, targets: np.ndarray, data: TuningSet, head: str, stage: str) -> Fit:
    tf_keras, _ = tf_keras_and_tfmot()
    steps = data.epochs * math.ceil(len(x) / data.batch_size)

    def run(model: Any, callbacks: list[Any]) -> None:
        for layer in model.layers:
            inner = getattr(layer, "layer", layer)
            if hasattr(inner, "rate") and stage not in _LEARNS_ANEW:
                inner.rate = 0.0
            if type(inner).__name__ != "BatchNormalization":
                layer.trainable = True
        rate = tf_keras.optimizers.schedules.CosineDecay(data.learning_rate * _RATE_SHARE[stage], steps)
        loss = tf_keras.losses.CategoricalCrossentropy(from_logits=head == "logits")
        model.compile(tf_keras.optimizers.Adam(rate), loss)
        for epoch in range(data.epochs):
            order = rng_for(data.seed, stage, epoch, "tuning").permutation(len(x))
            frames, wanted = x[order].astype(np.float32), targets[order]
            model.fit(frames, wanted, batch_size=data.batch_size, shuffle=False, verbose=0, callbacks=callbacks)

    return Fit(run, steps, x[:_RANGE_FRAMES].astype(np.float32))
