"""Laws over every tuned recipe, and what must be caught between the name and the weights."""

from __future__ import annotations

import json
import math
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from export.convert.recipes import RECIPES, TUNED_RECIPES, find_recipe
from export.convert.to_tflite import to_tflite
from export.model.serving import SIGNATURE, describe, described
from export.runtimes import RUNTIMES, answers, missing_runtimes, real_values, run_frames
from export.tflite.graph import read_graph
from export.tuning import TUNINGS, Tuning, TuningSet, check_tuned, find_tuning, tune
from export.tuning.size import account_for
from export.tuning.sources import TunedSource, check_tuned_artifact
from export.tuning.tune import crowded_groups
from export.verify.measured import reference_of
from fl_mobile.errors import ConfigError, ExportError, VerifyError
from fl_mobile.wire.pruning_mask import SMALLEST_KERNEL
from tests.export.convert.topologies import LABELS, Digits, inputs_for

pytestmark = pytest.mark.tf

PATHS = ["kernel"]


def tuning_set(data: Digits, **changes: Any) -> TuningSet:
    fields = {"x": data.x_train[:640], "y": data.y_train[:640], "origin": "public", "epochs": 2}
    return TuningSet(**{**fields, **changes})


@pytest.fixture(scope="module")
def source_of(model: Any, data: Digits) -> Any:
    """Returns the tuned source of a tuning's name; each is tuned at most once."""

    def make(name: str) -> TunedSource:
        tuned = tune(model, find_tuning(name), tuning_set(data))
        found = described(tuned.model)
        return TunedSource(found, reference_of(found, data.x_test, data.y_test), tuned.report)

    return lru_cache(maxsize=None)(make)


def proven(source: TunedSource, recipe: Any, artifact: bytes) -> Any:
    graph = read_graph(artifact)
    return check_tuned_artifact(source, recipe, graph, run_frames("litert", graph, source.reference.frames))


@pytest.mark.sample(r"sparse-80-int8|clustered-16-float32|sparse-80-qat-int8")
@pytest.mark.parametrize("recipe", TUNED_RECIPES.values(), ids=TUNED_RECIPES)
def test_artifact_is_the_tuned_model_and_small(recipe: Any, source_of: Any, model: Any, data: Digits) -> None:
    source = source_of(recipe.tuning)
    artifact = to_tflite(source.described.model, recipe, representative=data.x_train[:100])
    parity = proven(source, recipe, artifact)
    assert parity.weights >= parity.kernel_weights > 0
    graph = read_graph(artifact)
    assert not graph.foreign_ops
    size = account_for(artifact, describe(model).kernel_weights, recipe)
    if recipe.configure.__name__ == "store_zeros_as_gaps":
        assert size.kernel_bytes < 0.4 * describe(model).kernel_weights * recipe.weight_bits / 8
    else:
        assert size.error < 0.03
    for runtime in set(RUNTIMES) - set(missing_runtimes()) - {"litert", "litert-js"}:
        end = graph.signature(SIGNATURE).outputs[0]
        ours, theirs = (real_values(end, answers(r, artifact, data.x_test[:20])) for r in ("litert", runtime))
        assert np.abs(ours - theirs).max() <= recipe.tolerance.replay_abs, runtime


@pytest.mark.sample(r"(?!.*-qat).*")
@pytest.mark.parametrize("tuning", TUNINGS.values(), ids=TUNINGS)
def test_kernels_are_what_the_name_says(tuning: Tuning, source_of: Any, model: Any) -> None:
    report = source_of(tuning.name).report
    weights = {weight.path: weight.numpy() for weight in source_of(tuning.name).described.model.weights}
    large = [v.path for v in model.trainable_variables if len(v.shape) > 1 and math.prod(v.shape) >= SMALLEST_KERNEL]
    assert [kernel.path for kernel in report.kernels] == large
    assert large
    check_tuned(tuning, weights, [kernel.path for kernel in report.kernels])
    assert any(not np.array_equal(weights[w.path], w.numpy()) for w in model.weights), "tuning must have trained"
    json.dumps(report.to_json(), allow_nan=False)


