"""Examples that tuned recipes train on: public or the server's own, never a device's unless the user says so.

```
a dataset's training part, or x and y of an .npz file
   └─▶ without what the devices hold ─▶ without what is held out for the proof ─▶ TuningSet
```
Public sets overlap: MNIST-5k is a part of MNIST. So examples are compared by their values, not by where they came from.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path

import numpy as np

from device_sim.datasets import Samples, load_dataset
from device_sim.datasets.npz import read_examples
from device_sim.experiment.experiment import Output
from export.convert.recipes import find_recipe
from export.tuning import TuningSet
from fl_mobile.errors import DataError


def open_tuning_set(
    output: Output, *, held_out: Samples, on_devices: Samples | None, seed: int, say: Callable[[str], None]
) -> TuningSet | None:
    """Returns the examples that ``output`` names for tuned recipes, None when none of its recipes is tuned.

    Args:
        output: [output] of an experiment.
        held_out: What calibrates and proves the bundle; never tuned on.
        on_devices: What devices hold; left out unless ``output.tuning_origin`` says that their owners agreed. None
            for a model that was not trained on devices.
        seed: Decides the order of examples, and the split of a dataset that has none.
        say: Told how many were left out.

    Raises:
        DataError: The examples cannot be read, or none is left.
        ConfigError: No dataset of that name.
    """
    if not any(find_recipe(name).tuning for name in output.recipes):
        return None
    examples = _read(output.tuning_data, seed)
    agreed = output.tuning_origin == "devices-agreed"
    keep = ~_among(examples.x, held_out.x)
    told = [f"{int((~keep).sum())} that are held out"]
    if on_devices is not None and not agreed:
        theirs = _among(examples.x, on_devices.x) & keep
        keep &= ~theirs
        told.append(f"{int(theirs.sum())} that devices hold")
    if not keep.any():
        raise DataError(
            f"output.tuning-data {output.tuning_data!r}: none of its {len(examples)} examples may be tuned on: it has"
            f" {' and '.join(told)}. Name other data, or if the devices' owners agreed that theirs are used set"
            " output.tuning-origin to devices-agreed."
        )
    if not keep.all():
        say(f"tuning: {int(keep.sum())} of {len(examples)} examples, without {' and '.join(told)}")
    return TuningSet(
        *(examples.x[keep], examples.y[keep], output.tuning_origin), epochs=output.tuning_epochs, seed=seed
    )


def _read(name: str, seed: int) -> Samples:
    """Returns all examples of an ``.npz`` file, or the training part of a dataset."""
    return read_examples(Path(name)) if name.endswith(".npz") else load_dataset(name, seed=seed).train


def _among(x: np.ndarray, others: np.ndarray) -> np.ndarray:
    """Returns ``bool[len(x)]``: which rows of ``x`` have the values of a row of ``others``.

    >>> _among(np.array([[1.0], [2.0]]), np.array([[2], [3]], np.uint8)).tolist()
    [False, True]
    """
    known = {_digest(row) for row in others}
    return np.array([_digest(row) in known for row in x])


def _digest(row: np.ndarray) -> bytes:
    values = np.ascontiguousarray(row, np.float32)
    return hashlib.blake2b(values.tobytes(), digest_size=16, person=str(values.shape).encode()[:16]).digest()
