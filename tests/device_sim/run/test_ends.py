"""Several inputs and heads from an .npz to a verified bundle with each head's labels, metrics and golden answers."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from device_sim.experiment.toml import parse_experiment
from device_sim.federation.federation import open_federation
from device_sim.run.finish import check_before_training, finish
from device_sim.run.folder import create
from device_sim.run.held_out import finished, forms_of, frames_of
from device_sim.run.keras_file import read_run_model
from device_sim.run.loop import simulate
from device_sim.verify.run import verify_run
from export.convert.recipes import RECIPES
from export.model.serving import described
from export.runtimes import run_frames
from export.tflite.graph import read_graph
from export.verify.by_task import TaskTargets
from export.verify.golden import unpack_golden
from export.verify.measured import parity_of, reference_of
from fl_mobile.errors import ConfigError

pytestmark = pytest.mark.tf
NAME = "tests.device_sim.run.test_ends:build"


def build(input_shape: dict[str, Any], num_classes: dict[str, int]) -> Any:
    import keras

    layers = keras.layers
    vitals = keras.Input(input_shape["vitals"], name="vitals")
    words = keras.Input(input_shape["words"], dtype="int32", name="words")
    x = layers.Concatenate()([vitals, layers.Flatten()(layers.Embedding(5, 3)(words))])
    x = layers.Dense(16, "relu")(x)
    heads = {"mood": layers.Dense(num_classes["mood"], "softmax")(x), "pain": layers.Dense(1)(x)}
    return keras.Model({"vitals": vitals, "words": words}, heads)


def data_at(path: Path) -> Path:
    rng = np.random.default_rng(0)
    vitals, words = rng.standard_normal((300, 3)), rng.integers(0, 5, (300, 2))
    mood = (vitals[:, 0] > 0).astype(int) + (words[:, 0] > 2)
    np.savez(path, **{"x.vitals": vitals, "x.words": words, "y.mood": mood, "y.pain": vitals @ [1, 0.5, -1],
                      "labels.mood": ["sad", "so", "glad"]})  # fmt: skip
    return path


def test_two_inputs_and_two_heads_reach_the_phone(tmp_path: Path) -> None:
    keys = {"data.dataset": "npz", "data.path": data_at(tmp_path / "d.npz"), "model.name": NAME, "data.devices": 6,
            "train.cohort": 6, "train.rounds": 3, "fleet.link": "wifi", "fleet.dropout-rate": 0, "engine.workers": 1,
            "output.keep-by": "accuracy", "data.standardize": "federated",
            "train.class-weights": "balanced"}  # fmt: skip
    federation = open_federation(parse_experiment("", [f"{key}={value}" for key, value in keys.items()]))
    try:
        check_before_training(federation, ["float32"], lambda _: None)
        with pytest.raises(ConfigError, match="is for one input and one head"):
            check_before_training(federation, ["qat-int8"], lambda _: None)
        folder = create(tmp_path / "run", federation.experiment)
        rounds = list(simulate(federation, folder))
        summary = finish(federation, folder, rounds, command="", recipes=["float32"], say=lambda _: None)
    finally:
        federation.engine.close()
    assert rounds[-1].metrics.keys() >= {"mood/accuracy", "pain/r2"}
    assert rounds[-1].accuracy == pytest.approx(
        (rounds[-1].metrics["mood/accuracy"] + rounds[-1].metrics["pain/r2"]) / 2
    )
    assert summary["task"]["inputs"] == ["vitals:float32:3", "words:int32:2"]
    made = summary["export"]["artifacts"][0]["metrics"]
    assert made.keys() >= {"mood/accuracy", "mood/macro-f1", "pain/r2", "pain/mae"}
    golden = unpack_golden((folder.bundle / "golden.npz").read_bytes())
    assert golden.keras.keys() == {"mood", "pain"} == golden.outputs["float32"].keys()
    assert golden.frames.keys() == {"vitals", "words"}
    np.testing.assert_allclose(golden.keras["mood"].sum(axis=1), 1, atol=1e-5)
    assert {check.part for check in verify_run(folder, trust_code=True)} >= {"bundle"}
    _damage_to_one_head_is_told_by_its_name(federation, folder)


def _damage_to_one_head_is_told_by_its_name(federation: Any, folder: Any) -> None:
    dataset, recipe = federation.dataset, RECIPES["float32"]
    model = finished(read_run_model(folder.model, federation.experiment), dataset, "sum-of-heads")
    told = dataset.told(dataset.test.y)
    reference = replace(
        reference_of(described(model, forms_of(dataset), classes=False), frames_of(dataset, dataset.test.x), None),
        told={head.name: TaskTargets(head.task, told[head.name]) for head in dataset.heads},
    )
    graph = read_graph((folder.bundle / "float32.tflite").read_bytes())
    stored = run_frames("litert", graph, reference.frames)
    assert parity_of(reference, recipe, graph, stored).failures == ()
    stored["pain"] = stored["pain"][::-1]
    failures = parity_of(reference, recipe, graph, stored).failures
    assert failures
    assert all(words.startswith("pain: ") for words in failures)
    assert any("r2" in words for words in failures)
