"""Every two features meet: what they do together holds in every cell, or the experiment refuses it with the reason."""

from __future__ import annotations

import functools
import re
import subprocess
import sys
from collections.abc import Iterable, Iterator, Sequence
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
from device_sim.rounds.trip import ACCEPTED, REFUSED
from device_sim.run.folder import create
from device_sim.run.loop import restore, simulate
from fl_mobile.errors import ConfigError
from fl_mobile.records import FitPlan, Update
from fl_mobile.server.fold import TOO_FEW
from fl_mobile.server.publish import Publication
from fl_mobile.storage.shelf import Shelf
from fl_mobile.tensors import Tensors, weights_hash
from tests.crossings.pairs import Row, covering_rows
from tests.device_sim.numpy_engine import NumpyTrainer, numpy_federation
from tests.device_sim.rounds.test_oracle import PLAIN

FLEET = (
    *("data.devices=12", "train.cohort=5", "train.rounds=3", "fleet.link=mixed", "fleet.profile=mixed"),
    *("fleet.dropout-rate=0.1", "download.codec=q8", "output.recipes=[]"),
)
RULES = {
    **dict.fromkeys(("mean", "median", "trimmed-mean", "norm-bound", "centered-clipping"), ()),
    "multi-krum": ("server.malicious-share=0.2",),
    "fltrust": ("server.public-examples=9",),
}
AXES: dict[str, dict[str, tuple[str, ...]]] = {
    "mode": {"synchronous": (), "asynchronous": ("clock.mode=asynchronous", "clock.buffer=2")},
    "sampler": {
        name: (f"selection.sampler={name}",) for name in ("uniform", "poisson", "stratified", "power-of-choice", "oort")
    },
    "over-selection": {"none": (), "half more": ("selection.over-selection=1.5",)},
    "memory": {
        "none": ("upload.codec=q8",),
        "error-feedback": ("upload.memory=error-feedback", "upload.codec=topk:0.1+q8"),
        "cafe": ("upload.memory=cafe", "upload.codec=ecsq"),
    },
    "algorithm": {
        name: (f"server.algorithm={name}",)
        for name in ("fedavg", "fedsgd", "fedprox", "fedavgm", "fedadam", "fedyogi", "scaffold", "fednova", "feddyn")
    },
    "aggregation": {name: (f"server.aggregation={name}", *more) for name, more in RULES.items()},
    "attack": {"none": (), "alie": ("attack.name=alie", "attack.share=0.3")},
    "availability": {"always": (), "diurnal": ("fleet.availability=diurnal", "fleet.min-battery=0.2")},
    "policy": {
        "every-round": (),
        "periodic": ("policy.name=periodic", "policy.period-seconds=50"),
        "event": ("policy.name=event", "policy.min-new-examples=0", "policy.min-update-norm=0.05"),
    },
    "download": {"full": (), "delta": ("download.mode=delta",)},
    "personal": {
        "none": (),
        "private head": ("personal.private=*bias",),
        "ditto": ("personal.method=ditto", "evaluation.device-test-fraction=0.3"),
    },
    "privacy": {
        "none": (),
        "central": (
            *("privacy.mode=central", "privacy.noise-multiplier=0.5", "privacy.sampling=none-assumed"),
            *("privacy.clip-quantile=0.5", "privacy.reproducible=true"),
        ),
    },
    "pruning": {
        "none": (),
        "half": ("train.pruning.sparsity=0.5", "train.pruning.end-round=1", "train.pruning.smallest-kernel=1"),
    },
}
ROOT = Path(__file__).parents[2]
LIAR = 1
"""The client whose packets the server refuses: they claim to stand on no example."""

