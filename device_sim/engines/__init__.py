"""Engines: *how* local training runs. One seam, `Engine.train`; one row each in `ENGINES`.

An engine gets the weights a cohort received and one `Task` a device, and yields what becomes of their updates in task
order. Same weights, tasks and plan give the same updates whatever the number of workers.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np

from device_sim.engines.batches import visits
from device_sim.engines.pooled import LocalWorker, PooledEngine, Worker
from device_sim.engines.process import ProcessWorker
from device_sim.engines.records import Engine, Evaluation, Task, Then, Trainer, pairs

__all__ = ["ENGINES", "POOLS", "Engine", "Evaluation", "Task", "Then", "Trainer", "open_engine", "pairs", "visits"]

Build = Callable[[], Any]
Open = Callable[[], Trainer]


def _keras(build: Build, probe: np.ndarray) -> Open:
    return partial(_open_keras, build, probe)


def _open_keras(build: Build, probe: np.ndarray) -> Trainer:
    from device_sim.engines.keras import KerasTrainer

    return KerasTrainer(build, probe)


def _vectorized(build: Build, probe: np.ndarray) -> Open:
    return partial(_open_vectorized, build, probe)


def _open_vectorized(build: Build, probe: np.ndarray) -> Trainer:
    from device_sim.engines.vectorized import VectorizedTrainer

    return VectorizedTrainer(build, probe)


def _auto(build: Build, probe: np.ndarray) -> Open:
    return partial(_open_auto, build, probe)


def _open_auto(build: Build, probe: np.ndarray) -> Trainer:
    from device_sim.engines.auto import AutoTrainer

    return AutoTrainer(build, probe)


def _litert(runtime: str, build: Build, probe: np.ndarray) -> Open:
    from device_sim.engines.litert import LitertTrainer, Programs
    from export.runtimes import choose_runtimes

    choose_runtimes([runtime])  # refuses one that is not installed, with how to install it
    return partial(LitertTrainer, Programs(build, probe), runtime)


@dataclass(frozen=True)
class EngineRow:
    """One row of `ENGINES`.

    Attributes:
        trainers: (build a model, a few examples) → what opens one worker's trainer.
        pools: Rows of `POOLS` it can run in.
        summary: A line of help.
        keeps_zeros: Whether it can train with `FitPlan.keep_zeros`.
        fake_quant: Whether it can train with `FitPlan.fake_quant`.
    """

    trainers: Callable[[Build, np.ndarray], Open]
    pools: tuple[str, ...]
    summary: str
    keeps_zeros: bool = False
    fake_quant: bool = False


POOLS: dict[str, Callable[[Open], Worker]] = {
    "threads": lambda open_trainer: LocalWorker(open_trainer()),
    "processes": ProcessWorker,
}
"""Where workers live. TensorFlow and NumPy leave Python's lock while they compute, so threads are the default."""

ENGINES: dict[str, EngineRow] = {
    "auto": EngineRow(
        _auto,
        ("threads", "processes"),
        "vectorized where it wins, keras elsewhere; says which and why",
        keeps_zeros=True,
        fake_quant=True,
    ),
    "keras": EngineRow(
        _keras,
        ("threads", "processes"),
        "devices and steps looped in one compiled Keras graph",
        keeps_zeros=True,
        fake_quant=True,
    ),
    "vectorized": EngineRow(
        _vectorized, ("threads", "processes"), "many small devices side by side in one graph", keeps_zeros=True
    ),
    "litert": EngineRow(
        partial(_litert, "litert"), ("threads",), "the phone's own training program, an interpreter per worker"
    ),
    "litert-compiled": EngineRow(
        partial(_litert, "litert-compiled"), ("threads",), "the same program on the API apps get, CompiledModel"
    ),
    "tflite-runtime": EngineRow(
        partial(_litert, "tflite-runtime"), ("threads",), "the same program on tflite-runtime, where it is installed"
    ),
}


def open_engine(name: str, build: Build, probe: np.ndarray, *, workers: int = 0, pool: str = "threads") -> Engine:
    """Returns an engine.

    Args:
        name: A row of `ENGINES`.
        build: Returns a new, built model, the same one every time; picklable for workers in processes.
        probe: A few examples as devices hold them.
        workers: How many; 0 is one per core.
        pool: A row of `POOLS` that the engine can run in.

    Raises:
        ConfigError: The engine cannot train this model.
        ModelError: The model cannot be built or federated.
    """
    open_trainer, open_worker = ENGINES[name].trainers(build, probe), POOLS[pool]
    # One after another: Keras' naming is global, and only the first model's paths are used.
    return PooledEngine([open_worker(open_trainer) for _ in range(workers or os.cpu_count() or 1)])
