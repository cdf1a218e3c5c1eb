"""What `core` asks the database, each statement built once: building one costs several times what running it does."""

from __future__ import annotations

from typing import Any

from sqlalchemy import Connection, bindparam, func, insert, select, update

from fl_mobile.coordinator.records import OpenRound
from fl_mobile.coordinator.tables import attempts, devices, rounds, seats

ASKED, ANSWERED, OVER = "asked", "answered", "over"

_R: Any = bindparam("r")
_D: Any = bindparam("d")
_S: Any = bindparam("s")
_NOW: Any = bindparam("now")
_THE_SEAT = (seats.c.round == _R) & (seats.c.device == _D)
_WAITED = (seats.c.state == ASKED) & (seats.c.expires > _NOW)
_COUNTS = (attempts.c.step == _S) & (attempts.c.reason == "")

DEVICE_OF_KEY = select(devices.c.device).where(devices.c.public_key == bindparam("key"))
KEY_OF_DEVICE = select(devices.c.public_key, devices.c.last_ms).where(devices.c.device == _D)
ENROL = insert(devices)
HEARD_OF = update(devices).where(devices.c.device == _D).values(last_ms=bindparam("ms"))

ASK = insert(seats)
ASK_AGAIN = update(seats).where(_THE_SEAT).values(expires=bindparam("until"))
SETTLE = update(seats).where(_THE_SEAT).values(state=bindparam("how"))
UNDER_WAY = select(seats.c.round).where(seats.c.device == _D, _WAITED).limit(1)
_SEAT = select(seats).where(_THE_SEAT)
_BUSY = select(func.count()).select_from(seats).where(_WAITED)
_TAKEN = select(func.count()).select_from(seats).where(seats.c.asked_in == _R, _WAITED | (seats.c.state == ANSWERED))
_SEATED = select(seats.c.device).where(seats.c.round == _R)
_LAST_DEVICE = select(func.max(devices.c.device))

TAKE = insert(attempts)
ATTEMPT = select(attempts).where(attempts.c.round == _R, attempts.c.device == _D, attempts.c.attempt == bindparam("a"))
PACKETS_OF = select(attempts.c.sha256).where(_COUNTS).order_by(attempts.c.place)
_LAST_PLACE = select(attempts.c.place).where(_COUNTS).order_by(attempts.c.place.desc()).limit(1)

RENAME = (
    update(attempts)
    .where(attempts.c.round == _R, attempts.c.device == _D, attempts.c.reason == "")
    .values(reason=bindparam("why"), weight=0, local_steps=0.0)
)
DEVICES_OF = select(attempts.c.device, attempts.c.sha256).where(_COUNTS).order_by(attempts.c.place)
THERE = (
    select(seats.c.device, devices.c.public_key)
    .join(devices, devices.c.device == seats.c.device)
    .where(seats.c.asked_in == _R, _WAITED)
    .order_by(seats.c.device)
)

STATE = select(rounds.c.state).where(rounds.c.round == _R)
OPEN_ROUND = insert(rounds)
SEAL = update(rounds).where(rounds.c.round == _R, rounds.c.state == bindparam("open")).values(state=bindparam("sealed"))
FINISH = update(rounds).where(rounds.c.round < _R).values(state=bindparam("done"))
NEWEST = select(func.max(rounds.c.round)).where(rounds.c.state == bindparam("done"))


def population(db: Connection) -> int:
    """Returns how many devices are enrolled: their indices have no gaps."""
    last = db.execute(_LAST_DEVICE).scalar()
    return 0 if last is None else int(last) + 1


def seat(db: Connection, round_num: int, device: int) -> Any:
    """Returns a client's seat in a round, or None."""
    return db.execute(_SEAT, {"r": round_num, "d": device}).first()


def packets(db: Connection, step: int) -> int:
    """Returns how many packets count in a step: their places have no gaps."""
    last = db.execute(_LAST_PLACE, {"s": step}).scalar()
    return 0 if last is None else int(last) + 1


def seats_taken(db: Connection, round_: OpenRound, now: float) -> int:
    """Returns how many clients are under way, and in a round of its own cohort those that have answered too."""
    if round_.asynchronous:
        return int(db.execute(_BUSY, {"now": now}).scalar_one())
    return int(db.execute(_TAKEN, {"r": round_.number, "now": now}).scalar_one())


def seated(db: Connection, round_num: int) -> list[int]:
    """Returns the devices that have a seat in a round."""
    return list(db.execute(_SEATED, {"r": round_num}).scalars())
