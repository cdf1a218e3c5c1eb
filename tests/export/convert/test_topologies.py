"""The matrix: every shape of model × every recipe is exported and proven; tuned recipes say whom they do not take."""

from __future__ import annotations

import json
from dataclasses import replace
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from export import export_model, verify_bundle
from export.convert.recipes import RECIPES, Recipe
from export.convert.to_tflite import to_tflite
from export.model.frames import frames_for
from export.model.serving import SIGNATURE, describe
from export.runtimes import RUNTIMES, real_values, run_frames
from export.tflite.graph import read_graph
from export.training.program import build_training_program
from export.tuning import TUNINGS, TuningSet, tune, with_fake_quant
from export.verify.golden import unpack_golden
from export.verify.measured import Reference, check_parity, make_reference, measure_parity
from fl_mobile.errors import ExportError
from tests.export.convert.topologies import TOPOLOGIES, Digits, classes_for, inputs_for, names_for, take_part

pytestmark = pytest.mark.tf

ENDS: dict[str, tuple[dict[str, str], dict[str, str]]] = {
    "sequential-logits": ({"image": "uint8"}, {"probabilities": "logits"}),
    "functional-batchnorm": ({"image": "uint8"}, {"probabilities": "softmax"}),
    "subclassed": ({"image": "uint8"}, {"probabilities": "softmax"}),
    "shared-layers": ({"image": "uint8"}, {"probabilities": "logits"}),
    "features-mlp": ({"pixels": "float32"}, {"probabilities": "sigmoid"}),
    "frozen-base": ({"image": "uint8"}, {"probabilities": "softmax"}),
    "lstm": ({"rows": "float32"}, {"probabilities": "logits"}),
    "lstm-unrolled": ({"rows": "float32"}, {"probabilities": "logits"}),
    "two-inputs": ({"camera": "uint8", "sensors": "float32"}, {"probabilities": "logits"}),
    "two-outputs": ({"image": "uint8"}, {"digit": "softmax", "brightness": "values"}),
    "two-eyes": ({"left": "uint8", "right": "uint8"}, {"digit": "values", "odd": "softmax"}),
    "subclassed-pair": ({"left": "uint8", "right": "uint8"}, {"output_0": "softmax", "output_1": "softmax"}),
}
"""Topology → inputs with their dtypes, outputs with their heads."""

TUNED: dict[str, str] = {
    "subclassed": "'subclassed' is subclassed",
    "shared-layers": "is a model inside the model|is shared: used more than once",
    "frozen-base": "layer 'base' is a model inside the model",
    "lstm": r"layer 'lstm\w*' \(LSTM\) cannot be bridged",
    "lstm-unrolled": r"layer 'lstm\w*' \(LSTM\) cannot be bridged",
    "two-inputs": "models with one input, got frames for camera, sensors",
    "two-outputs": r"expected a model with one output, this one has 2 \(digit",
    "two-eyes": "models with one input, got frames for left, right",
    "subclassed-pair": "models with one input, got frames for left, right",
}
"""Topology → why no tuned recipe takes it. The others are tuned, which tests/export/tuning proves for each recipe."""

SEVERAL = [name for name, (inputs, outputs) in ENDS.items() if len(inputs) + len(outputs) > 2]


@pytest.fixture(scope="module")
def reference_of(model_of: Any, data: Digits) -> Any:
    def make(name: str) -> Reference:
        return make_reference(model_of(name), inputs_for(name, data.x_test), classes_for(name, data.y_test))

    return lru_cache(maxsize=None)(make)


