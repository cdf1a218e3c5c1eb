"""What a whole run says of itself in summary and report: provoked by real runs, with a reason that is true of each."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from device_sim.client_data.data import DealtData
from device_sim.datasets.records import Samples
from device_sim.report import page, read_runs
from device_sim.run.finish import finish
from device_sim.run.folder import create
from device_sim.run.loop import simulate
from fl_mobile.tensors import Tensors
from tests.device_sim.faulty_run import NumpyModel
from tests.device_sim.numpy_engine import NumpyTrainer, numpy_engine, numpy_federation, stripes
from tests.device_sim.run.test_run import experiment

PLAIN = (
    *("upload.memory=none", "upload.budget-bytes=0", "upload.codec=none", "server.algorithm=fedavg"),
    *("server.learning-rate=1", "fleet.dropout-rate=0", "train.rounds=8"),
)


class Begun(NumpyTrainer):
    """A model that begins with weights of its own."""

    def __init__(self, weights: Tensors) -> None:
        super().__init__(144, 3)
        self.initial = {path: weights[path].astype(np.float32) for path in self.initial}


@dataclass(frozen=True)
class Case:
    """A run, and what it must say.

    Attributes:
        told: Patterns of its lines, in order.
        changes: Of the experiment.
        labels: What devices' labels are turned into.
        first: First weights; zeros without.
    """

    told: tuple[str, ...]
    changes: tuple[str, ...] = ()
    labels: Any = None
    first: Any = None


def learnt() -> Tensors:
    """Returns weights that tell the stripes apart."""
    train = stripes().train
    means = np.stack([train.x[train.y == c].reshape(-1, 144).mean(axis=0) for c in range(3)], axis=1) / 255
    return {"out/kernel": means - means.mean(axis=1, keepdims=True), "out/bias": np.zeros(3)}


CASES: dict[str, Case] = {
    "healthy": Case(()),
    "nobody": Case(
        ("^nothing was trained: in 8 .*offline.*lower fleet.dropout-rate",), ("fleet.dropout-rate=0.9999999",)
    ),
    "good, and still": Case(
        (r"^nothing was learnt: the weights moved by \S+ of their length only, .*Raise train.learning-rate \(1e-09\)",),
        ("train.learning-rate=1e-9",),
        first=learnt,
    ),
    "one class": Case(
        (r"^only class 1 is ever right.*not above chance.*The weights moved by .*raise train.learning-rate \(1e-09\)",),
        ("train.learning-rate=1e-9",),
        first=lambda: {"out/kernel": np.zeros((144, 3)), "out/bias": np.array([0.0, 9.0, 0.0])},
    ),
    "labels of another code": Case(
        (r"not above chance.*held-out loss rose.*while the devices' own fell.*coded like the test set's",),
        labels=lambda y: (y + 1) % 3,
    ),
}


@pytest.mark.parametrize("name", CASES)
def test_summary_and_report_say_what_is_true_of_the_run(tmp_path: Path, name: str) -> None:
    case = CASES[name]
    federation = numpy_federation(
        experiment(*PLAIN, *case.changes), numpy_engine(Begun(case.first()) if case.first else None)
    )
    federation = replace(federation, build=lambda: NumpyModel(federation.engine.initial))
    if case.labels is not None:
        held = federation.data
        assert isinstance(held, DealtData)
        train = Samples(held.train.x, case.labels(held.train.y))
        federation = replace(federation, data=replace(held, train=train))
    folder = create(tmp_path / "run", federation.experiment)
    rounds = list(simulate(federation, folder))
    summary = finish(federation, folder, rounds, command="", recipes=(), say=lambda _: None)
    shown = page(read_runs([folder.path]))
    assert len(summary["warnings"]) == len(case.told), summary["warnings"]
    for line, pattern in zip(summary["warnings"], case.told, strict=True):
        assert re.search(pattern, line), line
        assert line.replace("'", "&#x27;") in shown or line in shown
    assert ("learnt" in shown or "chance" in shown or "nothing was trained" in shown) == bool(case.told)
