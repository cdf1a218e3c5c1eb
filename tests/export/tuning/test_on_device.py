"""Models for devices: same variables, the converter's own grid, gradients that pass, zeros that stay."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from export.convert.recipes import RECIPES
from export.convert.to_tflite import to_tflite
from export.model.ends import OUTPUT
from export.model.frames import frames_for
from export.model.serving import describe, predict
from export.tuning.on_device import round_activations, round_kernel, with_fake_quant, with_kept_zeros
from fl_mobile.errors import ExportError
from fl_mobile.models import keras_bridge
from fl_mobile.wire.pruning_mask import PruningPlan, apply_masks, masks_for
from tests.export.convert.topologies import Digits, inputs_for

pytestmark = pytest.mark.tf

TOPOLOGIES = ("sequential-logits", "functional-batchnorm", "features-mlp", "shared-layers")


@pytest.mark.parametrize("topology", TOPOLOGIES)
def test_same_variables_in_the_same_order(topology: str, model_of: Any) -> None:
    model = model_of(topology)
    for other in (with_fake_quant(model), with_kept_zeros(model)):
        assert keras_bridge.spec_of(other) == keras_bridge.spec_of(model)
        assert list(keras_bridge.spec_of(other)) == list(keras_bridge.spec_of(model))
        ours, theirs = (keras_bridge.travelling_variables(m) for m in (other, model))
        assert all(a is b for a, b in zip(ours, theirs, strict=True)), "one set of weights, not a copy"


@pytest.mark.parametrize("topology", TOPOLOGIES)
def test_answers_move_by_rounding_and_no_more(topology: str, model_of: Any, data: Digits) -> None:
    model, x = model_of(topology), inputs_for(topology, data.x_test)
    serving = describe(model)
    frames = frames_for(serving, x, "test frames")
    plain, rounded = (predict(m, serving, frames)[OUTPUT] for m in (model, with_fake_quant(model)))
    assert 0 < np.abs(plain - rounded).mean() < 0.02
    assert (plain.argmax(axis=1) == rounded.argmax(axis=1)).mean() > 0.97


def test_kernels_lie_on_the_grid_of_the_artifact(model_of: Any, data: Digits) -> None:
    """The oracle is the converter: what it stores, times its scales, is what training saw."""
    from ai_edge_litert.interpreter import Interpreter

    model = model_of("sequential-logits")
    reader = Interpreter(model_content=to_tflite(model, RECIPES["int8"], representative=data.x_train[:100]))
    stored = {}
    for tensor in reader.get_tensor_details():
        scales = tensor["quantization_parameters"]["scales"]
        if tensor["dtype"] == np.int8 and len(tensor["shape"]) >= 2 and len(scales) > 1:
            stored[tuple(tensor["shape"])] = reader.get_tensor(tensor["index"])
    for rank, axes, order in ((4, (0, 1, 2), (3, 0, 1, 2)), (2, (0,), (1, 0))):
        variable = next(v for v in model.trainable_variables if len(v.shape) == rank)
        ours = np.asarray(round_kernel(variable.value, axes)).transpose(order)
        # In integers: the converter folds the 1/255 of the pixels into the first kernel's scales.
        levels = ours / np.abs(ours).max(axis=tuple(range(1, ours.ndim)), keepdims=True) * 127
        np.testing.assert_allclose(levels, stored[ours.shape], atol=1e-3)


def test_rounding_keeps_zero_and_the_range() -> None:
    x = np.linspace(-1.0, 3.0, 4001, dtype=np.float32)
    y = np.asarray(round_activations(x))
    assert len(np.unique(y)) == 256
    assert np.abs(x - y).max() <= 4 / 255 * 0.51 + 1e-6
    assert 0.0 in y
    assert not np.asarray(round_activations(np.zeros(5, np.float32))).any()
    kernel = np.asarray(round_kernel(np.array([[1.0, 0.0], [-0.3, 0.0]], np.float32), (0,)))
    np.testing.assert_allclose(kernel, [[1.0, 0.0], [-38 / 127, 0.0]], atol=1e-7)


@pytest.mark.parametrize("topology", ["sequential-logits", "functional-batchnorm"])
def test_every_trainable_variable_gets_its_gradient(topology: str, model_of: Any, data: Digits) -> None:
    """Straight through: the gradient is close to that of the plain model, and never missing."""
    import keras
    import tensorflow as tf

    model, x, y = model_of(topology), data.x_train[:64].astype(np.float32), data.y_train[:64]
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=topology == "sequential-logits")
    gradients = []
    for each in (model, with_fake_quant(model)):
        with tf.GradientTape() as tape:
            value = loss(y, each(x, training=False))
        gradients.append(tape.gradient(value, [v.value for v in model.trainable_variables]))
    for variable, plain, rounded in zip(model.trainable_variables, *gradients, strict=True):
        assert rounded is not None, variable.path
        plain, rounded = np.ravel(plain), np.ravel(rounded)
        cosine = plain @ rounded / (np.linalg.norm(plain) * np.linalg.norm(rounded) + 1e-30)
        assert cosine > 0.7, variable.path


def test_batch_norm_statistics_still_move(model_of: Any, data: Digits) -> None:
    model = model_of("functional-batchnorm")
    before = keras_bridge.read(model)
    try:
        with_fake_quant(model)(data.x_train[:64].astype(np.float32), training=True)
        after = keras_bridge.read(model)
        assert any("moving_mean" in path and not np.array_equal(before[path], after[path]) for path in before)
    finally:
        keras_bridge.write(model, before)


@pytest.mark.sample(r"sgd-functional-batchnorm|adam-sequential-logits")
@pytest.mark.parametrize("topology", ["sequential-logits", "functional-batchnorm"])
@pytest.mark.parametrize("optimizer", ["sgd", "adam"])
def test_zeros_stay_zero_through_training(topology: str, optimizer: str, model_of: Any, data: Digits) -> None:
    import keras

    plan = PruningPlan(0.8, smallest_kernel=64)
    plain = keras.models.clone_model(model_of(topology))
    spec = keras_bridge.spec_of(plain)
    keras_bridge.write(plain, keras_bridge.read(model_of(topology)))
    whole = keras_bridge.read(plain)
    masks = masks_for(plan, whole, spec, 0)
    assert masks
    for variant, stays in (
        (with_kept_zeros(plain), True),
        (with_fake_quant(plain, keep_zeros=True), True),
        (with_fake_quant(plain), False),
    ):
        pruned = apply_masks(whole, masks)
        keras_bridge.write(plain, pruned)
        answers = [predict(each, describe(plain), {"image": data.x_test[:32]})[OUTPUT] for each in (plain, variant)]
        assert np.abs(answers[0] - answers[1]).mean() < 0.02
        variant.compile(optimizer, keras.losses.SparseCategoricalCrossentropy(from_logits=True))
        variant.fit(data.x_train[:128].astype(np.float32), data.y_train[:128], batch_size=32, epochs=1, verbose=0)
        after = keras_bridge.read(plain)
        zeros = [not after[path][~mask].any() for path, mask in masks.items()]
        assert all(zeros) if stays else not all(zeros)
        assert all((after[path][mask] != whole[path][mask]).any() for path, mask in masks.items()), "the rest learns"


def test_subclassed_models_are_refused(model_of: Any) -> None:
    with pytest.raises(ExportError, match="'subclassed' is subclassed"):
        with_fake_quant(model_of("subclassed"))
    with pytest.raises(ExportError, match="'subclassed' is subclassed"):
        with_kept_zeros(model_of("subclassed"))
