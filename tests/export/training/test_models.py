"""Every model of the table trains end to end on the device program; one program gives one result on all runtimes."""

from __future__ import annotations

import json
import subprocess
import sys
from functools import lru_cache
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf

from export.tflite.graph import read_graph
from export.training.apart import write_program
from export.training.program import TrainingProgram, build_training_program
from export.training.report import report_on
from export.training.session import open_compiled_session, open_session
from fl_mobile.errors import VerifyError
from fl_mobile.models import MODELS, build_model, keras_bridge
from fl_mobile.tasks.table import task_row
from tests.export.training.gradients import worst_relative_error
from tests.export.training.runtimes import python_with_tflite_runtime, ten_steps

pytestmark = pytest.mark.tf
FAST = ("smart-camera-cnn", "ds-cnn", "text-classifier")
RATE = 1e-3


@lru_cache
def _built(name: str, size: int = 4) -> tuple[Any, TrainingProgram]:
    row = MODELS[name]
    scale = 1.0 if row.input_dtype == "int32" else 1 / 255
    model = build_model(
        name, input_shape=row.input_shape, num_classes=row.num_classes, input_scale=scale, seed=0, weights="none"
    )
    loss = task_row(row.task).losses[0]
    made = build_training_program(model, batch_size=size, task=row.task, loss=loss, from_logits=row.from_logits)
    return model, made


def _batch(name: str, model: Any, size: int = 4) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(3)
    row, out = MODELS[name], model.outputs[0].shape
    high = row.num_classes if row.task == "sequence" else 1000 if row.input_dtype == "int32" else 256
    x = rng.integers(0, high, (size, *model.inputs[0].shape[1:])).astype(np.float32)
    if row.task == "reconstruction":
        return x, x / np.float32(255)
    return x, rng.integers(0, out[-1], (size, *out[1:-1]))


def _one_step(name: str) -> None:
    """Weight changes of one step against TensorFlow's; dropout by the program's own masks."""
    from export.training.layers import keyed_dropout

    model, made = _built(name)
    x, y = _batch(name, model)
    start = keras_bridge.read(model)
    session = open_session(made.tflite, made.contract)
    session.set_weights(start)
    loss, _ = session.train(x, y, learning_rate=RATE, seed=1)
    after = session.get_weights()
    optimizer = keras.optimizers.SGD(RATE)
    optimizer.build(model.trainable_variables)
    distance, of_classes = keras.losses.MeanSquaredError(), keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    loss_of = distance if MODELS[name].task == "reconstruction" else of_classes
    with keyed_dropout(model, tf.constant(1), tf.constant(0)), tf.GradientTape() as tape:
        want = loss_of(y, model(x, training=True))
    gradients = tape.gradient(want, [v.value for v in model.trainable_variables])
    optimizer.apply(gradients, model.trainable_variables)
    there = keras_bridge.read(model)
    keras_bridge.write(model, start)
    assert loss == pytest.approx(float(want), rel=1e-5)
    moved = {p: after[p] - start[p] for p in start}
    expected = {p: there[p] - start[p] for p in start}
    if name.startswith("mobilenet-v") and not name.endswith("head"):
        # Among a million activations some lie within rounding of relu6's corners. One that falls on the other side
        # moves its channel's bias gradient by a percent and everything in front of it; the direction stays.
        a, b = (
            np.concatenate([np.ravel(v) for v in change.values()]).astype(np.float64) for change in (moved, expected)
        )
        assert a @ b / np.sqrt((a @ a) * (b @ b)) >= 0.999
        assert np.sqrt((a @ a) / (b @ b)) == pytest.approx(1.0, abs=1e-2)
        return
    # Subtracting weights costs digits: half a unit of the weights' last place stays in every difference.
    rounding = max(float(np.abs(v).max()) for v in start.values()) * 2**-23
    scale = max(float(np.abs(v).max()) for v in expected.values())
    assert worst_relative_error(moved, expected) <= 1e-3 + 1e2 * rounding / scale
    assert not read_graph(made.tflite).foreign_ops


@pytest.mark.sample(r"(?!ds-cnn).*")
@pytest.mark.parametrize("name", FAST)
def test_model_trains_as_on_tensorflow(name: str) -> None:
    _one_step(name)


@pytest.mark.slow
@pytest.mark.parametrize("name", [name for name in MODELS if name not in FAST])
def test_every_model_trains_as_on_tensorflow(name: str) -> None:
    _one_step(name)


@pytest.mark.slow
def test_corners_that_rounding_turns_are_no_difference() -> None:
    """Among the relus of 16 examples some lie within rounding of their corner at nearly every start."""
    _, made = _built("ds-cnn", 16)
    assert len(made.proof.golden) == 2


