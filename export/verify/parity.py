"""Is a difference the noise of a recipe, or another model? The measures and the judgement, NumPy only.

*Class changes.* How often the first class changes says nothing by itself: rounding changes it wherever the model was
undecided, and an uncertain model is undecided often. So a change counts only where Keras preferred its class by more
than the artifact's own noise can explain: three standard deviations of the shift between Keras' two first classes,
estimated from the median over undecided frames, which a minority of wrong frames cannot move. The noise itself may not
explain everything: it is capped by ``Tolerance.max_abs`` and judged by ``mean_abs``.

Measured on 1,000 held-out digits, seeds 0, 1, 2. The demo CNN has 12 to 20 undecided frames, int8 noise 0.04 to 0.05,
and 0 to 2 changes, none of which counts. MobileNetV2 with a trained head has 190, noise 0.17 to 0.21, and 29 to 47
changes, of which 1 to 3 count; accuracy +0.3, −0.9 and +0.4 points. With a fixed margin of 0.06 the second failed on 32
changes although it had gained accuracy, while the first had 29 changes to spare. The changes that may count fell from
3 % to 1 % in return.

*Accuracy.* Of changes explained by noise as many repair as break; the net loss of c such changes has a standard
deviation of √c, and twice that is allowed on top of the recipe's drop.

*Largest difference.* A maximum grows with the number of frames, so a share of frames may lie beyond it; where every
step or pixel has probabilities of its own, a share of those.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from export.convert.tolerances import Tolerance

_UNDECIDED, _LEAST_UNDECIDED = 0.5, 8
_MEDIAN_TO_DEVIATION = 1.4826  # of a normal distribution


@dataclass(frozen=True)
class OutputParity:
    """How one output of an artifact compares with Keras on the same frames.

    Attributes:
        output: Its name.
        unit: What differences are measured in: 1 for probabilities, else the range of Keras' values.
        keras_accuracy: Share Keras gets right; None for an output without labels, as are all fields of classes.
        accuracy: Share the artifact gets right.
        class_accuracy_diff: Artifact minus Keras per class, in class order; None where no frame shows the class.
        argmax_agreement: Share of frames with the same first class, ties counted as they fall.
        tie_flips: Class changes that the noise explains.
        noise: Standard deviation of the shift between Keras' two first classes; 0 when too few frames tell.
        max_abs_diff: Largest difference, in units.
        mean_abs_diff: Mean difference, in units.
        failures: What exceeded the tolerance, in words.
    """

    output: str
    unit: float
    keras_accuracy: float | None
    accuracy: float | None
    class_accuracy_diff: tuple[float | None, ...]
    argmax_agreement: float | None
    tie_flips: int
    noise: float
    max_abs_diff: float
    mean_abs_diff: float
    failures: tuple[str, ...]


@dataclass(frozen=True)
class Parity:
    """How one artifact on one runtime compares with Keras on the same frames.

    Attributes:
        recipe: Name of the recipe.
        runtime: Name of the runtime.
        samples: Number of frames.
        outputs: One per output, in the model's order.
        weights: Weights stored in the file.
        kernel_weights: Weights of rank 2 or more in the Keras model.
        ops: Operations of the file in order.
        failures: What exceeded the recipe's tolerance, in words; empty when the artifact passes.
        metrics: Of the task, where it is no classes of whole frames: name → Keras' value and the artifact's.
    """

    recipe: str
    runtime: str
    samples: int
    outputs: tuple[OutputParity, ...]
    weights: int
    kernel_weights: int
    ops: tuple[str, ...]
    failures: tuple[str, ...]
    metrics: Mapping[str, tuple[float, float]] = field(default_factory=dict)

    @property
    def keras_accuracy(self) -> float | None:
        """Share Keras gets right, the mean over the outputs with labels; None without any."""
        return mean_or_none([end.keras_accuracy for end in self.outputs if end.keras_accuracy is not None])

    @property
    def accuracy(self) -> float | None:
        """Share the artifact gets right, the mean over the outputs with labels; None without any."""
        return mean_or_none([end.accuracy for end in self.outputs if end.accuracy is not None])

    @property
    def accuracy_diff(self) -> float | None:
        """``accuracy`` less Keras'; None without labels."""
        ours, theirs = self.accuracy, self.keras_accuracy
        return None if ours is None or theirs is None else ours - theirs

    @property
    def argmax_agreement(self) -> float | None:
        """The least share of frames with the same first class of any output with labels; None without any."""
        return min((end.argmax_agreement for end in self.outputs if end.argmax_agreement is not None), default=None)

    @property
    def tie_flips(self) -> int:
        """Class changes that noise explains, over all outputs."""
        return sum(end.tie_flips for end in self.outputs)

    @property
    def max_abs_diff(self) -> float:
        """The largest difference of any output, in its unit."""
        return max(end.max_abs_diff for end in self.outputs)

    @property
    def mean_abs_diff(self) -> float:
        """The largest mean difference of any output, in its unit."""
        return max(end.mean_abs_diff for end in self.outputs)


