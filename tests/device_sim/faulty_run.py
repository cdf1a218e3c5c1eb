"""The real ``fl-mobile simulate`` over the NumPy federation: a whole run in milliseconds, to be broken often."""

from __future__ import annotations

import io
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np

import device_sim.federation.federation
import device_sim.report.tensorboard
from device_sim.cli import make_app
from device_sim.experiment.experiment import Experiment
from device_sim.federation.federation import Federation
from fl_mobile.tensors import Tensors
from tests.device_sim.numpy_engine import numpy_federation


class NumpyVariable:
    """What `keras_bridge` asks of a Keras variable."""

    trainable, dtype = True, "float32"

    def __init__(self, path: str, value: np.ndarray) -> None:
        self.path, self.shape, self._value = path, value.shape, value.copy()

    def assign(self, value: np.ndarray) -> None:
        self._value = value.copy()

    def numpy(self) -> np.ndarray:
        return self._value


class NumpyModel:
    """The model `numpy_engine` trains, as `finish` wants it: it takes weights and saves itself."""

    name, built = "softmax", True

    def __init__(self, weights: Tensors) -> None:
        self.weights = self.trainable_variables = [NumpyVariable(p, v) for p, v in weights.items()]

    def _flatten_layers(self, include_self: bool = True) -> Iterator[NumpyModel]:
        return iter(())

    def save(self, path: Path) -> None:
        buffer = io.BytesIO()
        np.savez(buffer, **{v.path: v.numpy() for v in self.weights})
        path.write_bytes(buffer.getbuffer())


def open_federation(experiment: Experiment, *, open_keys: frozenset[str] = frozenset()) -> Federation:
    """Stands where `device_sim.federation.federation.open_federation` would load TensorFlow."""
    federation = numpy_federation(experiment)
    return replace(federation, build=lambda: NumpyModel(federation.engine.initial))


def simulate(experiment: Path, run: Path, *, resume: bool, events: bool) -> int:
    """Runs the command to its end in this process and returns its exit code.

    Args:
        events: Whether TensorBoard's file is written, which TensorFlow does.
    """
    device_sim.federation.federation.open_federation = open_federation
    if not events:
        device_sim.report.tensorboard.recorded = lambda rounds, run: iter(rounds)
    try:
        make_app()(["simulate", str(experiment), "--out", str(run), *(["--resume"] if resume else [])])
    except SystemExit as end:
        return int(end.code or 0)
    raise AssertionError("the command did not exit")