@pytest.mark.sample(
    r"sequential-logits-.*|.*-float32|(functional-batchnorm|features-mlp|lstm-unrolled|two-inputs|two-outputs)-int8"
)
@pytest.mark.parametrize("recipe", RECIPES.values(), ids=RECIPES)
@pytest.mark.parametrize("topology", TOPOLOGIES)
def test_artifact_is_the_model(topology: str, recipe: Recipe, model_of: Any, reference_of: Any, data: Digits) -> None:
    model, reference = model_of(topology), reference_of(topology)
    frames = inputs_for(topology, data.x_train[:100])
    assert reference.accuracy > 0.9, "the topology must have an opinion, or agreement proves nothing"
    artifact = to_tflite(model, recipe, representative=frames)

    parity = check_parity(measure_parity(reference, recipe, artifact))
    assert parity.weights >= parity.kernel_weights > 0
    assert [end.output for end in parity.outputs] == list(ENDS[topology][1])
    graph = read_graph(artifact)
    assert not graph.foreign_ops
    signature = graph.signature(SIGNATURE)
    assert {entry.name: entry.dtype for entry in signature.inputs} == ENDS[topology][0]
    integer = recipe.integer_frames and set(ENDS[topology][0].values()) == {"uint8"}
    assert {end.dtype for end in signature.outputs} == {"uint8" if integer else "float32"}
    if integer:
        assert {(entry.scale, entry.zero_point) for entry in signature.inputs} == {(1.0, 0)}
        assert not {"CAST", "DEQUANTIZE"} & set(graph.ops), "an integer artifact has no float operation"

    stored = run_frames("litert", artifact, {name: part[:20] for name, part in reference.frames.items()})
    for end in signature.outputs:
        head, rows = ENDS[topology][1][end.name], real_values(end, stored[end.name])
        assert head == "values" or ((rows >= 0) & (rows <= 1)).all()
        assert head in ("values", "sigmoid") or np.abs(rows.sum(axis=1) - 1).max() < 0.02


@pytest.mark.parametrize("topology", TOPOLOGIES)
def test_inputs_and_outputs_are_named(topology: str, model_of: Any) -> None:
    serving = describe(model_of(topology))
    assert serving.input_dtypes == ENDS[topology][0]
    assert {end.name: end.head for end in serving.outputs} == ENDS[topology][1]


@pytest.mark.sample(r"sequential-logits|subclassed|lstm|two-eyes")
@pytest.mark.parametrize("topology", TOPOLOGIES)
def test_loaded_model_has_the_same_weights_hash(topology: str, model_of: Any, tmp_path: Path) -> None:
    """Keras numbers paths anew when it loads a model: dense/kernel may become dense_1/kernel."""
    import keras

    model = model_of(topology)
    if topology.startswith("subclassed"):  # Keras cannot load a class that it does not know
        again = TOPOLOGIES[topology]()
        again.set_weights(model.get_weights())
    else:
        model.save(tmp_path / "model.keras")
        again = keras.models.load_model(tmp_path / "model.keras")
    assert describe(again).weights_sha256 == describe(model).weights_sha256
    changed = [weight.numpy() for weight in again.weights]
    changed[0] = changed[0] + 1e-6
    again.set_weights(changed)
    assert describe(again).weights_sha256 != describe(model).weights_sha256


_LONGER = [pytest.param(name, marks=pytest.mark.slow) for name in ("frozen-base", "lstm", *SEVERAL[1:-1])]


@pytest.mark.parametrize("topology", [SEVERAL[0], SEVERAL[-1], *_LONGER])
def test_bundle_is_proven(topology: str, model_of: Any, data: Digits, tmp_path: Path) -> None:
    model, recipes = model_of(topology), ["float32", "int8"]
    x, y = inputs_for(topology, data.x_test), classes_for(topology, data.y_test)
    export_model(
        model,
        tmp_path / "bundle",
        recipes=recipes,
        labels=names_for(topology),
        representative=inputs_for(topology, data.x_train[:60]),
        x_test=x,
        y_test=y,
        provenance={},
    )
    proof = verify_bundle(tmp_path / "bundle", model=model, x=x, y=y)
    assert {replay.recipe for replay in proof.replays} == set(recipes)
    golden = unpack_golden((tmp_path / "bundle" / "golden.npz").read_bytes())
    inputs, outputs = ENDS[topology]
    assert golden.frames.keys() == inputs.keys()
    assert golden.keras.keys() == outputs.keys()
    report = json.loads((tmp_path / "bundle" / "report.json").read_text())
    assert [entry["name"] for entry in report["model"]["inputs"]] == list(inputs)
    for output, names in report["labels"].items():
        file = "labels.txt" if len(outputs) == 1 else f"labels-{output}.txt"
        assert (tmp_path / "bundle" / file).read_text().splitlines() == names
    told = (tmp_path / "bundle" / "report.md").read_text(encoding="utf-8")
    assert all(f"`{name}`" in told for name in (*inputs, *outputs))


