"""The Python door with Keras: a federation in memory in a few lines, the same bytes as the command line."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import device_sim
from device_sim.federation.federation import open_federation
from device_sim.run.folder import create
from device_sim.run.loop import restore
from device_sim.run.loop import simulate as play
from fl_mobile.errors import ConfigError, ModelError
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
KEYS: dict[str, Any] = {"rounds": 4, "cohort": 3, "epochs": 2, "workers": 1, "dropout_rate": 0.0}


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


def test_same_experiment_same_bytes_as_without_the_door(tmp_path: Path) -> None:
    name = f"{__name__}:build_model"
    with device_sim.simulate(name, CLIENTS, draw(60, 99), out=tmp_path / "door", **KEYS) as run:
        by_door = hash_of(run.finish())
        experiment = run.experiment
    federation = open_federation(experiment)
    folder = create(tmp_path / "plain", experiment)
    list(play(federation, folder))
    federation.engine.close()
    weights = federation.whole(restore(federation, folder)[0].weights)
    assert by_door == weights_hash(weights)
    with device_sim.simulate(
        name, CLIENTS, draw(60, 99), out=tmp_path / "door", resume=True, **{**KEYS, "rounds": 4}
    ) as same:
        assert hash_of(same.finish()) == by_door


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


def test_it_works_after_tensorflow_has_started_with_many_threads() -> None:
    code = """
import warnings, os
os.environ.pop("TF_NUM_INTRAOP_THREADS", None)
import tensorflow as tf
tf.config.threading.set_intra_op_parallelism_threads(2)
tf.zeros(3) + 1
import device_sim
from tests.device_sim.test_api_keras import CLIENTS, build_model, draw
with warnings.catch_warnings(record=True) as seen:
    warnings.simplefilter("always")
    run = device_sim.simulate(build_model, CLIENTS, draw(30, 1), rounds=1, cohort=2, workers=1, engine="keras")
assert any("several threads per op" in str(w.message) for w in seen), seen
print(run.finish().accuracy)
run.close()
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