REFUSALS = {
    ("aggregation", "memory"): "needs the mean",
    ("aggregation", "algorithm"): "needs the mean",
    ("aggregation", "mode"): "weigh",
    ("algorithm", "memory"): "the update of its own round",
    ("algorithm", "mode"): "different versions|an older model",
    ("algorithm", "personal"): "pulls devices to the server's model",
    ("memory", "mode"): "belongs to one round",
    ("mode", "over-selection"): "no round waits",
    ("personal", "pruning"): "masks follow from weights",
    ("aggregation", "privacy"): "how far one client moves it",
    ("algorithm", "privacy"): "nobody has charged",
    ("memory", "privacy"): "comes back in the next update",
    ("mode", "privacy"): "who is in a buffer depends on all others",
    ("personal", "privacy"): "accuracies that devices report",
    ("privacy", "sampler"): "choice of devices that is another one",
}
"""Pairs of axes of which some values cannot meet, and a word of the reason that is given."""


def changes_of(row: Row) -> list[str]:
    return [change for axis, value in row.items() for change in AXES[axis][value]]


@functools.cache
def refusal(pairs: tuple[tuple[str, str], ...]) -> str:
    """Returns why the experiment refuses these values together, empty if it does not."""
    try:
        parse_experiment(PLAIN, [*FLEET, *changes_of(dict(pairs))])
    except ConfigError as error:
        return str(error)
    return ""


def fits(row: Row) -> bool:
    return not refusal(tuple(sorted(row.items())))


ROWS = covering_rows({axis: list(values) for axis, values in AXES.items()}, fits)


def named(row: Row) -> str:
    return "-".join(value.replace(" ", "") for value in row.values())


class Lying(NumpyTrainer):
    """One client says that it trained on nothing."""

    def train(self, weights: Tensors, tasks: Sequence[Task], plan: FitPlan) -> list[Update]:
        found = super().train(weights, tasks, plan)
        return [
            Update(update.delta, 0 if task.device == LIAR else update.num_examples, update.metrics)
            for task, update in zip(tasks, found, strict=True)
        ]


class Witness(PooledEngine):
    """A real engine that remembers the packets of every client in each call."""

    def __init__(self) -> None:
        super().__init__([LocalWorker(Lying(144, 3)) for _ in range(2)])
        self.packets: list[dict[int, bytes]] = []

    def train(self, weights: Tensors, tasks: Iterable[Task], plan: FitPlan, then: Any) -> Iterator[Any]:
        seen: dict[int, bytes] = {}
        for ready in super().train(weights, tasks, plan, then):
            if hasattr(ready, "answers"):
                seen |= {client: made.packet for client, made in zip(ready.clients, ready.answers, strict=True)}
            yield ready
        self.packets.append(seen)


def opened(row: Row) -> tuple[Federation, Witness]:
    witness = Witness()
    return numpy_federation(parse_experiment(PLAIN, [*FLEET, *changes_of(row)]), witness), witness


def test_the_rows_hold_every_pair_that_is_not_refused() -> None:
    told = set()
    for a in AXES:
        for b in list(AXES)[list(AXES).index(a) + 1 :]:
            for x in AXES[a]:
                for y in AXES[b]:
                    why = refusal(tuple(sorted({a: x, b: y}.items())))
                    key = tuple(sorted((a, b)))
                    if why:
                        assert key in REFUSALS, f"{a}={x} with {b}={y} is refused, and no reason was expected: {why}"
                        assert re.search(REFUSALS[key], why), why
                        told.add(key)
                    else:
                        assert any(row[a] == x and row[b] == y for row in ROWS), f"{a}={x} never meets {b}={y}"
    assert told == set(REFUSALS), "a refusal that no pair meets any more"
    assert all(len(row) == len(AXES) for row in ROWS)
    assert len(ROWS) < 120


@pytest.mark.parametrize("row", ROWS, ids=named)
def test_a_run_that_stopped_after_its_first_round_ends_at_the_same_bytes(row: Row, tmp_path: Path) -> None:
    ends = []
    for name, stops in (("whole", 0), ("stopped", 1)):
        folder = create(tmp_path / name, opened(row)[0].experiment)
        for _ in zip(range(stops), simulate(opened(row)[0], folder), strict=False):
            pass
        federation = opened(row)[0]
        rounds = list(simulate(federation, folder))
        state = restore(federation, folder)[0]
        slots = {f"{slot}/{path}": value for slot, tensors in state.slots.items() for path, value in tensors.items()}
        assert all(np.isfinite(value).all() for value in state.weights.values())
        counted = [(r.accepted, r.dropped, r.upload_bytes, r.download_bytes, r.sim_seconds) for r in rounds]
        kept = {
            path.name: path.read_bytes() for path in sorted(folder.memory.iterdir() if folder.memory.exists() else ())
        }
        ends.append((weights_hash(state.weights), weights_hash(slots), counted, kept))
    assert ends[0] == ends[1]


