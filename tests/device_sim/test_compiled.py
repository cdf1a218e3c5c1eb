"""What the author of a model said with ``compile()`` holds where the experiment is silent, or is named as not taken."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import device_sim
from device_sim.experiment.as_compiled import as_compiled, left_open, of_outputs
from device_sim.experiment.experiment import Experiment
from device_sim.experiment.toml import parse_experiment, read_experiment
from device_sim.run.trainable import open_trainable
from fl_mobile.local.compiled import Compiled, compiled_in_file, compiled_of
from fl_mobile.tensors import weights_hash
from tests.device_sim.test_api_keras import CLIENTS, KEYS, draw

pytestmark = pytest.mark.tf

Compile = Callable[[Any, Any], None]
"""keras, model → compiles it."""


def _net(*, head: str | None = None, outputs: int = 3) -> Any:
    import keras

    keras.utils.set_random_seed(3)
    L = keras.layers
    return keras.Sequential([L.Input((8, 8, 1)), L.Rescaling(1 / 255), L.Flatten(), L.Dense(outputs, head)])


def _notebook(k: Any, model: Any) -> None:
    loss = k.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(k.optimizers.Adam(1e-3), loss, metrics=["accuracy"])


def _tuned(k: Any, model: Any) -> None:
    optimizer = k.optimizers.SGD(0.02, momentum=0.8, nesterov=True, global_clipnorm=1.5, weight_decay=1e-4)
    metrics = [k.metrics.F1Score(), k.metrics.SparseCategoricalAccuracy(), "mae"]
    model.compile(optimizer, k.losses.CategoricalCrossentropy(label_smoothing=0.1), metrics=metrics)


def _strange(k: Any, model: Any) -> None:
    def mine(y: Any, out: Any) -> Any:
        return k.ops.mean(out)

    model.compile(k.optimizers.RMSprop(3e-4), mine, metrics=[k.metrics.AUC()])


def _scheduled(k: Any, model: Any) -> None:
    model.compile(k.optimizers.Adam(k.optimizers.schedules.CosineDecay(0.02, 100), beta_1=0.8), k.losses.Huber(2.0))


SPARSE = "sparse-categorical-crossentropy"
CASES: dict[str, tuple[Compile, Compiled]] = {
    "notebook": (_notebook, Compiled(SPARSE, "adam", 1e-3, from_logits=True)),
    "by name": (
        lambda k, m: m.compile("sgd", "sparse_categorical_crossentropy"),
        Compiled(SPARSE, "sgd", 0.01, from_logits=False),
    ),
    "by function": (lambda k, m: m.compile("adam", k.losses.mean_squared_error), Compiled("mse", "adam", 1e-3)),
    "alias": (lambda k, m: m.compile("adam", "MAE", metrics=["acc"]), Compiled("mae", "adam", 1e-3)),
    "binary": (
        lambda k, m: m.compile(loss=k.losses.BinaryCrossentropy(), optimizer=k.optimizers.SGD(0.3)),
        Compiled("binary-crossentropy", "sgd", 0.3, from_logits=False),
    ),
    "tuned": (
        _tuned,
        Compiled(
            "categorical-crossentropy",
            "momentum",
            *(0.02, 0.8, 1.5, 0.1, False),
            left=("weight_decay 0.0001", "nesterov True", "metric F1Score", "metric mae"),
        ),
    ),
    "strange": (_strange, Compiled(left=("loss mine", "optimizer RMSprop, learning rate 0.0003", "metric AUC"))),
    "scheduled": (
        _scheduled,
        Compiled(
            "huber",
            "adam",
            0.02,
            left=("learning-rate schedule CosineDecay, but for its first rate", "beta_1 0.8"),
        ),
    ),
}


def _compiled(case: str) -> Any:
    import keras

    model = _net()
    CASES[case][0](keras, model)
    return model


@pytest.mark.parametrize("case", CASES)
def test_a_compile_is_read_as_rows_and_what_has_none(case: str) -> None:
    found = compiled_of(_compiled(case))
    assert found is not None
    assert sorted(found.left) == sorted(CASES[case][1].left)
    assert replace(found, left=()) == replace(CASES[case][1], left=())


def test_a_model_that_was_not_compiled_says_nothing(tmp_path: Path) -> None:
    model = _net()
    model.save(tmp_path / "plain.keras")
    assert compiled_of(model) is None
    assert compiled_in_file(tmp_path / "plain.keras") is None


@pytest.mark.parametrize("suffix", [".keras", ".h5"])
def test_a_file_says_what_its_model_was_compiled_with(suffix: str, tmp_path: Path) -> None:
    for case in ("notebook", "tuned", "scheduled"):
        model, file = _compiled(case), tmp_path / f"{case}{suffix}"
        before = compiled_of(model)
        model.save(file)
        assert compiled_in_file(file) == before == compiled_of(model)


def test_a_program_trains_as_the_file_was_compiled(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    model = _compiled("notebook")
    model.save(tmp_path / "mine.keras")  # outputs are logits: without compile() nobody could tell what they mean
    with caplog.at_level(logging.WARNING):
        found = open_trainable(str(tmp_path / "mine.keras"), None, [])
    assert (found.plan.loss, found.plan.optimizer, found.plan.from_logits) == (SPARSE, "adam", True)
    assert "train.optimizer adam taken" in caplog.text
    found = open_trainable(str(tmp_path / "mine.keras"), None, ["train.optimizer=sgd", "train.loss=mse"])
    assert (found.plan.loss, found.plan.optimizer) == ("mse", "sgd")


def taken(changes: Sequence[str], compiled: Compiled) -> tuple[Experiment, str]:
    return as_compiled(parse_experiment("", changes), compiled, left_open("", changes))


def test_what_the_experiment_writes_stays_and_is_told() -> None:
    compiled = Compiled(SPARSE, "adam", 1e-3)
    found, told = taken(["train.optimizer=sgd", "train.loss=mse"], compiled)
    assert (found.train.loss, found.train.optimizer, found.train.learning_rate) == ("mse", "sgd", 0.05)
    assert "taken;" not in told
    assert f"loss {SPARSE} (the experiment says mse)" in told
    assert "optimizer adam (the experiment says sgd)" in told
    found, told = taken(["train.learning-rate=0.5"], compiled)
    assert (found.train.optimizer, found.train.learning_rate) == ("adam", 0.5)
    assert "learning rate 0.001 (the experiment says 0.5)" in told
    found, _ = taken(["train.optimizer=adam"], compiled)
    assert found.train.learning_rate == 1e-3, "of the same optimizer, it is the author's"


@pytest.mark.parametrize(
    ("changes", "why"),
    [(["server.algorithm=scaffold"], "sum of gradients"), (["server.algorithm=fedsgd"], "does nothing")],
)
def test_what_does_not_go_with_the_experiment_is_not_taken_and_says_why(changes: list[str], why: str) -> None:
    found, told = taken(changes, Compiled("mse", "adam", 1e-3))
    assert (found.train.loss, found.train.optimizer, found.train.learning_rate) == ("mse", "sgd", 0.05)
    assert "train.loss mse taken; not taken: adam 0.001 (" in told
    assert why in told
    assert "\n" not in told


def test_outputs_are_what_the_model_gives_whatever_its_loss_was_told() -> None:
    assert "gives logits" in of_outputs(Compiled(SPARSE, from_logits=False), from_logits=True)
    assert not of_outputs(Compiled("mse"), from_logits=True)


def build_compiled(input_shape: tuple[int, ...], num_classes: int) -> Any:
    import keras

    model = _net(outputs=num_classes)
    model.compile(keras.optimizers.Adam(0.01), keras.losses.SparseCategoricalCrossentropy(True), metrics=["accuracy"])
    return model


def test_a_run_trains_as_its_model_was_compiled(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    keys = {**KEYS, "rounds": 2, "seed": 5}
    said = {"optimizer": "adam", "learning_rate": 0.01}
    with (
        caplog.at_level(logging.WARNING),
        device_sim.simulate(build_compiled, CLIENTS, draw(60, 99), out=tmp_path / "taken", **keys) as run,
    ):
        by_compile = run.finish().evaluate(*draw(60, 99)), _hash(run)
        assert (run.experiment.train.optimizer, run.experiment.train.learning_rate) == ("adam", 0.01)
    assert "train.optimizer adam, train.learning-rate 0.01 taken" in caplog.text
    assert read_experiment(tmp_path / "taken" / "experiment.toml") == run.experiment
    with device_sim.simulate(build_compiled, CLIENTS, draw(60, 99), **keys, **said) as run:
        assert (run.finish().evaluate(*draw(60, 99)), _hash(run)) == by_compile
    with device_sim.simulate(build_compiled, CLIENTS, draw(60, 99), out=tmp_path / "taken", resume=True, **keys) as run:
        assert _hash(run.finish()) == by_compile[1]


def test_a_built_model_brings_its_compile_along() -> None:
    mine = build_compiled((8, 8, 1), 3)
    with device_sim.simulate(mine, CLIENTS, draw(60, 99), **KEYS) as run:
        assert (run.experiment.train.optimizer, run.experiment.train.learning_rate) == ("adam", 0.01)
        found = run._federation.initial
    assert all(np.array_equal(a, b) for a, b in zip(found.values(), mine.get_weights(), strict=True))


def _hash(run: device_sim.Run) -> str:
    return weights_hash({v.path: v.numpy() for v in run.model().trainable_variables})
