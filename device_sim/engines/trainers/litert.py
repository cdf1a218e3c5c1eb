"""Local training on the phone's own program: a thread and an interpreter per worker, no TensorFlow in either.

The engine builds the ``.tflite`` once per kind of plan and every device of the fleet runs those very bytes. An
interpreter's ``invoke`` releases the GIL, so threads are enough.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from threading import Lock
from typing import Any

import numpy as np

from device_sim.engines.batches import visits
from device_sim.engines.records import EXPORTED, Evaluation, Task, evaluation_of
from device_sim.engines.trainers.blame import blamed
from device_sim.engines.trainers.steps import time_steps_of
from export.training import Contract, TrainingSession
from export.training.session import SESSIONS
from fl_mobile.errors import ConfigError
from fl_mobile.models import keras_bridge
from fl_mobile.models.ends import Port
from fl_mobile.models.heads import head_of
from fl_mobile.records import FitPlan, Update
from fl_mobile.seeds import seed_for
from fl_mobile.tensors import Spec, Tensors

Key = tuple[object, ...]
Program = tuple[bytes, Contract]

SCORE_BATCH = 256
"""Most examples a program evaluates at a time where the plan leaves the batch open; its arena grows with them."""


class Programs:
    """The training programs of one model: built when first asked for, shared by all workers.

    Args:
        build: Returns a new, built model; called once, to make programs from.
        probe: A few examples: their dtype is the program's input, and they show whether the model gives probabilities.
        ports: Of several inputs: what lies in a row of them, for contracts that leave this process.
    """

    def __init__(self, build: Callable[[], Any], probe: np.ndarray, ports: Sequence[Port] = ()) -> None:
        from export.training.layers import check_layers

        self._inputs = [port.text for port in ports]
        self._model = build()
        self.spec, self.initial = keras_bridge.spec_of(self._model), keras_bridge.read(self._model)
        self.from_logits = head_of(self._model, probe) == "logits"
        self._input_dtype = probe.dtype.name
        self._input_shape = tuple(probe.shape[1:])
        check_layers(self._model)
        self.time_steps = time_steps_of(self._model)
        self._programs: dict[Key, Program] = {}
        self._building = Lock()

    def get(self, plan: FitPlan, batch_size: int, *, pulled: bool = False) -> tuple[Key, Program]:
        """Returns the program that trains by ``plan``; rates are its inputs.

        Args:
            plan: How to train.
            batch_size: Rows of the program's batches.
            pulled: Whether a tensor is added to every gradient.

        Raises:
            ExportError: The model cannot train on a phone.
        """
        key: Key = (batch_size, plan.optimizer, plan.momentum, plan.loss, plan.task, plan.from_logits)
        key = (*key, plan.label_smoothing, plan.class_weights)
        key = (*key, plan.proximal_mu > 0, plan.clip_gradient_norm, pulled)
        with self._building:
            if key not in self._programs:
                from export.training.program import build_training_program

                made = build_training_program(
                    self._model,
                    batch_size=batch_size,
                    loss=plan.loss,
                    task=plan.task,
                    from_logits=plan.from_logits,
                    optimizer=plan.optimizer,
                    momentum=plan.momentum,
                    clip_norm=plan.clip_gradient_norm,
                    label_smoothing=plan.label_smoothing,
                    class_weights=plan.class_weights,
                    proximal=plan.proximal_mu > 0,
                    correction=pulled,
                    input_dtype=self._input_dtype,
                    input_shape=self._input_shape,
                    inputs=self._inputs,
                )
                self._programs[key] = (made.tflite, made.contract)
            return key, self._programs[key]


@dataclass(frozen=True)
class ExportedPrograms:
    """One program that was exported before, for workers that shall not load TensorFlow.

    Attributes:
        program: Its bytes and contract.
        initial: First weights; the file holds none.
        time_steps: See `Model`.
    """

    program: Program
    initial: Tensors
    time_steps: int = 1

    @property
    def spec(self) -> Spec:
        """What travels."""
        return self.program[1].spec

    @property
    def from_logits(self) -> bool:
        """Whether the model's outputs still need softmax or sigmoid."""
        return self.program[1].from_logits

    def get(self, plan: FitPlan, batch_size: int, *, pulled: bool = False) -> tuple[Key, Program]:
        """Returns the program.

        Raises:
            ConfigError: It was exported for another plan.
        """
        contract = self.program[1]
        wanted = {
            "batch_size": batch_size,
            "optimizer": plan.optimizer,
            "momentum": plan.momentum if plan.optimizer == "momentum" else contract.momentum,
            "loss": plan.loss,
            "task": plan.task,
            "from_logits": plan.from_logits,
            "label_smoothing": plan.label_smoothing,
            "class_weights": plan.class_weights,
            "clip_norm": plan.clip_gradient_norm,
            "proximal": contract.proximal or plan.proximal_mu > 0,
            "correction": contract.correction or pulled,
        }
        for name, value in wanted.items():
            if getattr(contract, name) != value:
                raise ConfigError(
                    f"the training program was exported with {name} = {getattr(contract, name)!r}, the plan needs"
                    f" {value!r}: export it again, or change the plan"
                )
        return (), self.program


