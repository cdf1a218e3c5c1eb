"""The laws of the protocol: one function a request, over a transaction; no sockets, no clock, no threads.

| request | idempotent by | refused with |
|---|---|---|
| `enrol`     | public key                        | `signature`, `clock` |
| `check_in`  | round and device                  | `unknown-device`, `signature`, `clock`, `replayed` |
| `upload`    | (run, round, device, attempt)     | `not-asked`, `conflict`, `already-counted`, `late`, `attempts` |
| `look_up`   | is a question                     | `not-asked`, `unknown-attempt` |
| `give_up`   | round and device                  | `not-asked`, `already-counted` |

Every function checks before it writes: a `Refusal` leaves the transaction as it was. What a judged packet is refused
for is in its receipt, which is kept and given again.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection

from fl_mobile.coordinator import queries, sums
from fl_mobile.coordinator.queries import ANSWERED, ASKED, OVER
from fl_mobile.coordinator.records import CLOCK_TOLERANCE_MS, Full, Limits, OpenRound, Pace, Refusal, Reply
from fl_mobile.coordinator.store import Transaction
from fl_mobile.coordinator.tokens import Minter
from fl_mobile.errors import RunError
from fl_mobile.protocol.signing import is_signed, message
from fl_mobile.protocol.terms import receipt_to_json
from fl_mobile.records import Receipt

OPEN, SEALED, DONE = "open", "sealed", "done"
FINISHED = "finished"
FULL_SECONDS = 1.0
"""A round that is full is counted again after this: a seat may have expired, or been given by another process."""


@dataclass(frozen=True)
class Signed:
    """Who a request says it is from.

    Attributes:
        method, path, body: The request as it came.
        time_ms: By the device's clock.
        signature: ``bytes[64]``.
    """

    method: str
    path: str
    body: bytes
    time_ms: int
    signature: bytes


@dataclass(frozen=True)
class Place:
    """Which packet a request is about."""

    round_num: int
    device: int
    attempt: int


@dataclass(frozen=True)
class Desk:
    """What every request is answered by, beside the store.

    Attributes:
        now: Seconds since 1970.
        open: The round that takes clients and packets; None between rounds.
        finished: Whether there will be no further round.
    """

    minter: Minter
    limits: Limits
    pace: Pace
    now: float
    open: OpenRound | None = None
    finished: bool = False


def enrol(tx: Transaction, desk: Desk, signed: Signed, public_key: bytes) -> Reply:
    """Gives a device its index; the same key always gets the same one."""
    check_signature(desk, signed, public_key, device=None)
    found = tx.db.execute(queries.DEVICE_OF_KEY, {"key": public_key}).scalar()
    if found is not None:
        return Reply(200, {"device": found})
    device = queries.population(tx.db)
    tx.db.execute(queries.ENROL, {"device": device, "public_key": public_key, "last_ms": 0})
    return Reply(201, {"device": device})


def check_in(tx: Transaction, desk: Desk, signed: Signed, *, device: int, held: int, ready: bool = True) -> Reply:
    """Asks a client to take part, or tells it when to come again.

    Args:
        ready: Whether its conditions allow it to train now; one that could not takes nobody's place.
    """
    if full := full_for(desk, device):
        return full
    check_heard(tx, desk, signed, device)
    round_ = desk.open
    seat = None if round_ is None else queries.seat(tx.db, round_.number, device)
    why = _why_not(tx, desk, device, seat, ready=ready)
    parts = round_.parts_for(held) if round_ is not None and not why else {}  # may refuse
    tx.db.execute(queries.HEARD_OF, {"d": device, "ms": signed.time_ms})
    if why == FINISHED:
        return Reply(200, {"finished": True})
    if why or round_ is None:
        return later(tx, desk, why)
    expires = desk.now + round_.seat_seconds
    if seat is None:
        down = sum(part.bytes for part in parts.values())
        tx.db.execute(
            queries.ASK,
            {
                "round": round_.number,
                "device": device,
                "expires": expires,
                "state": ASKED,
                "download_bytes": down,
                "asked_in": round_.number,
            },
        )
    else:
        tx.db.execute(queries.ASK_AGAIN, {"r": round_.number, "d": device, "until": expires})
    return Reply(
        200, {"assignment": _assignment(desk=desk, round_=round_, device=device, expires=expires, parts=parts)}
    )


def full_for(desk: Desk, device: int) -> Reply | None:
    """Returns what a device without a seat is told by a round that is known to be full, without a look at the database.

    It says nothing that a stranger could not ask, so it needs no signature.
    """
    full = None if desk.open is None or desk.finished else desk.open.full
    if full is None or desk.now >= full.until or device in full.seated or device >= full.population:
        return None
    return Reply(200, {"retry": {**desk.pace.window(full.population), "reason": "full"}})


def upload(tx: Transaction, desk: Desk, place: Place, packet: bytes) -> Reply:
    """Takes a whole packet and gives its receipt; the same packet again gets the same receipt."""
    sha256 = hashlib.sha256(packet).hexdigest()
    seat = asked(tx.db, place)
    kept = _attempt(tx.db, place)
    if kept is not None:
        if kept.sha256 != sha256:
            raise Refusal(409, "conflict", "another packet came as this attempt: send yours as the next one")
        return _told_of(tx, desk, kept, status=200)
    if seat.state == ANSWERED:
        raise Refusal(
            409, "already-counted", f"device {place.device} has a packet that counts in round {place.round_num}"
        )
    if place.attempt >= desk.limits.attempts:
        raise Refusal(
            429, "attempts", f"a client has {desk.limits.attempts} attempts in a round, 0 to {desk.limits.attempts - 1}"
        )
    round_ = desk.open
    if round_ is None or _is_late(tx.db, round_, place):
        if round_ is None:
            check_not_starting(tx.db, place.round_num)
        raise Refusal(410, "late", "the round is over, this packet does not count", **_retry(tx, desk))
    if round_.masks is not None:
        sums.check_takes(tx.db, round_, place.device, sums.PACKETS)
    placed, receipt = queries.packets(tx.db, round_.number), round_.judge(packet, place.round_num)
    if receipt.accepted:
        tx.packets[sha256] = packet
    values = {
        "round": place.round_num,
        "device": place.device,
        "attempt": place.attempt,
        "sha256": sha256,
        "bytes": len(packet),
        "reason": receipt.reason,
        "weight": receipt.weight,
        "local_steps": receipt.local_steps,
        "step": round_.number,
        "place": placed,
    }
    tx.db.execute(queries.TAKE, values)
    last = place.attempt + 1 >= desk.limits.attempts
    state = ANSWERED if receipt.accepted else (OVER if last else ASKED)
    _settle(tx, desk, place, state)
    if receipt.accepted and round_.masks is not None:
        return _pending(desk, place, status=201)
    if receipt.accepted and placed + 1 >= round_.most:
        seal(tx, round_.number)
    return _receipt(receipt, place, repeated=False)


def look_up(tx: Transaction, desk: Desk, place: Place) -> Reply:
    """Gives the receipt of a packet again."""
    asked(tx.db, place)
    kept = _attempt(tx.db, place)
    if kept is None:
        raise Refusal(404, "unknown-attempt", "no whole packet of this attempt has come: send it, or the rest of it")
    return _told_of(tx, desk, kept, status=202)


def give_up(tx: Transaction, desk: Desk, place: Place) -> Reply:
    """A client says that it will send nothing in this round; another one can be asked in its place."""
    seat = asked(tx.db, place)
    if seat.state != ANSWERED:
        _settle(tx, desk, place, OVER)
    elif not sums.goes(tx, place.round_num, place.device):
        raise Refusal(
            409, "already-counted", f"device {place.device} has a packet that counts in round {place.round_num}"
        )
    return Reply(200, {"given_up": True})


def open_round(tx: Transaction, number: int, *, masked: bool = False) -> str:
    """Opens a round, unless it is open or sealed already; returns its state."""
    state = _state(tx.db, number)
    if not state:
        tx.db.execute(queries.OPEN_ROUND, {"round": number, "state": OPEN})
    if masked:
        sums.begin(tx, number)
    return state or OPEN


def seal(tx: Transaction, number: int) -> None:
    """Ends a round's set of packets; from now on it can only be computed from."""
    tx.db.execute(queries.SEAL, {"r": number, "open": OPEN, "sealed": SEALED})


