"""The Python door with Keras: a federation in memory in a few lines, the same bytes as the command line."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner

import device_sim
from device_sim.cli import make_app
from device_sim.run import folder as run_folder
from fl_mobile.errors import ConfigError, DataError, ModelError, RunError
from fl_mobile.tensors import weights_hash

pytestmark = pytest.mark.tf

Examples = tuple[np.ndarray, np.ndarray]


def draw(count: int, seed: int) -> Examples:
    rng = np.random.default_rng(seed)
    y = rng.integers(0, 3, count)
    x = rng.integers(0, 90, (count, 8, 8, 1)).astype(np.uint8)
    x[np.arange(count), y] += 150
    return x, y


def build_model(input_shape: tuple[int, ...], num_classes: int) -> Any:
    import keras

    layers = [keras.layers.Rescaling(1 / 255), keras.layers.Flatten(), keras.layers.Dense(num_classes)]
    return keras.Sequential([keras.Input(input_shape), *layers])


CLIENTS = {f"client-{i}": draw(20, i) for i in range(6)}
KEYS: dict[str, Any] = {"rounds": 4, "cohort": 3, "epochs": 2, "workers": 1, "dropout_rate": 0.0, "recipes": []}


def one_client(client: int) -> Examples:
    return CLIENTS[f"client-{client}"]


def hash_of(run: device_sim.Run) -> str:
    return weights_hash({v.path: v.numpy() for v in run.model().trainable_variables})


def test_rounds_stream_and_the_model_is_what_was_measured(tmp_path: Path) -> None:
    run = device_sim.simulate(build_model, CLIENTS, draw(60, 99), labels=["a", "b", "c"], **KEYS)
    first = next(iter(run))
    assert (first.round_num, len(run.rounds)) == (0, 1)
    again = [r.accuracy for r in run]
    assert again[0] == first.accuracy
    assert len(again) == 4
    x, y = draw(60, 99)
    model = run.model()
    predicted = model.predict(x.astype(np.float32), verbose=0).argmax(axis=1)
    assert run.accuracy == pytest.approx(float((predicted == y).mean()))
    assert run.evaluate(x, y)["accuracy"] == pytest.approx(run.accuracy)
    assert {tuple(v.shape) for v in run.updates[0].values()} == {(64, 3), (3,)}
    assert run.report(tmp_path / "report.html")._repr_html_().startswith("<iframe")
    path = run.path
    run.close()
    assert not path.exists()


def left_by(run: Path) -> dict[str, Any]:
    """What decides a run: its packets' lengths, the updates that were kept, the weights."""
    summary = json.loads((run / "summary.json").read_text())
    rounds = [json.loads(line) for line in (run / "rounds.jsonl").read_text().splitlines()]
    return {
        "rounds": [(r["accuracy"], r["loss"], r["upload_bytes"], r["download_bytes"]) for r in rounds],
        "updates": [file.read_bytes() for file in sorted((run / "updates").iterdir())],
        "checkpoint": (run / "checkpoint.npz").read_bytes(),
        "summary": {k: v for k, v in summary.items() if k not in ("command", "wall_seconds")},
        "files": sorted(p.name for p in run.iterdir() if p.name != run_folder.ARRAYS),
    }


def test_same_experiment_same_bytes_as_the_command_line(tmp_path: Path) -> None:
    """Twice in one process; a run that was stopped, left alone and resumed for more rounds comes to the same."""
    with device_sim.simulate(build_model, CLIENTS, draw(60, 99), out=tmp_path / "door", **KEYS) as run:
        assert run.experiment.model.name == f"{__name__}:build_model"
        run.finish()
    experiment, command = tmp_path / "door" / "experiment.toml", ["simulate", "--out", str(tmp_path / "command"), "-q"]
    done = CliRunner().invoke(make_app(), [*command, str(experiment)])
    assert done.exit_code == 0, done.output
    assert left_by(tmp_path / "command") == left_by(tmp_path / "door")
    halfway: dict[str, Any] = {**KEYS, "rounds": 3, "out": tmp_path / "halves"}
    with device_sim.simulate(
        build_model, CLIENTS, draw(60, 99), callbacks=[lambda run, round: run.stop()], **halfway
    ) as run:
        assert [r.round_num for r in run] == [0]
        assert [r.round_num for r in run] == [0, 1], "the finished round is no news to a callback"
    halfway["rounds"] = 4
    with device_sim.simulate(build_model, CLIENTS, draw(60, 99), resume=True, **halfway) as run:
        assert len(run.finish().rounds) == 4
        assert run.summary["rounds"] == 4
    assert left_by(tmp_path / "halves")["checkpoint"] == left_by(tmp_path / "door")["checkpoint"]
    other = {**CLIENTS, "client-5": draw(20, 77)}
    with pytest.raises(RunError, match="began with other examples"):
        device_sim.simulate(build_model, other, draw(60, 99), resume=True, **halfway)


def test_a_function_is_asked_for_clients_and_nothing_else_changes(tmp_path: Path) -> None:
    """Also a lambda that no other process could find: its run goes on in Python, and is told so on a command line."""
    asked: list[int] = []

    def ask(client: int) -> Examples:
        asked.append(client)
        return one_client(client)

    def local(input_shape: tuple[int, ...], num_classes: int) -> Any:
        return build_model(input_shape, num_classes)

    keys: dict[str, Any] = {**KEYS, "rounds": 2, "cohort": 2}
    with device_sim.simulate(local, list(CLIENTS.values()), draw(60, 99), **keys) as run:
        by_arrays = hash_of(run.finish())
    out = tmp_path / "run"
    with device_sim.simulate(local, ask, draw(60, 99), devices=6, out=out, **keys) as run:
        assert hash_of(run.finish()) == by_arrays
        assert run.experiment.model.name == "python"
    assert set(asked) < set(range(6)), "clients that never train are never asked"
    for words in (["simulate", "--resume", "--rounds", "3", "--out", str(out)], ["verify", str(out)]):
        done = CliRunner().invoke(make_app(), words)
        assert done.exit_code == (0 if words[0] == "verify" else 4), done.output
        assert ("device_sim.simulate(model, function" in done.output) == (words[0] == "simulate")
    with pytest.raises(RunError, match="began with other clients"):
        device_sim.simulate(local, lambda i: one_client(i), draw(60, 99), devices=6, out=out, resume=True, **keys)
    with device_sim.simulate(local, ask, draw(60, 99), devices=6, out=out, resume=True, **{**keys, "rounds": 3}) as run:
        assert len(run.finish().rounds) == 3


