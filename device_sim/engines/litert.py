"""Local training on the phone's own program: a thread and an interpreter per worker, no TensorFlow in either.

The engine builds the ``.tflite`` once per kind of plan and every device of the fleet runs those very bytes. An
interpreter's ``invoke`` releases the GIL, so threads are enough.
"""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from queue import SimpleQueue
from threading import Lock
from typing import Any

import numpy as np

from device_sim.engines import Evaluation, Task, in_task_order
from export.training import Contract, TrainingSession, open_session
from fl_mobile import keras_bridge
from fl_mobile.errors import ConfigError
from fl_mobile.records import FitPlan, Update
from fl_mobile.seeds import rng_for, seed_for
from fl_mobile.tensors import Tensors

Key = tuple[object, ...]
Program = tuple[bytes, Contract]


class LitertEngine:
    """`Engine` over ``workers`` threads; 0 means one per core.

    Args:
        build: Returns a new, built model; called once, to make programs from.
        workers: Number of threads.
        probe: A few examples: their dtype is the program's input, and they show whether the model gives probabilities.
    """

    def __init__(self, build: Callable[[], Any], workers: int = 0, *, probe: np.ndarray) -> None:
        count = workers or os.cpu_count() or 1
        self._model = build()
        self.spec, self.initial = keras_bridge.spec_of(self._model), keras_bridge.read(self._model)
        self.from_logits = not keras_bridge.gives_probabilities(self._model, probe)
        self._input_dtype = "uint8" if probe.dtype == np.uint8 else "float32"
        self._input_shape = tuple(probe.shape[1:])
        self._programs: dict[Key, Program] = {}
        self._building = Lock()
        self._workers: SimpleQueue[_Worker] = SimpleQueue()
        for _ in range(count):
            self._workers.put(_Worker())
        self._threads = ThreadPoolExecutor(count, thread_name_prefix="litert-engine")
        self._ahead = 2 * count

    def train(self, weights: Tensors, tasks: Iterable[Task], plan: FitPlan) -> Iterator[tuple[Task, Update]]:
        """Yields every task with its update, in task order."""
        key, program = self.program(plan)
        yield from in_task_order(
            lambda task: self._threads.submit(self._fit, key, program, weights, task, plan), tasks, self._ahead
        )

    def evaluate(self, weights: Tensors, x: np.ndarray, y: np.ndarray, plan: FitPlan) -> Evaluation:
        """Returns accuracy and mean loss."""
        key, program = self.program(plan)
        part = -(-len(y) // self._ahead)
        cuts = range(0, len(y), part)
        futures = [
            self._threads.submit(self._score, key, program, weights, x[at : at + part], y[at : at + part])
            for at in cuts
        ]
        scores = [future.result() for future in futures]
        return Evaluation(sum(s[0] for s in scores) / len(y), math.fsum(s[1] for s in scores) / len(y), len(y))

    def close(self) -> None:
        """Ends the threads."""
        self._threads.shutdown(cancel_futures=True)

    def program(self, plan: FitPlan) -> tuple[Key, Program]:
        """Returns the program that trains by ``plan``, built when first asked for; rates are its inputs.

        Raises:
            ConfigError: The plan has no fixed batch size.
            ExportError: The model cannot train on a phone.
        """
        if plan.batch_size < 1:
            raise ConfigError("engine litert needs train.batch-size ≥ 1: a phone's program has a fixed batch")
        key: Key = (plan.batch_size, plan.optimizer, plan.momentum, plan.loss, plan.from_logits)
        key = (*key, plan.proximal_mu > 0, plan.clip_gradient_norm)
        with self._building:
            if key not in self._programs:
                from export.training.program import build_training_program

                made = build_training_program(
                    self._model,
                    batch_size=plan.batch_size,
                    loss=plan.loss,
                    from_logits=plan.from_logits,
                    optimizer=plan.optimizer,
                    momentum=plan.momentum,
                    clip_norm=plan.clip_gradient_norm,
                    proximal=plan.proximal_mu > 0,
                    input_dtype=self._input_dtype,
                    input_shape=self._input_shape,
                )
                self._programs[key] = (made.tflite, made.contract)
            return key, self._programs[key]

    def _fit(self, key: Key, program: Program, weights: Tensors, task: Task, plan: FitPlan) -> Update:
        worker = self._workers.get()
        try:
            return fit(worker.session(key, program), weights, task, plan)
        finally:
            self._workers.put(worker)

    def _score(self, key: Key, program: Program, weights: Tensors, x: np.ndarray, y: np.ndarray) -> tuple[float, float]:
        worker = self._workers.get()
        try:
            return score(worker.session(key, program), weights, x, y)
        finally:
            self._workers.put(worker)


class _Worker:
    """The interpreters of one thread, one per program."""

    def __init__(self) -> None:
        self._sessions: dict[Key, TrainingSession] = {}

    def session(self, key: Key, program: Program) -> TrainingSession:
        if key not in self._sessions:
            self._sessions[key] = open_session(*program, threads=1)
        return self._sessions[key]


def fit(session: TrainingSession, weights: Tensors, task: Task, plan: FitPlan) -> Update:
    """Returns the update of one device: the same batches in the same order as the keras engine."""
    session.set_weights(weights)
    count = len(task.y)
    seed = seed_for(task.seed, "dropout") & 0x7FFFFFFF
    total = 0.0
    for order in orders(task, plan):
        total = 0.0
        for at in range(0, count, plan.batch_size):
            rows = order[at : at + plan.batch_size]
            loss, _ = session.train(
                task.x[rows],
                task.y[rows],
                learning_rate=plan.learning_rate,
                seed=seed,
                prox_mu=plan.proximal_mu,
            )
            total += loss * len(rows)
    after = session.get_weights()
    return Update({path: after[path] - weights[path] for path in weights}, count, {"loss": total / count})


def score(session: TrainingSession, weights: Tensors, x: np.ndarray, y: np.ndarray) -> tuple[float, float]:
    """Returns the number of right answers and the summed loss."""
    session.set_weights(weights)
    right, loss, batch = 0.0, 0.0, session.contract.batch_size
    for at in range(0, len(y), batch):
        part_loss, part_right = session.evaluate(x[at : at + batch], y[at : at + batch])
        right, loss = right + part_right, loss + part_loss
    return right, loss


def orders(task: Task, plan: FitPlan) -> Iterator[np.ndarray]:
    """Yields the order in which each epoch visits the examples, ``int[n]``: the keras engine's own draws."""
    count = len(task.y)
    rng = rng_for(task.seed, "shuffle")
    for _ in range(plan.epochs):
        yield rng.permutation(count) if plan.shuffle else np.arange(count)
