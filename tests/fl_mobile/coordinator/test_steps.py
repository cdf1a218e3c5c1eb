"""Requests of masked rounds, honest and not: what is taken, what is refused and by which word."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fl_mobile.coordinator import sums
from fl_mobile.coordinator.coordinator import Coordinator
from fl_mobile.coordinator.core import Place
from fl_mobile.coordinator.records import Refusal, Reply
from fl_mobile.coordinator.writer import AtOnce
from fl_mobile.secure_sum.client import REVEALED
from fl_mobile.secure_sum.terms import ENTRY_BYTES
from fl_mobile.server.fold import Fold
from tests.fl_mobile.coordinator.asking import enrol, signed
from tests.fl_mobile.coordinator.summing import Leader, Member, expected_mean, plain_packet
from tests.fl_mobile.coordinator.tiny import key_of, round_of

COUNT = 4


class Summing:
    """A coordinator in the middle of a round of four."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.open()
        self.members = [Member(who, enrol(self.coordinator, key_of(who)), self.run, 0) for who in range(COUNT)]
        self.leader = Leader(self.run, 0)
        for member in self.members:
            assert "assignment" in self.check_in(member).body
        self.turn()

    def open(self) -> None:
        """Opens the coordinator, as one that was killed does."""
        self.coordinator = Coordinator(self.folder, writer=AtOnce)
        self.run = self.coordinator.run
        self.coordinator.open_round(round_of(0, ask=COUNT, masked=True))

    def check_in(self, member: Member) -> Reply:
        path = f"/v1/devices/{member.device}/check-ins"
        asked = signed(self.run, key_of(member.who), path, device=member.device)
        return self.coordinator.check_in(asked, device=member.device, held=0).result(9)

    def turn(self) -> dict[int, bytes] | Fold:
        """Closes the step that is open and hands out the next messages."""
        step = len(self.leader.said)
        said = self.coordinator.wait_step(step, seconds=0, stopped=lambda: False)
        assert said is not None
        told = self.leader.next(said)
        if isinstance(told, Fold):
            self.coordinator.settle(self.leader.receipts)
        else:
            self.coordinator.tell(step + 1, told)
        return told

    def hears(self, device: int, step: int) -> Reply:
        return self.coordinator.hear(Place(0, device, 0), step).result(9)

    def says(self, device: int, step: int, packet: bytes, attempt: int = 0) -> Reply:
        place = Place(0, device, attempt)
        if step == sums.PACKETS:
            return self.coordinator.upload(place, packet).result(9)
        return self.coordinator.answer(place, step, packet).result(9)

    def made(self, device: int, step: int) -> bytes:
        told = self.hears(device, step)
        assert told.data is not None
        return self.members[device].says(step, told.data)

    def all_say(self, step: int) -> None:
        for device in range(COUNT):
            packet = self.made(device, step)
            first, again = self.says(device, step, packet), self.says(device, step, packet)
            assert (first.status, again.status) == (201, 200)
        self.turn()


@pytest.fixture
def summing(tmp_path: Path) -> Iterator[Summing]:
    out = Summing(tmp_path)
    yield out
    out.coordinator.close()


def refused(ask: Callable[[], Any], status: int, reason: str) -> None:
    with pytest.raises(Refusal) as told:
        ask()
    assert (told.value.status, told.value.reason) == (status, reason), told.value


def test_a_round_is_played_to_its_receipts_and_the_sum_is_the_mean(summing: Summing) -> None:
    for step in (1, 2, 3):
        assert summing.hears(0, step + 1).status == 202
        summing.all_say(step)
    assert summing.coordinator.look_up(Place(0, 1, 0)).result(9).status == 202
    for device in range(COUNT):
        summing.says(device, 4, summing.made(device, 4))
    folded = summing.turn()
    assert isinstance(folded, Fold)
    np.testing.assert_allclose(folded.total.result()["w"], expected_mean(range(COUNT), 0), atol=1e-6)
    receipt = summing.coordinator.look_up(Place(0, 1, 0)).result(9)
    assert receipt.status == 200
    assert receipt.body["receipt"]["accepted"]
    refused(lambda: summing.says(1, 4, b""), 409, "conflict")


