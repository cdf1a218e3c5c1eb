"""The steps of a masked round as rows: what clients were told and what they said, so that a round can be played again.

```
step  0 clients come | 1 keys | 2 shares | 3 packets | 4 unmasking | 5 receipts        `fl_mobile.server.masked`
```
Answers of a step are taken until it is closed, for good, and before anybody is told what follows from them. What
follows is a function of them, so a round master that was killed computes it again and finds the same.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Any, NamedTuple

from sqlalchemy import Connection, bindparam, delete, func, insert, select, update

from fl_mobile.coordinator import queries
from fl_mobile.coordinator.queries import OVER
from fl_mobile.coordinator.records import OpenRound, Refusal
from fl_mobile.coordinator.store import Transaction
from fl_mobile.coordinator.tables import messages, said, seats, sums, told
from fl_mobile.records import Receipt
from fl_mobile.secure_sum.terms import LEAST_GROUP

COME, KEYS, SHARES, PACKETS, UNMASK, RECEIPTS = range(6)
ANSWERED_HERE = (KEYS, SHARES, UNMASK)
"""Steps whose answer is a message; that of `PACKETS` is an upload."""

_R: Any = bindparam("r")
_S: Any = bindparam("s")
_D: Any = bindparam("d")
_TOLD = (told.c.round == _R) & (told.c.step == _S)
_AT = select(sums.c.step, sums.c.told).where(sums.c.round == _R)
_SAID = select(said.c.device, said.c.value).where(said.c.round == _R, said.c.step == _S)
_ONE_SAID = select(said.c.value).where(said.c.round == _R, said.c.step == _S, said.c.device == _D)
_MESSAGE = (
    select(messages.c.value)
    .join(told, (told.c.round == messages.c.round) & (told.c.sha256 == messages.c.sha256))
    .where(_TOLD, told.c.device == _D)
)
_HAS_SAID = select(said.c.device).where(said.c.round == _R, said.c.step == _S)
_GONE = select(seats.c.device).where(seats.c.round == _R, seats.c.state == OVER)
_WAITED_FOR = (
    select(func.count()).select_from(told).where(_TOLD, told.c.device.not_in(_HAS_SAID), told.c.device.not_in(_GONE))
)
_SENT = select(seats.c.device).where(seats.c.round == _R, seats.c.state == queries.ANSWERED)
_PACKETS_MISSING = (
    select(func.count()).select_from(told).where(_TOLD, told.c.device.not_in(_SENT), told.c.device.not_in(_GONE))
)
_UP = select(func.coalesce(func.sum(func.length(said.c.value)), 0)).where(said.c.round == _R, said.c.step > COME)
_DOWN = select(func.coalesce(func.sum(told.c.bytes), 0)).where(told.c.round == _R)
_CLOSE = update(sums).where(sums.c.round == _R).values(step=bindparam("next"))
_TELL = update(sums).where(sums.c.round == _R).values(told=bindparam("upto"))


class At(NamedTuple):
    """How far a masked round is.

    Attributes:
        step: Whose answers are taken.
        told: The last one whose messages are here.
    """

    step: int
    told: int


def begin(tx: Transaction, number: int) -> None:
    """Begins a masked round, unless it has begun."""
    if tx.db.execute(_AT, {"r": number}).first() is None:
        tx.db.execute(insert(sums), {"round": number, "step": COME, "told": COME})


def forget(tx: Transaction, before: int) -> None:
    """Deletes all that was said in rounds before ``before``: what came of it is in the checkpoint."""
    for table in (messages, told, said, sums):
        tx.db.execute(delete(table).where(table.c.round < before))


def at(db: Connection, number: int) -> At | None:
    """Returns how far a round is; None if it is not under masks, or forgotten."""
    row = db.execute(_AT, {"r": number}).first()
    return None if row is None else At(int(row.step), int(row.told))


def has_begun(db: Connection, number: int) -> bool:
    """Whether who is in a round stands."""
    here = at(db, number)
    return here is not None and here.step > COME


def is_pending(db: Connection, number: int) -> bool:
    """Whether it is open yet which packets of a round are in its sum."""
    here = at(db, number)
    return here is not None and here.told < RECEIPTS


def close_if_due(tx: Transaction, round_: OpenRound, step: int, *, now: float, over: bool, least: int) -> bool:
    """Closes a step once all that are waited for have answered, or time is over; returns whether it is closed.

    Args:
        over: Whether time is.
        least: Clients without which the end of time does not begin a sum.
    """
    here = at(tx.db, round_.number)
    assert here is not None
    if here.step > step:
        return True
    where = {"r": round_.number, "s": step, "now": now}
    if step == COME:
        there = tx.db.execute(queries.THERE, where).all()
        came = len(there) if round_.invited is None else len(queries.seated(tx.db, round_.number))  # nobody else will
        if came < round_.ask and not (over and len(there) >= min(round_.ask, max(least, LEAST_GROUP))):
            return False
        rows = [{"round": round_.number, "step": COME, "device": row.device, "value": row.public_key} for row in there]
        if rows:
            tx.db.execute(insert(said), rows)
    elif not over:
        missing = _PACKETS_MISSING if step == PACKETS else _WAITED_FOR
        if tx.db.execute(missing, where).scalar_one():
            return False
    tx.db.execute(_CLOSE, {"r": round_.number, "next": step + 1})
    round_.full = None
    return True


def answers(tx: Transaction, number: int, step: int) -> dict[int, bytes]:
    """Returns client → what it said; in `PACKETS` the SHA-256 of its packet."""
    if step == PACKETS:
        return {row.device: row.sha256.encode() for row in tx.db.execute(queries.DEVICES_OF, {"s": number})}
    return {row.device: bytes(row.value) for row in tx.db.execute(_SAID, {"r": number, "s": step})}


def tell(tx: Transaction, number: int, step: int, what: Mapping[int, bytes]) -> None:
    """Hands out the messages of a step; whoever has none is not in the round any more."""
    here = at(tx.db, number)
    assert here is not None
    if here.told >= step:  # by a master that was killed since: the same ones
        return
    hashes = {value: hashlib.sha256(value).hexdigest() for value in set(what.values())}  # a group is told one roster
    if hashes:
        known = set(tx.db.execute(select(messages.c.sha256).where(messages.c.round == number)).scalars())
        rows = [{"round": number, "sha256": sha, "value": v} for v, sha in hashes.items() if sha not in known]
        if rows:
            tx.db.execute(insert(messages), rows)
        tx.db.execute(
            insert(told),
            [
                {
                    "round": number,
                    "step": step,
                    "device": client,
                    "sha256": hashes[value],
                    "bytes": len(value),
                }
                for client, value in what.items()
            ],
        )
    tx.db.execute(_TELL, {"r": number, "upto": step})


def settle(tx: Transaction, number: int, receipts: Mapping[int, Receipt]) -> None:
    """Tells who is in the sum: a packet that is not is told why."""
    for client, receipt in receipts.items():
        if not receipt.accepted:
            tx.db.execute(queries.RENAME, {"r": number, "d": client, "why": receipt.reason})
    tx.db.execute(_TELL, {"r": number, "upto": RECEIPTS})


def message(db: Connection, number: int, step: int, device: int) -> bytes | None:
    """Returns what a client is told in a step; None if nothing."""
    value = db.execute(_MESSAGE, {"r": number, "s": step, "d": device}).scalar()
    return None if value is None else bytes(value)


def answer_of(db: Connection, number: int, step: int, device: int) -> bytes | None:
    """Returns what a client has said in a step; None if nothing."""
    value = db.execute(_ONE_SAID, {"r": number, "s": step, "d": device}).scalar()
    return None if value is None else bytes(value)


def is_waited_for(db: Connection, number: int, device: int) -> bool:
    """Whether a client whose packet is here has yet to help with the unmasking; another life of it can only say no."""
    here = at(db, number)
    there = here is not None and here.step <= UNMASK and message(db, number, PACKETS, device) is not None
    return there and answer_of(db, number, UNMASK, device) is None


def goes(tx: Transaction, number: int, device: int) -> bool:
    """Writes that a client whose packet is here helps with nothing more; returns whether it was waited for."""
    waited = is_waited_for(tx.db, number, device)
    if waited:
        say(tx, number, UNMASK, device, b"")
    return waited


def say(tx: Transaction, number: int, step: int, device: int, value: bytes) -> None:
    """Writes what a client says."""
    tx.db.execute(insert(said), {"round": number, "step": step, "device": device, "value": value})


def traffic(tx: Transaction, number: int) -> tuple[int, int]:
    """Returns bytes of all that was said and told in a round."""
    up, down = (tx.db.execute(which, {"r": number}).scalar_one() for which in (_UP, _DOWN))
    return int(up), int(down)


def check_takes(db: Connection, round_: OpenRound, device: int, step: int) -> None:
    """Raises `Refusal` unless a step takes the answer of this client now."""
    here = at(db, round_.number)
    if here is None or here.step > step:
        raise late()
    if here.step < step or here.told < step:
        raise Refusal(409, "early", f"step {step} has not begun: ask for its message first")
    if message(db, round_.number, step, device) is None:
        raise left_out()


def late() -> Refusal:
    """Returns the refusal of what comes after its step."""
    return Refusal(410, "late", "this step of the round is over, or the round is under no masks")


def left_out() -> Refusal:
    """Returns the refusal of who is in no sum of the round any more."""
    return Refusal(410, "left-out", "the round goes on without this device: it left, or too many of its group did")
