"""Sums that devices send before round 1: a packet a device and question, kept until the run is deleted.

A question is answered by the first ``most`` devices that come. Their packets stay: a coordinator that was killed adds
up the same ones. Every function checks before it writes.
"""

from __future__ import annotations

from collections.abc import Sequence

from sqlalchemy import ColumnElement, func, insert, select

from fl_mobile.coordinator import core, queries
from fl_mobile.coordinator.core import Desk, Signed
from fl_mobile.coordinator.records import Refusal, Reply
from fl_mobile.coordinator.store import Transaction
from fl_mobile.coordinator.tables import statistics
from fl_mobile.errors import WireError
from fl_mobile.protocol.statistics import Statistic
from fl_mobile.server.sums import read_sums


def take(
    tx: Transaction,
    desk: Desk,
    signed: Signed,
    *,
    device: int,
    about: str,
    packet: bytes,
    asked: Sequence[Statistic],
    most: int,
) -> Reply:
    """Takes a device's sums; the same ones again are taken already.

    Args:
        about: Which question they answer.
        asked: The questions that are open.
        most: Packets that each of them waits for.
    """
    core.check_heard(tx, desk, signed, device)
    retry = desk.pace.window(queries.population(tx.db))
    kept = tx.db.execute(select(statistics.c.value).where(_of(about) & (statistics.c.device == device))).scalar()
    if kept is not None and bytes(kept) != packet:
        raise Refusal(409, "conflict", "other sums came from this device: it is counted once", retry=retry)
    if kept is None:
        question = next((one.question for one in asked if one.about == about), None)
        if question is None or counted(tx, about) >= most:
            raise Refusal(410, "late", "no sums are wanted any more: ask for the terms", retry=retry)
        try:
            read_sums(question, packet)
        except WireError as error:
            raise Refusal(422, error.reason, str(error)) from None
        tx.db.execute(insert(statistics), {"about": about, "device": device, "value": packet})
    tx.db.execute(queries.HEARD_OF, {"d": device, "ms": signed.time_ms})
    return Reply(201 if kept is None else 200, {"taken": True, "retry": retry})


def counted(tx: Transaction, about: str) -> int:
    """Returns how many devices have answered a question."""
    return int(tx.db.execute(select(func.count()).where(_of(about))).scalar_one())


def packets(tx: Transaction, about: str) -> list[bytes]:
    """Returns the packets that answer a question."""
    found = select(statistics.c.value).where(_of(about)).order_by(statistics.c.device)
    return [bytes(value) for value in tx.db.execute(found).scalars()]


def upload_bytes(tx: Transaction) -> int:
    """Returns the bytes of all packets."""
    return int(tx.db.execute(select(func.coalesce(func.sum(func.length(statistics.c.value)), 0))).scalar_one())


def _of(about: str) -> ColumnElement[bool]:
    return statistics.c.about == about
