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
from device_sim.engines.pools.pooled import LocalWorker, PooledEngine, Worker
from device_sim.engines.pools.processes import ProcessWorker
from device_sim.engines.records import (
    EXPORTED,
    KERAS,
    VECTORIZED,
    Abilities,
    Engine,
    Evaluation,
    Task,
    Then,
    Trainer,
    train_each,
)
from fl_mobile.kernels.memory import hold_freed_memory
from fl_mobile.records import FitPlan

__all__ = ["ENGINES", "POOLS", "Engine", "Evaluation", "Task", "Then", "Trainer", "open_engine", "train_each", "visits"]

Build = Callable[[], Any]
Open = Callable[[], Trainer]


def _keras(build: Build, probe: np.ndarray) -> Trainer:
    from device_sim.engines.trainers.keras import KerasTrainer

    return KerasTrainer(build, probe)


def _vectorized(build: Build, probe: np.ndarray) -> Trainer:
    from device_sim.engines.trainers.vectorized import VectorizedTrainer

    return VectorizedTrainer(build, probe)


def _auto(build: Build, probe: np.ndarray) -> Trainer:
    from device_sim.engines.trainers.auto import AutoTrainer

    return AutoTrainer(build, probe)


def _litert(runtime: str, build: Build, probe: np.ndarray) -> Open:
    from device_sim.engines.trainers.litert import LitertTrainer, Programs
    from export.runtimes import choose_runtimes

    choose_runtimes([runtime])  # refuses one that is not installed, with how to install it
    return partial(LitertTrainer, Programs(build, probe), runtime)


@dataclass(frozen=True)
class EngineRow:
    """One row of `ENGINES`.

    Attributes:
        trainers: (build a model, a few examples) → what opens one worker's trainer.
        pools: Rows of `POOLS` it can run in; the first one unless another is asked for.
        summary: A line of help.
        abilities: What of a plan it can do.
    """

    trainers: Callable[[Build, np.ndarray], Open]
    pools: tuple[str, ...]
    summary: str
    abilities: Abilities = EXPORTED


def _here(open_worker: Callable[[Open], Worker], open_trainer: Open, workers: int, _: str) -> PooledEngine:
    hold_freed_memory()
    # One after another: Keras' naming is global, and only the first model's paths are used.
    return PooledEngine([open_worker(open_trainer) for _ in range(workers or os.cpu_count() or 1)])


def _in_a_cluster(open_trainer: Open, workers: int, address: str) -> PooledEngine:
    from device_sim.engines.pools.ray import open_ray_engine

    return open_ray_engine(open_trainer, workers, address)


POOLS: dict[str, Callable[[Open, int, str], PooledEngine]] = {
    "threads": partial(_here, lambda open_trainer: LocalWorker(open_trainer())),
    "processes": partial(_here, ProcessWorker),
    "ray": _in_a_cluster,
}
"""Where workers live: (what opens a trainer, how many, address of a Ray cluster) → engine.

TensorFlow and NumPy leave Python's lock while they compute, so threads are the default."""

_ANYWHERE = ("threads", "processes", "ray")
_TRAINS_AS_AUTO = partial(partial, _auto)  # one object: `experiment_hash` tells by it that two rows train alike

ENGINES: dict[str, EngineRow] = {
    "auto": EngineRow(
        _TRAINS_AS_AUTO,
        _ANYWHERE,
        "vectorized where it wins, keras elsewhere; says which and why",
        abilities=KERAS,
    ),
    "keras": EngineRow(
        partial(partial, _keras),
        _ANYWHERE,
        "devices and steps looped in one compiled Keras graph",
        abilities=KERAS,
    ),
    "vectorized": EngineRow(
        partial(partial, _vectorized), _ANYWHERE, "many small devices side by side in one graph", abilities=VECTORIZED
    ),
    "ray": EngineRow(
        _TRAINS_AS_AUTO,
        ("ray",),
        "auto in the actors of a Ray cluster, on several machines",
        abilities=KERAS,
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


def open_engine(
    name: str,
    build: Build,
    probe: np.ndarray,
    *,
    plan: FitPlan | None = None,
    workers: int = 0,
    pool: str = "",
    ray_address: str = "",
) -> Engine:
    """Returns an engine.

    Args:
        name: A row of `ENGINES`.
        build: Returns a new, built model, the same one every time; picklable for workers outside of this process.
        probe: A few examples as devices hold them.
        plan: What round 1 will ask for, where that is known: what it would refuse is refused now.
        workers: How many; 0 is one per core.
        pool: A row of `POOLS` that the engine can run in; empty is its first.
        ray_address: For pool ``ray``: ``auto`` or ``host:port`` of a running cluster; empty starts one here.

    Raises:
        ConfigError: The engine cannot train this model, or cannot run here.
        ModelError: The model cannot be built or federated.
        ExportError: The engine is the phone's program, which cannot train the model.
    """
    row = ENGINES[name]
    engine = POOLS[pool or row.pools[0]](row.trainers(build, probe), workers, ray_address)
    if plan is not None:
        try:
            engine.prepare(plan)
        except BaseException:
            engine.close()
            raise
    return engine
