"""What the coordinator must not forget: a database of who was asked and who answered, and the packets themselves.

A transaction's packets are on disk before it commits, so a receipt that was given is never without its packet; a crash
between the two leaves packets that nobody was promised, which the next start deletes.
"""

from __future__ import annotations

import contextlib
import secrets
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from sqlalchemy import URL, Connection, Engine, create_engine, event, insert, make_url, select
from sqlalchemy.exc import ArgumentError, DatabaseError
from sqlalchemy.pool import SingletonThreadPool

from fl_mobile.coordinator.blobs import Blobs
from fl_mobile.coordinator.lease import Beside, Lease
from fl_mobile.coordinator.tables import SCHEMA, attempts, facts, metadata, rounds
from fl_mobile.errors import ConfigError, RunError


@dataclass
class Transaction:
    """One transaction: reads and writes rows, and packets that are to be kept with them.

    Attributes:
        packets: SHA-256 → bytes, stored before the rows are.
    """

    db: Connection
    packets: dict[str, bytes] = field(default_factory=dict)


class Store:
    """The database of one run and its packets.

    Args:
        url: Of SQLAlchemy; ``sqlite://`` lives in memory.
        packets: Where they lie.
        lease: What nobody else may hold meanwhile, or whose holder may be anybody; None where nobody else can write.
        began: Is called at the start of every transaction.

    Raises:
        ConfigError: The URL names no database that can be used.
        RunError: The database is damaged, of another version, another's, or lacks packets that it promises.
    """

    def __init__(
        self,
        url: str,
        packets: Blobs,
        lease: Lease | Beside | None = None,
        began: Callable[[Transaction], None] = lambda tx: None,
    ) -> None:
        self.packets, self._engine, self._lease, self._began = packets, _engine(url), lease, began
        self._where = self._engine.url.render_as_string(hide_password=True).removeprefix("sqlite:///")
        try:
            self._check_whole()
            if not isinstance(lease, Beside):
                metadata.create_all(self._engine)
            if lease is not None:
                lease.take(self._engine)
            with self._engine.begin() as db:
                tx = self._locked(db)
                self.run, self.secret = self._facts(tx)
                self.packets = packets.of_run(self.run)
                if not isinstance(lease, Beside):
                    self._check_packets(tx)
        except DatabaseError as error:
            self.close()
            raise RunError(f"{self._where}: {self._what_is_wrong(error)}") from None
        except BaseException:
            self.close()
            raise

    @contextlib.contextmanager
    def transaction(self) -> Iterator[Transaction]:
        """Commits what the block did, packets first; an exception undoes all of it.

        Raises:
            OSError, sqlalchemy.exc.OperationalError: The disk refused; nothing was done.
            Refusal: Another coordinator has the lease; nothing was done.
        """
        with self._engine.begin() as db:
            tx = self._locked(db)
            self._began(tx)
            yield tx
            if tx.packets:
                self.packets.put_all(tx.packets)

    @property
    def beat_seconds(self) -> float | None:
        """A transaction is due as often, to keep the lease; None if none is."""
        return None if self._lease is None else self._lease.beat_seconds

    def close(self) -> None:
        """Closes the database."""
        if self._lease is not None:
            with contextlib.suppress(DatabaseError):  # it ends by itself
                self._lease.give_back(self._engine)
        self._engine.dispose()

    def _locked(self, db: Connection) -> Transaction:
        if self._lease is not None:
            self._lease.check(db)
        return Transaction(db)

    def _facts(self, tx: Transaction) -> tuple[str, bytes]:
        known: dict[str, str] = {row.name: row.value for row in tx.db.execute(select(facts))}
        if not known:
            known = {"schema": str(SCHEMA), "run": secrets.token_hex(8), "secret": secrets.token_hex(32)}
            tx.db.execute(insert(facts), [{"name": name, "value": value} for name, value in known.items()])
        if known.get("schema") != str(SCHEMA):
            raise RunError(
                f"{self._where}: tables of version {known.get('schema')}, this fl-mobile reads {SCHEMA}. Continue the"
                " run with the version that made it, or start again with another --out."
            )
        return known["run"], bytes.fromhex(known["secret"])

    def _check_whole(self) -> None:
        if self._engine.dialect.name == "sqlite":
            with self._engine.connect() as db:
                told = db.exec_driver_sql("PRAGMA quick_check(1)").scalar()
            if told != "ok":
                raise RunError(f"{self._where}: the database is damaged ({told}). Restore it from a backup.")

    def _what_is_wrong(self, error: DatabaseError) -> str:
        told = " ".join(str(error.orig).split())
        if self._engine.dialect.name == "sqlite":
            return f"the database is damaged ({told}). Restore it from a backup."
        return f"the database cannot be used ({told}). Look at --database, and whether the server is up."

    def _check_packets(self, tx: Transaction) -> None:
        wanted = set(promised(tx.db))
        if missing := self.packets.missing(wanted):
            raise RunError(
                f"{self.packets.path(missing[0])}: missing, one of {len(missing)} packets that have receipts."
                " Restore the folder from the same backup as the database."
            )
        self.packets.keep_only(wanted)


