"""Ranges of activations are those of what Keras computes, the same every time, and the quantisers read them."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
import pytest

from export.convert import conversion
from export.convert.calibration import splits_integers, with_ranges
from export.convert.recipes import find_recipe
from export.convert.saved import saved_models
from export.convert.to_tflite import make_artifact, to_tflite
from export.model.serving import described
from export.tflite.editing import op_name, read_model
from export.tflite.graph import read_graph
from tests.export.zoo.build import frames_of
from tests.export.zoo.table import built

pytestmark = pytest.mark.tf


def layers() -> Any:
    """A model of several operations, each layer's answer a tensor of its own."""
    keras.utils.set_random_seed(3)
    start = x = keras.Input((12,))
    for units, activation in ((16, "relu"), (8, "tanh"), (8, "sigmoid"), (4, None)):
        x = keras.layers.Dense(units, activation)(x)
    return keras.Model(start, x)


def float_file(model: Any) -> bytes:
    """Returns what is calibrated."""
    return to_tflite(model, find_recipe("float32"))


def samples(frames: dict[str, np.ndarray], batch: int = 1) -> Any:
    """Yields frames as the converter reads them."""
    count = len(next(iter(frames.values())))
    return lambda: ({name: part[i : i + batch] for name, part in frames.items()} for i in range(0, count, batch))


def ranges_of(data: bytes | None) -> dict[str, tuple[float, float]]:
    """Returns tensor name → range, of those that tell one."""
    assert data is not None
    told = {}
    for tensor in read_model(data).subgraphs[0].tensors:
        if tensor.quantization is not None and tensor.quantization.min is not None:
            told[tensor.name.decode()] = (float(tensor.quantization.min[0]), float(tensor.quantization.max[0]))
    return told


def test_ranges_are_those_of_keras() -> None:
    model = layers()
    frames = np.random.default_rng(0).standard_normal((20, 12)).astype(np.float32)
    name = described(model, classes=False).serving.inputs[0].name
    told = list(ranges_of(with_ranges(float_file(model), samples({name: frames}))).values())
    answers = keras.Model(model.input, [layer.output for layer in model.layers[1:]])(frames)
    for want in [frames, *map(np.asarray, answers)]:
        near = [np.allclose(got, (want.min(), want.max()), rtol=1e-5, atol=1e-6) for got in told]
        assert any(near), f"no tensor reaches from {want.min()} to {want.max()}: {told}"


@pytest.mark.parametrize("recipe", ["int8", "int16x8"])
@pytest.mark.parametrize("kind", ["lstm", "layer-norm"])
def test_no_value_comes_from_what_an_operation_left_in_its_input(
    kind: str, recipe: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """TensorFlow's calibrator tells sigmoids below 0, and variances of memory that nobody has written to."""
    asked: list[tuple[bytes, bytes | None]] = []

    def spied(data: bytes, of: Any) -> bytes | None:
        asked.append((data, with_ranges(data, of)))
        return asked[-1][1]

    monkeypatch.setattr(conversion, "with_ranges", spied)
    found = described(built(kind), classes=False)
    frames = frames_of(found.serving, 8)
    with saved_models(found, conversion.convert_here) as saved:
        for _ in range(2):
            make_artifact(saved, find_recipe(recipe), frames)
    assert asked[0] == asked[1], "the same frames"
    ranges, model, seen = ranges_of(asked[0][1]), read_model(asked[0][0]), 0
    bounded = {"LOGISTIC": (0.0, 1.0), "TANH": (-1.0, 1.0), "RSQRT": (0.0, np.inf)}
    for operator in model.subgraphs[0].operators:
        if (bounds := bounded.get(op_name(model, operator))) is not None:
            low, high = ranges[model.subgraphs[0].tensors[int(operator.outputs[0])].name.decode()]
            assert bounds[0] <= low <= high <= bounds[1]
            seen += 1
    assert seen


def test_recurrent_layers_in_8_bits_are_integers_and_the_same_every_time() -> None:
    """Of six conversions of this GRU TensorFlow's quantiser left a float32 SPLIT in two; the other four were alike."""
    found = described(built("gru"), classes=False)
    frames = frames_of(found.serving, 8)
    with saved_models(found, conversion.convert_here) as saved:
        made = {make_artifact(saved, find_recipe("int8"), frames).data for _ in range(6)}
        plain = make_artifact(saved, find_recipe("float32"), None, calibrated=True).data
    assert len(made) == 1
    assert splits_integers(made.pop())
    assert "SPLIT" in read_graph(plain).ops
    assert not splits_integers(plain)


def test_ranges_are_of_all_frames_in_any_batches() -> None:
    model = layers()
    name = described(model, classes=False).serving.inputs[0].name
    frames = np.random.default_rng(0).standard_normal((12, 12)).astype(np.float32)
    whole = ranges_of(with_ranges(float_file(model), samples({name: frames})))
    halves = [ranges_of(with_ranges(float_file(model), samples({name: part}))) for part in (frames[:6], frames[6:])]
    for tensor, (low, high) in whole.items():
        assert low == min(half[tensor][0] for half in halves)
        assert high == max(half[tensor][1] for half in halves)
    in_batches = ranges_of(with_ranges(float_file(model), samples({name: frames}, batch=3)))
    for tensor, told in in_batches.items():
        np.testing.assert_allclose(told, whole[tensor], rtol=1e-5, atol=1e-6)


def test_what_has_no_ranges_is_left_to_tensorflow() -> None:
    model = layers()
    data, name = float_file(model), described(model, classes=False).serving.inputs[0].name
    one = np.ones((1, 12), np.float32)
    bad: list[list[Any]] = [
        [{name: one * np.nan}],
        [{name: one.astype(int)}],
        [{"other": one}],
        [[one]],
        [("a", one)],
        [],
    ]
    for of in bad:
        assert with_ranges(data, lambda of=of: of) is None, of  # type: ignore[misc]
    assert with_ranges(data[:200], lambda: [{name: one}]) is None
