"""Is the artifact the model? Both answer the same frames, and a recipe's tolerance decides.

Keras is the oracle; nothing of the converter is trusted. ``measure_parity`` only measures, ``check_parity`` refuses,
``verify_parity`` does both for a model and data. What counts as a difference: ``export.verify.parity``.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from export.convert.quiet import captured_stderr
from export.convert.recipes import Recipe
from export.convert.tolerances import Tolerance
from export.model.forms import InputForms
from export.model.frames import count_of, frames_for, take
from export.model.serving import SIGNATURE, Described, End, Frames, Serving, described, predict
from export.runtimes import real_values, run_frames
from export.tflite.graph import Artifact, Graph, read_graph
from export.verify.by_task import TaskTargets, score_failures
from export.verify.parity import OutputParity, Parity, compare, mean_or_none, value_range
from fl_mobile.errors import ExportError, VerifyError


@dataclass(frozen=True)
class Reference:
    """What Keras answers on the held-out frames, computed once for all recipes.

    Attributes:
        serving: How the model is served.
        frames: Input name → ``uint8`` or ``float32[n, ...]``.
        labels: Output name → ``int64[n]`` true classes, for the outputs that have them; may be empty.
        answers: Output name → ``float32[n, ...]`` from Keras; of the only output probabilities.
        corners: A frame of the least values and, where a greatest is known, one of those: a covered lens, a lamp.
        corner_answers: Output name → ``float32[1 or 2, ...]`` from Keras, which may hold NaN.
        told: Output name → what it should be; of a lone one where it is no classes of whole frames, of several heads
            for each.
    """

    serving: Serving
    frames: Frames
    labels: Mapping[str, np.ndarray]
    answers: Mapping[str, np.ndarray]
    corners: Frames
    corner_answers: Mapping[str, np.ndarray]
    told: Mapping[str, TaskTargets] = field(default_factory=dict)

    @property
    def samples(self) -> int:
        """Number of frames."""
        return count_of(self.frames)

    @property
    def accuracy(self) -> float | None:
        """Share of held-out frames Keras gets right, the mean over the outputs with labels; None without any."""
        return mean_or_none([float((self.answers[n].argmax(axis=1) == y).mean()) for n, y in self.labels.items()])


CORNERS = ("a frame of the least values", "a frame of the greatest values")


def corners_of(serving: Serving) -> Frames:
    """Returns a frame of the least values an input can hold (0 where none is known), and one of the greatest.

    The second is left out where no input has a known one.
    """
    ends = {entry.name: (0, 255) if entry.dtype == "uint8" else entry.span or (0.0, 0.0) for entry in serving.inputs}
    count = 2 if any(high for _, high in ends.values()) else 1
    return {
        entry.name: np.stack([np.full(entry.shape[1:], value, entry.dtype) for value in ends[entry.name][:count]])
        for entry in serving.inputs
    }


def make_reference(model: Any, x: Any, y: Any, *, input_dtype: InputForms = None) -> Reference:
    """Returns Keras' answers on ``x`` with the true classes ``y``.

    Args:
        model: A built Keras 3 model.
        x: As of ``reference_of``.
        y: As of ``reference_of``.
        input_dtype: See ``describe``.

    Raises:
        ExportError: ``model`` cannot be served, or ``x`` and ``y`` do not fit it.
    """
    return reference_of(described(model, input_dtype, classes=y is not None), x, y)


def reference_of(found: Described, x: Any, y: Any) -> Reference:
    """Returns Keras' answers on ``x`` with the true classes ``y``.

    Args:
        found: The model.
        x: Held-out frames, see ``frames_for``.
        y: Their classes ``int[n]``; of a model with several outputs a mapping by output name, at least one. None when
            no output is classes: then answers alone are compared.

    Raises:
        ExportError: ``x`` and ``y`` do not fit the model, or it answers NaN.
    """
    serving, model = found.serving, found.model
    frames = frames_for(serving, x, "held-out frames")
    labels = {end.name: _classes(end, part, count_of(frames)) for end, part in _by_output(serving, y)}
    answers, corners = predict(model, serving, frames), corners_of(serving)
    for name, rows in answers.items():
        bad = int((~np.isfinite(rows.reshape(len(rows), -1))).any(axis=1).sum())
        if bad:
            raise ExportError(
                f"model {model.name!r} answers NaN or Inf on {bad} of {len(rows)} held-out frames ({name})"
            )
    return Reference(serving, frames, labels, answers, corners, predict(model, serving, corners))


def _by_output(serving: Serving, y: Any) -> list[tuple[End, Any]]:
    names = [end.name for end in serving.outputs]
    if y is None:
        return []
    if isinstance(y, Mapping):
        odd = [name for name in y if name not in names]
        if odd or not y:
            raise ExportError(
                f"held-out labels: expected classes of one or more of the outputs {', '.join(names)},"
                f" got {', '.join(map(str, odd)) or 'none'}; give None when no output is classes"
            )
        return [(end, y[end.name]) for end in serving.outputs if end.name in y]
    if len(names) == 1:
        return [(serving.outputs[0], y)]
    raise ExportError(
        f"held-out labels: the model has {len(names)} outputs; give a mapping of {', '.join(names)} to the classes of"
        " those that are classes"
    )


def _classes(end: End, y: Any, count: int) -> np.ndarray:
    labels = np.asarray(y)
    if not end.num_classes:
        raise ExportError(
            f"held-out labels: output {end.name!r} {list(end.shape)} is no row of classes; give none for it"
        )
    if labels.shape != (count,) or labels.dtype.kind not in "ui":
        raise ExportError(
            f"held-out labels: expected {count} class numbers, got {labels.dtype}{list(labels.shape)}."
            " Give integers 0..classes-1, not one-hot rows."
        )
    if labels.min() < 0 or labels.max() >= end.num_classes:
        raise ExportError(f"held-out labels: expected 0..{end.num_classes - 1}, got {labels.min()}..{labels.max()}")
    return labels.astype(np.int64)


def measure_parity(reference: Reference, recipe: Recipe, artifact: Artifact, runtime: str = "litert") -> Parity:
    """Returns how ``artifact`` compares with Keras, without judging.

    Raises:
        VerifyError: The artifact cannot be read or run, or its ends do not fit the model's.
        ConfigError: The runtime is not known or not installed.
    """
    graph = read_graph(artifact)
    stored = run_frames(runtime, graph, reference.frames)
    return parity_of(reference, recipe, graph, stored, runtime=runtime)


def parity_of(
    reference: Reference, recipe: Recipe, graph: Graph, stored: Mapping[str, np.ndarray], *, runtime: str = "litert"
) -> Parity:
    """Returns how the rows ``stored`` that ``graph`` answered on the reference's frames compare with Keras.

    Corners are asked here. No closeness is wanted of their answers, since 8-bit recipes cut off what no calibrating
    frame reached; numbers are, where Keras answers numbers.

    Raises:
        VerifyError: Its ends do not fit the model's, or the runtime fails on a corner.
    """
    found = {end.name: real_values(end, stored[end.name]) for end in graph.signature(SIGNATURE).outputs}
    outputs = tuple(_of_output(reference, end, found, recipe) for end in reference.serving.outputs)
    several = len(outputs) > 1
    failures = [f"{end.output}: {words}" if several else words for end in outputs for words in end.failures]
    failures += _corner_failures(reference, graph, runtime)
    metrics: dict[str, tuple[float, float]] = {}
    for name, told in reference.told.items():
        both = told.compared(found[name], reference.answers[name])
        lost = score_failures(told.task, both, recipe.tolerance, reference.samples)
        failures += [f"{name}: {words}" for words in lost] if several else lost
        metrics |= {f"{name}/{metric}": pair for metric, pair in both.items()} if several else both
    return Parity(
        recipe=recipe.name,
        runtime=runtime,
        samples=reference.samples,
        outputs=outputs,
        weights=graph.weights,
        kernel_weights=reference.serving.kernel_weights,
        ops=graph.ops,
        failures=tuple(failures),
        metrics=metrics,
    )


def check_any_rows(graph: Graph, frames: Frames, stored: Mapping[str, np.ndarray], tolerance: Tolerance) -> None:
    """Holds the answers to several frames at once, after LiteRT resized the inputs, against those to single ones.

    Raises:
        VerifyError: It cannot be resized, or answers otherwise.
    """
    from ai_edge_litert.interpreter import Interpreter

    rows = slice(0, 3)
    with captured_stderr():
        try:
            interpreter = Interpreter(model_content=graph.data)
            found = interpreter.get_signature_runner(SIGNATURE)(**take(frames, rows))
        except (RuntimeError, ValueError) as error:
            raise VerifyError(f"its inputs cannot be resized to several rows: {error}") from error
    for end in graph.signature(SIGNATURE).outputs:
        once, apart = real_values(end, found[end.name]), real_values(end, stored[end.name][rows])
        if once.shape != apart.shape or not np.abs(once - apart).max() <= tolerance.replay_abs * value_range(apart):
            raise VerifyError(f"it answers several rows at once otherwise than one after the other ({end.name})")


def _corner_failures(reference: Reference, graph: Graph, runtime: str) -> list[str]:
    failures = []
    try:
        stored = run_frames(runtime, graph, reference.corners)
    except VerifyError as error:
        raise VerifyError(f"of {' and '.join(CORNERS[: count_of(reference.corners)])}: {error}") from error
    ends = {end.name: end for end in graph.signature(SIGNATURE).outputs}
    for name, wanted in reference.corner_answers.items():
        for kind, ours, theirs in zip(CORNERS, real_values(ends[name], stored[name]), wanted, strict=False):
            if np.isfinite(theirs).all() and not np.isfinite(ours).all():
                failures.append(f"NaN or Inf as an answer to {kind} ({name}), where Keras answers numbers")
    return failures


def _of_output(reference: Reference, end: End, found: Mapping[str, np.ndarray], recipe: Recipe) -> OutputParity:
    keras_rows = reference.answers[end.name]
    if end.name not in found or found[end.name].shape != keras_rows.shape:
        shape = found[end.name].shape[1:] if end.name in found else "nothing"
        raise VerifyError(
            f"the artifact answers {shape} values a frame for {end.name!r}, the model {keras_rows.shape[1:]}"
        )
    labels, probabilities = reference.labels.get(end.name), end.head != "values"
    return compare(
        output=end.name,
        rows=found[end.name],
        keras_rows=keras_rows,
        labels=labels,
        tolerance=recipe.tolerance,
        probabilities=probabilities,
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
    model: Any,
    artifact: Artifact,
    x: Any,
    y: Any,
    *,
    recipe: Recipe,
    runtime: str = "litert",
    input_dtype: InputForms = None,
) -> Parity:
    """Returns the parity of ``artifact`` with ``model`` on held-out ``x`` and ``y``.

    Raises:
        VerifyError: The artifact is damaged or is not the model.
        ExportError: The model or data cannot serve as a reference.
    """
    return check_parity(measure_parity(make_reference(model, x, y, input_dtype=input_dtype), recipe, artifact, runtime))
