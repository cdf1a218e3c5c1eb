"""The coordinator: a store, a writer and the round that is open. The web asks it, a round master drives it."""

from __future__ import annotations

import logging
import threading
import time
from collections import Counter
from collections.abc import Callable, Mapping
from concurrent.futures import Future
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

from sqlalchemy import func, select

from fl_mobile.coordinator import core, queries
from fl_mobile.coordinator.blobs import Blobs
from fl_mobile.coordinator.core import Desk, Place, Signed
from fl_mobile.coordinator.lease import ANOTHER, Lease
from fl_mobile.coordinator.records import NO_ROOM, Limits, OpenRound, Pace, Refusal, Reply
from fl_mobile.coordinator.store import Store, Transaction, database_url, promised
from fl_mobile.coordinator.tables import attempts, seats
from fl_mobile.coordinator.tokens import Minter
from fl_mobile.coordinator.writer import Writer
from fl_mobile.errors import RunError
from fl_mobile.protocol.terms import Blob

T = TypeVar("T")
DISK_SECONDS = 5.0
"""Between two looks whether the disk has room again."""

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


class Coordinator:
    """Everything that serves one run.

    Args:
        folder: Of the coordinator's files, inside the run's.
        url: Of the database; empty is SQLite in ``folder``, which nobody else may write.
        lease: Who writes a database that has a URL; None is this coordinator, at once or not at all.
        now: Seconds since 1970.
        writer: Runs the transactions.
        attest: Whether a device may enrol.
        patient: Whether the round master waits for a disk that takes nothing until it does, as clients do.

    Attributes:
        refused: Reason → requests refused since the start.
        terms: What clients fetch first.
        history: The finished rounds, for the operator's page.
    """

    def __init__(
        self,
        folder: Path,
        *,
        url: str = "",
        lease: Lease | None = None,
        limits: Limits | None = None,
        pace: Pace | None = None,
        now: Callable[[], float] = time.time,
        writer: Callable[[Store], Writer] = Writer,
        patient: bool = True,
        attest: Attest = lambda public_key, told: "",
    ) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.folder, self.limits, self.pace, self.now = folder, limits or Limits(), pace or Pace(), now
        self.blobs = Blobs(folder / "blobs")
        lease = (lease or Lease()) if url else None
        self._store = Store(url or database_url(folder), Blobs(folder / "packets"), lease)
        self._writer = writer(self._store)
        self._minter = Minter(self._store.run, self._store.secret)
        self._open: OpenRound | None = None
        self._changed, self._patient = threading.Condition(), patient
        self._attest = attest
        self._lost: BaseException | None = None
        self.finished = False
        self.refused: Counter[str] = Counter()
        self.terms: Blob | None = None
        self.history: list[Mapping[str, Any]] = []

    @property
    def run(self) -> str:
        """The run's name."""
        return self._store.run

    @property
    def open(self) -> OpenRound | None:
        """The round that is open."""
        return self._open

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

    def check_in(self, signed: Signed, *, device: int, held: int, ready: bool = True) -> Future[Reply]:
        """See `core.check_in`."""
        return self._ask(lambda tx, desk: core.check_in(tx, desk, signed, device=device, held=held, ready=ready))

    def upload(self, place: Place, packet: bytes) -> Future[Reply]:
        """See `core.upload`."""

        def take(tx: Transaction, desk: Desk) -> Reply:
            reply = core.upload(tx, desk, place, packet)
            with self._changed:  # the master looks again after the commit: it asks the writer, whose turn comes then
                self._changed.notify_all()
            return reply

        return self._ask(take)

    def look_up(self, place: Place) -> Future[Reply]:
        """See `core.look_up`."""
        return self._ask(lambda tx, desk: core.look_up(tx, desk, place))

    def give_up(self, place: Place) -> Future[Reply]:
        """See `core.give_up`."""
        return self._ask(lambda tx, desk: core.give_up(tx, desk, place))

    def open_round(self, round_: OpenRound) -> None:
        """Opens a round, or goes on with it; every round before it is done from now on, its packets are deleted.

        Raises:
            RunError: The store is ahead of the checkpoint.
        """

        def begin(tx: Transaction) -> None:
            core.check_goes_on(tx, round_.number)
            core.finish(tx, before=round_.number)
            core.open_round(tx, round_.number)

        self._do(begin)
        self._do(self._clean)
        self._open = round_
        _log.info(
            "round opened", extra={"told": {"round": round_.number, "ask": None if round_.discreet else round_.ask}}
        )

    def wait(self, *, seconds: float | None, least: int, stopped: Callable[[], bool]) -> list[str]:
        """Returns the round's packets, by SHA-256, once it is sealed: enough are here, or time is over.

        Args:
            seconds: From now, by the monotonic clock; None waits for all.
            least: Packets that must be here when time is over.
            stopped: Asked again and again; the round stays open if it says so, and nothing is returned.

        Raises:
            RunError: No packet can come any more: the HTTP server has ended.
        """
        round_ = self._open
        assert round_ is not None
        until = None if seconds is None else time.monotonic() + seconds
        while not stopped():
            if self._lost is not None:
                raise RunError(f"the coordinator's HTTP server ended by itself: {self._lost!r}") from self._lost
            over = until is not None and time.monotonic() >= until
            packets = self._do(partial(_sealed, number=round_.number, over=over, least=least))
            if packets is not None:
                told = {"round": round_.number, "packets": None if round_.discreet else len(packets)}
                _log.info("round sealed", extra={"told": told})
                return packets
            with self._changed:
                self._changed.wait(0.25 if self._writer.waits else 0)
        return []

    def packet(self, sha256: str) -> bytes:
        """Returns a packet that counts."""
        return self._store.packets.get(sha256)

    def counts(self, number: int) -> Counts:
        """Returns what a round has cost so far."""
        return self._do(partial(_counts, number=number))

    def seen(self, number: int | None) -> tuple[int, Counts]:
        """Returns how many devices are enrolled, and what a round has cost so far; at once or not at all.

        Raises:
            Refusal: The disk takes nothing now.
        """

        def look(tx: Transaction) -> tuple[int, Counts]:
            return queries.population(tx.db), Counts() if number is None else _counts(tx, number)

        return self._writer.submit(look).result()

    def finish(self) -> None:
        """There will be no further round: clients are told so."""
        self.finished, self._open = True, None
        _log.info("run finished", extra={"told": {"run": self.run}})

    def lose(self, error: BaseException) -> None:
        """Whoever waits for packets is told that none can come any more."""
        with self._changed:
            self._lost = error
            self._changed.notify_all()

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

    def _do(self, work: Callable[[Transaction], T]) -> T:
        """Returns what the work returns, as soon as the disk takes it."""
        while True:
            try:
                return self._writer.submit(work).result()
            except Refusal as refusal:
                if refusal.reason == ANOTHER:
                    raise RunError(f"this coordinator was taken for dead: {refusal.detail}") from None
                if refusal.status != NO_ROOM or not self._patient:
                    raise
                _log.error("%s", refusal.__cause__)
            with self._changed:
                self._changed.wait(DISK_SECONDS)

    def _clean(self, tx: Transaction) -> None:
        self._store.packets.keep_only(set(promised(tx.db)))


def _sealed(tx: Transaction, *, number: int, over: bool, least: int) -> list[str] | None:
    packets = core.packets_of(tx.db, number)
    if over and len(packets) >= least:
        core.seal(tx, number)
    return packets if core.is_sealed(tx, number) else None


def _counts(tx: Transaction, number: int) -> Counts:
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
