"""SavedModel → flatbuffer, here or in processes of its own.

``TFLiteConverter.convert`` keeps about twice the model's weights in memory on every call and never gives them back
(tf#122598; TF 2.21 with MobileNetV2: 17 MB a call). One small export does not notice; larger models are converted in
a child that ends with the export and takes its memory along.
"""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from export.convert.calibration import splits_integers, with_ranges
from export.convert.child import child_environment
from export.convert.recipes import Calibration, Recipe, asked_for, found_by
from export.model.serving import SIGNATURE, Frames
from fl_mobile.errors import ExportError
from fl_mobile.models.private_api import calibrated_by, converted, saved_model_converter
from fl_mobile.storage.npz import read_arrays
from fl_mobile.table import told_with_place

# Folder of a SavedModel, recipe, whether both ends become uint8, and frames [n, batch, ...] by input name in the dtypes
# it was traced with, or None → flatbuffer. May raise anything.
Converter = Callable[[str, Recipe, bool, Frames | None], bytes]

# Fifty conversions of a model of this size keep 100 MB, a seventh of what TensorFlow takes by itself.
_ISOLATED_FROM_BYTES = 2**20
_CHILD = "from export.convert.conversion import main; main()"


@contextlib.contextmanager
def converter_for(parameters: int) -> Iterator[Converter]:
    """Yields how a model of so many weights is converted as long as the block runs."""
    if 4 * parameters < _ISOLATED_FROM_BYTES:
        yield convert_here
        return
    with convert_apart() as convert:
        yield convert


def convert_here(folder: str, recipe: Recipe, integer_frames: bool, frames: Frames | None) -> bytes:
    """Converts in this process, whose memory grows with every call."""
    import tensorflow as tf

    converter = saved_model_converter(folder, [SIGNATURE])
    converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS]
    try:
        recipe.configure(converter, None if frames is None else _calibration(frames))
    except Exception as error:  # may be somebody's own code
        raise ExportError(f"recipe {recipe.name!r}: {told_with_place(error)}") from error
    if integer_frames:
        converter.inference_input_type = tf.uint8
        converter.inference_output_type = tf.uint8
    if frames is not None:
        calibrated_by(converter, with_ranges, splits_integers)
    return converted(converter)


class Apart:
    """A converter that works in child processes; ask `convert_apart` for it.

    It gives the same bytes and the same errors, as ``ExportError`` with the converter's own words. Only recipes that
    another process finds by name can be asked for.
    """

    def __init__(self) -> None:
        self._workers = [_Worker()]  # which imports TensorFlow while the caller goes on
        self._count = 0

    def calibrate_apart(self) -> None:
        """Lets one more child do the calibrations, each of which takes longer than all other conversions together."""
        if len(self._workers) == 1:
            self._workers.append(_Worker())

    def ahead(self, folder: str, recipe: Recipe, integer_frames: bool, frames: Frames | None) -> None:
        """Lets a child begin with what will be asked for later; what goes wrong is told then."""
        number, self._count = self._count, self._count + 1
        files = {
            "frames": f"frames-{number}.npz" if frames is not None else "",
            "artifact": f"artifact-{number}.tflite",
        }
        if frames is not None:
            arrays: dict[str, Any] = dict(frames)
            np.savez(Path(folder) / files["frames"], **arrays)
        job = {"folder": folder, "recipe": found_by(recipe), "integer_frames": integer_frames, **files}
        worker = self._workers[0 if frames is None else -1]
        worker.begin(_key(folder, recipe, integer_frames), job)

    def __call__(self, folder: str, recipe: Recipe, integer_frames: bool, frames: Frames | None) -> bytes:
        """Returns the flatbuffer, of what was asked for ahead or of what is asked for now."""
        key = _key(folder, recipe, integer_frames)
        if not any(key in worker.asked for worker in self._workers):
            self.ahead(folder, recipe, integer_frames, frames)
        artifact = next(worker for worker in self._workers if key in worker.asked).answer(key, recipe)
        data = (Path(folder) / artifact).read_bytes()
        (Path(folder) / artifact).unlink()
        return data

    def close(self) -> None:
        """Ends the children."""
        for worker in self._workers:
            worker.close()


class _Worker:
    """One child process and what it was asked for, in order."""

    def __init__(self) -> None:
        self.asked: list[str] = []
        self._artifacts: list[str] = []
        self._errors: list[str] = []
        self._child = subprocess.Popen(
            [sys.executable, "-c", _CHILD],
            env=child_environment(),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )

    def begin(self, key: str, job: dict[str, Any]) -> None:
        """Hands the child a job; it works on them in turn."""
        self.asked.append(key)
        self._artifacts.append(job["artifact"])
        with contextlib.suppress(OSError, ValueError):  # it died: told when its answer is missing
            if self._child.stdin is not None:
                self._child.stdin.write(json.dumps(job) + "\n")
                self._child.stdin.flush()

    def answer(self, key: str, recipe: Recipe) -> str:
        """Returns the file name of what was asked for by ``key``, once; waits for it."""
        number = self.asked.index(key)
        while len(self._errors) <= number:
            self._errors.append(self._next(recipe))
        self.asked[number] = ""  # asked for again, it is converted again
        if error := self._errors[number]:
            raise ExportError(error)
        return self._artifacts[number]

    def _next(self, recipe: Recipe) -> str:
        with contextlib.suppress(OSError, ValueError):  # it died before, or while it worked: no line to read
            if self._child.stdout is not None:
                return str(json.loads(self._child.stdout.readline())["error"])
        code = self._child.wait()
        raise ExportError(f"error: the converter's process ended with code {code} at recipe {found_by(recipe)!r}")

    def close(self) -> None:
        """Ends the child; between two jobs it has nothing to lose."""
        self._child.kill()
        self._child.communicate()


def _key(folder: str, recipe: Recipe, integer_frames: bool) -> str:
    return f"{folder} {found_by(recipe)} {integer_frames}"


@contextlib.contextmanager
def convert_apart() -> Iterator[Apart]:
    """Yields a converter that works in child processes; they end with the block."""
    convert = Apart()
    try:
        yield convert
    finally:
        convert.close()


def main() -> None:
    """The child: one job a line on stdin, one answer a line on stdout."""
    answers = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)  # what libraries print is no answer
    import tensorflow  # noqa: F401  # before the first job comes

    for line in sys.stdin:
        answers.write(json.dumps({"error": _done(**json.loads(line))}) + "\n")


def _done(folder: str, recipe: str, integer_frames: bool, frames: str, artifact: str) -> str:
    """Does one job and returns what went wrong, empty when nothing did."""
    from export.convert.quiet import captured_stderr

    with captured_stderr() as chatter:
        try:
            arrays = read_arrays(Path(folder) / frames) if frames else None
            data = convert_here(folder, asked_for(recipe), integer_frames, arrays)
            (Path(folder) / artifact).write_bytes(data)
        except Exception as error:  # the converter raises ValueError, RuntimeError, ConverterError and more
            return f"{type(error).__name__}: {error}\n{chatter()}"
    return ""


def _calibration(frames: Frames) -> Calibration:
    def each() -> Iterator[dict[str, Any]]:
        for index in range(len(next(iter(frames.values())))):
            yield {name: part[index] for name, part in frames.items()}

    return each