@pytest.mark.slow
@pytest.mark.parametrize("topology", ["two-inputs", "two-eyes"])
def test_the_browser_agrees(topology: str, model_of: Any, reference_of: Any, data: Digits) -> None:
    reason = RUNTIMES["litert-js"].missing()
    if reason:
        pytest.skip(reason)
    frames = {name: part[:5] for name, part in reference_of(topology).frames.items()}
    for recipe in (RECIPES["float32"], RECIPES["int8"]):
        artifact = to_tflite(model_of(topology), recipe, representative=inputs_for(topology, data.x_train[:60]))
        ours, theirs = (run_frames(runtime, artifact, frames) for runtime in ("litert", "litert-js"))
        assert ours.keys() == theirs.keys()
        for end in read_graph(artifact).signature(SIGNATURE).outputs:
            apart = np.abs(real_values(end, ours[end.name]) - real_values(end, theirs[end.name])).max()
            assert apart <= recipe.tolerance.replay_abs * max(1.0, float(np.ptp(real_values(end, ours[end.name]))))


@pytest.mark.sample(r"two-outputs|subclassed-pair")
@pytest.mark.parametrize("topology", SEVERAL)
def test_it_catches_each_output_that_answers_for_other_frames(topology: str, model_of: Any, reference_of: Any) -> None:
    reference, recipe = reference_of(topology), RECIPES["float32"]
    artifact = to_tflite(model_of(topology), recipe)
    for output, rows in reference.answers.items():
        wrong = replace(reference, answers={**reference.answers, output: np.roll(rows, 1, axis=0)})
        failures = measure_parity(wrong, recipe, artifact).failures
        assert failures, output
        several = len(reference.answers) > 1
        assert all(
            words.startswith(f"{output}: " if several else ("max", "mean", "first", "accuracy")) for words in failures
        )


@pytest.mark.parametrize("topology", TOPOLOGIES)
def test_tuned_recipes_take_it_or_say_why(topology: str, model_of: Any, data: Digits) -> None:
    x, y = inputs_for(topology, data.x_train[:64]), data.y_train[:64]
    if topology not in TUNED:
        tune(model_of(topology), TUNINGS["qat"], TuningSet(x, y, "public", epochs=1))
        return
    with pytest.raises(ExportError, match=TUNED[topology]):
        tune(model_of(topology), TUNINGS["qat"], TuningSet(x, y, "public", epochs=1))


def test_a_model_without_a_kernel_worth_pruning_is_told_so(model_of: Any, data: Digits) -> None:
    x, y = inputs_for("functional-batchnorm", data.x_train[:64]), data.y_train[:64]
    with pytest.raises(ExportError, match="no dense or convolution kernel of 2048 or more weights to tune"):
        tune(model_of("functional-batchnorm"), TUNINGS["sparse-80"], TuningSet(x, y, "public", epochs=1))


@pytest.mark.parametrize("topology", SEVERAL)
def test_training_on_the_phone_takes_one_input_and_output(topology: str, model_of: Any) -> None:
    with pytest.raises(ExportError, match=r"takes one of each|is subclassed and has no fixed input"):
        build_training_program(model_of(topology), batch_size=4)
    with pytest.raises(ExportError, match=r"one input and one output|is subclassed"):
        with_fake_quant(model_of(topology))


