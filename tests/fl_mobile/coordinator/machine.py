"""Every order of requests: duplicated, reordered, late, replayed, of another round or device."""

from __future__ import annotations

import hashlib
import sys
from pathlib import Path
from typing import Any

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule
from sqlalchemy import delete

from fl_mobile.coordinator import core
from fl_mobile.coordinator.core import Desk, Place, Signed
from fl_mobile.coordinator.records import Limits, OpenRound, Pace, Refusal, Reply
from fl_mobile.coordinator.store import Store, promised
from fl_mobile.coordinator.tables import facts, metadata
from fl_mobile.coordinator.tokens import Minter
from fl_mobile.protocol.signing import message, to_base64
from tests.fl_mobile.coordinator.tiny import InMemory, key_of, packet_of, round_of

DEVICES = st.integers(0, 4)
ROUNDS_BACK = st.integers(0, 2)
ATTEMPTS = st.integers(0, 3)
FLAVOURS = st.integers(0, 1)


def is_full(reply: Reply) -> bool:
    """Whether nobody is asked now, which is told to strangers as well."""
    return reply.body.get("retry", {}).get("reason") == "full"


class Machine(RuleBasedStateMachine):
    """A real store: one for all sequences, emptied after each.

    Attributes:
        store: What `opened` gave.
        ended: Sequences that came to their end.
    """

    rows = "select total_changes()"
    """How many rows have ever been changed here: the same number, the same rows."""
    store: Store
    ended = 0

    def __init__(self) -> None:
        super().__init__()
        self.packets = self.store.packets = InMemory(Path("none"))
        self.minter = Minter(self.store.run, self.store.secret)
        self.now, self.number = 1_000_000.0, 0
        self.open: OpenRound | None = None

    def teardown(self) -> None:
        type(self).ended += sys.exc_info()[0] is None
        with self.store.transaction() as tx:
            for table in reversed(metadata.sorted_tables):
                if table is not facts:
                    tx.db.execute(delete(table))

    def sign(self, who: int, path: str, body: bytes, *, device: int | None, skew: float = 0.0) -> Signed:
        self.now += 0.01
        time_ms = int((self.now + skew) * 1000)
        text = message(run=self.store.run, method="POST", path=path, device=device, time_ms=time_ms, body=body)
        return Signed("POST", path, body, time_ms, key_of(who).sign(text))

    def ask(self, do: Any) -> Reply:
        """Returns the reply; a refusal must have left every row as it was."""
        desk = Desk(self.minter, Limits(), Pace(), self.now, self.open)
        with self.store.transaction() as tx:
            before = tx.db.exec_driver_sql(self.rows).scalar_one()
            try:
                return do(tx, desk)
            except Refusal as refused:
                refusal = refused
            assert tx.db.exec_driver_sql(self.rows).scalar_one() == before
            assert not tx.packets
            assert 400 <= refusal.status < 500, refusal
            assert refusal.reply.body["detail"]
            return refusal.reply


