"""Packets are added up where they are made, before anybody knows who arrives: the round's bits must not tell."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import pytest

from device_sim.engines import Task
from device_sim.engines.pools.pooled import LocalWorker, PooledEngine
from device_sim.experiment.toml import parse_experiment
from device_sim.rounds.memory import FleetMemory
from device_sim.rounds.synchronous import play_synchronously
from device_sim.rounds.trip import ACCEPTED
from fl_mobile.records import FitPlan
from fl_mobile.storage.shelf import Shelf
from fl_mobile.tensors import Tensors, weights_hash
from tests.device_sim.numpy_engine import NumpyTrainer, numpy_federation
from tests.device_sim.rounds.test_oracle import PLAIN
from tests.fl_mobile.one_round import ServerRound

FLEET = ("data.devices=12", "train.cohort=6", "train.rounds=5", "fleet.link=mixed", "fleet.profile=mixed")
WAYS = {
    "everybody": ("fleet.dropout-rate=0", "fleet.link=ideal"),
    "some drop out": ("fleet.dropout-rate=0.4",),
    "surplus": ("selection.over-selection=2.0",),
    "late": ("clock.deadline-seconds=0.5",),
    "declined": ("policy.name=event", "policy.min-update-norm=0.5"),
    "divided by steps": ("server.algorithm=fednova", "fleet.dropout-rate=0.3"),
    "clipped": ("server.clip-norm=0.05", "server.max-examples=3", "fleet.dropout-rate=0.3"),
    "default codec": ("upload.codec=ecsq", "fleet.dropout-rate=0.3"),
    "nobody": ("clock.deadline-seconds=0.0001",),
}


class Listening(PooledEngine):
    """A real engine that remembers the packets of the last round."""

    def __init__(self, workers: int) -> None:
        super().__init__([LocalWorker(NumpyTrainer(144, 3)) for _ in range(workers)])
        self.packets: dict[int, bytes] = {}

    def train(self, weights: Tensors, tasks: Iterable[Task], plan: FitPlan, then: Any) -> Iterator[Any]:
        self.packets = {}
        for ready in super().train(weights, tasks, plan, then):
            self.packets |= {client: made.packet for client, made in zip(ready.clients, ready.answers, strict=True)}
            yield ready


@pytest.mark.parametrize("workers", [1, 3])
@pytest.mark.parametrize("way", WAYS)
def test_a_round_is_what_a_server_makes_of_the_packets_that_arrived(tmp_path: Path, way: str, workers: int) -> None:
    engine = Listening(workers)
    federation = numpy_federation(parse_experiment(PLAIN, (*FLEET, *WAYS[way])), engine)
    memory, keys = FleetMemory(Shelf(tmp_path)), federation.experiment
    state, left_out = federation.algorithm.init(federation.initial, federation.spec), 0
    for _ in range(keys.train.rounds):
        after, report, traffic = play_synchronously(federation, memory, state, tmp_path / "updates")
        both = zip(traffic.columns["device"], traffic.columns["outcome"], strict=True)
        accepted = [device for device, outcome in both if outcome == ACCEPTED]
        left_out += len(engine.packets) - len(accepted)
        alone, expected = ServerRound(
            state,
            algorithm=federation.algorithm,
            codec=federation.upload,
            admission=keys.server.admission(),
            plan=federation.plan(state.round_num),
            population=12,
        ).play([engine.packets[device] for device in accepted])
        assert weights_hash(after.weights) == weights_hash(alone.weights)
        assert report == expected or (report.loss != report.loss and not accepted)
        state = after
    assert (left_out > 0) == (way not in ("everybody", "nobody"))
