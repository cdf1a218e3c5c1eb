"""Every order of the requests of masked rounds: again, for another, late, early, by another life; masters that die."""

from __future__ import annotations

from collections.abc import Collection

import numpy as np
from hypothesis import strategies as st
from hypothesis.stateful import initialize, invariant, precondition, rule

from fl_mobile.coordinator import core, steps, sums
from fl_mobile.coordinator.core import Place
from fl_mobile.coordinator.records import Reply
from fl_mobile.coordinator.store import promised
from fl_mobile.errors import WireError
from fl_mobile.server.fold import Fold
from tests.fl_mobile.coordinator.machine import Machine
from tests.fl_mobile.coordinator.summing import Leader, Member, expected_mean
from tests.fl_mobile.coordinator.tiny import key_of, round_of

WHO, STEPS = st.integers(0, 4), st.integers(1, 4)
LEAST = 3


class Summing(Machine):
    """A model of what clients were promised of masked rounds of four, beside the real store.

    Attributes:
        members: Device → its life in this round.
        taken: (round, step, device) → the answer that was acknowledged.
        told: (round, step, device) → the message that it was given.
        closed: (round, step) → the answers that the step was closed with.
    """

    def __init__(self) -> None:
        super().__init__()
        self.members: dict[int, Member] = {}
        self.lives = 0
        self.taken: dict[tuple[int, int, int], bytes] = {}
        self.told: dict[tuple[int, int, int], bytes] = {}
        self.closed: dict[tuple[int, int], dict[int, bytes]] = {}
        self.made: list[tuple[int, int, int, bytes]] = []

    @initialize()
    def begin(self) -> None:
        self.open_next(0)
        for who in range(5):
            key = key_of(who).public
            signed = self.sign(who, "/v1/devices", b"{}", device=None)
            self.ask(lambda tx, desk, signed=signed, key=key: core.enrol(tx, desk, signed, key))

    def open_next(self, number: int) -> None:
        self.number, self.open = number, round_of(number, ask=4, most=4, masked=True)
        with self.store.transaction() as tx:
            core.check_goes_on(tx, number)
            core.finish(tx, before=number)
            core.open_round(tx, number, masked=True)
        self.members.clear()

    @rule(who=WHO)
    def checks_in(self, who: int) -> None:
        signed = self.sign(who, f"/v1/devices/{who}/check-ins", b"{}", device=who)
        reply = self.ask(lambda tx, desk: core.check_in(tx, desk, signed, device=who, held=0))
        if "assignment" in reply.body and who not in self.members:
            assert (self.number, 0) not in self.closed, "nobody comes after the start"
            self.members[who] = Member(who, who, self.store.run, self.number, self.lives)

    @rule(who=WHO, step=STEPS, back=st.integers(0, 1))
    def hears(self, who: int, step: int, back: int) -> None:
        self.told_in(who, step, back)

    def told_in(self, who: int, step: int, back: int = 0) -> bytes | None:
        """Returns what a client is told in a step, now or in the round before."""
        place = Place(max(0, self.number - back), who, 0)
        reply = self.ask(lambda tx, desk: steps.hear(tx, desk, place, step))
        if reply.data is None:
            assert reply.status in (202, 404, 410)
            return None
        key = (place.round_num, step, who)
        assert self.told.setdefault(key, reply.data) == reply.data
        assert (place.round_num, step - 1) in self.closed
        return reply.data

    @rule(who=WHO, sends=st.booleans())
    def goes_on(self, who: int, sends: bool = True) -> None:
        """An honest client does what it is asked, in any step; what it does not send now may come later."""
        for step in range(1, 5):
            if (self.number, step, who) in self.taken or who not in self.members:
                continue
            told = self.told_in(who, step)
            if told is not None:
                try:
                    packet = self.members[who].says(step, told)
                except WireError:
                    return
                if sends:
                    self.says(who, step, packet)
                else:
                    self.made.append((self.number, step, who, packet))
            return

    @precondition(lambda self: self.made)
    @rule(pick=st.integers(0, 10**6))
    def sends_what_it_kept(self, pick: int) -> None:
        number, step, who, packet = self.made[pick % len(self.made)]
        self.says(who, step, packet, number=number)

    def says(self, who: int, step: int, packet: bytes, *, number: int | None = None) -> Reply:
        place = Place(self.number if number is None else number, who, 0)
        take = core.upload if step == sums.PACKETS else None
        reply = self.ask(
            lambda tx, desk: take(tx, desk, place, packet) if take else steps.answer(tx, desk, place, step, packet)
        )
        key = (place.round_num, step, who)
        if reply.status in (200, 201) and (step != sums.PACKETS or not reply.reason):
            assert self.taken.setdefault(key, packet) == packet
            if reply.status == 201:
                assert (place.round_num, step) not in self.closed
        return reply

    @precondition(lambda self: self.taken)
    @rule(pick=st.integers(0, 10**6), who=WHO, step=STEPS, now=st.booleans())
    def replays(self, pick: int, who: int, step: int, now: bool) -> None:
        """Something that was acknowledged comes again: as it was, of another step, round or client."""
        number, told_step, device = list(self.taken)[pick % len(self.taken)]
        packet = self.taken[number, told_step, device]
        again = self.says(device, told_step, packet, number=number)
        assert again.status in (200, 404, 422) or number != self.number
        if (who, step) != (device, told_step):
            reply = self.says(who, step, packet, number=self.number if now else number)
            assert reply.status >= 400

    @rule(who=WHO)
    def begins_another_life(self, who: int) -> None:
        """A client that forgot its keys makes new ones, as none of ours does; what was taken stands."""
        told = self.told_in(who, 1) if who in self.members else None
        if told is not None:
            self.lives += 1
            packet = Member(who, who, self.store.run, self.number, self.lives).keys(told)
            if (self.number, 1, who) in self.taken:
                assert self.says(who, 1, packet).reason == "conflict"

    @rule(who=WHO)
    def gives_up(self, who: int) -> None:
        reply = self.ask(lambda tx, desk: core.give_up(tx, desk, Place(self.number, who, 0)))
        assert reply.status in (200, 404, 409)
        if reply.status == 200 and (self.number, sums.PACKETS, who) in self.taken:
            assert self.taken.setdefault((self.number, sums.UNMASK, who), b"") == b""

    @rule(over=st.booleans())
    def master_looks(self, over: bool) -> None:
        """The round master closes what is due and tells what follows; it may have been another one until now."""
        with self.store.transaction() as tx:
            here = sums.at(tx.db, self.number)
        assert here is not None
        if here.step > sums.UNMASK:
            return
        with self.store.transaction() as tx:
            closed = sums.close_if_due(tx, self.open, here.step, now=self.now, over=over, least=LEAST)
            if closed and here.step == sums.UNMASK:
                core.seal(tx, self.number)
        if closed:
            self.tells(here.step)

    @rule()
    def master_begins_again(self) -> None:
        """All that was told follows from rows, and is told again without changing anything."""
        with self.store.transaction() as tx:
            here = sums.at(tx.db, self.number)
        assert here is not None
        if here.step > sums.COME:
            self.tells(here.step - 1)

    def tells(self, last: int) -> None:
        """Computes anew, from the rows, what follows from all steps up to ``last``."""
        leader = Leader(self.store.run, self.number)
        for step in range(last + 1):
            with self.store.transaction() as tx:
                said = sums.answers(tx, self.number, step)
            if step == sums.PACKETS:
                said = {device: self.packets.held[sha.decode()] for device, sha in said.items()}
            assert self.closed.setdefault((self.number, step), said) == said or step == sums.PACKETS
            told = leader.next(said)
            with self.store.transaction() as tx:
                if isinstance(told, Fold):
                    sums.settle(tx, self.number, leader.receipts)
                    self.checks(told, sums.answers(tx, self.number, sums.PACKETS))
                else:
                    sums.tell(tx, self.number, step + 1, told)
                    here = {d: sums.message(tx.db, self.number, step + 1, d) for d in told}
                    assert here == told

    def checks(self, folded: Fold, summed: Collection[int]) -> None:
        assert folded.accepted in (0, len(summed))
        if folded.accepted:
            assert folded.accepted >= LEAST
            mean = expected_mean(summed, self.number)
            np.testing.assert_allclose(folded.total.result()["w"], mean, atol=1e-6)

    @rule()
    def plays_on(self) -> None:
        """Everybody who is there is honest and quick for a while, so that rounds come to an end too."""
        for who in range(5):
            self.checks_in(who)
        for _ in range(5):
            self.master_looks(over=True)
            for who in range(5):
                self.goes_on(who)

    @rule()
    def next_round(self) -> None:
        with self.store.transaction() as tx:
            if not core.is_sealed(tx, self.number):
                return
        self.open_next(self.number + 1)
        with self.store.transaction() as tx:
            self.packets.keep_only(set(promised(tx.db)))
            assert sums.at(tx.db, self.number - 1) is None

    @invariant()
    def nothing_is_forgotten(self) -> None:
        """What was acknowledged in the open round is there, and nothing else is."""
        with self.store.transaction() as tx:
            for step in sums.ANSWERED_HERE:
                said = sums.answers(tx, self.number, step)
                mine = {d: p for (number, s, d), p in self.taken.items() if (number, s) == (self.number, step)}
                assert said == mine