def test_a_coordinator_that_begins_again_goes_on_with_every_step(summing: Summing) -> None:
    for step in (1, 2, 3, 4):
        packets = [summing.made(device, step) for device in range(COUNT)]
        summing.says(0, step, packets[0])
        summing.coordinator.close()
        summing.open()
        assert summing.says(0, step, packets[0]).status == 200
        for device in range(1, COUNT):
            assert summing.says(device, step, packets[device]).status == 201
        folded = summing.turn()
    assert isinstance(folded, Fold)
    assert folded.accepted == COUNT


def _zero(packet: bytes) -> bytes:
    return packet[:4] + bytes(32) + packet[36:]


def _low_order(packet: bytes) -> bytes:
    return packet[:4] + b"\1" + bytes(31) + packet[36:]


def _one_key_twice(packet: bytes) -> bytes:
    return packet[:36] + packet[4:36] + packet[68:]


def _of_another(packet: bytes) -> bytes:
    return b"\7" + packet[1:]


def _flipped(packet: bytes) -> bytes:
    return packet[:-1] + bytes([packet[-1] ^ 1])


def _both_kinds(packet: bytes) -> bytes:
    other, kind, share = REVEALED.unpack(packet[: REVEALED.size])
    return packet + REVEALED.pack(other, 1 - kind, share)


def _the_other_kind(packet: bytes) -> bytes:
    return packet[:4] + bytes([packet[4] ^ 1]) + packet[5:]


@pytest.mark.parametrize(
    ("step", "wrong", "reason"),
    [
        (1, _zero, "key"),
        (1, _low_order, "point"),
        (1, _one_key_twice, "key"),
        (1, _of_another, "roster"),
        (1, _flipped, "signature"),
        (1, lambda packet: packet[:-1], "truncated"),
        (2, lambda packet: bytes([packet[0] ^ 1]) + packet[1:], "roster"),
        (2, lambda packet: packet[:-1], "truncated"),
        (3, _flipped, "checksum"),
        (3, lambda packet: plain_packet(0, 1), "round"),
        (4, _both_kinds, "shares"),
        (4, _the_other_kind, "shares"),
        (4, lambda packet: packet[: -REVEALED.size], "shares"),
        (4, lambda packet: packet[:-1], "truncated"),
    ],
)
def test_what_is_wrong_with_an_answer_is_told_at_once_and_nothing_of_it_is_kept(
    summing: Summing, step: int, wrong: Callable[[bytes], bytes], reason: str
) -> None:
    for before in range(1, step):
        summing.all_say(before)
    packet = summing.made(0, step)
    if step == 3:
        assert summing.says(0, step, wrong(packet)).reason == reason
        assert summing.says(0, step, packet, attempt=1).status == 201
    else:
        refused(lambda: summing.says(0, step, wrong(packet)), 422, reason)
        assert summing.says(0, step, packet).status == 201


def test_answers_of_another_round_step_or_life_are_refused(summing: Summing) -> None:
    first = summing.made(0, 1)
    refused(lambda: summing.says(0, 2, b""), 409, "early")
    refused(lambda: summing.says(0, 3, b""), 409, "early")
    refused(lambda: summing.says(0, 3 + 2, b""), 404, "unknown-path")
    refused(lambda: summing.hears(0, 0), 404, "unknown-path")
    refused(lambda: summing.coordinator.answer(Place(1, 0, 0), 1, first).result(9), 404, "not-asked")
    assert summing.says(0, 1, first).status == 201
    summing.members[0].life = 1
    refused(lambda: summing.says(0, 1, summing.made(0, 1)), 409, "conflict")
    replayed = Member(1, 1, summing.run, 0)
    other_round = Leader(summing.run, 1).next(summing.leader.said[0])
    assert isinstance(other_round, dict)
    replayed.round_num = 1
    refused(lambda: summing.says(1, 1, replayed.keys(other_round[1])), 422, "signature")
    assert len(first) == ENTRY_BYTES


