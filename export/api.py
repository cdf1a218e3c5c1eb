"""``export.bundle``: a model and frames of one's own, and a proven bundle comes out."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from export.bundles.folder import refuse_existing
from export.bundles.signing import SigningKey
from export.convert.recipes import CORE_RECIPES
from export.model.ends import IMAGE_INPUT
from export.model.forms import InputForms
from export.model.frames import NO_OUTPUT, calibration_split, form_of
from export.model.serving import Described, described, list_ends
from export.pipeline import export_model
from export.report.facts import NOTHING_KNOWN, TrainingFacts
from export.report.report import BundleReport
from fl_mobile.errors import ExportError

X = "x"


def bundle(
    model: Any,
    frames: Any,
    *,
    out: str | Path,
    labels: Sequence[str] | None = None,
    y: Any = None,
    recipes: Sequence[str] = CORE_RECIPES,
    inputs: InputForms = None,
    output: str = "",
    keep_float: Sequence[str] = (),
    batch: int = 1,
    targets: Sequence[str] = (),
    training: TrainingFacts = NOTHING_KNOWN,
    sign_with: SigningKey | None = None,
    provenance: Mapping[str, str] | None = None,
    progress: Callable[[str], None] | None = None,
) -> BundleReport:
    """Writes ``model`` as TFLite that is proven to answer as Keras does, to the new folder ``out``.

    100 frames, at most half of them, calibrate the 8-bit recipes, and all others prove; none does both. A recipe that
    does not pass costs no other: ``unmade`` of what is returned says why.

    Args:
        model: A built Keras 3 model.
        frames: Raw frames ``[n, ...]`` that no device has to be asked for, two or more; of a model with several inputs
            a mapping by input name.
        out: A folder that does not exist.
        labels: Names of the classes, in output order; numbers where only ``y`` is given, none where it is not either.
        y: True classes ``int[n]`` of the frames. With them accuracy is told; without, answers are compared.
        recipes: Names from ``export.RECIPES``, ``package.module:name`` of one's own, or ``"auto"`` for the smallest
            file that passes.
        inputs: What inputs are given: ``"uint8"``, ``"int32"``, ``"float32"`` or ``"float32:LOW..HIGH"``, for all or
            by name; without it what the frames are.
        output: Of several outputs the one that ``labels`` and ``y`` are about; ``"none"`` ignores both.
        keep_float: Keras layers that 8-bit recipes leave in float32.
        batch: Rows that an artifact answers at once; 0 for any number.
        targets: Runtimes or hardware that decide besides those that ship.
        training: What is known about how the model came about, for its card.
        sign_with: Signs the bundle.
        provenance: Where the model comes from, text for text; by default the SHA-256 of the frames.
        progress: Called with one line before each step.

    Raises:
        ExportError: Model and frames do not fit, ``out`` exists, or nothing could be made of any recipe.
        ConfigError: A recipe or target is not known.
        VerifyError: The artifact of the only recipe is not the model.
    """
    refuse_existing(Path(out))
    held = _arrays(frames)
    if output == NO_OUTPUT:
        y = labels = None
    given = _forms(model, held, batch) if inputs is None else inputs
    found = described(model, given, classes=y is not None or bool(labels), batch=batch)
    by_input = _by_input(found, held)
    truth = None if y is None else _true_classes(y, len(next(iter(by_input.values()))))
    end = _labelled(found, output) if truth is not None or labels else None
    calibration, proof = calibration_split(len(next(iter(by_input.values()))), seed=0)
    if truth is None and progress:
        progress("no true classes: answers alone are compared with Keras")
    classes = next((one.num_classes for one in found.serving.outputs if one.name == end), 0)
    return export_model(
        found,
        out,
        recipes=[recipes] if isinstance(recipes, str) else recipes,
        labels=None if end is None else {end: labels or [str(number) for number in range(classes)]},
        representative={name: part[calibration] for name, part in by_input.items()},
        x_test={name: part[proof] for name, part in by_input.items()},
        y_test=None if end is None or truth is None else {end: truth[proof]},
        provenance={"frames_sha256": _sha256(by_input)} if provenance is None else provenance,
        progress=progress,
        training=training,
        sign_with=sign_with,
        keep_float=keep_float,
        targets=targets,
    )


def _arrays(frames: Any) -> dict[str, np.ndarray]:
    held = {name: np.asarray(part) for name, part in (frames if isinstance(frames, Mapping) else {X: frames}).items()}
    lengths = {name: len(part) if part.ndim else 0 for name, part in held.items()}
    if len(set(lengths.values())) != 1 or min(lengths.values()) < 2:
        told = next(iter(lengths.values())) if list(lengths) == [X] else lengths
        raise ExportError(f"frames: expected two or more, a row of every array for each, got {told or 'none'}")
    return held


def _true_classes(y: Any, count: int) -> np.ndarray:
    truth = np.asarray(y)
    if truth.shape != (count,):
        raise ExportError(f"y: expected {count} classes, one a frame, got {truth.dtype}{list(truth.shape)}")
    return truth


def _forms(model: Any, arrays: Mapping[str, np.ndarray], batch: int) -> InputForms:
    """Returns the form of every picture whose array says that it holds no raw pixels."""
    names = [entry.name for entry in described(model, classes=False, batch=batch).serving.inputs]
    only = {names[0]: next(iter(arrays.values()))} if len(names) == len(arrays) == 1 else arrays
    found = {name: form_of(only[name]) for name in names if name in only}
    return {name: form for name, form in found.items() if isinstance(form, str)} or None


def _by_input(found: Described, arrays: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    names = [entry.name for entry in found.serving.inputs]
    if len(names) == 1 and len(arrays) == 1 and next(iter(arrays)) in (X, IMAGE_INPUT, names[0]):
        return {names[0]: next(iter(arrays.values()))}
    if arrays.keys() != set(names):
        raise ExportError(
            f"frames: expected an array for each of the model's inputs {list_ends(found.serving.inputs)}, got"
            f" {', '.join(map(str, arrays))}"
        )
    return dict(arrays)


def _labelled(found: Described, output: str) -> str:
    names = [end.name for end in found.serving.outputs]
    if output in names:
        return output
    if len(names) == 1 and not output:
        return names[0]
    raise ExportError(
        f"classes are those of one of the outputs {list_ends(found.serving.outputs)}: say which with --output NAME"
        f" (in Python output=NAME), or '{NO_OUTPUT}'"
    )


def _sha256(frames: Mapping[str, np.ndarray]) -> str:
    digest = hashlib.sha256()
    for name, part in frames.items():
        digest.update(f"{name} {part.dtype}{list(part.shape)}".encode())
        digest.update(np.ascontiguousarray(part).tobytes())
    return digest.hexdigest()
