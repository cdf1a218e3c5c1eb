"""Masked sums on real clients: the simulator's model to the bit, whoever leaves after whatever step or is killed."""

from __future__ import annotations

import gc
import itertools
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from device_sim.deploy.master import Master
from device_sim.deploy.opening import deployable, publish_terms
from device_sim.deploy.serve import coordinator_folder
from device_sim.experiment.toml import parse_experiment
from device_sim.federation.federation import Federation
from device_sim.rounds import masked
from device_sim.run.folder import RunFolder, create
from device_sim.run.loop import restore, simulate
from fl_mobile.client import in_sum
from fl_mobile.client.asked import Visit
from fl_mobile.client.in_sum import InSum, Left
from fl_mobile.client.kept import device_key, load
from fl_mobile.client.participate import Client
from fl_mobile.codecs.summed import summed
from fl_mobile.coordinator.coordinator import Coordinator
from fl_mobile.coordinator.records import Pace
from fl_mobile.coordinator.writer import AtOnce
from fl_mobile.errors import ConfigError
from fl_mobile.secure_sum import client as secure_client
from fl_mobile.secure_sum import server as secure_server
from fl_mobile.server.masked import MaskedRound
from fl_mobile.tensors import weights_hash
from tests.device_sim.deploy.local import BRIEF, MOST_VISITS, Local
from tests.device_sim.deploy.loopback import held_by, on, serve_and_play
from tests.device_sim.deploy.test_deployed import told
from tests.device_sim.numpy_engine import numpy_federation
from tests.device_sim.rounds.test_masked import STEPS, holds
from tests.device_sim.rounds.test_oracle import PLAIN

MASKED = (
    *("data.devices=12", "train.cohort=8", "train.rounds=2", "output.recipes=[]", "masks.group=20"),
    *("upload.codec=sketch:k=64", "fleet.dropout-rate=0", "fleet.link=ideal"),
)
LEAVING = ("fleet.dropout-rate=0.4", "masks.dropouts=0.45", "train.rounds=3")


def opened(*changes: str) -> Federation:
    return numpy_federation(parse_experiment(PLAIN, (*MASKED, *changes)))


def hashed(federation: Federation, folder: RunFolder) -> str:
    return weights_hash(restore(federation, folder)[0].weights)


class Killed(Exception):
    """Coordinator and clients at once: what they had in memory is gone."""


@dataclass
class House:
    """A coordinator and its clients in one thread; both can be killed, and the clients' lives go on without it.

    Attributes:
        visited: What became of every visit in which something did: (client, visit).
    """

    federation: Federation
    folder: Path
    visited: list[tuple[int, Visit]] = field(default_factory=list)
    coordinator: Coordinator = field(init=False)
    clients: list[Client] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.run = create(self.folder / "run", self.federation.experiment)
        self.people = held_by(self.federation)
        self.remotes = [Local("http://local", device_key(self.folder / one.name)) for one in self.people]
        self.registry = frozenset(remote.key.public for remote in self.remotes)
        self.clients = [self.client(at) for at in range(len(self.people))]
        self.turn = itertools.count()

    def client(self, at: int) -> Client:
        one = self.people[at]
        trainer = on(self.federation.engine)(one)
        return Client(self.remotes[at], self.folder / one.name, trainer, registry=self.registry)

    def play(self, *, every: int = 0, before: Callable[[int, int], None] = lambda visit, at: None) -> list[int]:
        """Returns packets that counted in every round.

        Args:
            every: The coordinator is killed after so many visits, again and again; 0 is never.
            before: Is called before every visit, with its number and whose it is.
        """
        accepted: dict[int, int] = {}
        while True:
            pace = Pace(least_seconds=1e-6, check_ins_per_second=1e9)
            self.coordinator = Coordinator(
                coordinator_folder(self.run), lease=BRIEF, pace=pace, writer=AtOnce, patient=False
            )
            fixed = publish_terms(self.federation, self.coordinator)
            for remote, client in zip(self.remotes, self.clients, strict=True):
                remote.coordinator = self.coordinator
                client.enrol()
            left = iter(range(every or MOST_VISITS))

            def act(left: Any = left) -> bool:
                if next(left, None) is None:
                    return True
                number = next(self.turn)
                assert number < 40 * MOST_VISITS, "no client brings it further"
                at = number % len(self.clients)
                before(number, at)
                visit = self.clients[at].visit()
                if visit.round_num is not None:
                    self.visited.append((at, visit))
                return False

            master = Master(self.coordinator, {}, fixed=fixed, drawn=True, step_seconds=3600, stopped=act)
            try:
                accepted |= {done.round_num: done.accepted for done in simulate(self.federation, self.run, master)}
                return [accepted[number] for number in sorted(accepted)]
            except KeyboardInterrupt:
                assert every
            except Killed:
                self.clients = [self.client(at) for at in range(len(self.people))]
            finally:
                self.coordinator.close()


