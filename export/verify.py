"""Is the artifact the model? Both answer the same frames, and a recipe's tolerance decides.

Keras is the oracle; nothing of the converter is trusted. ``measure_parity`` only measures, ``check_parity`` refuses,
``verify_parity`` does both for a model and data.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from export.graph import read_graph
from export.recipes import Recipe
from export.runtimes import answers, real_values
from export.serving import SIGNATURE, Serving, describe, frames_for, predict
from fl_mobile.errors import ExportError, VerifyError


@dataclass(frozen=True)
class Reference:
    """What Keras answers on the held-out frames, computed once for all recipes.

    Attributes:
        serving: How the model is served.
        frames: ``uint8`` or ``float32[n, ...]``.
        labels: ``int64[n]`` true classes.
        probabilities: ``float32[n, classes]`` from Keras.
    """

    serving: Serving
    frames: np.ndarray
    labels: np.ndarray
    probabilities: np.ndarray

    @property
    def accuracy(self) -> float:
        """Share of held-out frames Keras gets right."""
        return float((self.probabilities.argmax(axis=1) == self.labels).mean())


@dataclass(frozen=True)
class Parity:
    """How one artifact on one runtime compares with Keras on the same frames.

    Attributes:
        recipe: Name of the recipe.
        runtime: Name of the runtime.
        samples: Number of frames.
        keras_accuracy: Share Keras gets right.
        accuracy: Share the artifact gets right.
        class_accuracy_diff: Artifact minus Keras per class, in class order; None where no frame shows the class.
        argmax_agreement: Share of frames with the same first class, ties counted as they fall.
        tie_flips: Disagreements where Keras preferred its class by no more than the recipe's ``tie_margin``.
        max_abs_diff: Largest difference of a probability.
        mean_abs_diff: Mean difference of the probabilities.
        weights: Weights stored in the file.
        kernel_weights: Weights of rank 2 or more in the Keras model, which the file must hold.
        ops: Operations of the file in order.
        failures: What exceeded the recipe's tolerance, in words; empty when the artifact passes.
    """

    recipe: str
    runtime: str
    samples: int
    keras_accuracy: float
    accuracy: float
    class_accuracy_diff: tuple[float | None, ...]
    argmax_agreement: float
    tie_flips: int
    max_abs_diff: float
    mean_abs_diff: float
    weights: int
    kernel_weights: int
    ops: tuple[str, ...]
    failures: tuple[str, ...]


def make_reference(model: Any, x: Any, y: Any, *, input_dtype: str | None = None) -> Reference:
    """Returns Keras' answers on ``x`` with the true classes ``y``.

    Raises:
        ExportError: ``model`` cannot be served, or ``x`` and ``y`` do not fit it.
    """
    serving = describe(model, input_dtype)
    frames = frames_for(serving, x, "held-out frames")
    labels = np.asarray(y)
    if labels.shape != (len(frames),) or labels.dtype.kind not in "ui":
        raise ExportError(
            f"held-out labels: expected {len(frames)} class numbers, got {labels.dtype}{list(labels.shape)}."
            " Give integers 0..classes-1, not one-hot rows."
        )
    if labels.min() < 0 or labels.max() >= serving.num_classes:
        raise ExportError(f"held-out labels: expected 0..{serving.num_classes - 1}, got {labels.min()}..{labels.max()}")
    probabilities = predict(model, serving, frames)
    if not np.isfinite(probabilities).all():
        bad = int((~np.isfinite(probabilities)).any(axis=1).sum())
        raise ExportError(f"model {model.name!r} answers NaN or Inf on {bad} of {len(frames)} held-out frames")
    return Reference(serving, frames, labels.astype(np.int64), probabilities)


def measure_parity(reference: Reference, recipe: Recipe, data: bytes, runtime: str = "litert") -> Parity:
    """Returns how the artifact ``data`` compares with Keras, without judging.

    Raises:
        VerifyError: The artifact cannot be read or run, or its ends do not fit the model's.
        ConfigError: The runtime is not known or not installed.
    """
    graph = read_graph(data)
    end = graph.signature(SIGNATURE).outputs[0]
    rows = real_values(end, answers(runtime, data, reference.frames))
    keras_rows, labels = reference.probabilities, reference.labels
    if rows.shape != keras_rows.shape:
        raise VerifyError(f"the artifact answers {rows.shape[1:]} values a frame, the model {keras_rows.shape[1:]}")
    first, keras_first = rows.argmax(axis=1), keras_rows.argmax(axis=1)
    index = np.arange(len(rows))
    preference = keras_rows[index, keras_first] - keras_rows[index, first]
    ties = (first != keras_first) & (preference <= recipe.tolerance.tie_margin)
    right, keras_right = first == labels, keras_first == labels
    diff = np.abs(rows.astype(np.float64) - keras_rows)
    classes = [labels == c for c in range(rows.shape[1])]
    return Parity(
        recipe=recipe.name,
        runtime=runtime,
        samples=len(rows),
        keras_accuracy=float(keras_right.mean()),
        accuracy=float(right.mean()),
        class_accuracy_diff=tuple(float(right[c].mean() - keras_right[c].mean()) if c.any() else None for c in classes),
        argmax_agreement=float((first == keras_first).mean()),
        tie_flips=int(ties.sum()),
        max_abs_diff=float(diff.max()),
        mean_abs_diff=float(diff.mean()),
        weights=graph.weights,
        kernel_weights=reference.serving.kernel_weights,
        ops=graph.ops,
        failures=_failures(recipe, diff, (first != keras_first) & ~ties, keras_right, right, ties, classes)
        + _lost_weights(graph.weights, reference.serving.kernel_weights),
    )


def check_parity(parity: Parity) -> Parity:
    """Returns ``parity`` when it passed.

    Raises:
        VerifyError: It did not; the message names every measure that failed.
    """
    if parity.failures:
        raise VerifyError(
            f"{parity.recipe} on {parity.runtime} is not the Keras model ({parity.samples} frames): "
            + "; ".join(parity.failures)
        )
    return parity


def verify_parity(
    model: Any, data: bytes, x: Any, y: Any, *, recipe: Recipe, runtime: str = "litert", input_dtype: str | None = None
) -> Parity:
    """Returns the parity of the artifact ``data`` with ``model`` on held-out ``x`` and ``y``.

    Raises:
        VerifyError: The artifact is damaged or is not the model.
        ExportError: The model or data cannot serve as a reference.
    """
    return check_parity(measure_parity(make_reference(model, x, y, input_dtype=input_dtype), recipe, data, runtime))


def _failures(
    recipe: Recipe,
    diff: np.ndarray,
    flips: np.ndarray,
    keras_right: np.ndarray,
    right: np.ndarray,
    ties: np.ndarray,
    classes: list[np.ndarray],
) -> tuple[str, ...]:
    """Lists the measures beyond tolerance. Comparisons are written so that NaN fails them."""
    tolerance, failures = recipe.tolerance, []
    if not diff.max() <= tolerance.max_abs:
        failures.append(f"max probability difference {diff.max():.3g}, allowed {tolerance.max_abs:g}")
    if not diff.mean() <= tolerance.mean_abs:
        failures.append(f"mean probability difference {diff.mean():.3g}, allowed {tolerance.mean_abs:g}")
    count = len(flips)
    if flips.sum() > _allowed(1 - tolerance.agreement, count):
        failures.append(f"first class differs on {int(flips.sum())} frames, allowed {tolerance.agreement:.1%} equal")
    lost = keras_right.astype(int) - right
    if lost.sum() > _allowed(tolerance.accuracy_drop, count) + ties.sum():
        failures.append(f"accuracy {right.mean():.4f}, Keras {keras_right.mean():.4f}")
    worst = [
        f"{number} ({right[c].mean():.3f}, Keras {keras_right[c].mean():.3f})"
        for number, c in enumerate(classes)
        if lost[c].sum() > _allowed(tolerance.class_accuracy_drop, int(c.sum())) + ties[c].sum()
    ]
    if worst:
        failures.append(f"accuracy of class {', '.join(worst)}")
    return tuple(failures)


def _lost_weights(weights: int, kernel_weights: int) -> tuple[str, ...]:
    if weights >= kernel_weights:
        return ()
    return (f"the file holds {weights} weights, the model's kernels alone have {kernel_weights}: weights were lost",)


def _allowed(share: float, count: int) -> int:
    return max(1, int(share * count))
