"""Noise of every layer, and layers left out of quantisation."""

from __future__ import annotations

import json
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner

from device_sim.cli import make_app
from export import export_model
from export.convert.recipes import RECIPES, find_recipe
from export.convert.to_tflite import to_tflite
from export.layers import (
    FloatTwin,
    LayerError,
    check_keep_float,
    float_twin,
    keep_in_float,
    layer_errors,
    measure_layers,
)
from export.layers.error import _own_noises, advice
from export.layers.names import check_layers
from export.layers.pairs import paired
from export.layers.run import every_tensor, run_slice, scale_of
from export.runtimes import answers, missing_runtimes
from export.tflite.editing import activations, op_name, read_model, write_model
from export.tflite.graph import read_graph
from fl_mobile.errors import ExportError, VerifyError
from tests.export.convert.topologies import LABELS, Digits

pytestmark = pytest.mark.tf

EIGHT_BITS = [name for name, recipe in RECIPES.items() if recipe.weight_bits == 8]
KERNELS = ("conv", "hidden", "logits")


@pytest.fixture(scope="module")
def net(data: Digits) -> Any:
    """The CNN of these tests: three layers with known names, trained."""
    import keras

    layers = keras.layers
    keras.utils.set_random_seed(5)
    model = keras.Sequential(
        [
            layers.Input((8, 8, 1)),
            layers.Rescaling(1 / 255, name="rescale"),
            layers.Conv2D(12, 3, activation="relu", name="conv"),
            layers.MaxPooling2D(name="pool"),
            layers.Dropout(0.1, name="drop"),
            layers.Flatten(name="flat"),
            layers.Dense(32, activation="relu", name="hidden"),
            layers.Dense(10, name="logits"),
        ],
        name="net",
    )
    model.compile(keras.optimizers.Adam(3e-3), keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    model.fit(data.x_train.astype(np.float32), data.y_train, epochs=4, verbose=0)
    return model


@pytest.fixture(scope="module")
def twin(net: Any) -> FloatTwin:
    return float_twin(net, "uint8")


@pytest.fixture(scope="module")
def artifact(net: Any, data: Digits) -> Any:
    """Returns the artifact of a recipe, converted once."""
    return lru_cache(maxsize=None)(
        lambda recipe: to_tflite(net, find_recipe(recipe), representative=data.x_train[:100])
    )


def stored_types(data: bytes) -> dict[str, tuple[str, str]]:
    """Returns kernel and result dtype of every operation that has a kernel, by the operation's place."""
    from ai_edge_litert import schema_py_generated as schema

    names = {code: name for name, code in vars(schema.TensorType).items() if not name.startswith("_")}
    model = read_model(data)
    tensors, found = model.subgraphs[0].tensors, {}
    for operator in model.subgraphs[0].operators:
        if op_name(model, operator) in ("CONV_2D", "FULLY_CONNECTED"):
            ends = (operator.inputs[1], operator.outputs[0])
            found[KERNELS[len(found)]] = tuple(names[tensors[i].type] for i in ends)
    return found


@pytest.mark.parametrize("most", [2**26, 1])
def test_operations_side_by_side_are_each_as_in_a_slice_of_its_own(
    most: int, artifact: Any, twin: FloatTwin, data: Digits, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("export.layers.error._MOST_BYTES", most)
    exact, quantized = twin.model, read_model(artifact("int8"))
    values = every_tensor(twin.graph, exact, {"image": data.x_test[:3]})
    pairs = paired(exact, quantized)
    found = list(_own_noises(pairs, exact, quantized, values))
    assert [pair for pair, *_ in found] == pairs
    for pair, signal, noise in found:
        sources, ends = activations(exact, pair.exact.inputs), activations(quantized, pair.quantized.inputs)
        scales = [scale_of(quantized, end) for end in ends]
        stored = [scale.stored(values[index]) for scale, index in zip(scales, sources, strict=True)]
        out = int(pair.quantized.outputs[0])
        (rows,) = run_slice(quantized, dict(zip(ends, stored, strict=True)), [out])
        rounded = {
            index: scale.real(value).astype(values[index].dtype)
            for index, scale, value in zip(sources, scales, stored, strict=True)
        }
        (want,) = run_slice(exact, rounded, [int(pair.exact.outputs[0])])
        np.testing.assert_array_equal(signal, want)
        np.testing.assert_array_equal(noise, scale_of(quantized, out).real(rows).astype(want.dtype) - want)


@pytest.mark.parametrize("recipe", EIGHT_BITS)
@pytest.mark.parametrize("kept", [["conv"], ["hidden"], ["logits"], ["conv", "pool"], ["hidden", "logits"]])
def test_kept_layers_are_float_and_the_others_are_not(
    recipe: str, kept: list[str], artifact: Any, twin: FloatTwin, data: Digits
) -> None:
    before, mixed = artifact(recipe), keep_in_float(artifact(recipe), twin, kept)
    was, now = stored_types(before), stored_types(mixed)
    for layer, types in now.items():
        assert types == (("FLOAT32", "FLOAT32") if layer in kept else was[layer]), layer
    assert read_graph(mixed).weights == read_graph(before).weights
    assert not read_graph(mixed).foreign_ops
    frames = data.x_test[:40]
    rows = {name: answers(name, mixed, frames) for name in ("litert", "litert-compiled", "tf-lite")}
    for name, found in rows.items():
        if name not in missing_runtimes():
            np.testing.assert_allclose(found.astype(float), rows["litert"].astype(float), atol=1, err_msg=name)


@pytest.mark.parametrize("recipe", EIGHT_BITS)
def test_keeping_the_worst_layer_gives_a_cleaner_answer(
    recipe: str, artifact: Any, twin: FloatTwin, data: Digits
) -> None:
    frames = data.x_test[:16]
    before = layer_errors(artifact(recipe), twin, {"image": frames})
    worst = max(before, key=lambda error: error.noise_share)
    mixed = keep_in_float(artifact(recipe), twin, [worst.layer])
    assert worst.layer not in {error.layer for error in layer_errors(mixed, twin, {"image": frames})}
    assert noise_to_signal(twin, mixed, frames) < noise_to_signal(twin, artifact(recipe), frames)


def noise_to_signal(twin: FloatTwin, data: bytes, frames: np.ndarray) -> float:
    """Noise over signal of the logits, as powers, of the whole artifact."""
    from export.layers.run import every_tensor, scale_of

    exact, quantized = read_model(twin.data), read_model(data)
    last = paired(exact, quantized)[-2]
    out = int(last.quantized.outputs[0])
    signal = every_tensor(twin.data, exact, {"image": frames})[int(last.exact.outputs[0])].astype(np.float64)
    noisy = scale_of(quantized, out).real(every_tensor(data, quantized, {"image": frames})[out])
    return float(np.square(noisy - signal).sum() / np.square(signal).sum())


@pytest.mark.parametrize("recipe", ["int8", "int16x8"])
@pytest.mark.parametrize("layer", ["conv", "hidden"])
def test_noise_at_the_answer_is_that_of_a_file_where_only_this_layer_is_quantised(
    recipe: str, layer: str, artifact: Any, twin: FloatTwin, data: Digits
) -> None:
    """The oracle is a real artifact: every other layer kept in float, run as a whole."""
    frames = data.x_test[:16]
    errors = layer_errors(artifact(recipe), twin, {"image": frames})
    predicted = next(error.answer_snr_db for error in errors if error.layer == layer)
    others = [name for name in ("conv", "pool", "flat", "hidden", "logits") if name != layer]
    measured = -10 * np.log10(noise_to_signal(twin, keep_in_float(artifact(recipe), twin, others), frames))
    assert predicted == pytest.approx(measured, abs=1.0)


def test_with_every_layer_kept_only_the_answer_is_rounded(artifact: Any, twin: FloatTwin, data: Digits) -> None:
    whole = keep_in_float(artifact("int16x8"), twin, ["conv", "pool", "flat", "hidden", "logits"])
    assert layer_errors(whole, twin, {"image": data.x_test[:16]}) == ()
    assert "QUANTIZE" not in read_graph(whole).ops[:-3]
    exact = answers("litert", twin.data, data.x_test[:40])
    np.testing.assert_allclose(answers("litert", whole, data.x_test[:40]), exact, atol=1e-3)  # the softmax stays int16


@pytest.mark.parametrize("recipe", EIGHT_BITS)
def test_the_report_is_in_order_and_its_shares_are_a_whole(
    recipe: str, artifact: Any, twin: FloatTwin, data: Digits
) -> None:
    errors = layer_errors(artifact(recipe), twin, {"image": data.x_test[:16]})
    assert [error.layer for error in errors if error.op != "MAX_POOL_2D"] == [
        layer for layer in KERNELS if stored_types(artifact(recipe))[layer][0] == "INT8"
    ]
    assert sum(error.noise_share for error in errors) == pytest.approx(1)
    for error in errors:
        assert error.total_snr_db is not None
        assert 15 < error.total_snr_db < 120, error
    if errors[-1].layer == "logits":  # at the answer already
        assert errors[-1].own_snr_db == pytest.approx(errors[-1].answer_snr_db, abs=1)


@pytest.mark.parametrize("recipe", ["int8", "int8-legacy"])
def test_it_catches_a_layer_with_one_wild_channel(recipe: str, net: Any, data: Digits) -> None:
    """One channel answers 300 times louder and the next layer turns it down again: the same function in float."""
    import keras

    wild = keras.models.clone_model(net)
    wild.set_weights(net.get_weights())
    kernel, bias = (w.copy() for w in wild.get_layer("conv").get_weights())
    answered = keras.Sequential(net.layers[:2])(data.x_test[:50].astype(np.float32))
    loudest = int(np.asarray(answered).mean((0, 1, 2)).argmax())
    kernel[..., loudest] *= 300
    bias[loudest] *= 300
    wild.get_layer("conv").set_weights([kernel, bias])
    dense, offset = (w.copy() for w in wild.get_layer("hidden").get_weights())
    dense.reshape(3, 3, 12, 32)[:, :, loudest] /= 300
    wild.get_layer("hidden").set_weights([dense, offset])
    np.testing.assert_allclose(wild(data.x_test[:8]), net(data.x_test[:8]), atol=1e-3)

    twin = float_twin(wild, "uint8")
    broken = to_tflite(wild, find_recipe(recipe), representative=data.x_train[:100])
    errors = layer_errors(broken, twin, {"image": data.x_test[:16]})
    assert advice(errors).startswith("Layer 'conv' adds 9")
    conv = next(error for error in errors if error.layer == "conv")
    assert conv.own_snr_db is not None
    assert conv.answer_snr_db is not None
    assert conv.answer_snr_db < 20 < conv.own_snr_db, "its own ratio alone would have hidden it"


def test_it_catches_a_layer_with_wildly_ranged_weights(net: Any, data: Digits) -> None:
    """One weight of 50 in a dense layer with one scale for all: the others round to nothing."""
    import keras

    wild = keras.models.clone_model(net)
    wild.set_weights(net.get_weights())
    dense, offset = (w.copy() for w in wild.get_layer("hidden").get_weights())
    dense[0, 0] = 50.0
    wild.get_layer("hidden").set_weights([dense, offset])
    twin = float_twin(wild, "uint8")
    broken = to_tflite(wild, find_recipe("int8-legacy"), representative=data.x_train[:100])
    assert "'hidden'" in advice(layer_errors(broken, twin, {"image": data.x_test[:16]}))


def test_unknown_folded_and_useless_layers_are_refused(twin: FloatTwin) -> None:
    with pytest.raises(ExportError, match=r"no layer 'hiden' to keep in float\. Did you mean 'hidden'"):
        check_layers(twin, ["conv", "hiden"])
    for silent in ("rescale", "drop"):
        with pytest.raises(ExportError, match=f"'{silent}' leaves no operation .* can be kept in float: conv, flat"):
            check_layers(twin, [silent])
    with pytest.raises(ExportError, match="--keep-float conv would change nothing"):
        check_keep_float(["conv"], [RECIPES["float32"]], None)


def test_layers_are_found_whatever_they_are_called(data: Digits) -> None:
    """Names that look like TensorFlow's numbering, a layer used twice, and one inside a nested model."""
    import keras

    layers = keras.layers
    block = keras.Sequential(
        [layers.Input((8, 8, 4)), layers.Conv2D(4, 3, padding="same", name="conv"), layers.ReLU(6.0, name="act")],
        name="block",
    )
    shared = layers.Conv2D(4, 3, padding="same", activation="relu", name="conv_1")
    frame = layers.Input((8, 8, 1))
    x = layers.Conv2D(4, 3, padding="same", name="conv_1_1")(layers.Rescaling(1 / 255)(frame))
    x = layers.Add(name="sum")([shared(shared(block(x))), x])
    model = keras.Model(frame, layers.Dense(10, name="conv")(layers.Flatten(name="f")(x)), name="conv_2")
    twin = float_twin(model, "uint8")
    exact = read_model(twin.data)
    found = [(pair.op, twin.layer(pair.tensor)) for pair in paired(exact, exact)]
    assert found == [
        ("CONV_2D", "conv_1_1"),
        ("CONV_2D", "block/conv"),
        ("CONV_2D", "conv_1"),
        ("CONV_2D", "conv_1"),
        ("ADD", "sum"),
        ("RESHAPE", "f"),
        ("FULLY_CONNECTED", "conv"),
        ("SOFTMAX", ""),
    ]
    artifact = to_tflite(model, find_recipe("int8"), representative=data.x_train[:50])
    mixed = read_model(keep_in_float(artifact, twin, ["block"]))
    floats = [op_name(mixed, op) for op in mixed.subgraphs[0].operators]
    assert floats.count("DEQUANTIZE") == floats.count("QUANTIZE") - 2 == 1  # one for the frame, one for the answer
    assert measure_layers(artifact, twin, {"image": data.x_test[:4]}, ()).advice


def test_every_output_counts(model_of: Any, data: Digits) -> None:
    """Noise that only reaches one of two answers counts half there, and layers before the fork reach both."""
    from export.model.frames import frames_for
    from export.model.serving import describe

    fork = model_of("two-outputs")
    twin = float_twin(fork, None)
    artifact = to_tflite(fork, find_recipe("int8"), representative=data.x_train[:100])
    frames = frames_for(describe(fork), data.x_test[:16], "frames")
    errors = layer_errors(artifact, twin, frames)
    assert sum(error.noise_share for error in errors) == pytest.approx(1)
    for layer in ("digit", "brightness"):
        (head,) = [error for error in errors if error.layer == layer]
        assert head.answer_snr_db == pytest.approx(head.own_snr_db + 10 * np.log10(2), abs=1)
    mixed = keep_in_float(artifact, twin, ["brightness"])
    assert "brightness" not in {error.layer for error in layer_errors(mixed, twin, frames)}


def test_a_file_with_other_operations_is_not_compared(artifact: Any, twin: FloatTwin, data: Digits) -> None:
    edited = read_model(artifact("int8"))
    pool = next(op for op in edited.subgraphs[0].operators if op_name(edited, op) == "MAX_POOL_2D")
    edited.operatorCodes[pool.opcodeIndex].builtinCode = edited.operatorCodes[
        pool.opcodeIndex
    ].deprecatedBuiltinCode = 1
    other = write_model(edited)
    with pytest.raises(VerifyError, match=r"operation 1 is MAX_POOL_2D .* in float32 and AVERAGE_POOL_2D"):
        layer_errors(other, twin, {"image": data.x_test[:2]})
    assert "AVERAGE_POOL_2D" in measure_layers(other, twin, {"image": data.x_test[:2]}, ()).not_measured
    with pytest.raises(ExportError, match="cannot be kept in float: operation 1"):
        keep_in_float(other, twin, ["conv"])


@pytest.mark.sample(r"float32|int8")
@pytest.mark.parametrize("recipe", RECIPES)
def test_a_file_that_was_only_read_and_written_is_the_same_model(recipe: str, artifact: Any, data: Digits) -> None:
    before = artifact(recipe)
    after = write_model(read_model(before))
    assert write_model(read_model(after)) == after
    assert len(after) <= len(before) + 64
    assert read_graph(after).ops == read_graph(before).ops
    assert read_graph(after).signatures == read_graph(before).signatures
    frames = data.x_test[:8]
    np.testing.assert_array_equal(answers("litert", after, frames), answers("litert", before, frames))


def test_advice_adds_up_a_layer_that_is_used_twice() -> None:
    errors = [
        LayerError("shared", "CONV_2D", 30, 20, 30, 0.3),
        LayerError("", "ADD", 30, 20, 30, 0.05),
        LayerError("head", "FULLY_CONNECTED", 30, 20, 30, 0.35),
        LayerError("shared", "CONV_2D", 30, 20, 30, 0.3),
    ]
    assert advice(errors) == (
        "Layer 'shared' adds 60% of the noise at the answer; if accuracy is lost, try --keep-float shared."
    )
    assert advice(errors[1:2]) == ""


@pytest.fixture(scope="module")
def mixed_bundle(net: Any, data: Digits, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("mixed") / "bundle"
    export_model(net, out, **asked(data), recipes=["float32", "dynamic-int8", "int8"], keep_float=["hidden"])
    return out


def asked(data: Digits) -> dict[str, Any]:
    return {
        "labels": LABELS,
        "representative": data.x_train[:100],
        "x_test": data.x_test,
        "y_test": data.y_test,
        "provenance": {},
    }


def test_a_bundle_says_what_was_kept_and_what_costs_most(mixed_bundle: Path) -> None:
    report = json.loads((mixed_bundle / "report.json").read_text())
    layers = {variant["recipe"]: variant["layers"] for variant in report["variants"]}
    assert layers["float32"] is None
    for recipe in ("dynamic-int8", "int8"):
        assert layers[recipe]["kept_float"] == ["hidden"]
        assert stored_types((mixed_bundle / f"{recipe}.tflite").read_bytes())["hidden"] == ("FLOAT32", "FLOAT32")
    assert {error["layer"] for error in layers["int8"]["errors"]} == {"conv", "logits"}
    assert "--keep-float" in layers["int8"]["advice"]
    text = (mixed_bundle / "report.md").read_text()
    assert "## Layers of `int8`" in text
    assert "Kept in float32: hidden." in text
    assert layers["int8"]["advice"] in text


def test_verify_shows_the_layers(mixed_bundle: Path) -> None:
    verb = ["verify", str(mixed_bundle), "--layers", "--runtime", "litert"]
    shown = CliRunner().invoke(make_app(), [*verb, "--format", "json"])
    told = json.loads(shown.stdout)["layers"]
    assert set(told) == {"dynamic-int8", "int8"}
    text = CliRunner().invoke(make_app(), verb).stdout
    assert "int8.tflite, in float32: hidden" in text
    assert told["int8"]["advice"] in text
    for error in told["int8"]["errors"]:
        assert f"{error['answer_snr_db']:.1f}" in text


def test_a_layer_that_is_not_there_is_refused_before_anything_is_written(
    net: Any, data: Digits, tmp_path: Path
) -> None:
    with pytest.raises(ExportError, match=r"no layer 'hiden' .* Did you mean 'hidden'"):
        export_model(net, tmp_path / "b", **asked(data), recipes=["int8"], keep_float=["hiden"])
    with pytest.raises(ExportError, match=r"--keep-float conv would change nothing: .* Add --recipe int8"):
        export_model(net, tmp_path / "b", **asked(data), recipes=["float32", "float16"], keep_float=["conv"])
    verb = ["export", "mlp", "--dataset", "digits", "--recipe", "int8", "--keep-float", "nope", "-q"]
    ended = CliRunner().invoke(make_app(), [*verb, "--out", str(tmp_path / "c")])
    assert ended.exit_code == ExportError.exit_code
    assert "no layer 'nope' to keep in float" in ended.stderr
    verb = ["export", "mlp", "--training", "--keep-float", "dense", "--out", str(tmp_path / "d")]
    assert "--keep-float shapes a bundle" in CliRunner().invoke(make_app(), verb).stderr
    assert list(tmp_path.iterdir()) == []
