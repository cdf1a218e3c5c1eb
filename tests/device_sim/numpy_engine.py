"""A real, tiny engine without TensorFlow: softmax regression in NumPy. It starts in milliseconds."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from device_sim.client_data.data import DealtData
from device_sim.datasets.records import Dataset, Samples, make_dataset
from device_sim.engines import Engine, Evaluation, Task, visits
from device_sim.engines.pools.pooled import LocalWorker, PooledEngine
from device_sim.experiment.experiment import Experiment
from device_sim.federation.dealing import with_servers_part
from device_sim.federation.federation import Federation, assemble
from device_sim.fleet.devices.timing import Workload
from fl_mobile.records import FitPlan, Update
from fl_mobile.seeds import rng_for
from fl_mobile.tasks import tally_of
from fl_mobile.tensors import Spec, Tensors, TensorSpec


class NumpyTrainer:
    """`Trainer` for softmax regression over flat inputs."""

    about = "numpy, for tests"
    time_steps = 1

    def __init__(self, inputs: int, classes: int) -> None:
        self.spec: Spec = {"out/kernel": TensorSpec((inputs, classes)), "out/bias": TensorSpec((classes,))}
        self.initial: Tensors = {p: np.zeros(t.shape, np.float32) for p, t in self.spec.items()}
        self.from_logits = True

    def train(self, weights: Tensors, tasks: Sequence[Task], plan: FitPlan) -> list[Update]:
        return [self._fit(weights, task, plan) for task in tasks]

    def score(self, weights: Tensors, tasks: Sequence[Task], plan: FitPlan) -> list[Evaluation]:
        return [_score({**weights, **(task.start or {})}, task.x, task.y) for task in tasks]

    def _fit(self, weights: Tensors, task: Task, plan: FitPlan) -> Update:
        local = {p: v.copy() for p, v in {**weights, **(task.start or {})}.items()}
        losses = []
        for rows in visits(task, plan):
            before = {p: v.copy() for p, v in local.items()}
            losses.append(_step(local, _flat(task.x[rows]), task.y[rows], plan.learning_rate))
            for p, pull in (task.pull or {}).items():
                local[p] -= np.float32(plan.learning_rate) * pull
            if plan.proximal_mu:
                for p in local:
                    local[p] -= np.float32(plan.learning_rate * plan.proximal_mu) * (before[p] - weights[p])
            for p in set(local).difference(plan.trained or local):
                local[p] = before[p]
        delta = {p: local[p] - weights[p] for p in local}
        return Update(delta, len(task.y), {"loss": float(np.mean(losses))})


def _score(weights: Tensors, x: np.ndarray, y: np.ndarray) -> Evaluation:
    p = _softmax(_flat(x) @ weights["out/kernel"] + weights["out/bias"])
    loss = float(-np.log(p[np.arange(len(y)), y] + 1e-12).mean())
    tally = tally_of("classification", y, p, from_logits=False)
    return Evaluation(float((p.argmax(axis=1) == y).mean()), loss, len(y), tally)


def numpy_engine(trainer: NumpyTrainer | None = None) -> PooledEngine:
    """A real engine that starts in milliseconds."""
    return PooledEngine([LocalWorker(trainer or NumpyTrainer(144, 3))])


def _flat(x: np.ndarray) -> np.ndarray:
    return (x.reshape(len(x), -1) / np.float32(255)).astype(np.float32)


def _softmax(z: np.ndarray) -> np.ndarray:
    e = np.exp(z - z.max(axis=1, keepdims=True))
    return e / e.sum(axis=1, keepdims=True)


def _step(local: Tensors, x: np.ndarray, y: np.ndarray, rate: float) -> float:
    p = _softmax(x @ local["out/kernel"] + local["out/bias"])
    loss = float(-np.log(p[np.arange(len(y)), y] + 1e-12).mean())
    p[np.arange(len(y)), y] -= 1
    local["out/kernel"] -= np.float32(rate / len(y)) * (x.T @ p)
    local["out/bias"] -= np.float32(rate / len(y)) * p.sum(axis=0)
    return loss


def stripes(count: int = 120, classes: int = 3, seed: int = 0) -> Dataset:
    """Images whose class is the row that is lit: learnable by any model."""
    rng = rng_for(seed, "stripes")
    y = np.arange(count) % classes
    x = rng.integers(0, 90, (count, 12, 12, 1)).astype(np.uint8)
    x[np.arange(count), y] += 150
    cut = count * 3 // 4
    parts = Samples(x[:cut], y[:cut]), Samples(x[cut:], y[cut:])
    return make_dataset("stripes", *parts, tuple(map(str, range(classes))), source="made in a test")


def numpy_federation(experiment: Experiment, engine: Engine | None = None) -> Federation:
    """A federation over `stripes` whose devices hold every n-th example."""
    dataset = with_servers_part(experiment, stripes())
    devices = experiment.data.devices
    shards = tuple(np.arange(d, len(dataset.train.y), devices) for d in range(devices))
    data, workload = DealtData(dataset.train, shards), Workload(432, 435, 435)
    return assemble(experiment, dataset, data, engine or numpy_engine(), workload, lambda: None)