@pytest.mark.parametrize("row", ROWS, ids=named)
def test_what_clients_keep_agrees_with_what_the_server_admitted_and_every_byte_is_a_packets(
    row: Row, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    federation, witness = opened(row)
    memory = FleetMemory(Shelf(tmp_path / "memory"))
    state = federation.algorithm.init(federation.initial, federation.spec)
    downloads: set[int] = set()
    download_for = Publication.download_for

    def recorded(self: Publication, held_version: int) -> Any:
        found = download_for(self, held_version)
        downloads.add(len(found.model) + len(found.prediction) + len(found.beside))
        return found

    monkeypatch.setattr(Publication, "download_for", recorded)
    for _ in range(federation.experiment.train.rounds):
        witness.packets.clear()
        version = state.round_num
        state, report, traffic = SERVERS[row["mode"]](federation, memory, state, tmp_path / "updates")
        columns = traffic.columns
        sent = [packets for packets in witness.packets if packets]
        lengths = {client: len(packet) for packets in sent for client, packet in packets.items()}
        assert sum(columns.get("upload_bytes", [])) == traffic.upload_bytes
        assert sum(columns.get("download_bytes", [])) == traffic.download_bytes
        for client, size, down, uploaded in zip(
            *(columns.get(name, []) for name in ("device", "upload_bytes", "download_bytes", "uploaded")), strict=True
        ):
            assert size == (lengths[client] if uploaded is not None else 0)
            assert down in downloads | {0}
        if row["mode"] == "synchronous":
            outcome = dict(zip(columns.get("device", []), columns.get("outcome", []), strict=True))
            arrived = {c for c, what in outcome.items() if what == ACCEPTED or what.startswith(REFUSED)}
            admitted = {c for c, what in outcome.items() if what == ACCEPTED}
            few = {c for c, what in outcome.items() if what == REFUSED + TOO_FEW}
            assert admitted | few == arrived - {LIAR}, "accepted = arrived ∩ admitted, all of them or too few"
            assert not admitted or not few
            assert bool(few) == bool(federation.rules.rule.too_few(len(arrived - {LIAR})) and arrived - {LIAR})
            assert report.accepted == len(admitted)
            told = ({"examples": 1} if LIAR in arrived else {}) | ({TOO_FEW: len(few)} if few else {})
            assert report.dropped == told
            _check_kept(federation, memory, version, admitted)


def _check_kept(federation: Federation, memory: FleetMemory, version: int, admitted: set[int]) -> None:
    for what, keeps in (
        ("residual", federation.agreement.memory == "error-feedback"),
        ("variate", federation.algorithm.variate is not None),
    ):
        new = {c for c in range(12) if memory.shelf.get_exactly(f"{what}-{c}", version) is not None}
        assert new == (admitted if keeps else set()), what
    assert memory.client_state(LIAR).residual is None
    assert memory.client_state(LIAR).variate is None


def test_the_rows_are_the_same_in_every_process() -> None:
    """Workers that collect different names refuse to start; sets are ordered by a hash that each process draws."""
    program = (
        "from tests.crossings.pairs import covering_rows\n"
        "axes = {axis: [axis + value for value in 'xyz'] for axis in 'abcde'}\n"
        "print(covering_rows(axes, lambda row: len(set(''.join(row.values()))) < 9))"
    )
    said = {
        subprocess.run(
            [sys.executable, "-c", program], env={"PYTHONHASHSEED": seed}, cwd=ROOT, capture_output=True, check=True
        ).stdout
        for seed in ("1", "2", "3")
    }
    assert len(said) == 1
