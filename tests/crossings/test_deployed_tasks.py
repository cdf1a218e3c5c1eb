"""Reference clients hold whatever a task trains on: files, HTTP and the phone's program give the simulator's model."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from device_sim.deploy.examples import Examples, deal, read_examples
from device_sim.deploy.fleet import on_litert
from device_sim.deploy.opening import deployable, open_deployed
from device_sim.deploy.training import CONTRACT
from device_sim.experiment.toml import parse_experiment
from device_sim.federation.federation import open_federation
from device_sim.run.folder import create
from device_sim.run.loop import restore, simulate
from export.training.contract import contract_from_json
from fl_mobile.errors import DataError
from fl_mobile.tasks import TASKS
from fl_mobile.tasks.heads import MULTI_HEAD
from fl_mobile.tensors import weights_hash
from tests.device_sim.deploy.loopback import serve_and_play
from tests.device_sim.deploy.test_statistics import gathered, held_by

pytestmark = pytest.mark.tf

STEPS, TOKENS, PIXELS, EXAMPLES = 5, 7, 4, 24
EXPERIMENT = """
[data]
dataset = "npz"
devices = 2
partition = "iid"
[train]
rounds = 1
cohort = 2
batch-size = 4
[upload]
codec = "none"
[fleet]
link = "ideal"
dropout-rate = 0.0
[output]
keep-updates = 0
"""


def dense(input_shape: tuple[int, ...], num_classes: int) -> Any:
    import keras

    inputs = keras.Input(input_shape)
    return keras.Model(inputs, keras.layers.Dense(num_classes)(inputs))


def embedded(num_classes: int) -> Any:
    import keras

    inputs = keras.Input((STEPS,), dtype="int32")
    return keras.Model(inputs, keras.layers.Dense(num_classes)(keras.layers.Embedding(TOKENS, 3)(inputs)))


def pixelwise(input_shape: tuple[int, ...], num_classes: int) -> Any:
    """Answers each pixel: with classes, or with itself."""
    import keras

    inputs = keras.Input(input_shape)
    outputs = num_classes if num_classes < PIXELS**2 else 1
    return keras.Model(inputs, keras.layers.Conv2D(outputs, 1)(keras.layers.Rescaling(1 / 255)(inputs)))


def several(input_shape: dict[str, Any], num_classes: dict[str, int]) -> Any:
    import keras

    vitals = keras.Input(input_shape["vitals"], name="vitals")
    words = keras.Input(input_shape["words"], dtype="int32", name="words")
    x = keras.layers.Concatenate()([vitals, keras.layers.Flatten()(keras.layers.Embedding(TOKENS, 2)(words))])
    heads = {"mood": keras.layers.Dense(num_classes["mood"])(x), "pain": keras.layers.Dense(1)(x)}
    return keras.Model({"vitals": vitals, "words": words}, heads)


def arrays_for(task: str) -> dict[str, np.ndarray]:
    """Returns arrays as somebody would save them."""
    rng = np.random.default_rng(0)
    x = rng.standard_normal((EXAMPLES, 6))
    pictures = rng.integers(0, 256, (EXAMPLES, PIXELS, PIXELS)).astype(np.uint8)
    tokens = rng.integers(0, TOKENS, (EXAMPLES, STEPS))
    classes = np.arange(EXAMPLES) % 3
    rows: dict[str, dict[str, np.ndarray]] = {
        "classification": {"x": x, "y": classes},
        "weighted": {"x": x, "y": classes, "weight": rng.random(EXAMPLES) + 0.5},
        "multi-label": {"x": x, "y": np.tile([[0, 0, 0], [1, 1, 0], [0, 1, 1]], (EXAMPLES // 3, 1))},
        "sequence": {"x": tokens, "y": rng.integers(-1, 3, (EXAMPLES, STEPS))},
        "segmentation": {"x": pictures, "y": rng.integers(-1, 3, pictures.shape)},
        "regression": {"x": x, "y": x[:, 0] + 0.25},
        "reconstruction": {"x": pictures},
        MULTI_HEAD: {"x.vitals": x, "x.words": tokens, "y.mood": classes, "y.pain": x[:, 1], "weight": x[:, 2] ** 2},
    }
    return rows[task]


MODELS = {"sequence": embedded, "segmentation": pixelwise, "reconstruction": pixelwise, MULTI_HEAD: several}


def opened(task: str, folder: Path) -> Any:
    path = folder / "all.npz"
    np.savez(path, **arrays_for(task))  # type: ignore[arg-type]
    model = f"{__name__}:{MODELS.get(task, dense).__name__}"
    return open_deployed(deployable(parse_experiment(EXPERIMENT, (f"data.path={path}", f"model.name={model}"))))


@pytest.mark.parametrize("task", [*TASKS, "weighted", MULTI_HEAD])
def test_clients_of_every_task_reach_the_simulators_model_over_http(tmp_path: Path, task: str) -> None:
    federation, programs = opened(task, tmp_path)
    assert task in federation.dataset.trained_task
    assert deal(federation.dataset, federation.data, tmp_path / "data") == 2
    clients = read_examples(tmp_path / "data", 2)
    assert clients[0].arrays.keys() == arrays_for(task).keys(), "each file is as its owner would save it"
    simulated, deployed = (create(tmp_path / name, federation.experiment) for name in ("simulated", "deployed"))
    expected = list(simulate(federation, simulated))
    rounds, visits = serve_and_play(
        federation, deployed, tmp_path / "clients", train=on_litert(), programs=programs, everybody=clients
    )
    federation.engine.close()
    assert visits == {"accepted": 2}
    assert (rounds[0].loss, rounds[0].train_loss) == (expected[0].loss, expected[0].train_loss)
    hashes = [weights_hash(restore(federation, folder)[0].weights) for folder in (simulated, deployed)]
    assert hashes[0] == hashes[1]
    assert hashes[0] != weights_hash(federation.initial)


def test_sums_of_clients_before_round_1_give_the_simulators_model(tmp_path: Path) -> None:
    """Means and spreads stand in the graph, so that what was asked for decides the program."""
    weight = np.linspace(0.5, 2.0, EXAMPLES)
    np.savez(tmp_path / "all.npz", **arrays_for("regression"), weight=weight)  # type: ignore[arg-type]
    keys = (f"data.path={tmp_path}/all.npz", f"model.name={__name__}:dense", "data.standardize=federated")
    asked = deployable(parse_experiment(EXPERIMENT, keys))
    federation = open_federation(asked)
    simulated = create(tmp_path / "simulated", asked)
    expected = list(simulate(federation, simulated))
    federation.engine.close()
    people = held_by(asked)
    deployed = create(tmp_path / "deployed", asked)
    found = gathered(deployed, people, sums=2, clients=tmp_path / "clients")
    served, programs = open_deployed(found)
    contract, scaling = contract_from_json(json.loads(programs[CONTRACT])), served.dataset.scaling
    assert scaling is not None
    assert contract.target_mean == tuple(scaling.target_mean)
    assert contract.target_spread == tuple(scaling.target_spread)
    rounds, visits = serve_and_play(
        served, deployed, tmp_path / "clients", train=on_litert(), programs=programs, everybody=people
    )
    served.engine.close()
    assert visits == {"accepted": 2}
    assert rounds[0].loss == expected[0].loss
    ended = (restore(federation, simulated)[0].weights, restore(served, deployed)[0].weights)
    assert weights_hash(ended[0]) == weights_hash(ended[1])


def test_a_client_whose_file_does_not_fit_gives_its_place_up_and_says_why(tmp_path: Path) -> None:
    federation, programs = opened("regression", tmp_path)
    deal(federation.dataset, federation.data, tmp_path / "data")
    clients = read_examples(tmp_path / "data", 2)
    clients[1] = replace(clients[1], arrays={"x": clients[1].arrays["x"]})
    with pytest.raises(DataError, match=r"client-000001: .*\(task 'regression'\) takes x, y; this client holds x:"):
        serve_and_play(
            federation,
            create(tmp_path / "run", federation.experiment),
            tmp_path / "clients",
            train=on_litert(),
            programs=programs,
            everybody=clients,
        )
    federation.engine.close()


def test_a_token_that_the_model_does_not_know_is_a_line_and_no_trace(tmp_path: Path) -> None:
    federation, programs = opened("sequence", tmp_path)
    held = Examples("one", {"x": np.full((4, STEPS), TOKENS), "y": np.zeros((4, STEPS), int)})
    weights, plan = federation.engine.initial, federation.plan(0)
    federation.engine.close()
    with pytest.raises(DataError, match=r"one: .* cannot take these examples \(gather index out of bounds.*tokens"):
        on_litert()(held)(programs, dict(weights), plan, seed=1, start=None, pull=None)