def test_over_http_it_is_the_simulation_to_the_bit(tmp_path: Path) -> None:
    federation = opened("masks.group=4")
    simulated, deployed = (create(tmp_path / name, federation.experiment) for name in ("simulated", "deployed"))
    expected = list(simulate(federation, simulated))
    rounds, visits = serve_and_play(federation, deployed, tmp_path / "clients", train=on(federation.engine))
    assert visits == {"accepted": 16}
    assert told(rounds) == told(expected)
    assert [r.masks["up"] for r in rounds] == [r.masks["up"] for r in expected]
    assert [r.masks["groups"] for r in rounds] == [2, 2]
    assert hashed(federation, simulated) == hashed(federation, deployed)


def leaving(
    federation: Federation, folder: RunFolder, monkeypatch: pytest.MonkeyPatch
) -> tuple[list[int], dict[Any, int]]:
    """Returns what counted in the rounds of a simulation, and (round, client) → before which step it left."""
    gone: dict[Any, int] = {}
    real = masked.Sums.told

    def noting(sums: Any, *given: Any) -> Any:
        for client, at in sums._place.items():
            if np.isfinite(sums._silent_from[at]):
                gone[sums.step.round_num, client] = int(sums._silent_from[at])
        return real(sums, *given)

    monkeypatch.setattr(masked.Sums, "told", noting)
    accepted = [done.accepted for done in simulate(federation, folder)]
    return accepted, gone


def gone_before(monkeypatch: pytest.MonkeyPatch, gone: dict[Any, int]) -> None:
    """Has clients leave a round before the step that is told of them."""
    real = InSum.go_on

    def go_on(part: InSum) -> Any:
        if gone.get((part.asked.assignment.round_num, part.asked.device)) == part._step:
            told = part.remote.message(f"{part.asked.seat}/sum/{part._step}", part.asked.token)[0]
            return 0.02 if told == 202 else Left("gone")
        return real(part)

    monkeypatch.setattr(InSum, "go_on", go_on)