def promised(db: Connection) -> list[str]:
    """Returns the SHA-256 of every packet that counts in a step that is not made yet."""
    made = select(rounds.c.round).where(rounds.c.state == "done")
    counts = select(attempts.c.sha256).where(attempts.c.reason == "", attempts.c.step.not_in(made))
    return list(db.execute(counts).scalars())


def database_url(folder: Path) -> str:
    """Returns the URL of the database in a run's folder."""
    return f"sqlite:///{folder / 'coordinator.db'}"


def _engine(url: str) -> Engine:
    try:
        parsed = make_url(url)
        if parsed.drivername in ("postgresql", "postgres"):
            parsed = parsed.set(drivername="postgresql+psycopg")
        if parsed.get_backend_name() not in ("sqlite", "postgresql"):
            raise ConfigError(f"--database: expected a URL of sqlite or postgresql, got {parsed.drivername}")
        if parsed.get_backend_name() != "sqlite":
            return _postgresql(parsed)
    except ModuleNotFoundError as error:
        raise ConfigError(f"--database: PostgreSQL needs {error.name}: pip install 'fl-mobile[postgres]'") from None
    except ArgumentError:
        raise ConfigError("--database: expected postgresql://USER@HOST/NAME or sqlite:///FILE") from None
    return _sqlite(parsed)


_GIVING_UP = {
    "connect_timeout": 10,
    "keepalives_idle": 10,
    "keepalives_interval": 5,
    "keepalives_count": 3,
    "tcp_user_timeout": 30_000,  # ms
}
"""Of libpq: a server that can no longer be reached is given up after half a minute, instead of being waited for."""


def _postgresql(url: URL) -> Engine:
    engine = create_engine(url, pool_pre_ping=True, connect_args=_GIVING_UP)

    @event.listens_for(engine, "connect")
    def _set_up(connection: Any, _: Any) -> None:  # a coordinator that hangs keeps nobody from taking over
        connection.execute("SET idle_in_transaction_session_timeout = '60s'")
        connection.commit()

    return engine


def _sqlite(url: URL) -> Engine:
    in_memory = not url.database
    engine = create_engine(
        url,
        connect_args={"check_same_thread": False, "timeout": 30},
        **({"poolclass": SingletonThreadPool} if in_memory else {}),
    )

    @event.listens_for(engine, "connect")
    def _set_up(connection: Any, _: Any) -> None:
        connection.isolation_level = None  # the driver would begin by itself, later than we want it
        if not in_memory:
            connection.execute("PRAGMA journal_mode=WAL")
        connection.execute("PRAGMA synchronous=FULL")  # NORMAL may lose what was committed at a loss of power
        connection.execute("PRAGMA foreign_keys=ON")

    @event.listens_for(engine, "begin")
    def _begin(connection: Connection) -> None:
        connection.exec_driver_sql("BEGIN IMMEDIATE")

    return engine