def test_every_row_decodes() -> None:
    for name, row in TUNED_RECIPES.items():
        assert name == row.name == f"{row.tuning}-{row.conversion}"
        assert find_recipe(name) is row
        assert row.tuning in TUNINGS
        assert row.conversion in RECIPES
    assert not TUNED_RECIPES.keys() & RECIPES.keys()
    assert {row.tuning for row in TUNED_RECIPES.values()} == set(TUNINGS)
    assert all(name == tuning.name for name, tuning in TUNINGS.items())


@pytest.mark.slow
def test_tuning_twice_gives_the_same_weights(source_of: Any, model: Any, data: Digits) -> None:
    name = "sparse-80-clustered-16-qat"
    again = tune(model, TUNINGS[name], tuning_set(data)).model.get_weights()
    first = source_of(name).described.model.get_weights()
    assert all(np.array_equal(a, b) for a, b in zip(first, again, strict=True))


def test_bundle_of_tuned_recipes(model: Any, data: Digits, tmp_path: Path) -> None:
    from export import export_model, verify_bundle

    examples = tuning_set(data, x=data.x_train, y=data.y_train, epochs=2)
    report = export_model(
        model,
        tmp_path / "bundle",
        recipes=["float32", "clustered-16-int8", "qat-int8"],
        labels=LABELS,
        representative=data.x_train[:100],
        x_test=data.x_test,
        y_test=data.y_test,
        provenance={},
        tuning=examples,
    )
    verify_bundle(tmp_path / "bundle", model=model, x=data.x_test, y=data.y_test)
    written = json.loads((tmp_path / "bundle" / "report.json").read_text())
    assert [t["tuning"] for t in written["tunings"]] == ["clustered-16", "qat"]
    assert {t["sha256"] for t in written["tunings"]} == {examples.sha256}
    assert report.tunings[0].origin == "public"
    assert examples.sha256[:16] in (tmp_path / "bundle" / "report.md").read_text(encoding="utf-8")


def kernel(zeros: float = 0.0, values: int = 1000) -> np.ndarray:
    """Returns a kernel with exactly that share of zeros and at most that many other values."""
    rng = np.random.default_rng(0)
    flat = rng.choice(np.linspace(0.5, 1.0, values), 64 * 50).astype(np.float32)
    flat[: round(zeros * flat.size)] = 0
    return rng.permutation(flat).reshape(64, 50)


@pytest.mark.parametrize(
    ("tuning", "damaged", "says"),
    [
        ("sparse-80", kernel(zeros=0.79), r"expected 80% zeros after 'sparse-80', found 79\.00%"),
        ("sparse-80-clustered-16", kernel(zeros=0.5, values=9), "expected 80% zeros"),
        ("sparse-2by4", kernel(zeros=0.5), "groups of four input weights"),
        ("clustered-16", kernel(values=17), "at most 16 values after 'clustered-16', found 17"),
        ("qat", kernel() * np.float32(np.nan), "not finite"),
    ],
)
def test_it_catches_a_kernel_that_is_not_what_the_name_says(tuning: str, damaged: np.ndarray, says: str) -> None:
    with pytest.raises(VerifyError, match=says):
        check_tuned(TUNINGS[tuning], {"kernel": damaged}, PATHS)


def test_good_kernels_pass() -> None:
    check_tuned(TUNINGS["sparse-80"], {"kernel": kernel(zeros=0.8)}, PATHS)
    check_tuned(TUNINGS["clustered-16"], {"kernel": kernel(values=16)}, PATHS)
    striped = kernel() * (np.arange(64) % 4 < 2)[:, None]
    check_tuned(TUNINGS["sparse-2by4"], {"kernel": striped}, PATHS)
    assert crowded_groups(striped.T.copy()) > 0, "groups lie along the inputs, not the outputs"


def test_it_catches_an_artifact_of_the_untuned_model(source_of: Any, model: Any, data: Digits) -> None:
    artifact = to_tflite(model, TUNED_RECIPES["sparse-80-float32"])
    with pytest.raises(VerifyError, match="is not the Keras model"):
        proven(source_of("sparse-80"), TUNED_RECIPES["sparse-80-float32"], artifact)