def test_whoever_leaves_before_whatever_step_the_rest_is_summed_as_simulated(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    federation = opened(*LEAVING)
    simulated = create(tmp_path / "simulated", federation.experiment)
    expected, gone = leaving(federation, simulated, monkeypatch)
    assert set(gone.values()) == {1, 2, 3, 4}
    assert 0 < min(expected) <= max(expected) < 8
    gone_before(monkeypatch, gone)
    deployed = create(tmp_path / "deployed", federation.experiment)
    rounds, _ = serve_and_play(federation, deployed, tmp_path / "clients", train=on(federation.engine))
    assert [r.accepted for r in rounds] == expected
    assert hashed(federation, simulated) == hashed(federation, deployed)


@pytest.mark.parametrize("every", [29, pytest.param(3, marks=pytest.mark.slow)])
def test_a_coordinator_that_is_killed_goes_on_with_the_round_to_the_same_sum(tmp_path: Path, every: int) -> None:
    federation = opened()
    simulated = create(tmp_path / "simulated", federation.experiment)
    expected = [done.accepted for done in simulate(federation, simulated)]
    house = House(federation, tmp_path / "here")
    assert house.play(every=every) == expected
    assert {visit.reason for _, visit in house.visited} == {""}
    assert hashed(federation, simulated) == hashed(federation, house.run)


@pytest.mark.parametrize("step", [1, 2, 3])
def test_a_client_that_is_killed_has_left_the_round_and_uses_no_key_twice(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: int
) -> None:
    federation = opened("train.rounds=1")
    house, advertised, killed = House(federation, tmp_path), dict[int, bytes](), list[int]()
    real = MaskedRound.rosters

    def rosters(server: Any, given: Any) -> Any:
        advertised.update(given)
        return real(server, given)

    monkeypatch.setattr(MaskedRound, "rosters", rosters)

    def kill(_: int, at: int) -> None:
        part = house.clients[at]._sum
        if not killed and part is not None and part._step > step:
            house.clients[at], _ = house.client(at), killed.append(at)
            house.clients[at].enrol()

    assert house.play(before=kill) == [7 if step < 3 else 8]
    assert advertised.keys() > {*killed}
    assert killed
    assert load(house.folder / house.people[killed[0]].name).summed_in == 0
    assert "left-out" in [visit.reason for at, visit in house.visited if at == killed[0]]


@pytest.mark.parametrize(
    ("step", "accepted"),
    [(1, 0), pytest.param(3, 0, marks=pytest.mark.slow), pytest.param(4, 8, marks=pytest.mark.slow)],
)
def test_if_everybody_is_killed_the_round_has_the_sum_that_was_told_or_none_and_the_next_is_played(
    tmp_path: Path, step: int, accepted: int
) -> None:
    house, killed = House(opened(), tmp_path), list[int]()

    def kill(_: int, at: int) -> None:
        part = house.clients[at]._sum
        if not killed and part is not None and part._step > step:
            killed.append(at)
            raise Killed

    assert house.play(before=kill) == [accepted, 8]
    assert {visit.reason for _, visit in house.visited if visit.round_num == 0} <= {"left-out"}


def test_more_that_leave_than_allowed_leave_the_model_as_it_was(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    federation = opened("train.rounds=2", "masks.dropouts=0.1")
    gone_before(monkeypatch, {(0, client): 3 for client in range(0, 12, 2)})
    house = House(federation, tmp_path)
    first, second = house.play()
    assert (first, second) == (0, 8)
    reasons = {visit.reason for _, visit in house.visited if visit.round_num == 0}
    assert reasons == {"gone", "group"}


def test_all_that_a_coordinator_and_its_files_hold_allows_the_sum_and_nothing_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    looked, bad = walked(tmp_path, monkeypatch)
    assert looked == 21
    assert not bad


def test_the_walk_finds_packets_that_are_not_masked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for module in (secure_client, secure_server):
        monkeypatch.setattr(module, "add_masks", lambda values, masks: None)
    assert "request" in walked(tmp_path, monkeypatch)[1]


def walked(path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[int, list[str]]:
    """Plays a round in which one leaves; returns how often was looked, and after which steps an update was held."""
    federation = opened("train.rounds=1", "masks.dropouts=0.3")
    house, sent, bad, looked = House(federation, path), dict[int, np.ndarray](), list[str](), 0
    real_packet, folder = in_sum.masked_packet, coordinator_folder(house.run)

    def noting(client: Any, layout: Any, inbox: bytes, packet: bytes, **noise: Any) -> bytes:
        codec = summed(layout.codec)
        assert codec is not None
        sent[client.client] = codec.read_fields(layout.open(packet)[2], layout.coded)
        return real_packet(client, layout, inbox, packet, **noise)

    monkeypatch.setattr(in_sum, "masked_packet", noting)

    def look(name: str, roots: list[Any], codec: Any) -> None:
        nonlocal looked
        files = [file.read_bytes() for file in folder.rglob("*") if file.is_file()]
        for fields in sent.values():
            looked += 1
            bad.extend([name] * holds(fields, codec, roots, files))

    def looking(name: str) -> Callable[..., Any]:
        real = getattr(MaskedRound, name)

        def step(server: Any, given: Any) -> Any:
            out = real(server, given)
            look(name, [server, out, vars(house.coordinator)], server._codec)
            return out

        return step

    for name in STEPS:
        monkeypatch.setattr(MaskedRound, name, looking(name))
    monkeypatch.setattr(house, "clients", house.clients)
    last = list[int]()

    def leave(_: int, at: int) -> None:
        part = house.clients[at]._sum
        if part is not None and part._step == in_sum.PACKET and part._ready is None and not last:
            last.append(at)
            house.clients[at] = house.client(at)
            house.clients[at].enrol()

    assert house.play(before=leave) == [7]
    gc.collect()
    look("at the end", [vars(house.coordinator)], summed(federation.upload))
    return looked, bad


def test_devices_add_noise_in_shares_of_their_own_and_count_their_answers(tmp_path: Path) -> None:
    noisy = ("privacy.mode=distributed", "privacy.noise-multiplier=1", "privacy.clip-norm=0.5")
    house = House(opened("train.rounds=1", *noisy), tmp_path)
    assert house.play() == [8]
    assert sum(load(house.folder / one.name).answers for one in house.people) == 8
    batch = ("train.batch-size=8", *MASKED, *noisy)
    assert deployable(parse_experiment("", batch)).privacy.distributed
    with pytest.raises(ConfigError, match=r"privacy\.reproducible"):
        deployable(parse_experiment("", (*batch, "privacy.reproducible=true")))


def test_a_client_joins_no_sum_without_a_registry_that_holds_it(tmp_path: Path) -> None:
    house = House(opened(), tmp_path)
    house.registry -= {house.remotes[5].key.public}
    house.clients[5] = house.client(5)
    with pytest.raises(ConfigError, match=r"--registry FILE"):
        house.play()


def test_a_device_that_a_client_does_not_know_is_in_no_sum_with_it(tmp_path: Path) -> None:
    house = House(opened("train.rounds=1", "train.cohort=12"), tmp_path)
    everybody_else, house.registry = house.registry, house.registry - {house.remotes[5].key.public}
    house.clients = [house.client(at) for at in range(12)]
    house.registry = everybody_else
    house.clients[5] = house.client(5)
    assert house.play() == [0]
    assert {visit.reason for at, visit in house.visited if at != 5} == {"identity"}
