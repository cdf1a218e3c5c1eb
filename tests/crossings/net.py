"""The convergence net: federations of seconds in which features meet, and what they must reach."""

from __future__ import annotations

import functools
import itertools
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from device_sim.client_data.data import DealtData
from device_sim.experiment.toml import parse_experiment
from device_sim.federation.dealing import deal_out, open_dataset
from device_sim.federation.federation import Federation, assemble
from device_sim.fleet.devices.timing import Workload
from device_sim.run.folder import create
from device_sim.run.loop import restore, simulate
from fl_mobile.errors import ConfigError
from fl_mobile.tensors import Tensors
from tests.crossings.numpy_mlp import NumpyMlp, engine_of

COMMON = """
[fleet]
link = "wifi"
dropout-rate = 0.0
[output]
keep-updates = 0
recipes = []
timeline-rounds = 0
"""


class Task(NamedTuple):
    """What is learnt.

    Attributes:
        keys: TOML.
        hidden: Units of the hidden layers.
        norm: Whether batch normalization stands behind the first one.
    """

    keys: str
    hidden: tuple[int, ...]
    norm: bool = False


TASKS = {
    "net": Task(
        """
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
""",
        (32,),
        norm=True,
    ),
    "digits": Task(
        """
[data]
dataset = "digits"
devices = 30
[train]
rounds = 30
cohort = 8
epochs = 2
""",
        (200, 200),
    ),
    "drift": Task(
        """
[data]
dataset = "digits"
devices = 20
partition = "shards"
shards-per-device = 2
[train]
rounds = 20
cohort = 10
epochs = 20
batch-size = 16
learning-rate = 0.2
""",
        (),
    ),
    "mnist": Task(
        """
[data]
dataset = "mnist-5k"
devices = 100
[train]
rounds = 25
cohort = 10
epochs = 5
""",
        (200, 200),
    ),
}
"""``net``: 1,438 handwritten digits on 20 devices, label skew, a small network with batch normalization. ``digits``:
the task of the user reports, ``drift``: two digits a device and long local training, ``mnist``: the default data."""


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
FLOAT32 = ("download.mode=full", "download.codec=none", "upload.codec=none")
MEMORIES = {name: (f"upload.memory={name}",) for name in ("none", "error-feedback", "cafe")}
SELECTIONS: dict[str, tuple[str, ...]] = {"exact": (), "over 1.5": ("selection.over-selection=1.5",)}
MODES = ("synchronous", "asynchronous")
PARTICIPATIONS = ("40 %", "all")
WHO: dict[tuple[str, str], tuple[str, ...]] = {
    ("synchronous", "40 %"): (),
    ("synchronous", "all"): ("train.cohort=20", "train.rounds=14"),
    ("asynchronous", "40 %"): ("clock.mode=asynchronous", "clock.buffer=8", "train.cohort=12"),
    ("asynchronous", "all"): ("clock.mode=asynchronous", "clock.buffer=20", "train.cohort=20", "train.rounds=14"),
}
"""Mode, participation → keys. Both modes make as many steps of as many updates; asynchronously, "all" always train."""


class Row(NamedTuple):
    """What an algorithm meets."""

    codec: str = "default"
    memory: str = "none"
    selection: str = "exact"
    mode: str = "synchronous"
    participation: str = "40 %"


def every_row() -> list[Row]:
    """Returns the product, less what is implied: `SAME` holds both.

    A memory keeps nothing of a codec that loses nothing, and where all take part there is nobody to ask in surplus.
    """
    product = itertools.product(CODECS, MEMORIES, SELECTIONS, MODES, PARTICIPATIONS)
    rows = [Row(*names) for names in product]
    return [row for row in rows if not any(part.items() <= row._asdict().items() for part, _ in SAME)]


SAME: tuple[tuple[dict[str, str], dict[str, str]], ...] = (
    ({"codec": "none", "memory": "error-feedback", "mode": "synchronous"}, {"memory": "none"}),
    ({"selection": "over 1.5", "participation": "all", "mode": "synchronous"}, {"selection": "exact"}),
)
"""Values of a row → values with which it is the same run, to the last bit."""


def run(changes: Sequence[str], seed: int, task: str = "net") -> tuple[float, float]:
    """Returns final test accuracy in percent, the mean of the last three rounds, and the bytes of a mean upload.

    Raises:
        ConfigError: The combination is refused.
    """
    federation = opened(changes, seed, task)
    with tempfile.TemporaryDirectory() as folder:
        rounds = list(simulate(federation, create(Path(folder) / "run", federation.experiment)))
    accuracy = 100 * float(np.mean([one.accuracy for one in rounds[-3:]]))
    return accuracy, sum(one.upload_bytes for one in rounds) / sum(one.accepted for one in rounds)


def final_weights(changes: Sequence[str]) -> Tensors:
    """Returns the global model after the last round, of seed 0."""
    federation = opened(changes, 0)
    with tempfile.TemporaryDirectory() as path:
        folder = create(Path(path) / "run", federation.experiment)
        list(simulate(federation, folder))
        return restore(federation, folder)[0].weights


def opened(changes: Sequence[str], seed: int, task: str = "net") -> Federation:
    """Returns the federation of a task with changes."""
    keys, hidden, norm = TASKS[task]
    experiment = parse_experiment(keys + COMMON, [*changes, f"seed={seed}"])
    dataset = open_dataset(experiment)
    data = DealtData(dataset.train, tuple(deal_out(experiment, dataset)))
    inputs = int(np.prod(dataset.input_shape))
    engine = engine_of(NumpyMlp(inputs, hidden, dataset.num_classes, norm=norm, seed=seed))
    size = sum(tensor.size for tensor in engine.spec.values())
    return assemble(experiment, dataset, data, engine, Workload(size, size, size), lambda: None)


@functools.cache
def each_seed(changes: tuple[str, ...], seeds: tuple[int, ...], task: str = "net") -> tuple[tuple[float, float], ...]:
    """Returns `run` of every seed."""
    return tuple(run(changes, seed, task) for seed in seeds)


def mean_accuracy(changes: tuple[str, ...], seeds: tuple[int, ...], task: str = "net") -> tuple[float, float]:
    """Returns `run` averaged over seeds."""
    accuracy, size = np.mean(each_seed(changes, seeds, task), axis=0)
    return float(accuracy), float(size)


def reference(algorithm: str, participation: str, seeds: tuple[int, ...]) -> float:
    """Returns what the algorithm reaches in float32, synchronously, without a memory."""
    return mean_accuracy((*ALGORITHMS[algorithm], *WHO["synchronous", participation], *FLOAT32), seeds)[0]


def met(algorithm: str, row: Row) -> tuple[str, ...]:
    """Returns the changes that make an algorithm meet the rest of a row."""
    parts = (CODECS[row.codec], MEMORIES[row.memory], SELECTIONS[row.selection], WHO[row.mode, row.participation])
    return sum((ALGORITHMS[algorithm], *parts), ())


def refusal(changes: Sequence[str]) -> str:
    """Returns why a combination is refused, empty if it is not."""
    try:
        parse_experiment(TASKS["net"].keys + COMMON, changes)
    except ConfigError as error:
        return str(error)
    return ""
