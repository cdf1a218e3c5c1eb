"""``--recipe auto``: the smallest file that is the model, and what was tried."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from export import export_model, verify_bundle
from export.bundles.folder import canonical_json
from export.convert.conversion import convert_here
from export.convert.recipes import RECIPES
from export.convert.saved import saved_models
from export.convert.to_tflite import make_artifact
from export.layers import keep_in_int16
from export.model.frames import frames_for
from export.model.serving import described
from export.report.facts import NOTHING_KNOWN
from export.runtimes import answers, missing_runtimes
from export.tflite.editing import op_name, read_model
from export.tflite.graph import read_graph
from export.variants.attempt import Origin, Request
from export.variants.auto import MAX_CANDIDATES, Found, nothing_passed, search
from export.verify.measured import reference_of
from fl_mobile.errors import VerifyError
from tests.export.bundles.test_bundle import forge
from tests.export.convert.topologies import LABELS, Digits

pytestmark = pytest.mark.tf
KERNELS = ("conv", "hidden", "logits")


@pytest.fixture(scope="module")
def wild(data: Digits) -> Any:
    """A classifier that int8 ruins in its first layer: one channel is 300 times as loud as the others."""
    import keras

    layers = keras.layers
    keras.utils.set_random_seed(5)
    net = keras.Sequential(
        [
            layers.Input((8, 8, 1)),
            layers.Rescaling(1 / 255, name="rescale"),
            layers.Conv2D(12, 3, activation="relu", name="conv"),
            layers.Flatten(name="flat"),
            layers.Dense(32, activation="relu", name="hidden"),
            layers.Dense(10, name="logits"),
        ],
        name="wild",
    )
    net.compile(keras.optimizers.Adam(3e-3), keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    net.fit(data.x_train.astype(np.float32), data.y_train, epochs=4, verbose=0)
    kernel, bias = (weight.copy() for weight in net.get_layer("conv").get_weights())
    dense, offset = (weight.copy() for weight in net.get_layer("hidden").get_weights())
    answered = keras.Sequential(net.layers[:2])(data.x_test[:50].astype(np.float32))
    loudest = int(np.asarray(answered).mean((0, 1, 2)).argmax())
    kernel[..., loudest] *= 300
    bias[loudest] *= 300
    dense.reshape(6, 6, 12, 32)[:, :, loudest] /= 300
    net.get_layer("conv").set_weights([kernel, bias])
    net.get_layer("hidden").set_weights([dense, offset])
    return net


def request_of(model: Any, data: Digits, keep_float: Sequence[str] = (), samples: int = 200) -> Request:
    found = described(model)
    return Request(
        described=found,
        reference=reference_of(found, data.x_test[:samples], data.y_test[:samples]),
        calibration=frames_for(found.serving, data.x_train[:100], "frames"),
        keep_float=keep_float,
        labels={"probabilities": tuple(LABELS)},
        tuning=None,
        training=NOTHING_KNOWN,
    )


def searched(request: Request) -> Found:
    with saved_models(request.described) as saved:
        return search(request, Origin(saved, None), lambda _: None)


@pytest.fixture(scope="module")
def found(wild: Any, data: Digits) -> Found:
    return searched(request_of(wild, data))


def test_the_smallest_file_that_passes_is_taken(found: Found) -> None:
    candidates = found.frontier.candidates
    passed = [one for one in candidates if one.passed]
    assert found.made is not None
    assert found.made.variant.bytes == min(one.bytes for one in passed)
    assert candidates[0].name == "int8", "cheapest first"
    assert not candidates[0].passed
    assert len({one.name for one in candidates}) == len(candidates) <= MAX_CANDIDATES
    assert {one.conversion for one in candidates} == {"int8", "int16x8", "dynamic-int8", "float16", "float32"}
    for kept in ({one.kept_float for one in candidates}, {one.kept_int16 for one in candidates}):
        assert ("conv",) in kept, "the worst layer is the first to be kept out"
    assert found.made.variant.gates == RECIPES[found.made.variant.conversion]


def test_others_stand_behind_it_in_order_of_size(found: Found) -> None:
    sizes, made = [], found.made
    while made is not None:
        sizes.append(made.variant.bytes)
        made = made.second() if made.second else None
    assert sizes == sorted(sizes)
    assert len(sizes) == sum(one.passed for one in found.frontier.candidates)


def test_the_front_holds_what_nobody_beats(found: Found) -> None:
    front = found.frontier.front
    assert found.made is not None
    assert {one.name for one in front} >= {min(found.frontier.candidates, key=lambda one: one.bytes).name, "float32"}
    table = "\n".join(found.frontier.lines(found.made.variant.made_as))
    assert f"| {found.made.variant.made_as} **written** |" in table
    assert all(f"| {one.bytes:,} |" in table for one in front)


@pytest.mark.slow
def test_the_same_search_gives_the_same_bytes(wild: Any, data: Digits, found: Found) -> None:
    again = searched(request_of(wild, data))
    assert again.frontier == found.frontier
    assert again.made is not None
    assert found.made is not None
    assert again.made.graph.data == found.made.graph.data


def test_layers_that_are_to_stay_in_float_do(wild: Any, data: Digits) -> None:
    made = searched(request_of(wild, data, keep_float=("logits",))).made
    assert made is not None
    assert made.variant.layers is not None
    assert "logits" in made.variant.layers.kept_float


def test_nothing_passes_and_the_nearest_is_named(wild: Any, data: Digits) -> None:
    request = request_of(wild, data)
    turned = {name: rows[:, ::-1] for name, rows in request.reference.answers.items()}
    nothing = searched(replace(request, reference=replace(request.reference, answers=turned)))
    assert nothing.made is None
    told = nothing_passed(nothing.frontier)
    assert told.outcome == "failed"
    assert "candidates is the Keras model; nearest came " in told.reason
    assert "bytes): " in told.reason


@pytest.mark.sample(r"kept0|kept3")
@pytest.mark.parametrize("kept", [["conv"], ["hidden"], ["logits"], ["conv", "hidden"], ["flat", "hidden", "logits"]])
def test_chosen_layers_are_on_16_bits_and_the_others_on_8(kept: list[str], wild: Any, data: Digits) -> None:
    request = request_of(wild, data)
    with saved_models(request.described, convert_here) as saved:
        twin = Origin(saved, None).twin(RECIPES["int8"])
        narrow, wide = (make_artifact(saved, RECIPES[name], request.calibration) for name in ("int8", "int16x8"))
    mixed = keep_in_int16(narrow, wide, twin, kept)
    types = kernel_types(mixed.data)
    for layer, (kernel, result) in types.items():
        assert (kernel, result) == ("INT8", "INT16" if layer in kept else "INT8")
    assert mixed.signatures == narrow.signatures
    assert mixed.file_bytes < narrow.file_bytes * 1.5
    frames = data.x_test[:40]
    rows = {name: answers(name, mixed, frames) for name in ("litert", "litert-compiled", "tf-lite")}
    for name, part in rows.items():
        if name not in missing_runtimes():
            np.testing.assert_allclose(part.astype(float), rows["litert"].astype(float), atol=2, err_msg=name)


def kernel_types(data: bytes) -> dict[str, tuple[str, str]]:
    from ai_edge_litert import schema_py_generated as schema

    names = {code: name for name, code in vars(schema.TensorType).items() if not name.startswith("_")}
    model = read_model(data)
    tensors, found = model.subgraphs[0].tensors, {}
    for operator in model.subgraphs[0].operators:
        if op_name(model, operator) in ("CONV_2D", "FULLY_CONNECTED"):
            ends = (operator.inputs[1], operator.outputs[0])
            found[KERNELS[len(found)]] = tuple(names[tensors[i].type] for i in ends)
    return found


def test_its_bundle_is_whole_and_says_what_was_found(wild: Any, data: Digits, tmp_path: Path) -> None:
    out = tmp_path / "out"
    report = export_model(
        wild,
        out,
        recipes=["float32", "auto"],
        labels=LABELS,
        representative=data.x_train[:100],
        x_test=data.x_test[:200],
        y_test=data.y_test[:200],
    )
    assert [variant.recipe for variant in report.variants] == ["float32", "auto"]
    chosen = report.variants[1].made_as
    told = json.loads((out / "report.json").read_text())
    assert told["search"]["chosen"] == chosen
    assert told["variants"][1]["suits"] == chosen
    assert chosen in (out / "report.md").read_text(encoding="utf-8")
    assert read_graph((out / "auto.tflite").read_bytes()).file_bytes == report.variants[1].bytes
    verify_bundle(out, model=wild, x=data.x_test[:200], y=data.y_test[:200])
    told["variants"][1]["conversion"] = "sparse-80-int8"
    forge(out, lambda files: files.update({"report.json": canonical_json(told)}))
    with pytest.raises(VerifyError, match="auto is not judged by 'sparse-80-int8'"):
        verify_bundle(out)


def test_without_frames_it_does_without_calibration(wild: Any, data: Digits) -> None:
    found = searched(replace(request_of(wild, data), calibration=None))
    assert found.made is not None
    assert {each.recipe for each in found.frontier.left_out} == {"int8", "int16x8"}
    assert "needs representative frames" in found.frontier.left_out[0].reason