def test_who_is_late_or_has_given_up_is_left_out_and_the_others_go_on(summing: Summing) -> None:
    for device in (0, 1, 2):
        summing.says(device, 1, summing.made(device, 1))
    late = summing.made(3, 1)
    summing.turn()
    refused(lambda: summing.says(3, 1, late), 410, "late")
    refused(lambda: summing.hears(3, 2), 410, "left-out")
    refused(lambda: summing.hears(0, 1), 410, "late")
    refused(lambda: summing.says(3, 3, b"x"), 409, "early")
    assert "retry" in summing.check_in(Member(5, enrol(summing.coordinator, key_of(5)), summing.run, 0)).body
    for device in (0, 1, 2):
        summing.says(device, 2, summing.made(device, 2))
    summing.turn()
    packet = summing.made(0, 3)
    assert summing.coordinator.give_up(Place(0, 2, 0)).result(9).status == 200
    refused(lambda: summing.hears(2, 3), 410, "left-out")
    refused(lambda: summing.says(3, 3, packet), 410, "left-out")
    for device in (0, 1):
        assert summing.says(device, 3, packet if device == 0 else summing.made(device, 3)).status == 201
    summing.turn()
    refused(lambda: summing.hears(0, 4), 410, "left-out")
    summing.turn()
    receipt = summing.coordinator.look_up(Place(0, 0, 0)).result(9)
    assert (receipt.status, receipt.reason) == (422, "group")


def test_a_client_whose_packet_is_there_may_go_and_is_not_waited_for(summing: Summing) -> None:
    for step in (1, 2):
        summing.all_say(step)
    for device in range(COUNT):
        summing.says(device, 3, summing.made(device, 3))
    assert summing.coordinator.give_up(Place(0, 1, 0)).result(9).status == 200
    summing.turn()
    assert "assignment" in summing.check_in(summing.members[2]).body
    assert "retry" in summing.check_in(summing.members[1]).body
    for device in (0, 2, 3):
        summing.says(device, 4, summing.made(device, 4))
    refused(lambda: summing.coordinator.give_up(Place(0, 0, 0)).result(9), 409, "already-counted")
    refused(lambda: summing.says(1, 4, summing.made(1, 4)), 409, "conflict")
    said = summing.coordinator.wait_step(4, seconds=None, stopped=lambda: False)
    assert said is not None
    assert said[1] == b""
    folded = summing.turn()
    assert isinstance(folded, Fold)
    assert folded.accepted == COUNT


def test_shares_that_are_too_few_or_false_end_the_round_without_a_sum(summing: Summing) -> None:
    for step in (1, 2, 3):
        summing.all_say(step)
    summing.says(0, 4, summing.made(0, 4))
    folded = summing.turn()
    assert isinstance(folded, Fold)
    assert folded.accepted == 0
    receipt = summing.coordinator.look_up(Place(0, 0, 0)).result(9)
    assert (receipt.status, receipt.reason) == (422, "shares")


def test_a_coordinator_that_has_yet_to_open_its_round_again_asks_for_patience(summing: Summing) -> None:
    first = summing.made(0, 1)
    summing.coordinator.close()
    summing.coordinator = Coordinator(summing.folder, writer=AtOnce)
    refused(lambda: summing.says(0, 1, first), 503, "starting")
    refused(lambda: summing.says(0, 3, first), 503, "starting")


def test_nothing_that_was_said_outlives_its_round(summing: Summing) -> None:
    for step in (1, 2, 3):
        summing.all_say(step)
    summing.coordinator.open_round(round_of(1, masked=True))
    with summing.coordinator._store.transaction() as tx:
        assert sums.at(tx.db, 0) is None
        assert sums.answers(tx, 0, 1) == {}
        assert sums.traffic(tx, 0) == (0, 0)
