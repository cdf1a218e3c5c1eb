"""The requests of a masked round, in the manner of `core`: a client asks what it is told in a step, and answers it.

| request | idempotent by | refused with |
|---|---|---|
| `hear`   | is a question        | `not-asked`, `late`, `left-out` |
| `answer` | round, step, device  | `not-asked`, `early`, `late`, `left-out`, `conflict`, and what is wrong with it |

An answer is looked at by what its own client was told (`fl_mobile.secure_sum.checks`), which is all in rows.
"""

from __future__ import annotations

from sqlalchemy import Connection

from fl_mobile.coordinator import core, queries, sums
from fl_mobile.coordinator.core import Desk, Place
from fl_mobile.coordinator.records import Refusal, Reply
from fl_mobile.coordinator.store import Transaction
from fl_mobile.errors import WireError
from fl_mobile.secure_sum.checks import check_advertisement, check_revealed, check_shares
from fl_mobile.secure_sum.registry import roster_of
from fl_mobile.secure_sum.terms import read_terms

_ASKED_FOR = (*sums.ANSWERED_HERE, sums.PACKETS)


def hear(tx: Transaction, desk: Desk, place: Place, step: int) -> Reply:
    """Gives a client the message of a step, or tells it when to ask again."""
    _known(step, _ASKED_FOR)
    seat = core.asked(tx.db, place)
    here = sums.at(tx.db, place.round_num)
    if here is None:
        raise sums.late()
    if here.told < step:
        poll = desk.open.masks.poll_seconds if desk.open and desk.open.masks else core.FULL_SECONDS
        return Reply(202, {"wait_seconds": poll})
    told = sums.message(tx.db, place.round_num, step, place.device)
    if told is None or seat.state == queries.OVER:
        raise sums.left_out()
    if here.step > step:
        raise sums.late()
    return Reply(200, data=told)


def answer(tx: Transaction, desk: Desk, place: Place, step: int, packet: bytes) -> Reply:
    """Takes a client's answer to a step; the same one again is taken already."""
    _known(step, sums.ANSWERED_HERE)
    seat = core.asked(tx.db, place)
    kept = sums.answer_of(tx.db, place.round_num, step, place.device)
    if kept is not None:
        if kept != packet:
            raise Refusal(409, "conflict", "another answer to this step came from this device: keys are used once")
        return Reply(200, {"step": step})
    round_ = desk.open
    if round_ is None or round_.number != place.round_num:
        core.check_not_starting(tx.db, place.round_num)
        raise sums.late()
    sums.check_takes(tx.db, round_, place.device, step)
    if seat.state == queries.OVER:
        raise sums.left_out()
    try:
        _check(tx.db, place, step, packet)
    except WireError as error:
        raise Refusal(422, error.reason, f"{error}. Take no further part in this round.") from None
    sums.say(tx, place.round_num, step, place.device, packet)
    return Reply(201, {"step": step})


def _check(db: Connection, place: Place, step: int, packet: bytes) -> None:
    number, device = place.round_num, place.device

    def told(which: int) -> bytes:
        return sums.message(db, number, which, device) or b""

    identity = sums.answer_of(db, number, sums.COME, device) or b""
    if step == sums.KEYS:
        check_advertisement(packet, read_terms(told(sums.KEYS)), device, identity)
    elif step == sums.SHARES:
        check_shares(packet, roster_of(told(sums.SHARES)), device, identity)
    else:
        check_revealed(packet, told(sums.PACKETS), told(sums.UNMASK))


def _known(step: int, steps: tuple[int, ...]) -> None:
    if step not in steps:
        told = ", ".join(map(str, sorted(steps)))
        raise Refusal(404, "unknown-path", f"a masked round has steps {told} here; its packet is an upload")