class LitertTrainer:
    """`Trainer` over one interpreter per program.

    Args:
        programs: Where they come from.
        runtime: Row of `SESSIONS`.
    """

    def __init__(self, programs: Programs | ExportedPrograms, runtime: str = "litert") -> None:
        self._programs, self._open = programs, SESSIONS[runtime]
        self.spec, self.initial, self.from_logits = programs.spec, programs.initial, programs.from_logits
        self.time_steps = programs.time_steps
        self.about = f"{runtime}: every device runs the phone's own training program"
        self._sessions: dict[Key, TrainingSession] = {}

    def prepare(self, plan: FitPlan) -> None:
        """Builds the program that ``plan`` asks for, as far as it is known before there are tasks."""
        EXPORTED.refuse(plan, "litert")
        self._programs.get(replace(plan, from_logits=self.from_logits), plan.batch_size or 1)

    def train(self, weights: Tensors, tasks: Sequence[Task], plan: FitPlan) -> list[Update]:
        """Returns each task's update."""
        EXPORTED.refuse(plan, "litert")

        def fit_all(some: Sequence[Task]) -> list[Update]:
            return [fit(self._session(plan, len(t.y), pulled=t.pull is not None), weights, t, plan) for t in some]

        return list(blamed(None, fit_all, tasks))

    def score(self, weights: Tensors, tasks: Sequence[Task], plan: FitPlan) -> list[Evaluation]:
        """Returns accuracy and mean loss on each task's examples."""

        def score_all(some: Sequence[Task]) -> list[Evaluation]:
            return [
                score(self._session(plan, min(len(t.y), SCORE_BATCH)), {**weights, **(t.start or {})}, t, plan)
                for t in some
            ]

        return list(blamed(None, score_all, tasks, doing="evaluation"))

    def _session(self, plan: FitPlan, examples: int, *, pulled: bool = False) -> TrainingSession:
        key, program = self._programs.get(plan, plan.batch_size or _batch_of_all(examples), pulled=pulled)
        if key not in self._sessions:
            self._sessions[key] = self._open(*program)
        return self._sessions[key]


def _batch_of_all(examples: int) -> int:
    """Returns the batch of a program that takes all examples of a device in one step: a power of two, the rest masked.

    One program an octave of device sizes, not one a size.
    """
    return 1 << (max(examples, 1) - 1).bit_length()


def fit(session: TrainingSession, weights: Tensors, task: Task, plan: FitPlan) -> Update:
    """Returns the update of one device: the same batches in the same order as the keras engine.

    Raises:
        ConfigError: The proximal term would have to pull to other weights than those the device starts at.
    """
    if task.start and plan.proximal_mu > 0:
        raise ConfigError('engine litert: a personal start with a proximal term (ditto) needs engine.name = "keras"')
    start = {**weights, **(task.start or {})}
    session.set_weights(start)
    if task.pull is not None:
        session.set_correction(task.pull)
    count, seed, total = len(task.y), seed_for(task.seed, "dropout") & 0x7FFFFFFF, 0.0
    steps = visits(task, plan)
    for number, rows in enumerate(steps):
        loss, _ = session.train(
            task.x[rows], task.y[rows], learning_rate=plan.learning_rate, seed=seed, prox_mu=plan.proximal_mu
        )
        if number >= len(steps) - len(steps) // plan.epochs:
            total += loss * len(rows)
    after = session.get_weights()
    return Update({path: after[path] - weights[path] for path in weights}, count, {"loss": total / count})


def score(session: TrainingSession, weights: Tensors, task: Task, plan: FitPlan) -> Evaluation:
    """Returns accuracy and mean loss, by the program's own answers and losses."""
    session.set_weights(weights)
    loss, out = 0.0, []
    for at in range(0, len(task.y), session.contract.batch_size):
        rows = slice(at, at + session.contract.batch_size)
        loss += session.evaluate(task.x[rows], task.y[rows])[0]
        out.append(session.infer(task.x[rows]))
    return evaluation_of(plan, task.y, np.concatenate(out), loss / len(task.y))