MISTAKES: dict[str, tuple[Any, str]] = {
    "one-array": (lambda x: x["camera"], r"the model has 2 \(camera \[1, 8, 8, 1\], sensors \[1, 4\]\) inputs; give a"),
    "unknown-input": (
        lambda x: {**x, "depth": x["camera"]},
        "expected frames for camera, sensors, got them for camera",
    ),
    "missing-input": (lambda x: {"camera": x["camera"]}, "expected frames for camera, sensors, got them for camera"),
    "other-count": (lambda x: {**x, "sensors": x["sensors"][:3]}, "every input needs the same number of frames"),
    "other-shape": (lambda x: {**x, "sensors": x["sensors"][:, :2]}, r"frames of 'sensors': expected .*\[n, 4\], got"),
    "normalised": (lambda x: {**x, "camera": x["camera"] / 255}, "frames of 'camera': expected raw pixels"),
    "three-of-two": (lambda x: (x["camera"],) * 3, "or a tuple in that order, got tuple"),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_frames_that_do_not_fit_are_refused(mistake: str, model_of: Any, data: Digits) -> None:
    change, message = MISTAKES[mistake]
    with pytest.raises(ExportError, match=message):
        frames_for(describe(model_of("two-inputs")), change(inputs_for("two-inputs", data.x_test)), "frames")


def test_frames_may_come_as_a_tuple_in_the_models_order(model_of: Any, data: Digits) -> None:
    serving, x = describe(model_of("two-inputs")), inputs_for("two-inputs", data.x_test[:5])
    by_name = frames_for(serving, x, "frames")
    in_order = frames_for(serving, (x["camera"], x["sensors"]), "frames")
    assert by_name.keys() == in_order.keys()
    assert all((by_name[name] == in_order[name]).all() for name in by_name)


LABEL_MISTAKES: dict[str, tuple[Any, str]] = {
    "no-mapping": (lambda y: y["digit"], "the model has 2 outputs; give a mapping of digit, odd"),
    "unknown-output": (lambda y: {"digits": y["digit"]}, "one or more of the outputs digit, odd, got digits"),
    "none": (lambda y: {}, "one or more of the outputs digit, odd, got none"),
    "too-many-classes": (lambda y: {"odd": y["digit"]}, r"expected 0\.\.1, got 0\.\.9"),
}


@pytest.mark.parametrize("mistake", LABEL_MISTAKES)
def test_classes_that_do_not_fit_are_refused(mistake: str, model_of: Any, data: Digits) -> None:
    change, message = LABEL_MISTAKES[mistake]
    x, y = inputs_for("two-eyes", data.x_test), classes_for("two-eyes", data.y_test)
    with pytest.raises(ExportError, match=message):
        make_reference(model_of("two-eyes"), x, change(y))


def test_classes_of_plain_values_are_refused(model_of: Any, data: Digits) -> None:
    with pytest.raises(ExportError, match=r"output 'brightness' \[1, 1\] is no row of classes"):
        make_reference(model_of("two-outputs"), data.x_test, {"brightness": data.y_test})


def test_class_names_belong_to_outputs(model_of: Any, data: Digits, tmp_path: Path) -> None:
    x, y, names = inputs_for("two-eyes", data.x_test), classes_for("two-eyes", data.y_test), names_for("two-eyes")
    for labels, message in (
        (names["digit"], "expected a mapping with the class names of digit, odd, .* got list"),
        ({"digit": names["digit"]}, "class names of digit, odd, .* got digit"),
        ({**names, "odd": ["even"]}, "labels: expected 2 names.*got 1"),
    ):
        with pytest.raises(ExportError, match=message):
            export_model(
                model_of("two-eyes"),
                tmp_path / "out",
                recipes=["float32"],
                labels=labels,
                representative=None,
                x_test=take_part(x, slice(40)),
                y_test=take_part(y, slice(40)),
                provenance={},
            )


def test_dtypes_may_be_given_by_input(model_of: Any) -> None:
    assert describe(model_of("two-eyes"), {"left": "float32"}).input_dtypes == {"left": "float32", "right": "uint8"}
    assert set(describe(model_of("two-eyes"), "float32").input_dtypes.values()) == {"float32"}
    with pytest.raises(ExportError, match=r"no input 'lft'\. Did you mean 'left'"):
        describe(model_of("two-eyes"), {"lft": "float32"})


def test_every_topology_is_in_every_table() -> None:
    assert TOPOLOGIES.keys() == ENDS.keys()
    assert TUNED.keys() <= TOPOLOGIES.keys()
