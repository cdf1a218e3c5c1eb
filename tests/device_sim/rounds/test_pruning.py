"""[train.pruning] in whole runs: the zeros of the schedule in the model, in what travels down, in what travels up."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from device_sim.engines import Task
from device_sim.engines.pools.pooled import LocalWorker, PooledEngine
from device_sim.experiment.toml import parse_experiment
from device_sim.federation.federation import Federation
from device_sim.rounds import SERVERS
from device_sim.rounds.memory import FleetMemory
from device_sim.run.folder import create
from device_sim.run.loop import restore, simulate, stop_reason
from fl_mobile import wire
from fl_mobile.client import answer as client_answer
from fl_mobile.client.answer import Answer
from fl_mobile.records import FitPlan, ServerState
from fl_mobile.seeds import rng_for
from fl_mobile.server import step as server_step
from fl_mobile.server.publish import Publication, publish
from fl_mobile.storage.shelf import Shelf
from fl_mobile.tensors import Tensors
from fl_mobile.wire import download
from fl_mobile.wire.lattice import Lattice, prune_point
from fl_mobile.wire.pruning_mask import apply_masks, masks_for, sparsity_at, zero_runs
from tests.device_sim.numpy_engine import NumpyTrainer, numpy_federation
from tests.device_sim.rounds.test_oracle import PLAIN
from tests.device_sim.run.test_progress import played

KERNEL = "out/kernel"
PRUNING = ("begin-round=1", "end-round=4", "sparsity=0.8", "smallest-kernel=1")
DENSE = ("train.rounds=7",)
SPARSE = (*DENSE, *(f"train.pruning.{change}" for change in PRUNING))
DELTA = ("download.mode=delta", "download.step=0.1", "upload.codec=ecsq:step=0.1")
ASYNCHRONOUS = ("clock.mode=asynchronous", "clock.buffer=2", "clock.max-staleness=9")
WAYS = {
    "full": (),
    "delta": DELTA,
    "constant": (*DELTA, "train.pruning.schedule=constant"),
    "single zeros": (*DELTA, "train.pruning.zero-run=1"),
    "error feedback": (*DELTA, "upload.memory=error-feedback"),
    "cafe": (*DELTA, "upload.memory=cafe"),
    "server momentum": (*DELTA, "server.algorithm=fedavgm"),
    "scaffold": (*DELTA, "server.algorithm=scaffold"),
    "fednova": (*DELTA, "server.algorithm=fednova"),
    "feddyn": (*DELTA, "server.algorithm=feddyn"),
    "asynchronous": (*DELTA, *ASYNCHRONOUS, "fleet.link=3g"),
}


def trainer() -> NumpyTrainer:
    """Starts at weights that are not zero, as networks do."""
    made = NumpyTrainer(144, 3)
    made.initial[KERNEL] = rng_for(0, "first weights").normal(0, 0.05, (144, 3)).astype(np.float32)
    return made


class Witness(PooledEngine):
    """A real engine that remembers what devices trained from and what left them."""

    def __init__(self, workers: int = 1) -> None:
        super().__init__([LocalWorker(trainer()) for _ in range(workers)])
        self.seen: list[tuple[Tensors, list[Answer]]] = []

    def train(self, weights: Tensors, tasks: Iterable[Task], plan: FitPlan, then: Any) -> Iterator[Any]:
        chunks = list(super().train(weights, tasks, plan, then))
        self.seen.append((weights, [answer for ready in chunks for answer in ready.answers]))
        return iter(chunks)


def opened(*changes: str, workers: int = 1, pruning: tuple[str, ...] = SPARSE) -> tuple[Federation, Witness]:
    witness = Witness(workers)
    return numpy_federation(parse_experiment(PLAIN, (*pruning, *changes)), witness), witness


def states(federation: Federation, folder: Path) -> Iterator[ServerState]:
    """Yields the state before round 0 and after every round."""
    memory = FleetMemory(Shelf(folder))
    state = federation.algorithm.init(federation.engine.initial, federation.engine.spec)
    yield state
    for _ in range(federation.experiment.train.rounds):
        state, _, _ = SERVERS[federation.experiment.clock.mode](federation, memory, state, folder / "updates")
        yield state


def zeros_asked_for(federation: Federation, round_num: int) -> int:
    plan = federation.experiment.train.pruning
    return plan.zero_run * round(sparsity_at(plan, round_num) * 432 / plan.zero_run)


def check(federation: Federation, witness: Witness, folder: Path) -> None:
    """The laws: the model, every broadcast and every packet have the zeros of the schedule."""
    history = list(states(federation, folder))
    found = [int((state.weights[KERNEL] == 0).sum()) for state in history[1:]]
    assert found == [zeros_asked_for(federation, t) for t in range(len(found))] == sorted(found)
    assert found[federation.experiment.train.settled_round] == found[-1] == pytest.approx(0.8 * 432, abs=2)
    for weights, answers in witness.seen:
        for answer in answers:
            header, sent = wire.unpack(answer.packet, federation.engine.spec, federation.upload)
            pruned = masks_for(federation.experiment.train.pruning, weights, federation.engine.spec, header.base_round)
            for path, lives in pruned.items():
                assert not weights[path][~lives].any(), "broadcast"
                assert not sent[path][~lives].any(), "packet"
                assert answer.wanted is None or not answer.wanted[path][~lives].any(), "residual"


@pytest.mark.parametrize("way", WAYS)
def test_zeros_of_the_schedule_in_all_that_stays_and_all_that_travels(way: str, tmp_path: Path) -> None:
    check(*opened(*WAYS[way]), tmp_path)


def unmasked(tensors: Tensors, masks: Any) -> Tensors:
    return tensors


@pytest.mark.parametrize(
    ("where", "name", "damage"),
    [
        (client_answer, "apply_masks", unmasked),
        (download, "apply_masks", unmasked),
        (server_step, "apply_masks", unmasked),
    ],
)
def test_it_catches_a_mask_that_is_not_applied(
    where: Any, name: str, damage: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(where, name, damage)
    with pytest.raises(AssertionError):
        check(*opened(*DELTA), tmp_path)


@pytest.mark.parametrize("every", [1, 2, 3])
@pytest.mark.parametrize("way", ["delta", "single zeros", "constant"])
def test_a_device_that_knows_packets_and_plan_alone_reaches_the_broadcast_exactly(
    way: str, every: int, tmp_path: Path
) -> None:
    """Also one that takes part in some rounds only; its packets are as long as the server counts."""
    federation, _ = opened(*WAYS[way])
    spec, plan = federation.engine.spec, federation.experiment.train.pruning
    points = Shelf(tmp_path / "more")
    version, held = 0, Lattice.around(federation.engine.initial, spec, 1.0).start
    for state in states(federation, tmp_path):
        down, now = publish(federation.agreement, state, points), state.round_num
        if now % every:
            continue
        runs = zero_runs(plan, spec) if sparsity_at(plan, now) else {}
        lattice = Lattice.around(federation.engine.initial, spec, federation.experiment.download.step, runs)
        packet = lattice.pack(state.weights, lattice.point(state.weights), held, version=now, held_version=version)
        assert now == 0 or down.download_for(version).model == packet
        held, decoded = lattice.unpack(packet, held)
        masks = masks_for(plan, decoded, spec, now)
        held, version = prune_point(held, masks) if now else held, now
        mine = apply_masks(decoded, masks)
        assert all(np.array_equal(mine[path], down.decoded.weights[path]) for path in spec)
    assert np.count_nonzero(mine[KERNEL] == 0) == zeros_asked_for(federation, 6)


def test_a_device_that_asks_again_for_what_it_holds_gets_next_to_nothing(tmp_path: Path) -> None:
    federation, _ = opened(*DELTA)
    points, held = Shelf(tmp_path / "more"), 0
    for state in states(federation, tmp_path):
        down = publish(federation.agreement, state, points)
        first, again = (len(down.download_for(version)) for version in (held, state.round_num))
        held = state.round_num
    assert again < 130 < first, "two wire packets that say nothing"


@pytest.mark.parametrize("way", ["delta", "asynchronous"])
def test_same_bits_for_any_number_of_workers(way: str, tmp_path: Path) -> None:
    ends = []
    for workers in (1, 2):
        federation, witness = opened(*WAYS[way], workers=workers)
        ends.append((list(states(federation, tmp_path / str(workers))), witness.seen))
    (one, seen_by_one), (two, seen_by_two) = ends
    assert all(a.weights[KERNEL].tobytes() == b.weights[KERNEL].tobytes() for a, b in zip(one, two, strict=True))
    for (_, mine), (_, theirs) in zip(seen_by_one, seen_by_two, strict=True):
        assert [answer.packet for answer in mine] == [answer.packet for answer in theirs]


@pytest.mark.parametrize("way", ["delta", "error feedback", "asynchronous"])
def test_stopped_after_any_round_and_resumed_it_ends_with_the_same_bits(way: str, tmp_path: Path) -> None:
    def finished(name: str, stops: tuple[int, ...]) -> bytes:
        folder = create(tmp_path / name, opened(*WAYS[way])[0].experiment)
        for rounds in stops:
            list(islice(simulate(opened(*WAYS[way])[0], folder), rounds))
        federation = opened(*WAYS[way])[0]
        list(simulate(federation, folder))
        weights = restore(federation, folder)[0].weights
        return b"".join(value.tobytes() for value in weights.values())

    whole = finished("whole", ())
    assert all(finished(f"stopped-{at}", (at, at + 2)) == whole for at in (1, 3, 5))


def test_pruned_updates_are_smaller(tmp_path: Path) -> None:
    sizes = {}
    for name, pruning in {"dense": DENSE, "sparse": SPARSE}.items():
        federation, witness = opened(*DELTA, pruning=pruning)
        list(states(federation, tmp_path / name))
        sizes[name] = [np.mean([len(answer.packet) for answer in answers]) for _, answers in witness.seen]
    assert sizes["sparse"][0] == sizes["dense"][0]
    assert np.mean(sizes["sparse"][5:]) < 0.7 * np.mean(sizes["dense"][5:])


def test_what_is_pruned_does_not_travel_down(tmp_path: Path) -> None:
    """Also to devices that join when all is pruned: which weights died costs less than moving them would."""
    sizes = {}
    for name, pruning in {"dense": DENSE, "sparse": SPARSE}.items():
        federation, _ = opened(*DELTA, pruning=pruning)
        points, held = Shelf(tmp_path / f"{name}-more"), 0
        for state in states(federation, tmp_path / name):
            down: Publication = publish(federation.agreement, state, points)
            regular, held = len(down.download_for(held)), state.round_num
        sizes[name] = regular, len(down.download_for(0))
    assert sizes["sparse"][0] < sizes["dense"][0]
    assert sizes["sparse"][1] < 0.8 * sizes["dense"][1]


def test_a_round_nobody_survives_prunes_all_the_same(tmp_path: Path) -> None:
    federation, _ = opened(*DELTA, "fleet.dropout-rate=0.99", "train.cohort=1", "train.pruning.zero-run=1")
    last = list(states(federation, tmp_path))[-1]
    masks = masks_for(federation.experiment.train.pruning, last.weights, federation.engine.spec, 6)
    assert not last.weights[KERNEL][~masks[KERNEL]].any()


def test_stop_rules_look_at_models_that_are_as_small_as_asked_for() -> None:
    def said(accuracies: list[float], *changes: str, pruning: tuple[str, ...] = SPARSE) -> str:
        rounds = [replace(played(1)[0], round_num=i, accuracy=a, loss=1 - a) for i, a in enumerate(accuracies)]
        return stop_reason(parse_experiment(PLAIN, (*pruning, *changes)), rounds)

    target = "stop.target-accuracy=0.9"
    assert said([0.95] * 4, target) == ""
    assert said([0.95] * 5, target).startswith("reached")
    assert said([0.95], target, pruning=DENSE).startswith("reached")
    assert said([0.95], target, "train.qat.begin-round=3", pruning=DENSE) == ""
    assert said([0.9, 0.8, 0.7, 0.6, 0.5], "stop.patience=2") == ""
    assert said([0.9, 0.8, 0.7, 0.6, 0.5, 0.4, 0.3], "stop.patience=2").startswith("held-out")