def check_not_starting(db: Connection, number: int) -> None:
    """Refuses for now what is for a round that a coordinator has begun and its next life has yet to open again.

    Raises:
        Refusal: 503.
    """
    if _state(db, number) == OPEN:
        raise Refusal(503, "starting", "the coordinator has begun again and opens this round in a moment: ask again")


def is_sealed(tx: Transaction, number: int) -> bool:
    """Whether a round has its set of packets."""
    return _state(tx.db, number) in (SEALED, DONE)


def finish(tx: Transaction, before: int) -> None:
    """Marks every round before ``before`` as done: the checkpoint holds what came of it."""
    tx.db.execute(queries.FINISH, {"r": before, "done": DONE})
    sums.forget(tx, before)


def check_goes_on(tx: Transaction, number: int) -> None:
    """Refuses to open a round that is done: its packets are gone.

    Raises:
        RunError: The checkpoint is older than the database.
    """
    newest = tx.db.execute(queries.NEWEST, {"done": DONE}).scalar()
    if newest is not None and newest >= number:
        raise RunError(
            f"round {newest} is finished in the coordinator's database, but the checkpoint goes on with round {number}."
            " Restore both from the same backup."
        )


def packets_of(db: Connection, step: int) -> list[str]:
    """Returns the SHA-256 of the packets that count in a step, in the order in which they came."""
    return list(db.execute(queries.PACKETS_OF, {"s": step}).scalars())


