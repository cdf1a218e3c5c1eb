"""A small run with several chunks a round on any engine, and work that goes wrong where a worker is."""

from __future__ import annotations

import os
import signal
from pathlib import Path
from typing import Any

from device_sim.engines import Engine
from device_sim.experiment.toml import parse_experiment
from device_sim.run.folder import create
from device_sim.run.loop import simulate
from fl_mobile.errors import DivergedError, TrainingError, WireError
from tests.device_sim.fault_sweep import PLAIN
from tests.device_sim.numpy_engine import numpy_federation
from tests.device_sim.run_contents import left_behind

SEVERAL_CHUNKS = (
    *("train.rounds=2", "data.devices=2", "train.batch-size=0", "output.keep-updates=4"),
    *("upload.memory=error-feedback", "train.learning-rate=0.001"),
)
NUMPY_EPOCHS, KERAS_EPOCHS = 2600, 950
"""Each device has enough to do for a chunk of its own."""


def run(engine: Engine, path: Path, epochs: int = NUMPY_EPOCHS) -> dict[str, str]:
    """Plays all rounds, closes the engine, and returns SHA-256 of every file: packets, log, checkpoint."""
    experiment = parse_experiment(PLAIN, (*SEVERAL_CHUNKS, f"train.epochs={epochs}"))
    try:
        assert len(list(simulate(numpy_federation(experiment, engine), create(path, experiment)))) == 2
    finally:
        engine.close()
    return left_behind(path)


def small_model() -> Any:
    """Keras' answer to the NumPy trainer, with a hidden layer and dropout."""
    import keras
    from keras import layers

    keras.utils.set_random_seed(1)
    return keras.Sequential(
        [
            *(layers.Input((12, 12, 1)), layers.Rescaling(1 / 255, name="scale"), layers.Flatten(name="flat")),
            *(layers.Dense(8, "relu", name="dense"), layers.Dropout(0.2, name="drop"), layers.Dense(3, name="out")),
        ]
    )


def die(_: object) -> None:
    """Kills the process it runs in, in the middle of a call."""
    os.kill(os.getpid(), signal.SIGKILL)


def fail(_: object, error: Exception) -> None:
    """Raises where the worker is."""
    raise error


def no_trainer() -> Any:
    """Opens no trainer."""
    raise DivergedError("this model diverges before it starts")


OURS = (
    DivergedError("client 17 diverged"),
    WireError("checksum", "1 bit is wrong"),
    TrainingError("device 3: training failed", details="Traceback of many lines"),
    FileNotFoundError(2, "No such file", "there"),
)
"""Errors that must arrive as themselves: class, text, and what else they carry."""