def test_it_catches_weights_of_another_width(model: Any) -> None:
    artifact, weights = to_tflite(model, RECIPES["float32"]), describe(model).kernel_weights
    assert account_for(artifact, weights, RECIPES["float32"]).error < 0.03
    assert account_for(artifact, weights, RECIPES["float16"]).error > 0.2


def test_tuning_that_costs_accuracy_is_refused(model: Any, data: Digits, tmp_path: Path) -> None:
    from export import export_model

    wrong = tuning_set(data, y=(data.y_train[:640] + 1) % 10, epochs=3, learning_rate=0.01)
    with pytest.raises(VerifyError, match=r"tuning 'sparse-80' cost too much.*more tuning examples or epochs"):
        export_model(
            model,
            tmp_path / "bundle",
            recipes=["sparse-80-int8"],
            labels=LABELS,
            representative=data.x_train[:50],
            x_test=data.x_test,
            y_test=data.y_test,
            provenance={},
            tuning=wrong,
        )
    assert not (tmp_path / "bundle").exists()


def test_tuned_recipe_without_examples_is_refused(model: Any, data: Digits, tmp_path: Path) -> None:
    from export import export_model

    with pytest.raises(ExportError, match="'sparse-80-int8' trains the model further and needs a tuning set"):
        export_model(
            model,
            tmp_path / "bundle",
            recipes=["sparse-80-int8"],
            labels=LABELS,
            representative=data.x_train[:50],
            x_test=data.x_test,
            y_test=data.y_test,
            provenance={},
        )


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"origin": "devices"}, "Examples of devices are never used unless"),
        ({"epochs": 0}, "epochs ≥ 1"),
        ({"learning_rate": float("nan")}, "learning_rate > 0"),
        ({"y": np.zeros((640, 10))}, "one class number per frame"),
        ({"x": np.zeros((0, 8, 8, 1)), "y": np.zeros(0, int)}, "one class number per frame"),
    ],
)
def test_impossible_tuning_sets_are_refused(changes: dict[str, Any], says: str, data: Digits) -> None:
    with pytest.raises(ExportError, match=says):
        tuning_set(data, **changes)


def test_examples_that_do_not_fit_the_model_are_refused(model: Any, data: Digits) -> None:
    with pytest.raises(ExportError, match=r"tuning frames: expected one or more frames of shape \[n, 8, 8, 1\]"):
        tune(model, TUNINGS["qat"], tuning_set(data, x=np.zeros((640, 9, 8, 1), np.uint8)))
    with pytest.raises(ExportError, match=r"expected classes 0\.\.9, got up to 10"):
        tune(model, TUNINGS["qat"], tuning_set(data, y=np.full(640, 10)))


def test_model_without_a_kernel_to_tune_is_refused(model_of: Any, data: Digits) -> None:
    import keras

    layers = keras.layers
    tiny = keras.Sequential([layers.Input((8, 8, 1)), layers.Flatten(), layers.Dense(10)])
    with pytest.raises(ExportError, match="no dense or convolution kernel of 2048 or more weights"):
        tune(tiny, TUNINGS["sparse-80"], tuning_set(data))
    with pytest.raises(ExportError, match="'subclassed' is subclassed"):
        tune(model_of("subclassed"), TUNINGS["qat"], tuning_set(data, x=inputs_for("subclassed", data.x_train[:640])))


def test_unknown_tuning_names_the_nearest() -> None:
    with pytest.raises(ConfigError, match="Did you mean 'sparse-80'"):
        find_tuning("sparse80")
    with pytest.raises(ConfigError, match="Did you mean 'sparse-80-int8'"):
        find_recipe("sparse-80-int")


def test_the_hash_covers_frames_and_classes(data: Digits) -> None:
    hashes = {tuning_set(data).sha256, tuning_set(data, y=data.y_train[1:641]).sha256}
    hashes.add(tuning_set(data, x=data.x_train[1:641]).sha256)
    assert len(hashes) == 3
    assert tuning_set(data).sha256 == tuning_set(data, epochs=5).sha256
