"""The whole pipeline, packets and all, against a reference that shares no code with it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from device_sim.experiment.toml import parse_experiment
from device_sim.run.folder import create
from device_sim.run.loop import restore, simulate
from tests.device_sim.numpy_engine import numpy_federation
from tests.device_sim.reference_fedavg import federated_averaging

PLAIN = """
[data]
devices = 7
[train]
rounds = 5
cohort = 3
epochs = 2
batch-size = 4
learning-rate = 0.3
[upload]
codec = "none"
[download]
mode = "full"
codec = "none"
[fleet]
link = "ideal"
dropout-rate = 0.0
"""


def final_weights(folder: Path, *changes: str) -> dict[str, np.ndarray]:
    federation = numpy_federation(parse_experiment(PLAIN, changes))
    run = create(folder, federation.experiment)
    list(simulate(federation, run))
    return restore(federation, run)[0].weights


def reference(**changes: int) -> tuple[np.ndarray, np.ndarray]:
    federation = numpy_federation(parse_experiment(PLAIN))
    train = federation.dataset.train
    plan = {"seed": 0, "rounds": 5, "cohort": 3, "epochs": 2, "batch": 4, "rate": 0.3, "classes": 3} | changes
    return federated_averaging(train.x.reshape(len(train.y), -1) / 255.0, train.y, federation.data.shards, **plan)


def test_uncompressed_federation_equals_the_reference(tmp_path: Path) -> None:
    weights = final_weights(tmp_path / "run")
    kernel, bias = reference()
    np.testing.assert_allclose(weights["out/kernel"], kernel, atol=3e-6)
    np.testing.assert_allclose(weights["out/bias"], bias, atol=3e-6)


@pytest.mark.parametrize("damage", [{"seed": 1}, {"rounds": 4}, {"batch": 5}, {"epochs": 1}])
def test_it_catches_a_reference_that_differs_in_one_thing(tmp_path: Path, damage: dict[str, int]) -> None:
    kernel, _ = reference(**damage)
    assert np.abs(final_weights(tmp_path / "run")["out/kernel"] - kernel).max() > 1e-4


@pytest.mark.parametrize(
    ("codec", "tolerance"), [("float16", 0.01), ("q8", 0.05), ("q8+deflate", 0.05), ("topk:0.5+q8", 0.5)]
)
def test_compressed_federation_stays_near_the_reference(tmp_path: Path, codec: str, tolerance: float) -> None:
    """Relative distance of what was learnt; the codec's error is what separates the two."""
    weights, (kernel, _) = final_weights(tmp_path / "run", f"upload.codec={codec}"), reference()
    assert np.linalg.norm(weights["out/kernel"] - kernel) < tolerance * np.linalg.norm(kernel)
