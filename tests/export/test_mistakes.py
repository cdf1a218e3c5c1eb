"""What users get wrong ends in one clear message, and nothing is written."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from export import export_model
from export.convert.quiet import captured_stderr
from export.convert.recipes import RECIPES
from export.convert.to_tflite import to_tflite
from export.model.serving import describe
from fl_mobile.errors import ConfigError, ExportError, FlMobileError
from tests.export.convert.topologies import LABELS, Digits

pytestmark = pytest.mark.tf

# name → (changed arguments, error, words of its message)
ARGUMENTS: dict[str, tuple[Callable[[Digits], dict[str, Any]], type[FlMobileError], str]] = {
    "no-calibration-frames": (
        lambda d: {"recipes": ["float32", "int8"], "representative": None},
        ExportError,
        "'int8' measures activation ranges and needs representative frames",
    ),
    "empty-calibration": (
        lambda d: {"recipes": ["int8"], "representative": d.x_train[:0]},
        ExportError,
        r"representative frames: expected one or more frames of shape \[n, 8, 8, 1\], got \[0, 8, 8, 1\]",
    ),
    "calibration-shape": (
        lambda d: {"recipes": ["int8"], "representative": np.zeros((4, 28, 28, 1), np.uint8)},
        ExportError,
        r"representative frames: .*\[n, 8, 8, 1\], got \[4, 28, 28, 1\]",
    ),
    "calibration-normalised": (
        lambda d: {"recipes": ["int8"], "representative": d.x_train[:9] / 255},
        ExportError,
        "expected raw pixels, whole numbers 0..255",
    ),
    "frames-normalised": (
        lambda d: {"x_test": d.x_test.astype(np.float32) / 255},
        ExportError,
        "held-out frames: expected raw pixels.*normalises inside itself",
    ),
    "frames-shifted": (lambda d: {"x_test": d.x_test.astype(np.int16) - 128}, ExportError, "from -128"),
    "frames-nan": (lambda d: {"x_test": np.full(d.x_test.shape, np.nan)}, ExportError, "not finite"),
    "frames-text": (lambda d: {"x_test": d.x_test.astype(str)}, ExportError, "expected numbers"),
    "no-batch": (lambda d: {"x_test": d.x_test[0]}, ExportError, "held-out frames"),
    "label-count": (lambda d: {"labels": LABELS[:-1]}, ExportError, "labels: expected 10 names.*got 9"),
    "labels-empty": (lambda d: {"labels": []}, ExportError, "labels: expected 10 names.*got 0"),
    "label-blank": (lambda d: {"labels": [*LABELS[:-1], " "]}, ExportError, "non-empty names"),
    "label-newline": (lambda d: {"labels": [*LABELS[:-1], "nine\nten"]}, ExportError, "one printable line"),
    "label-twice": (lambda d: {"labels": [*LABELS[:-1], LABELS[0]]}, ExportError, "digit 0 more than once"),
    "labels-one-string": (lambda d: {"labels": "0123456789"}, ExportError, "labels: expected 10 names"),
    "recipe-unknown": (lambda d: {"recipes": ["int9"]}, ConfigError, "Did you mean 'int8'"),
    "recipe-twice": (lambda d: {"recipes": ["float32", "float32"]}, ExportError, "each name once"),
    "recipes-empty": (lambda d: {"recipes": []}, ExportError, "one or more names"),
    "recipes-one-string": (lambda d: {"recipes": "float32"}, ExportError, "expected a list"),
    "classes-one-hot": (lambda d: {"y_test": np.eye(10)[d.y_test]}, ExportError, "not one-hot"),
    "classes-short": (lambda d: {"y_test": d.y_test[:-1]}, ExportError, "expected 300 class numbers"),
    "classes-from-one": (lambda d: {"y_test": d.y_test + 1}, ExportError, r"expected 0\.\.9, got 1\.\.10"),
    "provenance": (lambda d: {"provenance": {"rounds": 3}}, ExportError, "provenance: expected text"),
    "input-dtype": (lambda d: {"input_dtype": "int8"}, ExportError, "'uint8' .raw pixels. or 'float32'"),
}


@pytest.mark.parametrize("mistake", ARGUMENTS)
def test_wrong_argument(mistake: str, model: Any, data: Digits, tmp_path: Path) -> None:
    change, error, message = ARGUMENTS[mistake]
    arguments: dict[str, Any] = {
        "recipes": ["float32"],
        "labels": LABELS,
        "representative": data.x_train[:20],
        "x_test": data.x_test,
        "y_test": data.y_test,
        "provenance": {},
    }
    with pytest.raises(error, match=message):
        export_model(model, tmp_path / "out", **{**arguments, **change(data)})
    assert list(tmp_path.iterdir()) == []


def test_output_folder_exists(model: Any, data: Digits, tmp_path: Path) -> None:
    (tmp_path / "mine.txt").write_text("keep")
    with pytest.raises(ExportError, match="exists already and is not overwritten"):
        export_model(
            model,
            tmp_path,
            recipes=["float32"],
            labels=LABELS,
            representative=None,
            x_test=data.x_test,
            y_test=data.y_test,
            provenance={},
        )
    assert [path.name for path in tmp_path.iterdir()] == ["mine.txt"]


def unbuilt() -> Any:
    import keras

    return keras.Sequential([keras.layers.Rescaling(1 / 255), keras.layers.Dense(10)])


def built_without_layers() -> Any:
    """``build`` marks a subclassed model as built although its layers are not: its weights would be random."""
    import keras

    class Late(keras.Model):
        def __init__(self) -> None:
            super().__init__(name="late")
            self.flat, self.head = keras.layers.Flatten(), keras.layers.Dense(10)

        def build(self, input_shape: Any) -> None:
            self.built = True

        def call(self, frame: Any) -> Any:
            return self.head(self.flat(frame))

    model = Late()
    model.build((None, 8, 8, 1))
    model._build_shapes_dict = {"input_shape": (None, 8, 8, 1)}
    return model


def nan_weights() -> Any:
    import keras

    layers = keras.layers
    model = keras.Sequential([layers.Input((8, 8, 1)), layers.Flatten(), layers.Dense(10, name="broken")])
    model.set_weights([np.full((64, 10), np.nan), np.zeros(10)])
    return model


def two_arguments() -> Any:
    import keras

    class Pair(keras.Model):
        def __init__(self) -> None:
            super().__init__(name="pair")
            self.head = keras.layers.Dense(10)

        def call(self, one: Any, two: Any) -> Any:
            return self.head(one + two)

    model = Pair()
    model(np.zeros((1, 4)), np.zeros((1, 4)))
    return model


def nested_inputs() -> Any:
    import keras

    one, two, three = (keras.Input((4,)) for _ in range(3))
    added = keras.layers.Add()([one, two, three])
    return keras.Model({"pair": [one, two], "other": three}, keras.layers.Dense(10)(added), name="nested")


def nested_outputs() -> Any:
    import keras

    frame = keras.Input((4,))
    ends = [keras.layers.Dense(10)(frame) for _ in range(3)]
    return keras.Model(frame, {"pair": ends[:2], "other": ends[2]}, name="nested")


def picture_out() -> Any:
    import keras

    return keras.Sequential([keras.layers.Input((8, 8, 1)), keras.layers.Conv2D(3, 1)])


def open_size() -> Any:
    import keras

    layers = keras.layers
    return keras.Sequential(
        [layers.Input((None, None, 3)), layers.Conv2D(4, 3), layers.GlobalAveragePooling2D(), layers.Dense(3)]
    )


def text_input() -> Any:
    import keras

    words = keras.Input((5,), dtype="string")
    return keras.Model(words, keras.layers.Lambda(lambda x: keras.ops.zeros((1, 3)), output_shape=(3,))(words))


def half_precision() -> Any:
    import keras

    layers = keras.layers
    return keras.Sequential([layers.Input((8, 8, 1)), layers.Flatten(), layers.Dense(10, dtype="mixed_float16")])


MODELS: dict[str, tuple[Callable[[], Any], str]] = {
    "not-a-model": (lambda: {"weights": 1}, "expected a Keras 3 model, got builtins.dict"),
    "unbuilt": (unbuilt, "is not built, so it has no weights yet"),
    "built-without-layers": (built_without_layers, "made 2 new weights while it was traced"),
    "nan-weights": (nan_weights, "broken/kernel': 640 of 640 values are not finite"),
    "two-arguments": (
        two_arguments,
        r"cannot run on one frame \(1, 4\): TypeError: missing a required argument: 'two'",
    ),
    "nested-inputs": (nested_inputs, "expected inputs in one list or dictionary, got them nested"),
    "nested-outputs": (nested_outputs, "expected outputs in one list or dictionary, got them nested"),
    "picture-out": (picture_out, r"expected an output \[batch, classes\].*exported without class labels"),
    "open-size": (open_size, "a phone needs a fixed size"),
    "text-input": (text_input, "expected an Input of numbers .*got dtype string"),
    "half-precision": (half_precision, "computes in float16.*Rebuild it with the float32 policy"),
}


@pytest.mark.parametrize("mistake", MODELS)
def test_wrong_model(mistake: str) -> None:
    make, message = MODELS[mistake]
    with pytest.raises(ExportError, match=message):
        to_tflite(make(), RECIPES["float32"])


def test_nan_answers_are_refused(data: Digits, tmp_path: Path) -> None:
    import keras

    layers = keras.layers
    model = keras.Sequential(
        [layers.Input((8, 8, 1)), layers.Flatten(), layers.Dense(10, activation=lambda x: keras.ops.log(x - 1e9))]
    )
    with pytest.raises(ExportError, match="answers NaN or Inf on 300 of 300"):
        export_model(
            model,
            tmp_path / "out",
            recipes=["float32"],
            labels=LABELS,
            representative=None,
            x_test=data.x_test,
            y_test=data.y_test,
            provenance={},
        )


def test_float_input_for_a_picture_when_the_caller_says_so(model: Any) -> None:
    serving = describe(model, "float32")
    assert serving.entry.dtype == "float32"
    assert not serving.is_image


def test_captured_stderr_keeps_python_messages_and_restores(capfd: pytest.CaptureFixture[str]) -> None:
    import os
    import sys

    before = sys.stderr
    with captured_stderr() as text:
        os.write(2, b"chatter from C++\n")
        assert "chatter" in text()
    assert sys.stderr is before
    os.write(2, b"after\n")
    assert capfd.readouterr().err == "after\n"


def test_captured_stderr_restores_after_an_error() -> None:
    import os

    def fail() -> None:
        with captured_stderr():
            raise KeyError("boom")

    where = os.fstat(2).st_ino
    with pytest.raises(KeyError):
        fail()
    assert os.fstat(2).st_ino == where
