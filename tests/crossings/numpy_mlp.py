"""A real engine without TensorFlow whose model can go wrong in more ways: hidden layers, and batch normalization."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence

import numpy as np

from device_sim.engines import Evaluation, Task, visits
from device_sim.engines.pools.pooled import LocalWorker, PooledEngine
from fl_mobile.records import FitPlan, Update
from fl_mobile.seeds import rng_for
from fl_mobile.tensors import Spec, Tensors, TensorSpec

MOMENTUM, EPSILON = np.float32(0.9), np.float32(1e-3)
"""Of the moving statistics, as `keras.layers.BatchNormalization` has them but for a shorter memory."""


class NumpyMlp:
    """`Trainer` for rectified layers over flat inputs; after the first one, batch normalization if asked for."""

    about = "numpy, for tests"
    time_steps = 1

    def __init__(self, inputs: int, hidden: Sequence[int], classes: int, *, norm: bool = False, seed: int = 0) -> None:
        self.from_logits = True
        self.norm = norm
        sizes = [inputs, *hidden, classes]
        self.spec: Spec = {}
        self.initial: Tensors = {}
        for i, (fan_in, fan_out) in enumerate(itertools.pairwise(sizes)):
            limit = math.sqrt(6 / (fan_in + fan_out))
            kernel = rng_for(seed, "initial", i).uniform(-limit, limit, (fan_in, fan_out))
            self._add(f"dense{i}/kernel", kernel)
            self._add(f"dense{i}/bias", np.zeros(fan_out))
            if norm and i == 0:
                for name, value in (("gamma", 1), ("beta", 0), ("moving_mean", 0), ("moving_variance", 1)):
                    self._add(f"norm/{name}", np.full(fan_out, value), trainable=not name.startswith("moving"))

    def _add(self, path: str, value: np.ndarray, *, trainable: bool = True) -> None:
        self.spec[path] = TensorSpec(value.shape, trainable)
        self.initial[path] = value.astype(np.float32)

    def train(self, weights: Tensors, tasks: Sequence[Task], plan: FitPlan) -> list[Update]:
        return [self._fit(weights, task, plan) for task in tasks]

    def score(self, weights: Tensors, tasks: Sequence[Task], plan: FitPlan) -> list[Evaluation]:
        return [self._score({**weights, **(task.start or {})}, task.x, task.y) for task in tasks]

    def _fit(self, weights: Tensors, task: Task, plan: FitPlan) -> Update:
        local = {path: value.copy() for path, value in {**weights, **(task.start or {})}.items()}
        start, losses, rate = dict(local), [], np.float32(plan.learning_rate)
        speed = {path: np.zeros_like(value) for path, value in local.items()}
        rho = np.float32(plan.momentum if plan.optimizer == "momentum" else 0)
        for rows in visits(task, plan):
            loss, gradient = self._gradient(local, flat(task.x[rows]), task.y[rows])
            losses.append(loss)
            for path, value in gradient.items():
                total = value + (task.pull[path] if task.pull else 0)
                total = total + np.float32(plan.proximal_mu) * (local[path] - start[path])
                speed[path] = rho * speed[path] - rate * total
                local[path] = (local[path] + speed[path]).astype(np.float32)
        delta = {path: local[path] - weights[path] for path in local}
        return Update(delta, len(task.y), {"loss": float(np.mean(losses))})

    def _gradient(self, local: Tensors, x: np.ndarray, y: np.ndarray) -> tuple[float, Tensors]:
        """Returns loss and gradient; moving statistics of ``local`` take a step."""
        layers = sum(path.endswith("/kernel") for path in local)
        inputs, normed = [x], None
        for i in range(layers):
            z = inputs[-1] @ local[f"dense{i}/kernel"] + local[f"dense{i}/bias"]
            if self.norm and i == 0:
                mean, variance = z.mean(axis=0), z.var(axis=0)
                for name, value in (("mean", mean), ("variance", variance)):
                    old = local[f"norm/moving_{name}"]
                    local[f"norm/moving_{name}"] = MOMENTUM * old + (1 - MOMENTUM) * value
                scale = 1 / np.sqrt(variance + EPSILON)
                normed = (z - mean) * scale
                z = local["norm/gamma"] * normed + local["norm/beta"]
            inputs.append(np.maximum(z, 0) if i < layers - 1 else z)
        p = softmax(inputs[-1])
        loss = float(-np.log(p[np.arange(len(y)), y] + 1e-12).mean())
        p[np.arange(len(y)), y] -= 1
        back, gradient = p / np.float32(len(y)), {}
        for i in reversed(range(layers)):
            if self.norm and i == 0 and normed is not None:
                gradient["norm/gamma"], gradient["norm/beta"] = (back * normed).sum(axis=0), back.sum(axis=0)
                back = back * local["norm/gamma"]
                back = scale * (back - back.mean(axis=0) - normed * (back * normed).mean(axis=0))
            gradient[f"dense{i}/kernel"], gradient[f"dense{i}/bias"] = inputs[i].T @ back, back.sum(axis=0)
            if i:
                back = (back @ local[f"dense{i}/kernel"].T) * (inputs[i] > 0)
        return loss, gradient

    def _score(self, weights: Tensors, x: np.ndarray, y: np.ndarray) -> Evaluation:
        h, layers = flat(x), sum(path.endswith("/kernel") for path in weights)
        for i in range(layers):
            h = h @ weights[f"dense{i}/kernel"] + weights[f"dense{i}/bias"]
            if self.norm and i == 0:
                scale = weights["norm/gamma"] / np.sqrt(weights["norm/moving_variance"] + EPSILON)
                h = (h - weights["norm/moving_mean"]) * scale + weights["norm/beta"]
            h = np.maximum(h, 0) if i < layers - 1 else h
        p = softmax(h)
        loss = float(-np.log(p[np.arange(len(y)), y] + 1e-12).mean())
        return Evaluation(float((p.argmax(axis=1) == y).mean()), loss, len(y))


def flat(x: np.ndarray) -> np.ndarray:
    """Returns pixels as ``float32[n, values]`` in [0, 1]."""
    return (x.reshape(len(x), -1) / np.float32(255)).astype(np.float32)


def softmax(z: np.ndarray) -> np.ndarray:
    """Returns probabilities ``float32[n, classes]`` of logits."""
    e = np.exp(z - z.max(axis=1, keepdims=True))
    out: np.ndarray = e / e.sum(axis=1, keepdims=True)
    return out


def engine_of(trainer: NumpyMlp) -> PooledEngine:
    """Returns an engine of one worker; it starts in milliseconds."""
    return PooledEngine([LocalWorker(trainer)])