def later(tx: Transaction, desk: Desk, reason: str) -> Reply:
    """Tells a client that is not needed now when to come again."""
    return Reply(200, {"retry": {**desk.pace.window(queries.population(tx.db)), "reason": reason}})


def _why_not(tx: Transaction, desk: Desk, device: int, seat: Any, *, ready: bool) -> str:
    """Returns why a client is not asked; empty if it is."""
    round_ = desk.open
    if desk.finished:
        return FINISHED
    if round_ is None or _state(tx.db, round_.number) != OPEN:
        return "between-rounds"
    if seat is not None:
        waited = seat.state == ASKED or sums.is_waited_for(tx.db, round_.number, device)
        return "" if waited else "done"
    if not ready:
        return "not-ready"
    if round_.invited is not None and device not in round_.invited:
        return "not-invited"
    if round_.masks is not None and sums.has_begun(tx.db, round_.number):
        return "full"
    if round_.asynchronous and tx.db.execute(queries.UNDER_WAY, {"d": device, "now": desk.now}).first() is not None:
        return "under-way"
    if queries.seats_taken(tx.db, round_, desk.now) >= round_.ask:
        seated = frozenset(queries.seated(tx.db, round_.number))
        round_.full = Full(desk.now + FULL_SECONDS, seated, queries.population(tx.db))
        return "full"
    return ""


def _settle(tx: Transaction, desk: Desk, place: Place, state: str) -> None:
    """Writes what became of a seat; one that is free again can be taken at once."""
    tx.db.execute(queries.SETTLE, {"r": place.round_num, "d": place.device, "how": state})
    if desk.open is not None:
        desk.open.full = None


def check_heard(tx: Transaction, desk: Desk, signed: Signed, device: int) -> None:
    """Raises `Refusal` unless a request is signed by a device that is enrolled, and none of its earlier ones."""
    known = tx.db.execute(queries.KEY_OF_DEVICE, {"d": device}).first()
    if known is None:
        raise Refusal(404, "unknown-device", f"no device {device} is enrolled in this run: enrol first")
    check_signature(desk, signed, bytes(known.public_key), device=device)
    if signed.time_ms <= known.last_ms <= int(desk.now * 1000) + CLOCK_TOLERANCE_MS:  # later is of a clock set back
        raise Refusal(409, "replayed", "a request of this device with this time or a later one was answered already")


