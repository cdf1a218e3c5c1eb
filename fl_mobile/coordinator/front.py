"""What the web asks, of whichever process it is in: a store, a writer, and the round that is open."""

from __future__ import annotations

import logging
import time
from collections import Counter
from collections.abc import Callable, Mapping
from concurrent.futures import Future
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from sqlalchemy import func, select

from fl_mobile.coordinator import core, queries, statistics, steps
from fl_mobile.coordinator.blobs import Blobs
from fl_mobile.coordinator.core import Desk, Place, Signed
from fl_mobile.coordinator.records import Limits, OpenRound, Pace, Refusal, Reply
from fl_mobile.coordinator.store import Store, Transaction
from fl_mobile.coordinator.tables import attempts, seats
from fl_mobile.coordinator.tokens import Minter
from fl_mobile.coordinator.writer import Writer
from fl_mobile.protocol.statistics import Statistic
from fl_mobile.protocol.terms import Blob

Attest = Callable[[bytes, Mapping[str, Any]], str]
"""(public key ``bytes[32]``, what the device says of itself) → why it may not enrol; empty if it may. On any thread."""

_log = logging.getLogger("fl_mobile.coordinator")


@dataclass(frozen=True)
class Counts:
    """What of a round went over the wire.

    Attributes:
        asked: Clients.
        packets: Whole packets that came, refused ones too.
        refused: Reason → packets.
    """

    asked: int = 0
    download_bytes: int = 0
    packets: int = 0
    upload_bytes: int = 0
    refused: Counter[str] = field(default_factory=Counter)


