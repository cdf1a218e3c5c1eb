"""Hardware targets refuse what they have no kernels for, and only that."""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path
from typing import Any

import pytest

from export import export_model, verify_bundle
from export.convert.recipes import RECIPES
from export.convert.to_tflite import to_tflite
from export.layers import float_twin, keep_in_float
from export.tflite.graph import read_graph
from export.verify.targets import TARGETS, check_targets, refused_by
from fl_mobile.errors import ConfigError
from tests.export.convert.topologies import LABELS, Digits

pytestmark = pytest.mark.tf

REFUSED: dict[str, dict[str, str]] = {
    "edge-tpu": {
        "float32": "FLOAT32",
        "float16": "FLOAT",
        "dynamic-int8": "FLOAT32",
        "int16x8": "INT16",
        "kept": "DEQUANTIZE",
    },
    "nnapi": {"int8": "a dense layer has 10 scales|a dense layer has 32 scales", "int16x8": "scales|INT16"},
    "mediatek": {"int8": "scales, it takes one. Take 'int8-legacy'", "int16x8": "scales"},
    "ethos-u": {"float32": "FLOAT32", "float16": "FLOAT", "dynamic-int8": "FLOAT32", "kept": "DEQUANTIZE"},
    "microcontroller": {"dynamic-int8": "has an INT8 kernel under FLOAT32 activations"},
    "microcontroller-2023": {"dynamic-int8": "INT8 kernel", "int8": "scales", "int16x8": "scales"},
    "tflite-2.14": {"int8": "scales", "int16x8": "scales"},
}
"""Target → recipe → what is said of the demo's layers; every other pair is taken."""


@pytest.fixture(scope="module")
def artifact(model: Any, data: Digits) -> Any:
    def made(name: str) -> Any:
        if name == "kept":
            return keep_in_float(artifact("int8"), float_twin(model, "uint8"), [model.layers[-1].name])
        return read_graph(to_tflite(model, RECIPES[name], representative=data.x_train[:50]))

    artifact = lru_cache(maxsize=None)(made)
    return artifact


@pytest.mark.sample(r"(?!edge-tpu).*")
@pytest.mark.parametrize("target", REFUSED)
def test_a_target_refuses_what_it_has_no_kernels_for(target: str, artifact: Any) -> None:
    check_targets([target])
    for name in (*RECIPES, "kept"):
        told = refused_by([target], artifact(name))
        if name in REFUSED[target] or (name == "kept" and "int8" in REFUSED[target]):
            (line,) = told
            assert line.startswith(f"target {target}: ")
            wanted = REFUSED[target].get(name, "")
            assert any(part in line for part in wanted.split("|")), line
        else:
            assert not told, name


def test_every_target_is_tried_here() -> None:
    assert TARGETS.keys() <= REFUSED.keys()


def test_unknown_targets_are_refused_with_the_nearest() -> None:
    with pytest.raises(ConfigError, match=r"target 'edgetpu' is not known\. Did you mean 'edge-tpu'"):
        check_targets(["edgetpu"])


@pytest.mark.slow
def test_a_recipe_that_a_target_refuses_costs_no_other(model: Any, data: Digits, tmp_path: Path) -> None:
    def exported(out: Path, recipes: list[str]) -> Any:
        return export_model(
            model,
            out,
            recipes=recipes,
            labels=LABELS,
            representative=data.x_train[:50],
            x_test=data.x_test[:100],
            y_test=data.y_test[:100],
            targets=["nnapi"],
        )

    report = exported(tmp_path / "both", ["int8", "int8-legacy"])
    assert [variant.recipe for variant in report.variants] == ["int8-legacy"]
    assert "target nnapi: a dense layer has" in report.unmade[0].reason
    verify_bundle(tmp_path / "both")
    found = exported(tmp_path / "auto", ["auto"])
    assert found.variants[0].conversion == "int8-legacy"
    assert found.frontier is not None
    assert any("target nnapi" in why for one in found.frontier.candidates for why in one.failures)