def compare(
    output: str,
    rows: np.ndarray,
    keras_rows: np.ndarray,
    labels: np.ndarray | None,
    tolerance: Tolerance,
    *,
    probabilities: bool,
) -> OutputParity:
    """Returns how an artifact's ``rows`` of one output compare with Keras'.

    Args:
        output: Name of the output.
        rows: ``float32[n, ...]`` of the artifact.
        keras_rows: The same of Keras.
        labels: ``int64[n]`` true classes of rows ``[n, classes]``, or None for values without classes.
        tolerance: The recipe's.
        probabilities: Whether the rows are; other values are measured in units of their range.
    """
    unit = 1.0 if probabilities else value_range(keras_rows)
    ours, theirs = rows.astype(np.float64) / unit, keras_rows.astype(np.float64) / unit
    places = probabilities and ours.ndim > 2
    diff = np.abs(ours - theirs).reshape(-1 if places else len(ours), ours.shape[-1] if places else -1)
    failures = _difference_failures(diff, tolerance, probabilities, "places" if places else "frames")
    if labels is None:
        none = (None, None, (), None, 0, 0.0)
        return OutputParity(output, unit, *none, float(diff.max()), float(diff.mean()), failures)
    first, keras_first, noise = ours.argmax(axis=1), theirs.argmax(axis=1), preference_noise(ours, theirs)
    changed, index = first != keras_first, np.arange(len(ours))
    preference = theirs[index, keras_first] - theirs[index, first]
    ties = changed & (preference <= _tie_margin(noise, tolerance))
    right, keras_right = first == labels, keras_first == labels
    classes = [labels == number for number in range(ours.shape[1])]
    return OutputParity(
        output=output,
        unit=unit,
        keras_accuracy=float(keras_right.mean()),
        accuracy=float(right.mean()),
        class_accuracy_diff=tuple(float(right[c].mean() - keras_right[c].mean()) if c.any() else None for c in classes),
        argmax_agreement=float((~changed).mean()),
        tie_flips=int(ties.sum()),
        noise=noise,
        max_abs_diff=float(diff.max()),
        mean_abs_diff=float(diff.mean()),
        failures=failures
        + _change_failures(changed & ~ties, noise, tolerance)
        + _accuracy_failures(keras_right=keras_right, right=right, ties=ties, classes=classes, tolerance=tolerance),
    )


def mean_or_none(values: Sequence[float]) -> float | None:
    """Returns the mean, None of nothing."""
    return float(np.mean(values)) if values else None


def value_range(rows: np.ndarray) -> float:
    """Returns the distance between the least and the largest value, 1 when all are the same."""
    return float(np.ptp(rows)) or 1.0