class Front:
    """Answers clients.

    Args:
        folder: Of this process's files.
        store: What must not be forgotten.
        blobs: What clients fetch.
        now: Seconds since 1970.
        writer: Runs the transactions.
        attest: Whether a device may enrol.

    Attributes:
        owns_parts: Whether uploads that are not whole lie in a folder that no other process writes to.
        refused: Reason → requests refused since the start.
        terms: What clients fetch first.
        statistics: Questions that devices are asked before there are terms.
        most_sums: Packets that each of them waits for.
        history: The finished rounds, for the operator's page.
    """

    owns_parts = True

    def __init__(
        self,
        folder: Path,
        store: Store,
        blobs: Blobs,
        *,
        limits: Limits | None = None,
        pace: Pace | None = None,
        now: Callable[[], float] = time.time,
        writer: Callable[[Store], Writer] = Writer,
        attest: Attest = lambda public_key, told: "",
    ) -> None:
        self.folder, self.limits, self.pace, self.now = folder, limits or Limits(), pace or Pace(), now
        self.blobs, self._store, self._attest = blobs, store, attest
        self._minter = Minter(store.run, store.secret)
        self._open: OpenRound | None = None
        self.finished = False
        self.refused: Counter[str] = Counter()
        self.terms: Blob | None = None
        self.statistics: tuple[Statistic, ...] = ()
        self.most_sums = 0
        self.history: list[Mapping[str, Any]] = []
        self._writer = writer(store)

    @property
    def run(self) -> str:
        """The run's name."""
        return self._store.run

    @property
    def open(self) -> OpenRound | None:
        """The round that is open."""
        return self._open

    @property
    def most_packet_bytes(self) -> int:
        """Length of the longest packet that is read now."""
        return self._open.most_bytes if self._open else self.limits.json_bytes

    def check_token(self, token: str, place: Place) -> None:
        """Raises `Refusal` unless the token is for this place."""
        self._minter.check(token, round_num=place.round_num, device=place.device, now=self.now())

    def check_attestation(self, signed: Signed, public_key: bytes, told: Mapping[str, Any]) -> None:
        """Raises `Refusal` unless a device that wants to enrol has the key, and is what it says it is.

        The signature is looked at first: what a stranger sends costs nobody's quota.
        """
        core.check_signature(self._desk(), signed, public_key, device=None)
        try:
            why = self._attest(public_key, told)
        except Exception as error:
            _log.exception("the check of attestations failed")
            detail = "the device's attestation cannot be checked now: try again later"
            raise Refusal(503, "attestation-unchecked", detail) from error
        if why:
            raise Refusal(403, "attestation", why)

    def enrol(self, signed: Signed, public_key: bytes) -> Future[Reply]:
        """See `core.enrol`."""
        return self._ask(lambda tx, desk: core.enrol(tx, desk, signed, public_key))

    def full_for(self, device: int) -> Reply | None:
        """See `core.full_for`: the answer to most of a crowd, at once."""
        return core.full_for(self._desk(), device)

    def check_in(self, signed: Signed, *, device: int, held: int, ready: bool = True) -> Future[Reply]:
        """See `core.check_in`."""
        return self._ask(lambda tx, desk: core.check_in(tx, desk, signed, device=device, held=held, ready=ready))

    def take_sums(self, signed: Signed, *, device: int, about: str, packet: bytes) -> Future[Reply]:
        """See `statistics.take`."""
        more: dict[str, Any] = {"asked": self.statistics, "most": self.most_sums}
        return self._ask(
            lambda tx, desk: statistics.take(tx, desk, signed, device=device, about=about, packet=packet, **more)
        )

    def upload(self, place: Place, packet: bytes) -> Future[Reply]:
        """See `core.upload`."""
        return self._ask(lambda tx, desk: core.upload(tx, desk, place, packet))

    def look_up(self, place: Place) -> Future[Reply]:
        """See `core.look_up`."""
        return self._ask(lambda tx, desk: core.look_up(tx, desk, place))

    def give_up(self, place: Place) -> Future[Reply]:
        """See `core.give_up`."""
        return self._ask(lambda tx, desk: core.give_up(tx, desk, place))

    def hear(self, place: Place, step: int) -> Future[Reply]:
        """See `steps.hear`."""
        return self._ask(lambda tx, desk: steps.hear(tx, desk, place, step))

    def answer(self, place: Place, step: int, packet: bytes) -> Future[Reply]:
        """See `steps.answer`."""
        return self._ask(lambda tx, desk: steps.answer(tx, desk, place, step, packet))

    def seen(self, number: int | None) -> tuple[int, Counts]:
        """Returns how many devices are enrolled, and what a round has cost so far; at once or not at all.

        Raises:
            Refusal: The disk takes nothing now.
        """

        def look(tx: Transaction) -> tuple[int, Counts]:
            return queries.population(tx.db), Counts() if number is None else counts_of(tx, number)

        return self._writer.submit(look).result()

    def lose(self, error: BaseException) -> None:
        """Is told that the HTTP server has ended by itself."""

    def close(self) -> None:
        """Answers what is waiting and closes the database.

        Raises:
            RunError: The disk does not take what is waiting.
        """
        self._writer.close()
        self._store.close()

    def _ask(self, do: Callable[[Transaction, Desk], Reply]) -> Future[Reply]:
        return self._writer.submit(lambda tx: do(tx, self._desk()))

    def _desk(self) -> Desk:
        return Desk(self._minter, self.limits, self.pace, self.now(), self._open, self.finished)


def counts_of(tx: Transaction, number: int) -> Counts:
    """Returns what a round has cost so far."""
    of_step = attempts.c.step == number
    asked = select(func.count(), func.coalesce(func.sum(seats.c.download_bytes), 0)).where(seats.c.asked_in == number)
    clients, down = tx.db.execute(asked).one()
    sent = select(func.count(), func.coalesce(func.sum(attempts.c.bytes), 0)).where(of_step)
    packets, up = tx.db.execute(sent).one()
    why = select(attempts.c.reason, func.count()).where(of_step, attempts.c.reason != "").group_by(attempts.c.reason)
    refused = Counter({str(row[0]): int(row[1]) for row in tx.db.execute(why)})
    return Counts(
        asked=int(clients), download_bytes=int(down), packets=int(packets), upload_bytes=int(up), refused=refused
    )