def test_tf_data_is_a_client_too() -> None:
    import tensorflow as tf

    clients = [tf.data.Dataset.from_tensor_slices(held).batch(7) for held in CLIENTS.values()]
    test = tf.data.Dataset.from_tensor_slices(draw(60, 99))
    with device_sim.simulate(build_model, clients, test, **{**KEYS, "rounds": 1}) as run:
        accuracy = run.finish().accuracy
        assert run.evaluate(test)["accuracy"] == pytest.approx(accuracy)
    with device_sim.simulate(build_model, CLIENTS, draw(60, 99), **{**KEYS, "rounds": 1}) as run:
        assert run.finish().accuracy == accuracy


def test_a_first_round_that_fails_leaves_no_folder(tmp_path: Path) -> None:
    def ask(client: int) -> Examples:
        if client:
            raise ValueError("no such phone")
        return one_client(client)

    with (
        device_sim.simulate(build_model, ask, draw(60, 99), devices=6, out=tmp_path / "run", **KEYS) as run,
        pytest.raises(DataError, match=r"ask\(\d\) raised ValueError: no such phone .*test_api_keras.py, line \d+"),
    ):
        run.finish()
    assert not (tmp_path / "run").exists()


def test_a_built_model_starts_from_its_weights_and_stays_as_it_was() -> None:
    mine = build_model((8, 8, 1), 3)
    before = [w.copy() for w in mine.get_weights()]
    with device_sim.simulate(mine, list(CLIENTS.values()), draw(30, 1), **{**KEYS, "rounds": 1}) as run:
        with pytest.raises(ConfigError, match="no finished round"):
            _ = run.accuracy
        first = run._federation.initial
        assert all(np.array_equal(a, b) for a, b in zip(first.values(), before, strict=True))
        run.finish()
    assert all(np.array_equal(a, b) for a, b in zip(mine.get_weights(), before, strict=True))
    with pytest.raises(ModelError, match="expected a function, a built Keras model or a name, got int"):
        device_sim.simulate(7, CLIENTS)


IN_A_NOTEBOOK = """
import logging, os, random, signal, sys, warnings
os.environ.pop("TF_NUM_INTRAOP_THREADS", None)
import matplotlib, keras, numpy as np, tensorflow as tf
tf.config.threading.set_intra_op_parallelism_threads(2)
tf.random.uniform((3,))
from tests.device_sim.test_api_keras import CLIENTS, build_model, draw
import device_sim, fl_mobile

def surroundings():
    tf.random.uniform((2,))  # refused without a seed where ops have to be deterministic
    return dict(
        environment=dict(os.environ), path=list(sys.path), folder=os.getcwd(), draws=random.getstate(),
        numpy=[part.tolist() if hasattr(part, "tolist") else part for part in np.random.get_state(legacy=True)],
        errors=np.geterr(), filters=list(warnings.filters), backend=matplotlib.get_backend(),
        signals=[signal.getsignal(s) for s in (signal.SIGINT, signal.SIGTERM)],
        logs=[logging.getLogger(name).level for name in (None, "tensorflow", "fl_mobile")],
        keras=(keras.config.floatx(), keras.config.backend(), keras.mixed_precision.global_policy().name),
        eager=tf.executing_eagerly(), jit=tf.config.optimizer.get_jit(),
        threads=tf.config.threading.get_intra_op_parallelism_threads(),
    )

keras.layers.Dense(1), keras.layers.Dense(1)
before, found = surroundings(), []
for _ in range(2):
    with warnings.catch_warnings(record=True) as seen:
        warnings.simplefilter("always")
        run = device_sim.simulate(build_model, CLIENTS, draw(30, 1), rounds=2, cohort=2, workers=1, engine="keras")
    assert any("reproducible for 2 threads" in str(w.message) for w in seen), seen
    for round in run:
        assert surroundings() == before, {k: v for k, v in surroundings().items() if v != before[k]}
    run.model(), run.evaluate(*draw(9, 2)), run.report()._repr_html_(), run.finish()
    fl_mobile.measure("laplace", ["q4"], size=500, repeats=2).plot(run.path / "codecs.svg")
    assert "2 threads an op" in run._federation.engine.about
    found.append((run.accuracy, [u.tobytes() for update in run.updates for u in update.values()]))
    run.close()
    assert surroundings() == before, {k: v for k, v in surroundings().items() if v != before[k]}
assert found[0] == found[1]
assert int(keras.layers.Dense(1).name.removeprefix("dense_")) >= 2, "no two layers of a notebook get one name"
"""


def test_a_notebook_finds_everything_as_it_was(tmp_path: Path) -> None:
    """TensorFlow has started, with several threads; no guard, twice in one process, nothing global left changed."""
    script = tmp_path / "cells.py"
    script.write_text(IN_A_NOTEBOOK)
    env = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}
    done = subprocess.run([sys.executable, str(script)], capture_output=True, text=True, check=False, env=env)
    assert done.returncode == 0, done.stderr[-2000:]
