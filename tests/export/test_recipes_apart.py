"""Every recipe stands or falls alone, the model is traced once and no file is read twice."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from export import export_model, verify_bundle
from export.convert.recipes import CORE_RECIPES, RECIPES
from export.convert.to_tflite import to_tflite
from export.runtimes import RUNTIMES, isolated
from export.tflite import graph as graph_module
from export.verify import bundle as verify_module
from fl_mobile.errors import ExportError, VerifyError
from tests.export.convert.topologies import LABELS, Digits, branching

pytestmark = pytest.mark.tf


def exported(model: Any, out: Path, data: Digits, recipes: list[str], **changes: Any) -> Any:
    options = {
        "labels": LABELS,
        "representative": data.x_train[:40],
        "x_test": data.x_test[:100],
        "y_test": data.y_test[:100],
        "provenance": {},
    }
    return export_model(model, out, recipes=recipes, **{**options, **changes})


@pytest.fixture
def unproven(monkeypatch: pytest.MonkeyPatch) -> None:
    """Leaves out the proof, which starts processes and reads the bundle again, because that is its purpose."""
    from export.bundles.folder import UNSIGNED
    from export.verify.bundle import BundleProof

    monkeypatch.setattr("export.pipeline.verify_bundle", lambda *a, **k: BundleProof(Path(), UNSIGNED, 0, (), {}, ()))


def test_the_model_is_traced_once_and_each_file_is_read_once(
    data: Digits, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, unproven: None
) -> None:
    """Once to describe it, and once for each of the two forms its SavedModel has: float ends and integer ends."""
    import keras
    import tensorflow as tf

    traces: list[bool] = []

    class Counted(keras.layers.Layer):
        def call(self, x: Any) -> Any:
            traces.append(not tf.executing_eagerly())
            return x / 255.0

    layers = keras.layers
    model = keras.Sequential([layers.Input((8, 8, 1)), Counted(), layers.Flatten(), layers.Dense(10, name="logits")])
    walked: Counter[bytes] = Counter()
    walk = graph_module._summarise

    def counting(parsed: Any, read: bytes) -> Any:
        walked[read] += 1
        return walk(parsed, read)

    monkeypatch.setattr(graph_module, "_summarise", counting)
    traces.clear()
    report = exported(model, tmp_path / "out", data, [*CORE_RECIPES, "int16x8"])
    assert [variant.recipe for variant in report.variants] == [*CORE_RECIPES, "int16x8"]
    assert sum(traces) == 3
    assert set(walked.values()) == {1}
    assert len(walked) == 2 * 5 + 3, (
        "each artifact as converted and with its metadata, the float twin among them; two when they are calibrated,"
        " and int8 when it is quantised, before its frames are pixels"
    )


def test_operations_without_an_8_bit_kernel_are_told(data: Digits, tmp_path: Path, unproven: None) -> None:
    import keras

    keras.utils.set_random_seed(0)
    layers, plain = keras.layers, [keras.Input((8, 8, 1)), keras.layers.Rescaling(1 / 255), keras.layers.Flatten()]
    for activation, wanted in (("relu", []), ("elu", ["ELU"])):
        model = keras.Sequential([*plain, layers.Dense(12, activation), layers.Dense(10)])
        report = exported(model, tmp_path / activation, data, ["float32", "int8"])
        told = json.loads((tmp_path / activation / "report.json").read_text())
        assert [each["float_ops"] for each in told["variants"]] == [[], wanted]
        assert [list(variant.graph.float_ops) for variant in report.variants][1] == wanted
        assert report.variants[0].graph.float_ops, "float32 computes on floats"
        text = (tmp_path / activation / "report.md").read_text(encoding="utf-8")
        assert ("- `int8` computes ELU in float32; processors of integers alone refuse that" in text) == bool(wanted)


def test_one_recipe_that_fails_costs_no_other(model: Any, data: Digits, tmp_path: Path) -> None:
    """int8 is calibrated on dark frames only, so that its ranges are wrong."""
    report = exported(model, tmp_path / "out", data, ["float32", "int8"], representative=data.x_train[:20] // 32)
    assert [variant.recipe for variant in report.variants] == ["float32"]
    (failed,) = report.failed
    assert (failed.recipe, failed.outcome) == ("int8", "failed")
    assert "is not the Keras model" in failed.reason
    assert "try --keep-float" in failed.advice
    assert "recipe 'int16x8'" in failed.advice
    proof = verify_bundle(tmp_path / "out")
    assert {replay.recipe for replay in proof.replays} == {"float32"}
    told = json.loads((tmp_path / "out" / "report.json").read_text())
    assert [each["recipe"] for each in told["unmade"]] == ["int8"]
    assert "- `int8` failed: " in (tmp_path / "out" / "report.md").read_text(encoding="utf-8")


def test_a_recipe_that_does_not_suit_is_skipped_with_the_reason(data: Digits, tmp_path: Path, unproven: None) -> None:
    report = exported(branching(), tmp_path / "out", data, ["float32", "int8"])
    assert [variant.recipe for variant in report.variants] == ["float32"]
    assert [(each.recipe, each.outcome) for each in report.unmade] == [("int8", "skipped")]
    assert "it holds If, whose inside cannot be calibrated" in report.unmade[0].reason
    assert report.unmade[0].reason.endswith("Take 'dynamic-int8'.")
    assert report.failed == ()


def test_nothing_is_written_when_all_fail(data: Digits, tmp_path: Path) -> None:
    with pytest.raises(ExportError, match=r"no bundle was written\. int8, int16x8 skipped: .* Take 'dynamic-int8'"):
        exported(branching(), tmp_path / "out", data, ["int8", "int16x8"])
    assert list(tmp_path.iterdir()) == []


def test_the_error_of_the_only_recipe_is_told_as_it_is(model: Any, data: Digits, tmp_path: Path) -> None:
    with pytest.raises(VerifyError, match=r"^int8 on litert is not the Keras model .*try --keep-float"):
        exported(model, tmp_path / "out", data, ["int8"], representative=data.x_train[:20] // 32)
    assert list(tmp_path.iterdir()) == []


@pytest.fixture
def strayed(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Makes one runtime answer one artifact with zeros, as an old kernel might."""

    def stray(runtime: str, recipe: str) -> None:
        replies = isolated.isolated_replies

        def changed(*args: Any) -> Any:
            found = replies(*args)
            if (runtime, recipe) not in found:
                return found
            found[runtime, recipe] = {name: np.zeros_like(part) for name, part in found[runtime, recipe].items()}
            return found

        monkeypatch.setattr(verify_module, "isolated_replies", changed)

    return stray


