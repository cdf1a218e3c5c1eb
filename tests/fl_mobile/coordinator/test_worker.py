"""Workers beside one round master, on PostgreSQL: each answers as the master would, and none holds anything."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from sqlalchemy import select

from fl_mobile.agreement import Agreement
from fl_mobile.algorithms import ALGORITHMS
from fl_mobile.codecs import parse_codec
from fl_mobile.coordinator.coordinator import Coordinator
from fl_mobile.coordinator.core import Place
from fl_mobile.coordinator.lease import Lease
from fl_mobile.coordinator.records import Pace, Refusal, Reply
from fl_mobile.coordinator.tables import parts
from fl_mobile.coordinator.worker import Worker
from fl_mobile.errors import ConfigError, RunError
from fl_mobile.protocol.terms import initial_bytes, terms_to_json
from tests.fl_mobile.coordinator.asking import SECONDS, enrol, signed
from tests.fl_mobile.coordinator.tiny import SPEC, key_of, packet_of, round_of
from tests.postgres import Server


def published(coordinator: Coordinator) -> None:
    """Has the coordinator name terms of the tiny run."""
    first = {"w": np.zeros(3, np.float32)}
    codec = parse_codec("none")
    terms = terms_to_json(
        agreement=Agreement(SPEC, first, ALGORITHMS["fedavg"].build(), codec, codec),
        spec=SPEC,
        private=frozenset(),
        initial=coordinator.blobs.put(initial_bytes(first)),
        parameters={},
    )
    coordinator.terms = coordinator.blobs.put(terms)


class House:
    """A master in whose round 0 two packets count, and two workers."""

    def __init__(self, folder: Path, url: str) -> None:
        self.folder, self.url = folder, url
        self.master = self.lead(0)
        self.workers = [Worker(folder, url=url) for _ in range(2)]

    def lead(self, number: int, **more: object) -> Coordinator:
        master = Coordinator(self.folder, url=self.url, lease=Lease(seconds=600), pace=Pace(7.0, 1e6))
        published(master)
        master.open_round(round_of(number, **more))  # type: ignore[arg-type]
        return master

    def looks(self) -> list[str]:
        """Has the master look at its round once."""
        turns = iter([False])
        return self.master.wait(seconds=None, least=0, stopped=lambda: next(turns, True))

    def close(self) -> None:
        for each in (*self.workers, self.master):
            each.close()


@pytest.fixture
def house(tmp_path: Path, postgres: Server) -> Iterator[House]:
    house = House(tmp_path, postgres.empty())
    yield house
    house.close()


def asked(front: Worker | Coordinator, who: int, device: int, held: int = 0) -> Reply:
    request = signed(front.run, key_of(who), f"/v1/devices/{device}/check-ins", device=device)
    return front.check_in(request, device=device, held=held).result(SECONDS)


def seated(house: House, front: Worker, who: int) -> int:
    """Enrols a device and has it asked; returns its index."""
    device = enrol(front, key_of(who))
    with contextlib.suppress(Refusal):  # the first one that holds a version comes again
        asked(front, who, device)
    assert house.looks() == []
    assert "assignment" in asked(front, who, device).body
    return device


def test_a_round_goes_through_two_workers_and_the_master_takes_its_packets(house: House) -> None:
    one, two = house.workers
    first, second, third = (seated(house, front, who) for who, front in enumerate((one, two, one)))
    assert (first, second, third) == (0, 1, 2)
    receipt = one.upload(Place(0, first, 0), packet_of(first, 0)).result(SECONDS)
    again = two.upload(Place(0, first, 0), packet_of(first, 0)).result(SECONDS)
    assert (receipt.status, again.status, again.body) == (201, 200, receipt.body)
    bad = two.upload(Place(0, second, 0), packet_of(second, 0)[:-1]).result(SECONDS)
    assert (bad.status, bad.reason) == (422, "checksum")
    assert two.upload(Place(0, second, 1), packet_of(second, 0)).result(SECONDS).status == 201
    names = house.master.wait(seconds=SECONDS, least=2, stopped=lambda: False)
    assert [house.master.packet(name) for name in names] == [packet_of(first, 0), packet_of(second, 0)]
    assert asked(one, 0, first).body["retry"]["reason"] == "between-rounds"
    assert asked(one, 0, first).body["retry"]["after_seconds"] == 7.0  # the master's pace
    house.master.open_round(round_of(1))
    with pytest.raises(Refusal, match="late"):
        one.upload(Place(0, third, 0), packet_of(third, 0)).result(SECONDS)
    house.master.finish()
    assert asked(two, 0, first).body == {"finished": True}
    assert one.seen(0)[1] == house.master.counts(0)


def test_what_a_worker_hands_out_is_what_the_master_would(house: House) -> None:
    one, two = house.workers
    device = seated(house, one, 0)
    mine, theirs = (dict(asked(front, 0, device).body["assignment"]) for front in (one, house.master))
    for front in (two, house.master):
        front.check_token(mine["token"], Place(0, device, 0))
    for each in (mine, theirs):  # the tiny round has seeds of its own, and tokens bear the time
        del each["token"], each["seed"]
    assert mine == theirs
    assert asked(two, 0, device, held=77).body["assignment"]["parts"] == mine["parts"]  # what nobody can hold


def test_a_refusal_for_want_of_a_packed_model_may_be_asked_again_at_once(house: House) -> None:
    """It has changed nothing that a client can see: the same signed request is good a second time."""
    one, _ = house.workers
    device = enrol(one, key_of(0))
    request = signed(one.run, key_of(0), f"/v1/devices/{device}/check-ins", device=device)
    for _ in range(2):
        with pytest.raises(Refusal, match="preparing"):
            one.check_in(request, device=device, held=0).result(SECONDS)
    house.looks()
    assert "assignment" in one.check_in(request, device=device, held=0).result(SECONDS).body
    house.master.open_round(round_of(1))
    with house.master._store.transaction() as tx:
        assert not tx.db.execute(select(parts)).all()


def test_they_go_on_without_a_master_and_the_next_one_finds_all(house: House) -> None:
    one, two = house.workers
    devices = [seated(house, front, who) for who, front in enumerate((one, two))]
    house.master.close()
    assert one.upload(Place(0, devices[0], 0), packet_of(devices[0], 0)).result(SECONDS).status == 201
    assert two.upload(Place(0, devices[1], 0), packet_of(devices[1], 0)).result(SECONDS).status == 201
    house.master = house.lead(0)
    assert len(house.master.wait(seconds=SECONDS, least=2, stopped=lambda: False)) == 2


def test_of_many_at_once_as_many_count_as_are_wanted(house: House) -> None:
    """Forty threads over three fronts: places have no gaps, seats no doubles, sums no packet twice."""
    fronts = [*house.workers, house.master]
    house.master.open_round(round_of(1, ask=12, most=8))
    seated(house, house.workers[0], 0)
    accepted, refused = list[int](), list[str]()

    def play(who: int) -> None:
        front = fronts[who % 3]
        device = enrol(front, key_of(who))
        if "assignment" not in asked(front, who, device).body:
            return
        try:
            reply = fronts[(who + 1) % 3].upload(Place(1, device, 0), packet_of(device, 1)).result(SECONDS)
        except Refusal as refusal:
            refused.append(refusal.reason)
        else:
            accepted.append(reply.status)

    threads = [threading.Thread(target=play, args=(who,), daemon=True) for who in range(1, 40)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(SECONDS)
    assert (accepted, refused) == ([201] * 8, ["late"] * len(refused))
    names = house.master.wait(seconds=0, least=0, stopped=lambda: False)
    assert len(set(names)) == 8
    assert house.master.seen(1)[0] == 40


def test_a_database_of_one_process_is_refused_by_name(tmp_path: Path) -> None:
    for url in ("", "sqlite:///shared.db"):
        with pytest.raises(ConfigError, match="--worker needs --database postgresql"):
            Worker(tmp_path, url=url)


def test_it_waits_for_a_master_to_have_begun(tmp_path: Path, postgres: Server) -> None:
    url, looks = postgres.empty(), iter([False, True])
    with pytest.raises(RunError, match="waiting for a round master"):
        Worker(tmp_path, url=url, stopped=lambda: next(looks))
    with pytest.raises(RunError, match="cannot be used"):
        Worker(tmp_path, url="postgresql://nobody@127.0.0.1:1/none")
    workers: list[Worker] = []
    thread = threading.Thread(target=lambda: workers.append(Worker(tmp_path, url=url)), daemon=True)
    thread.start()
    master = Coordinator(tmp_path, url=url)
    published(master)
    master.open_round(round_of(0))
    thread.join(SECONDS)
    assert workers[0].run == master.run
    assert workers[0].open is not None
    assert workers[0].open.most == 2
    for each in (*workers, master):
        each.close()