class Coordinating(Machine):
    """A model of what clients were promised.

    Attributes:
        promised: (round, device) → SHA-256 of the packet that its client has a receipt for.
        sealed: Round → the packets it was sealed with.
    """

    asynchronous = False

    def __init__(self) -> None:
        super().__init__()
        self.index: dict[int, int] = {}
        self.asked: set[tuple[int, int]] = set()
        self.answers: dict[Place, tuple[str, int, Any]] = {}
        self.promised: dict[tuple[int, int], tuple[int, str]] = {}
        self.sealed: dict[int, list[str]] = {}
        self.said: list[Signed] = []

    @initialize()
    def begin(self) -> None:
        with self.store.transaction() as tx:
            core.open_round(tx, 0)

    def ask(self, do: Any) -> Reply:
        if self.open is None or self.open.number != self.number:
            self.open = round_of(self.number, asynchronous=self.asynchronous)
        return super().ask(do)

    @rule(who=DEVICES)
    def enrols(self, who: int) -> None:
        key = key_of(who).public
        signed = self.sign(who, "/v1/devices", to_base64(key).encode(), device=None)
        device = self.ask(lambda tx, desk: core.enrol(tx, desk, signed, key)).body["device"]
        assert self.index.setdefault(who, device) == device
        assert sorted(self.index.values()) == list(range(len(self.index)))

    @rule(who=DEVICES)
    def cannot_train_now(self, who: int) -> None:
        device = self.index.get(who, 77)
        signed = self.sign(who, f"/v1/devices/{device}/check-ins", b"{}", device=device)
        reply = self.ask(lambda tx, desk: core.check_in(tx, desk, signed, device=device, held=0, ready=False))
        if "assignment" in reply.body:  # it has a seat, and may have changed its mind
            assert (self.number, device) in self.asked

    @rule(who=DEVICES, signer=DEVICES, skew=st.sampled_from([0.0, 0.0, 0.0, -90_000.0, 90_000.0]))
    def checks_in(self, who: int, signer: int, skew: float) -> None:
        device = self.index.get(who, 77)
        signed = self.sign(signer, f"/v1/devices/{device}/check-ins", b"{}", device=device, skew=skew)
        reply = self.ask(lambda tx, desk: core.check_in(tx, desk, signed, device=device, held=0))
        if who not in self.index:
            assert reply.status == 404
        elif who != signer or skew:
            assert reply.status == 401 or is_full(reply)
        else:
            self.said.append(signed)
            assert reply.status == 200
            if "assignment" in reply.body:
                assert reply.body["assignment"]["seed"] == str(1000 * self.number + device)
                self.asked.add((self.number, device))
            else:
                window = reply.body["retry"]
                assert 0 < window["after_seconds"] < window["before_seconds"]

    @precondition(lambda self: self.said)
    @rule(pick=st.integers(0, 10**6))
    def replays_a_check_in(self, pick: int) -> None:
        old = self.said[pick % len(self.said)]
        device = int(old.path.split("/")[3])
        reply = self.ask(lambda tx, desk: core.check_in(tx, desk, old, device=device, held=0))
        assert reply.status in (401, 409) or is_full(reply)

    @rule(
        who=DEVICES,
        back=ROUNDS_BACK,
        of=DEVICES,
        made_for=ROUNDS_BACK,
        attempt=st.integers(0, 3),
        flavour=st.integers(0, 1),
    )
    def uploads(self, who: int, back: int, of: int, made_for: int, attempt: int, flavour: int) -> None:
        place = Place(max(0, self.number - back), self.index.get(who, 77), attempt)
        packet = packet_of(self.index.get(of, 9), max(0, self.number - made_for), flavour)
        self.sends(place, packet)

    @rule(who=DEVICES, attempt=ATTEMPTS, flavour=FLAVOURS)
    def uploads_honestly(self, who: int, attempt: int, flavour: int) -> None:
        device = self.index.get(who, 77)
        self.sends(Place(self.number, device, attempt), packet_of(device, self.number, flavour))

    @rule(who=DEVICES, cut=st.integers(1, 40))
    def uploads_garbage(self, who: int, cut: int) -> None:
        device = self.index.get(who, 77)
        self.sends(Place(self.number, device, 0), packet_of(device, self.number)[:-cut])

    @precondition(lambda self: self.answers)
    @rule(pick=st.integers(0, 10**6))
    def uploads_again(self, pick: int) -> None:
        place = list(self.answers)[pick % len(self.answers)]
        sha256, status, receipt = self.answers[place]
        packet = self.packets.held.get(sha256)
        if packet is not None:
            reply = self.sends(place, packet)
            assert (reply.body["receipt"], reply.status) == (receipt, 200 if status == 201 else status)
        told = self.ask(lambda tx, desk: core.look_up(tx, desk, place))
        assert told.body["receipt"] == receipt

    def sends(self, place: Place, packet: bytes) -> Reply:
        sha256 = hashlib.sha256(packet).hexdigest()
        step = self.number
        reply = self.ask(lambda tx, desk: core.upload(tx, desk, place, packet))
        seat = (place.round_num, place.device)
        if seat not in self.asked:
            assert reply.body["reason"] == "not-asked"
        if "receipt" in reply.body:
            known = self.answers.setdefault(place, (sha256, reply.status, reply.body["receipt"]))
            assert known[0] == sha256
            assert known[2] == reply.body["receipt"]
            if reply.body["receipt"]["accepted"]:
                assert self.promised.setdefault(seat, (step, sha256))[1] == sha256
        return reply

    @rule(who=DEVICES)
    def gives_up(self, who: int) -> None:
        place = Place(self.number, self.index.get(who, 77), 0)
        reply = self.ask(lambda tx, desk: core.give_up(tx, desk, place))
        assert reply.status == 200 or (place.round_num, place.device) in self.promised or reply.status == 404

    @rule(seconds=st.sampled_from([1.0, 700.0]))
    def time_passes(self, seconds: float) -> None:
        self.now += seconds

    @rule()
    def deadline(self) -> None:
        with self.store.transaction() as tx:
            core.seal(tx, self.number)

    @rule()
    def next_round(self) -> None:
        with self.store.transaction() as tx:
            core.seal(tx, self.number)
        self.sealing()
        self.number += 1
        with self.store.transaction() as tx:
            core.check_goes_on(tx, self.number)
            core.finish(tx, before=self.number)
            core.open_round(tx, self.number)
        with self.store.transaction() as tx:
            self.packets.keep_only(set(promised(tx.db)))

    @invariant()
    def sealing(self) -> None:
        """Counted once, never more than wanted, never lost, and nothing changes after a round is sealed."""
        with self.store.transaction() as tx:
            counted = core.packets_of(tx.db, self.number)
            sealed = core.is_sealed(tx, self.number)
        wanted = sorted(sha for step, sha in self.promised.values() if step == self.number)
        assert sorted(counted) == wanted
        assert len(counted) <= 2
        assert set(counted) <= self.packets.held.keys()
        if sealed:
            assert self.sealed.setdefault(self.number, counted) == counted


class CoordinatingAsynchronously(Coordinating):
    """The same laws where late packets count."""

    asynchronous = True
