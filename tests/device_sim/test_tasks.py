"""Tasks from the data to a verified bundle: numbers in their own units, tags as probabilities, runs that are proven."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from device_sim.cli.simulate import run
from device_sim.experiment.toml import parse_experiment
from device_sim.run.folder import RunFolder
from device_sim.verify.run import verify_run
from export.bundles.folder import read_bundle
from export.runtimes import run_frames
from export.tflite.graph import read_graph
from fl_mobile.errors import ConfigError
from fl_mobile.tasks import measured, tally_of

pytestmark = pytest.mark.tf
FAST = ("train.rounds=2", "train.cohort=3", "data.devices=4", "fleet.dropout-rate=0", "engine.workers=1")


def played(path: Path, *changes: str, recipes: tuple[str, ...] = ("float32",)) -> dict:
    """Returns the summary of a run of two rounds, verified."""
    experiment = parse_experiment("", [*FAST, *changes])
    summary = run(experiment, path, recipes, open_keys=frozenset(), resume=False, quiet=True)
    verify_run(RunFolder(path))
    return summary


def answers(path: Path, x: np.ndarray) -> np.ndarray:
    """Returns what the shipped float32 artifact answers, by the runtime that ships."""
    graph = read_graph(read_bundle(path / "bundle").files["float32.tflite"])
    name = graph.signature("serving_default").inputs[0].name
    (rows,) = run_frames("litert", graph, {name: x}).values()
    return rows


def test_numbers_of_a_table_come_out_in_their_own_units(tmp_path: Path) -> None:
    from device_sim.federation.dealing import open_dataset
    from device_sim.run.held_out import in_units

    summary = played(tmp_path / "run", "data.dataset=diabetes", "model.name=tabular-mlp", recipes=("float32", "int8"))
    assert summary["task"]["name"] == "regression"
    assert summary["accuracy_name"] == "R²"
    assert 20 < summary["metrics"]["mae"] < 90, "in units of the disease, not of its spread"
    told = {artifact["recipe"]: artifact["metrics"]["r2"] for artifact in summary["export"]["artifacts"]}
    assert told["float32"][1] == pytest.approx(told["float32"][0], abs=1e-4)
    assert told["int8"][1] == pytest.approx(told["int8"][0], abs=0.05)
    dataset = open_dataset(parse_experiment("", [*FAST, "data.dataset=diabetes"]))
    rows = answers(tmp_path / "run", dataset.test.x)
    raw = in_units(dataset, dataset.test.y)
    found = measured("regression", tally_of("regression", raw, rows, from_logits=False))
    assert found == pytest.approx(summary["metrics"], rel=1e-3), "raw features in, measures out, no Python between"
    lines = [json.loads(line) for line in (tmp_path / "run" / "rounds.jsonl").read_text().splitlines()]
    assert lines[-1]["metrics"]["r2"] == lines[-1]["accuracy"]


@pytest.mark.slow
def test_tags_leave_the_phone_as_probabilities(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    x = rng.standard_normal((80, 5)).astype(np.float32)
    y = (x @ rng.standard_normal((5, 3)) > 0).astype(int)
    np.savez(tmp_path / "tags.npz", x=x, y=y, labels=["a", "b", "c"])
    data = ("data.dataset=npz", f"data.path={tmp_path / 'tags.npz'}", "model.name=mlp")
    summary = played(tmp_path / "run", *data, "evaluation.device-test-fraction=0.3")
    assert summary["task"] == summary["task"] | {"name": "multi-label", "loss_name": "binary-crossentropy"}
    rows = answers(tmp_path / "run", x)
    assert rows.shape == (80, 3)
    assert 0 < rows.min() < rows.max() < 1
    spread = summary["federated_evaluation"]["metrics"]["macro-f1"]
    assert spread["worst_5_percent"] <= spread["p10"] <= spread["p50"] <= spread["p90"]


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        (("task.name=sequence", "data.dataset=digits"), "does not fit dataset 'digits'"),
        (("data.dataset=diabetes", "train.loss=binary-crossentropy"), "its losses are mse, mae, huber"),
        (("data.dataset=diabetes", "attack.name=label-flip"), "take an attack on updates"),
        (("data.dataset=digits", "data.standardize=federated"), "needs rows of numbers"),
    ],
)
def test_what_does_not_fit_the_task_is_told_before_round_1(tmp_path: Path, changes: tuple[str, ...], told: str) -> None:
    with pytest.raises(ConfigError, match=told):
        played(tmp_path / "run", "model.name=mlp", *changes)
    assert not (tmp_path / "run").exists()