def check_signature(desk: Desk, signed: Signed, public_key: bytes, *, device: int | None) -> None:
    """Raises `Refusal` unless a request is signed with this key, now and for this run."""
    now_ms = int(desk.now * 1000)
    text = message(
        run=desk.minter.run,
        method=signed.method,
        path=signed.path,
        device=device,
        time_ms=signed.time_ms,
        body=signed.body,
    )
    if not is_signed(public_key, signed.signature, text):
        raise Refusal(401, "signature", "the request is not signed with the key of this device, or for another run")
    if abs(now_ms - signed.time_ms) > CLOCK_TOLERANCE_MS:
        detail = f"the request's time is {signed.time_ms} ms, here it is {now_ms}: sign it again with the server's time"
        raise Refusal(401, "clock", detail, server_time_ms=now_ms)


def _assignment(desk: Desk, round_: OpenRound, device: int, expires: float, parts: Mapping[str, Any]) -> dict[str, Any]:
    return {
        **round_.assignment,
        "run": desk.minter.run,
        "device": device,
        "seed": str(round_.seed_of(device)),
        "token": desk.minter.token(round_num=round_.number, device=device, expires=desk.now + round_.token_seconds),
        "seconds": round_.seat_seconds,
        "most_bytes": round_.most_bytes,
        "parts": {name: {"sha256": part.sha256, "bytes": part.bytes} for name, part in parts.items()},
        "programs": {name: {"sha256": part.sha256, "bytes": part.bytes} for name, part in round_.programs.items()},
    }


def _told_of(tx: Transaction, desk: Desk, kept: Any, *, status: int) -> Reply:
    """Returns what is known of a packet that is here.

    Args:
        status: Of the answer that it is open whether it is in its round's sum.
    """
    place = Place(kept.round, kept.device, kept.attempt)
    if not kept.reason and sums.is_pending(tx.db, kept.round):
        return _pending(desk, place, status=status)
    return _receipt(Receipt(kept.reason, int(kept.weight), float(kept.local_steps)), place, repeated=True)


def _pending(desk: Desk, place: Place, *, status: int) -> Reply:
    poll = desk.open.masks.poll_seconds if desk.open and desk.open.masks else FULL_SECONDS
    told = {"pending": True, "round": place.round_num, "attempt": place.attempt, "wait_seconds": poll}
    return Reply(status, told)


def _receipt(receipt: Receipt, place: Place, *, repeated: bool) -> Reply:
    told = {"receipt": receipt_to_json(receipt), "round": place.round_num, "attempt": place.attempt}
    if receipt.accepted:
        return Reply(200 if repeated else 201, told)
    detail = "the packet does not count: train again from this round's model and send the next attempt"
    return Refusal(422, receipt.reason, detail, **told).reply


def _retry(tx: Transaction, desk: Desk) -> dict[str, Any]:
    return {"retry": desk.pace.window(queries.population(tx.db))}


def _is_late(db: Connection, round_: OpenRound, place: Place) -> bool:
    if _state(db, round_.number) != OPEN:
        return True
    return place.round_num != round_.number if not round_.asynchronous else place.round_num > round_.number


def asked(db: Connection, place: Place) -> Any:
    """Returns the seat of a client that was asked; raises `Refusal`."""
    seat = queries.seat(db, place.round_num, place.device)
    if seat is None:
        raise Refusal(404, "not-asked", f"device {place.device} was not asked in round {place.round_num}: check in")
    return seat


def _state(db: Connection, number: int) -> str:
    return str(db.execute(queries.STATE, {"r": number}).scalar() or "")


def _attempt(db: Connection, place: Place) -> Any:
    return db.execute(queries.ATTEMPT, {"r": place.round_num, "d": place.device, "a": place.attempt}).first()
