"""Who may write: one coordinator to a database, by a row with a holder and an expiry, by the database's own clock.

Every transaction begins by looking whether the row still names its coordinator, and holds the row until it commits: a
coordinator that was taken for dead, and is not, commits nothing any more. One that has nothing to do renews it all the
same. Workers beside it (`Beside`) hold the same row while they write, whoever's it is: of all processes one writes at a
time. A run folder of its own needs none of this: the kernel's lock on it ends with the process.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import socket
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from sqlalchemy import Connection, Engine, insert, literal_column, select, update
from sqlalchemy.exc import IntegrityError, ProgrammingError

from fl_mobile.coordinator.records import Refusal
from fl_mobile.coordinator.tables import leases, published
from fl_mobile.errors import RunError

LEASE_SECONDS = 30.0
LOOK_SECONDS = 1.0
"""Between two looks of a coordinator that waits."""

ANOTHER = "another-master"
NOBODY = ""
_NAME = "master"
_ROW = leases.c.name == _NAME
_READ = select(leases.c.holder, leases.c.expires).where(_ROW).with_for_update()
_NOW: dict[str, Any] = {
    "sqlite": literal_column("(julianday('now') - 2440587.5) * 86400.0"),
    "postgresql": literal_column("extract(epoch from clock_timestamp())"),
}


def _name_of_this_process() -> str:
    return f"{socket.gethostname()} pid {os.getpid()} {secrets.token_hex(4)}"


@dataclass(frozen=True)
class Lease:
    """A coordinator's claim on its database.

    Attributes:
        holder: Names this coordinator, as no other; a person can read where it runs.
        seconds: After so long without a word the next one may take over.
        standby: Whether to wait for a coordinator that is alive, instead of refusing to start beside it.
        stopped: Asked while waiting; ends it.
    """

    holder: str = field(default_factory=_name_of_this_process)
    seconds: float = LEASE_SECONDS
    standby: bool = False
    stopped: Callable[[], bool] = lambda: False

    @property
    def beat_seconds(self) -> float:
        """A coordinator that has nothing to write renews its lease as often."""
        return self.seconds / 6

    def take(self, engine: Engine) -> None:
        """Returns once the lease is this coordinator's.

        One that is alive is waited for if this is a standby; one that may be dead, until its lease is over.

        Raises:
            RunError: Another coordinator is alive, or the waiting was stopped.
        """
        seen: set[float] = set()
        while (held := self._try(engine)) is not None:
            other, expires = held
            seen.add(expires)
            if not self.standby and len(seen) > 1:
                raise RunError(
                    f"the database is written by another coordinator ({other}): stop that one, or start this one with"
                    " --standby to take over when it ends"
                )
            if self.stopped():
                raise RunError(f"stopped while waiting for the coordinator {other}")
            threading.Event().wait(min(LOOK_SECONDS, self.seconds / 4))

    def check(self, db: Connection) -> None:
        """Begins a transaction: nobody else can take over until it has ended.

        Raises:
            Refusal: 503, the lease is another's; nothing may be written.
        """
        row = db.execute(_READ).first()
        if row is None or row.holder != self.holder:
            other = NOBODY if row is None else row.holder
            raise Refusal(503, ANOTHER, f"another coordinator has taken over ({other or 'by hand'}): ask it")
        now = _now(db)
        if row.expires - now < self.seconds * 2 / 3:
            db.execute(update(leases).where(_ROW).values(expires=now + self.seconds))

    def give_back(self, engine: Engine) -> None:
        """Lets the next coordinator begin at once."""
        mine = update(leases).where(_ROW, leases.c.holder == self.holder)
        with engine.begin() as db:
            db.execute(mine.values(holder=NOBODY, expires=0.0))

    def _try(self, engine: Engine) -> tuple[str, float] | None:
        """Takes the lease if it is free; otherwise returns who holds it, and until when."""
        with contextlib.suppress(IntegrityError), engine.begin() as db:
            row, now = db.execute(_READ).first(), _now(db)
            if row is not None and row.holder not in (NOBODY, self.holder) and row.expires >= now:
                return str(row.holder), float(row.expires)
            mine = {"holder": self.holder, "expires": now + self.seconds}
            if row is None:
                db.execute(insert(leases).values(name=_NAME, **mine))
            else:
                db.execute(update(leases).where(_ROW).values(**mine))
            return None
        return "which began at the same moment", 0.0


@dataclass(frozen=True)
class Beside:
    """A worker's place in the queue for its database: it claims nothing, and writes when nobody else does.

    Attributes:
        beat_seconds: A worker that has nothing to write looks as often what the round master has published.
        stopped: Asked while waiting for a round master to have begun; ends it.
    """

    beat_seconds: float = 0.5
    stopped: Callable[[], bool] = lambda: False

    def take(self, engine: Engine) -> None:
        """Returns once a round master has published what workers answer by.

        Raises:
            RunError: The waiting was stopped.
        """
        look = select(published.c.version)
        while True:
            with contextlib.suppress(ProgrammingError), engine.connect() as db:  # the tables may not be there yet
                if db.execute(look).first() is not None:
                    return
            if self.stopped():
                raise RunError("stopped while waiting for a round master to begin in this database")
            threading.Event().wait(self.beat_seconds)

    def check(self, db: Connection) -> None:
        """Begins a transaction: no other process writes until it has ended.

        Raises:
            Refusal: 503, there is no row to hold; nothing may be written.
        """
        if db.execute(_READ).first() is None:
            raise Refusal(503, ANOTHER, "nobody leads this database any more: try again later")

    def give_back(self, engine: Engine) -> None:
        """There is nothing to give back."""


def _now(db: Connection) -> float:
    return float(db.execute(select(_NOW[db.dialect.name])).scalar_one())
