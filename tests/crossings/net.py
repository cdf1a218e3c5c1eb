"""The convergence net: federations of seconds in which features meet, and what they must reach."""

from __future__ import annotations

import functools
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from device_sim.client_data.data import DealtData
from device_sim.experiment.toml import parse_experiment
from device_sim.federation.federation import assemble, deal_out, open_dataset
from device_sim.fleet.devices.timing import Workload
from device_sim.run.folder import create
from device_sim.run.loop import simulate
from fl_mobile.errors import ConfigError
from tests.crossings.numpy_mlp import NumpyMlp, engine_of

TASK = """
[data]
dataset = "digits"
devices = 20
alpha = 0.3
[train]
rounds = 24
cohort = 8
epochs = 2
batch-size = 10
learning-rate = 0.1
[fleet]
link = "wifi"
dropout-rate = 0.0
[output]
keep-updates = 0
recipes = []
timeline-rounds = 0
"""
"""1,438 handwritten digits on 20 devices, label skew; a network of 64, 32 and 10 units with batch normalization."""

ALGORITHMS: dict[str, tuple[str, ...]] = {
    "fedavg": (),
    "fedsgd": ("server.algorithm=fedsgd", "train.learning-rate=0.5"),
    "fedprox": ("server.algorithm=fedprox",),
    "fedavgm": ("server.algorithm=fedavgm", "server.momentum=0.5"),
    "fedadam": ("server.algorithm=fedadam", "server.learning-rate=0.03"),
    "fedyogi": ("server.algorithm=fedyogi", "server.learning-rate=0.03"),
    "fedadagrad": ("server.algorithm=fedadagrad", "server.learning-rate=0.05"),
    "scaffold": ("server.algorithm=scaffold",),
    "fednova": ("server.algorithm=fednova",),
    "feddyn": ("server.algorithm=feddyn",),
}
CODECS = {"none": ("upload.codec=none",), "q8+deflate": ("upload.codec=q8+deflate",), "default": ()}
MEMORIES = {name: (f"upload.memory={name}",) for name in ("none", "error-feedback", "cafe")}
SELECTIONS: dict[str, tuple[str, ...]] = {"exact": (), "over 1.5": ("selection.over-selection=1.5",)}
MODES: dict[str, tuple[str, ...]] = {
    "synchronous": (),
    "asynchronous": ("clock.mode=asynchronous", "clock.buffer=8", "train.cohort=12", "train.rounds=30"),
}
"""Asynchronous runs make a quarter more steps: late updates weigh less, and what they lose nobody gets."""
PARTICIPATIONS: dict[str, tuple[str, ...]] = {"40 %": (), "all": ("train.cohort=20", "train.rounds=14")}


class Row(NamedTuple):
    """What an algorithm meets."""

    codec: str = "default"
    memory: str = "none"
    selection: str = "exact"
    mode: str = "synchronous"
    participation: str = "40 %"


def run(changes: Sequence[str], seed: int) -> tuple[float, float]:
    """Returns final test accuracy in percent, the mean of the last three rounds, and the bytes of a mean upload.

    Raises:
        ConfigError: The combination is refused.
    """
    experiment = parse_experiment(TASK, [*changes, f"seed={seed}"])
    dataset = open_dataset(experiment)
    data = DealtData(dataset.train, tuple(deal_out(experiment, dataset)))
    engine = engine_of(NumpyMlp(64, (32,), 10, norm=True, seed=seed))
    federation = assemble(experiment, dataset, data, engine, Workload(5000, 5000, 5000), lambda: None)
    with tempfile.TemporaryDirectory() as folder:
        rounds = list(simulate(federation, create(Path(folder) / "run", experiment)))
    accuracy = 100 * float(np.mean([one.accuracy for one in rounds[-3:]]))
    return accuracy, sum(one.upload_bytes for one in rounds) / sum(one.accepted for one in rounds)


@functools.cache
def mean_accuracy(changes: tuple[str, ...], seeds: tuple[int, ...]) -> tuple[float, float]:
    """Returns `run` averaged over seeds."""
    accuracy, size = np.mean([run(changes, seed) for seed in seeds], axis=0)
    return float(accuracy), float(size)


def reference(algorithm: str, participation: str, seeds: tuple[int, ...]) -> float:
    """Returns what the algorithm reaches in float32, synchronously, without a memory."""
    changes = ("download.mode=full", "download.codec=none", "upload.codec=none")
    return mean_accuracy((*ALGORITHMS[algorithm], *PARTICIPATIONS[participation], *changes), seeds)[0]


def met(algorithm: str, row: Row) -> tuple[str, ...]:
    """Returns the changes that make an algorithm meet the rest of a row."""
    parts = (CODECS[row.codec], MEMORIES[row.memory], SELECTIONS[row.selection], PARTICIPATIONS[row.participation])
    return sum((ALGORITHMS[algorithm], *parts, MODES[row.mode]), ())


def refusal(changes: Sequence[str]) -> str:
    """Returns why a combination is refused, empty if it is not."""
    try:
        parse_experiment(TASK, changes)
    except ConfigError as error:
        return str(error)
    return ""