def preference_noise(rows: np.ndarray, keras_rows: np.ndarray) -> float:
    """Returns the standard deviation of the shift between Keras' two first classes, on frames it is undecided about.

    Undecided, because near certainty a softmax hides every shift. From the median, so that fewer than half of the
    frames cannot move it however wrong they are. 0 when fewer than 8 frames are undecided.

    Args:
        rows: ``float64[n, classes]`` of the artifact.
        keras_rows: The same of Keras.

    >>> keras = np.tile([0.55, 0.45], (10, 1))
    >>> preference_noise(keras, keras), preference_noise(keras[:5], keras[:5])
    (0.0, 0.0)
    """
    order, index = np.argsort(-keras_rows, axis=1, kind="stable"), np.arange(len(rows))
    best, second = order[:, 0], order[:, 1]
    margin = keras_rows[index, best] - keras_rows[index, second]
    undecided = margin < _UNDECIDED
    if undecided.sum() < _LEAST_UNDECIDED:
        return 0.0
    shift = rows[index, best] - rows[index, second] - margin
    return float(_MEDIAN_TO_DEVIATION * np.median(np.abs(shift[undecided])))


def _tie_margin(noise: float, tolerance: Tolerance) -> float:
    return min(max(3 * noise, tolerance.tie_margin), max(tolerance.max_abs, tolerance.tie_margin))


def _difference_failures(diff: np.ndarray, tolerance: Tolerance, probabilities: bool, of: str) -> tuple[str, ...]:
    """Comparisons are written so that NaN fails them; ``of`` calls what a row of ``diff`` is of."""
    failures, worst = [], diff.max(axis=1)
    what, mean_allowed = (
        ("probability", tolerance.mean_abs) if probabilities else ("relative value", tolerance.mean_values)
    )
    beyond = int((~(worst <= tolerance.max_abs)).sum())
    if beyond > int(tolerance.outliers * len(diff)) or not np.isfinite(worst).all():
        failures.append(
            f"max {what} difference {worst.max():.3g}, allowed {tolerance.max_abs:g}"
            + (f" on all but {int(tolerance.outliers * len(diff))} of {len(diff)} {of}" if tolerance.outliers else "")
        )
    if not diff.mean() <= mean_allowed:
        failures.append(f"mean {what} difference {diff.mean():.3g}, allowed {mean_allowed:g}")
    return tuple(failures)


def _change_failures(counted: np.ndarray, noise: float, tolerance: Tolerance) -> tuple[str, ...]:
    if counted.sum() <= _allowed(1 - tolerance.agreement, len(counted)):
        return ()
    return (
        f"first class differs on {int(counted.sum())} frames by more than noise of {noise:.2g} explains,"
        f" allowed {tolerance.agreement:.1%} equal",
    )


def _accuracy_failures(
    keras_right: np.ndarray, right: np.ndarray, ties: np.ndarray, classes: list[np.ndarray], tolerance: Tolerance
) -> tuple[str, ...]:
    failures, lost = [], keras_right.astype(int) - right
    turned = ties & (lost != 0)

    def too_many(members: np.ndarray, share: float) -> bool:
        count, noisy = int(members.sum()), int(turned[members].sum())
        return bool(lost[members].sum() > _allowed(share, count) + min(noisy, 2 * math.sqrt(noisy)))

    if too_many(np.ones(len(lost), bool), tolerance.accuracy_drop):
        failures.append(f"accuracy {right.mean():.4f}, Keras {keras_right.mean():.4f}")
    worst = [
        f"{number} ({right[c].mean():.3f}, Keras {keras_right[c].mean():.3f})"
        for number, c in enumerate(classes)
        if too_many(c, tolerance.class_accuracy_drop)
    ]
    if worst:
        failures.append(f"accuracy of class {', '.join(worst)}")
    return tuple(failures)


def _allowed(share: float, count: int) -> int:
    return max(1, int(share * count))
