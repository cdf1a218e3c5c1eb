"""A model file proven on a user's own frames: one array an input, labels where there are any.

```
frames.npz: camera [n, …], sensors [n, …], y [n] ──100 calibrate, the others prove──▶ export_model
```
A dataset has one array of examples; a model may have several inputs, and no classes at all.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from device_sim.datasets.records import check_array_bytes
from device_sim.run.held_out import NO_OUTPUT, calibration_split, form_of
from export import BundleReport, export_model
from export.bundle.signing import SigningKey
from export.model.ends import IMAGE_INPUT
from export.model.forms import InputForms
from export.model.serving import Described, described, list_ends
from export.report.facts import TrainingFacts
from fl_mobile.errors import DataError, ExportError
from fl_mobile.storage.npz import Header, read_arrays

X, Y = "x", "y"


def read_frames(path: Path) -> dict[str, np.ndarray]:
    """Returns the arrays of the file at ``path``; each has a row a frame.

    Raises:
        DataError: It is not there, damaged, holds no frames, or arrays of several lengths.
    """

    def check(header: Header) -> None:
        if not header.shape or header.dtype.kind not in "uifb":
            raise DataError(f"{path}: '{header.name}' is {header.dtype}{header.shape}, expected numbers [n, ...]")
        check_array_bytes(f"{path}: '{header.name}'", header.shape, header.dtype.itemsize)

    try:
        arrays = read_arrays(path, check=check)
    except (OSError, ValueError) as error:
        raise DataError(f"{path}: cannot be read as an .npz file: {error}. Write it with numpy.savez(...).") from error
    lengths = {name: len(array) for name, array in arrays.items()}
    if len(set(lengths.values())) != 1 or min(lengths.values()) < 2:
        raise DataError(f"{path}: expected two or more frames, a row of every array for each, got {lengths}")
    return arrays


def export_with_frames(
    model: Any,
    out: Path,
    path: Path,
    *,
    recipes: Sequence[str],
    say: Callable[[str], None],
    labels: Sequence[str] | None = None,
    training: TrainingFacts,
    sign_with: SigningKey | None = None,
    keep_float: Sequence[str] = (),
    forms: InputForms = None,
    output: str = "",
    batch: int = 1,
    targets: Sequence[str] = (),
) -> BundleReport:
    """Exports ``model``; 100 frames of the file, at most half, calibrate and all others prove.

    Args:
        model: A built Keras 3 model.
        out: The bundle, a folder that does not exist.
        path: ``.npz`` with an array per input, by its name; ``x`` will do for the only one. ``y`` are classes of the
            output called ``output``, or of the only one.
        recipes: Variants.
        say: Told before each step.
        labels: Class names; numbers by default.
        training: What is known about how the model came about.
        sign_with: Signs the bundle.
        keep_float: Layers that 8-bit recipes leave in float.
        forms: What inputs are given; by default what the arrays hold.
        output: The output that ``y`` is about; ``"none"`` ignores ``y``.
        batch: Rows that an artifact answers at once; 0 for any number.
        targets: What decides besides the runtimes that ship.

    Raises:
        DataError: The file cannot be read.
        ExportError: Its arrays are not the model's inputs, or as ``export_model``.
    """
    arrays = read_frames(path)
    y = arrays.pop(Y, None) if output != NO_OUTPUT else None
    if output == NO_OUTPUT:
        arrays.pop(Y, None)
    given = _forms(model, arrays, batch) if forms is None else forms
    found = described(model, given, classes=y is not None, batch=batch)
    frames = _by_input(found, arrays, path)
    end = None if y is None else _labelled(found, output, path)
    calibration, proof = calibration_split(len(next(iter(frames.values()))), seed=0)
    if end is None:
        say("no output is classes: answers alone are compared with Keras")
    classes = 0 if end is None else next(one.num_classes for one in found.serving.outputs if one.name == end)
    return export_model(
        found,
        out,
        recipes=recipes,
        labels=None if end is None else {end: labels or [str(number) for number in range(classes)]},
        representative={name: part[calibration] for name, part in frames.items()},
        x_test={name: part[proof] for name, part in frames.items()},
        y_test=None if end is None or y is None else {end: y[proof]},
        provenance={"frames_sha256": hashlib.sha256(path.read_bytes()).hexdigest()},
        progress=say,
        training=training,
        sign_with=sign_with,
        keep_float=keep_float,
        targets=targets,
    )


def _forms(model: Any, arrays: Mapping[str, np.ndarray], batch: int) -> InputForms:
    """Returns the form of every picture whose array says that it holds no raw pixels."""
    names = [entry.name for entry in described(model, classes=False, batch=batch).serving.inputs]
    only = {names[0]: next(iter(arrays.values()))} if len(names) == len(arrays) == 1 else arrays
    found = {name: form_of(only[name]) for name in names if name in only}
    return {name: form for name, form in found.items() if isinstance(form, str)} or None


def _by_input(found: Described, arrays: Mapping[str, np.ndarray], path: Path) -> dict[str, np.ndarray]:
    names = [entry.name for entry in found.serving.inputs]
    if len(names) == 1 and len(arrays) == 1 and next(iter(arrays)) in (X, IMAGE_INPUT, names[0]):
        return {names[0]: next(iter(arrays.values()))}
    if arrays.keys() != set(names):
        raise ExportError(
            f"{path}: expected an array for each of the model's inputs {list_ends(found.serving.inputs)} and, of a"
            f" classifier, '{Y}'; it holds {', '.join(arrays) or 'nothing else'}"
        )
    return dict(arrays)


def _labelled(found: Described, output: str, path: Path) -> str:
    names = [end.name for end in found.serving.outputs]
    if output in names:
        return output
    if len(names) == 1 and not output:
        return names[0]
    raise ExportError(
        f"{path}: '{Y}' is about one of the outputs {list_ends(found.serving.outputs)}: say which with --output NAME,"
        f" or '{NO_OUTPUT}'"
    )
