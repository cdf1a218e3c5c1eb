"""The held-out part of a dataset as what calibrates and proves a bundle."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from device_sim.datasets import Dataset
from device_sim.run.for_phone import phone_task
from export import BundleReport, export_model
from export.bundles.phone_task import PhoneTask
from export.bundles.signing import SigningKey
from export.convert.recipes import AUTO, asked_for
from export.model.forms import InputForms
from export.model.frames import NO_OUTPUT, calibration_split, form_of
from export.model.serving import Described, described, list_ends
from export.report.facts import NOTHING_KNOWN, TrainingFacts
from export.tuning import TuningSet
from export.verify.by_task import TaskTargets
from fl_mobile.errors import ConfigError, ExportError
from fl_mobile.models.finish import standardize_layers, with_answers, with_ends
from fl_mobile.models.heads import head_of
from fl_mobile.tasks.table import CLASSIFICATION

Say = Callable[[str], None]


def export_with_held_out(
    model: Any,
    out: Path,
    dataset: Dataset,
    seed: int,
    *,
    recipes: Sequence[str],
    provenance: dict[str, str],
    say: Say,
    labels: Sequence[str] | None = None,
    tuning: TuningSet | None = None,
    training: TrainingFacts = NOTHING_KNOWN,
    sign_with: SigningKey | None = None,
    keep_float: Sequence[str] = (),
    forms: InputForms = None,
    output: str = "",
    batch: int = 1,
    targets: Sequence[str] = (),
    loss: str = "",
    hop: int | None = None,
) -> BundleReport:
    """Exports ``model``; calibrates on 100 held-out examples and proves parity on all the others.

    The held-out part belongs to the server: no device's example decides a range that ships in the file, and no
    example that calibrated is counted as proof.

    Args:
        model: A built Keras 3 model.
        out: The bundle, a folder that does not exist.
        dataset: Whose held-out part is used.
        seed: Of the split.
        recipes: Variants.
        provenance: Copied into the bundle.
        say: Told before each step.
        labels: Class names; the dataset's by default.
        tuning: What tuned recipes train on.
        training: What is known about how the model came about.
        sign_with: Signs the bundle.
        keep_float: Layers that 8-bit recipes leave in float.
        forms: What inputs are given; by default what the dataset holds.
        output: Of several outputs the one whose classes the dataset's labels are; ``"none"`` if none is.
        batch: Rows that an artifact answers at once; 0 for any number.
        targets: Runtimes that decide besides those that ship.
        loss: What the model was trained with, where that is known.
        hop: Samples between windows of recordings, where it was said.
    """
    calibration, proof = calibration_split(len(dataset.test), seed)
    model = finished(model, dataset, loss)
    quantised = any(row is AUTO or row.weight_bits == 8 for row in map(asked_for, recipes))
    if dataset.scaling is not None and quantised:  # features of several sizes share no 8-bit grid
        keep_float = tuple(dict.fromkeys((*keep_float, *standardize_layers(dataset.ports))))
    classes = output != NO_OUTPUT and answers_classes(model, dataset)
    found = described(model, forms_of(dataset) if forms is None else forms, classes=classes, batch=batch)
    end = _labelled(found, dataset.num_classes, output, say) if classes else None
    told: TaskTargets | dict[str, TaskTargets] | None = None
    classes_of: dict[str, Any] | None = None if end is None else {end: dataset.test.y[proof]}
    names = dataset.labels if labels is None else labels
    names_of: dict[str, Sequence[str]] | None = None if end is None else {end: names}
    if dataset.heads:
        told = _told_by_head(dataset, found, proof)
        classes_of, names_of = _classes_by_head(dataset, told)
    elif dataset.task != CLASSIFICATION and len(found.serving.outputs) == 1:
        told = TaskTargets(dataset.task, in_units(dataset, dataset.test.y[proof]))
    elif end is None:
        say("no output is classes of this dataset: answers alone are compared with Keras")
    return export_model(
        found,
        out,
        recipes=recipes,
        labels=names_of,
        representative=frames_of(dataset, dataset.test.x[calibration]),
        x_test=frames_of(dataset, dataset.test.x[proof]),
        y_test=classes_of,
        targets=targets,
        told=told,
        phone=_for_phone(found, dataset, end, names, hop),
        provenance=provenance,
        progress=say,
        tuning=tuning,
        training=training,
        sign_with=sign_with,
        keep_float=keep_float,
    )


def _for_phone(
    found: Described, dataset: Dataset, end: str | None, names: Sequence[str], hop: int | None
) -> PhoneTask | None:
    """Returns what an app has to know of the task, None of a model that is not asked for it alone."""
    serving = found.serving
    if (
        dataset.ends
        or len(serving.inputs) != 1
        or len(serving.outputs) != 1
        or (dataset.task == CLASSIFICATION and end is None)
    ):
        return None
    told = phone_task(dataset, hop)
    if told.names:
        told = replace(told, names=tuple(names))
    width = serving.end.shape[-1]
    fits = len(told.vocabulary if told.answers_next else told.names) in (0, width)
    return told if fits else replace(told, names=(), vocabulary=(), answers_next=False)


def refuse_tuned(recipes: Sequence[str]) -> None:
    """Raises `ConfigError` for recipes that train further on public data, of a model with several inputs or heads."""
    if tuned := [name for name in recipes if asked_for(name).tuning]:
        raise ConfigError(
            f"output.recipes {', '.join(tuned)}: tuning further on public data is for one input and one head; take int8"
        )


def frames_of(dataset: Dataset, x: np.ndarray) -> Any:
    """Returns examples as export takes them: by name where a model has several inputs."""
    found = dataset.inputs(x)
    return next(iter(found.values())) if len(dataset.ports) == 1 else found


def forms_of(dataset: Dataset) -> InputForms:
    """Returns what inputs are given, as `form_of` sees it in each."""
    if not dataset.ports:
        return form_of(dataset.test.x)
    forms = {name: form_of(part) for name, part in dataset.inputs(dataset.test.x).items()}
    if len(forms) == 1:
        return next(iter(forms.values()))
    return {name: form for name, form in forms.items() if isinstance(form, str)} or None


def _told_by_head(dataset: Dataset, found: Described, proof: np.ndarray) -> dict[str, TaskTargets]:
    """Returns output name → what it should be; a lone output has a name of its own."""
    ends, told = found.serving.outputs, dataset.told(dataset.test.y[proof])
    names = {head.name: ends[0].name if len(ends) == 1 else head.name for head in dataset.heads}
    return {names[head.name]: TaskTargets(head.task, told[head.name]) for head in dataset.heads}


def _classes_by_head(
    dataset: Dataset, told: dict[str, TaskTargets]
) -> tuple[dict[str, Any] | None, dict[str, Sequence[str]] | None]:
    """Returns targets and labels of the outputs that are a row of classes."""
    rows = [
        (name, target.y, (dataset.ends.labels if dataset.ends else {})[head.name])
        for (name, target), head in zip(told.items(), dataset.heads, strict=True)
        if target.task == CLASSIFICATION and head.answer[-1] > 1
    ]
    return ({n: y for n, y, _ in rows}, {n: labels for n, _, labels in rows}) if rows else (None, None)


def finished(model: Any, dataset: Dataset, loss: str) -> Any:
    """Returns the model with the end that a phone needs: see `fl_mobile.models.finish.with_answers`."""
    scaling = dataset.scaling
    units: dict[str, Sequence[float]] = {
        "mean": () if scaling is None else scaling.target_mean.tolist(),
        "spread": () if scaling is None else scaling.target_spread.tolist(),
    }
    if dataset.ends is not None:
        return with_ends(model, dataset.ports, dataset.task, loss=loss, **units)
    if not getattr(model, "outputs", None) or len(model.outputs) != 1:
        return model
    if dataset.task == CLASSIFICATION and (not loss or model.outputs[0].shape[-1] != 1):
        return model
    logits = head_of(model, dataset.test.x[:8]) == "logits"
    return with_answers(model, dataset.task, loss=loss, from_logits=logits, **units)


def in_units(dataset: Dataset, y: np.ndarray) -> np.ndarray:
    """Returns targets as they came: numbers that were standardised in their own units again."""
    scaling = dataset.scaling
    if scaling is None or not len(scaling.target_mean):
        return y
    return np.asarray(y * scaling.target_spread + scaling.target_mean, np.float32)


def answers_classes(model: Any, dataset: Dataset) -> bool:
    """Returns whether an output of ``model`` may be scores of the dataset's classes."""
    if dataset.task != CLASSIFICATION:
        return False
    shape = getattr(model, "output_shape", None)
    return not isinstance(shape, tuple) or len(shape) == 2


def _labelled(found: Described, num_classes: int, wanted: str, say: Say) -> str | None:
    """Returns the output whose classes the dataset's labels are, None when there is none."""
    outputs = found.serving.outputs
    if wanted:
        if wanted not in [end.name for end in outputs]:
            raise ExportError(f"--output {wanted}: the model has {list_ends(outputs)}; 'none' if no output is classes")
        return wanted
    if len(outputs) == 1:
        return outputs[0].name
    fitting = [end.name for end in outputs if end.num_classes == num_classes]
    if len(fitting) > 1:
        raise ExportError(
            f"{len(fitting)} outputs have {num_classes} classes, as the dataset: {', '.join(fitting)}. Say whose"
            " classes its labels are: --output NAME"
        )
    if fitting:
        say(f"output {fitting[0]!r}: its classes are the dataset's labels")
    return fitting[0] if fitting else None