def test_an_old_runtime_is_told_and_does_not_decide(model: Any, data: Digits, tmp_path: Path, strayed: Any) -> None:
    strayed("tf-lite", "float32")
    report = exported(model, tmp_path / "out", data, ["float32", "float16"])
    assert [variant.recipe for variant in report.variants] == ["float32", "float16"]
    assert report.notes[0].startswith("float32.tflite on tf-lite: golden outputs differ by up to ")
    (replay,) = [r for r in verify_bundle(tmp_path / "out").replays if r.problem]
    assert (replay.runtime, replay.recipe, replay.decides) == ("tf-lite", "float32", False)
    with pytest.raises(VerifyError, match=r"float32\.tflite on tf-lite: golden outputs differ"):
        verify_bundle(tmp_path / "out", runtimes=["tf-lite"])


def test_it_decides_as_a_target_and_only_over_its_artifact(
    model: Any, data: Digits, tmp_path: Path, strayed: Any
) -> None:
    strayed("tf-lite", "float32")
    report = exported(model, tmp_path / "out", data, ["float16", "float32"], targets=["tf-lite"])
    assert [variant.recipe for variant in report.variants] == ["float16"]
    assert report.failed[0].reason.startswith("float32.tflite on tf-lite: golden outputs differ")


def test_a_runtime_that_ships_decides_unasked(model: Any, data: Digits, tmp_path: Path, strayed: Any) -> None:
    strayed("litert-compiled", "float32")
    with pytest.raises(VerifyError, match=r"float32\.tflite on litert-compiled: golden outputs differ"):
        exported(model, tmp_path / "out", data, ["float32"])
    assert list(tmp_path.iterdir()) == []


def test_ships_is_said_of_litert_alone() -> None:
    assert {name for name, runtime in RUNTIMES.items() if runtime.ships} == {"litert", "litert-compiled", "litert-js"}


def test_equal_kernels_are_stored_once_and_that_is_no_loss(data: Digits, tmp_path: Path, unproven: None) -> None:
    """Zero-initialised kernels, LoRA after training, an untrained attention: parity tells, not how many constants."""
    import keras

    layers = keras.layers
    model = keras.Sequential(
        [
            layers.Input((8, 8, 1)),
            layers.Rescaling(1 / 255),
            layers.Flatten(),
            layers.Dense(64, kernel_initializer="zeros", name="one"),
            layers.Dense(64, kernel_initializer="zeros", name="two"),
            layers.Dense(10, name="logits"),
        ]
    )
    report = exported(model, tmp_path / "out", data, ["float32"])
    graph = report.variants[0].graph
    assert graph.weights < report.serving.kernel_weights


def test_layers_of_a_model_with_masks_are_measured(data: Digits) -> None:
    """`mask_zero` compares tokens with zero: a result of bools, which noise means nothing for."""
    import keras

    from export.layers import float_twin, layer_errors

    layers = keras.layers
    model = keras.Sequential(
        [
            layers.Input((6,), name="tokens"),
            layers.Embedding(20, 8, mask_zero=True, name="words"),
            layers.GlobalAveragePooling1D(),
            layers.Dense(3, name="logits"),
        ]
    )
    tokens = np.random.default_rng(0).integers(0, 20, (16, 6)).astype(np.float32)
    artifact = to_tflite(model, RECIPES["dynamic-int8"])
    errors = layer_errors(artifact, float_twin(model), {"tokens": tokens})
    assert {error.layer for error in errors} <= {"words", "logits", "global_average_pooling1d"}