def test_report_says_what_the_phone_must_pay(tmp_path: Path) -> None:
    _, made = _built("smart-camera-cnn")
    write_program(tmp_path, made.tflite, made.contract)
    report = report_on(tmp_path, made.tflite, made.contract, steps=2)
    assert report.weights == 225_034
    assert report.file_bytes == (tmp_path / "train.tflite").stat().st_size
    # Two products a weight use; the first layer needs no input gradient, and the row and column of the second
    # convolution that its pool drops are computed for the input gradient only.
    first, second, dense = 26 * 26 * 9 * 32, 288 * 64, 1600 * 128 + 1280
    assert report.mflops_per_example == pytest.approx(2 * (2 * first + 321 * second + 3 * dense) / 1e6, rel=0.01)
    assert report.state_bytes == 4 * (225_034 + 1), "weights and the step count; sgd keeps nothing else"
    assert report.arena_bytes == _alive_at_once(made.tflite)
    assert report.arena_bytes < report.measured["peak_bytes"]
    assert sum(report.operations.values()) > 100
    assert all(value > 0 for key, value in report.measured.items() if key != "extra_worker_bytes")
    with pytest.raises(VerifyError):
        report_on(tmp_path, made.tflite[:-4], made.contract)


def _alive_at_once(tflite: bytes) -> int:
    """The slow obvious version: for every step of ``train``, all tensors made by then and still needed."""
    from ai_edge_litert import schema_py_generated as schema

    model = schema.ModelT.InitFromObj(schema.Model.GetRootAs(tflite, 0))
    graph = model.subgraphs[next(s.subgraphIndex for s in model.signatureDefs if s.signatureKey == b"train")]
    width = {schema.TensorType.FLOAT32: 4, schema.TensorType.INT32: 4, schema.TensorType.BOOL: 1}
    sizes = {
        i: width.get(t.type, 0) * int(np.prod(t.shape if t.shape is not None else []))
        for i, t in enumerate(graph.tensors)
        if model.buffers[t.buffer].data is None
    }
    ends, most = {int(i) for i in (*graph.inputs, *graph.outputs)}, 0
    for at, op in enumerate(graph.operators):
        made = {int(i) for o in graph.operators[: at + 1] for i in o.outputs} | {int(i) for i in graph.inputs}
        needed = {int(i) for o in graph.operators[at:] for i in o.inputs} | {int(i) for i in op.outputs} | ends
        most = max(most, sum(sizes.get(i, 0) for i in made & needed))
    return most


def _same(got: dict[str, list[float]], want: dict[str, list[float]], bound: float) -> None:
    for key, values in want.items():
        np.testing.assert_allclose(got[key], values, rtol=bound, atol=bound, err_msg=key)


@pytest.mark.parametrize("runtime", ["litert-compiled", "tf.lite"])
def test_other_runtimes_train_alike(runtime: str) -> None:
    _, made = _built("smart-camera-cnn")
    want = ten_steps(open_session(made.tflite, made.contract))
    if runtime == "tf.lite":
        session = open_session(made.tflite, made.contract, interpreter=tf.lite.Interpreter)
    else:
        session = open_compiled_session(made.tflite, made.contract)
    _same(ten_steps(session), want, 1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["smart-camera-cnn", "ds-cnn", "text-classifier", "mobilenet-v2-0.35"])
def test_tflite_runtime_of_2023_trains_alike(name: str, tmp_path: Path) -> None:
    _, made = _built(name)
    write_program(tmp_path, made.tflite, made.contract)
    script = Path(sys.modules[ten_steps.__module__].__file__ or "")
    command = [str(python_with_tflite_runtime()), str(script), str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    # Batch statistics of four examples amplify rounding, step after step.
    bound = 1e-4 if name in ("smart-camera-cnn", "text-classifier") else 5e-2
    _same(json.loads(done.stdout), ten_steps(open_session(made.tflite, made.contract)), bound)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["smart-camera-cnn", "ds-cnn"])
def test_browser_trains_alike(name: str) -> None:
    """``infer`` and ten ``train`` steps of the same file on LiteRT.js in a headless Chromium."""
    from export.runtimes.browser import BrowserModel, missing_browser
    from export.training import TrainingSession

    if reason := missing_browser():
        pytest.fail(reason)
    _, made = _built(name)
    made.contract.check(made.tflite)
    with BrowserModel.load(made.tflite) as browser:
        got = ten_steps(TrainingSession(made.contract, browser.run))
    _same(got, ten_steps(open_session(made.tflite, made.contract)), 1e-4 if name == "smart-camera-cnn" else 5e-2)
