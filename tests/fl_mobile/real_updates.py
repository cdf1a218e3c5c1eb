"""What local training really produces: updates of small networks on handwritten digits, in NumPy."""

from __future__ import annotations

import functools

import numpy as np

from device_sim.datasets import load_dataset
from device_sim.datasets.records import DataOptions
from device_sim.engines import Task
from fl_mobile.records import FitPlan
from fl_mobile.tensors import Spec, Tensors
from tests.crossings.numpy_mlp import NumpyMlp

HIDDEN = {"linear": (), "two layers": (200, 200)}


@functools.cache
def real_updates() -> dict[str, tuple[Spec, Tensors]]:
    """Returns name → spec and update: of untrained and of trained models, of clients that hold two digits each."""
    data = load_dataset("digits", seed=0, path=None, test_fraction=0.2, options=DataOptions()).train
    found = {}
    for name, hidden in HIDDEN.items():
        trainer = NumpyMlp(64, hidden, 10)
        few, all_of_them = np.flatnonzero(data.y < 2)[:48], np.arange(len(data.y))
        plan = FitPlan(epochs=2, batch_size=10, learning_rate=0.05)
        fresh = trainer.train(trainer.initial, [Task(0, data.x[few], data.y[few], 1)], plan)[0].delta
        whole = trainer.train(trainer.initial, [Task(0, data.x[all_of_them], data.y[all_of_them], 1)], plan)[0].delta
        trained = {path: value + whole[path] for path, value in trainer.initial.items()}
        later = trainer.train(trained, [Task(0, data.x[few], data.y[few], 2)], plan)[0].delta
        found |= {f"{name}, first round": (trainer.spec, fresh), f"{name}, trained": (trainer.spec, later)}
    return found
