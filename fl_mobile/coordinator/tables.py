"""The coordinator's tables. SQLite holds them in one file of the run folder; PostgreSQL by URL."""

from __future__ import annotations

from sqlalchemy import (
    BigInteger,
    Column,
    Float,
    ForeignKeyConstraint,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    String,
    Table,
)

_NUMBER = BigInteger().with_variant(Integer, "sqlite")
"""What clients name has 32 bits without a sign; SQLite's INTEGER holds them, and is what it finds rows by."""

SCHEMA = 1
"""Counts up whenever a table changes its meaning."""

metadata = MetaData()

facts = Table("facts", metadata, Column("name", String(40), primary_key=True), Column("value", String, nullable=False))
"""``schema``, ``run`` (its random name) and ``secret`` (keys tokens)."""

leases = Table(
    "leases",
    metadata,
    Column("name", String(40), primary_key=True),
    Column("holder", String, nullable=False),
    Column("expires", Float, nullable=False),
)
"""``master``: the coordinator that may write, and until when by the database's clock; see `lease`."""

published = Table(
    "published",
    metadata,
    Column("name", String(40), primary_key=True),
    Column("version", BigInteger, nullable=False),
    Column("value", String, nullable=False),
)
"""``round``: what the round master has workers answer by, JSON, and how often it was written; see `published`."""

parts = Table(
    "parts",
    metadata,
    Column("round", _NUMBER, primary_key=True),
    Column("held", _NUMBER, primary_key=True),
    Column("value", String),
)
"""What clients of a round fetch that hold a version, JSON of blobs by name; null is asked for and not made yet."""

devices = Table(
    "devices",
    metadata,
    Column("device", _NUMBER, primary_key=True, autoincrement=False),
    Column("public_key", LargeBinary(32), nullable=False, unique=True),
    Column("last_ms", BigInteger, nullable=False),
)
"""Index → key, and the time that the device's newest signed request bears."""

rounds = Table(
    "rounds",
    metadata,
    Column("round", _NUMBER, primary_key=True, autoincrement=False),
    Column("state", String(10), nullable=False),
)
"""``open`` takes packets, ``sealed`` has its set of them, ``done`` is in the checkpoint."""

seats = Table(
    "seats",
    metadata,
    Column("round", _NUMBER, primary_key=True),
    Column("device", _NUMBER, primary_key=True),
    Column("expires", Float, nullable=False),
    Column("state", String(10), nullable=False),
    Column("download_bytes", BigInteger, nullable=False),
    Column("asked_in", _NUMBER, nullable=False),
)
"""A client that was asked for a version: ``asked``, ``answered`` (a packet counts), ``over`` (none will)."""

attempts = Table(
    "attempts",
    metadata,
    Column("round", _NUMBER, primary_key=True),
    Column("device", _NUMBER, primary_key=True),
    Column("attempt", _NUMBER, primary_key=True),
    Column("sha256", String(64), nullable=False),
    Column("bytes", BigInteger, nullable=False),
    Column("reason", String(40), nullable=False),
    Column("weight", BigInteger, nullable=False),
    Column("local_steps", Float, nullable=False),
    Column("step", _NUMBER, nullable=False),
    Column("place", _NUMBER, nullable=False),
    ForeignKeyConstraint(["round", "device"], ["seats.round", "seats.device"]),
)
"""One whole packet and its receipt; ``reason`` is empty if it counts, in step ``step``, as its ``place``-th."""

sums = Table(
    "sums",
    metadata,
    Column("round", _NUMBER, primary_key=True, autoincrement=False),
    Column("step", _NUMBER, nullable=False),
    Column("told", _NUMBER, nullable=False),
)
"""A round under masks: the step whose answers are taken, and the last one whose messages are here; see `sums`."""

said = Table(
    "said",
    metadata,
    Column("round", _NUMBER, primary_key=True),
    Column("step", _NUMBER, primary_key=True),
    Column("device", _NUMBER, primary_key=True),
    Column("value", LargeBinary, nullable=False),
)
"""What a client has answered in a step of a masked round; of step 0 its public key: it was there."""

told = Table(
    "told",
    metadata,
    Column("round", _NUMBER, primary_key=True),
    Column("step", _NUMBER, primary_key=True),
    Column("device", _NUMBER, primary_key=True),
    Column("sha256", String(64), nullable=False),
    Column("bytes", BigInteger, nullable=False),
)
"""What a client is told in a step of a masked round, by its hash: of a group all may be told the same."""

messages = Table(
    "messages",
    metadata,
    Column("round", _NUMBER, primary_key=True),
    Column("sha256", String(64), primary_key=True),
    Column("value", LargeBinary, nullable=False),
)

statistics = Table(
    "statistics",
    metadata,
    Column("about", String(10), primary_key=True),
    Column("device", _NUMBER, primary_key=True),
    Column("value", LargeBinary, nullable=False),
)
"""A device's sums before round 1, a packet for each question; see `statistics`."""

Index("attempts_of_a_step", attempts.c.step, attempts.c.place)
Index("seats_of_a_step", seats.c.asked_in, seats.c.state)
Index("seats_of_a_device", seats.c.device, seats.c.state)
