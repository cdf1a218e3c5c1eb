"""A PostgreSQL server for tests: a cluster of its own in a temporary folder, on a socket that nobody else can reach.

It runs as an unprivileged user, because PostgreSQL refuses to run as root. Nothing is synced: no test of ours pulls the
plug on it.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import pwd
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest

PACKAGE = Path("/usr/lib/postgresql")
REQUIRED = "FL_MOBILE_TEST_POSTGRES"
SECONDS = 60
QUIETLY = "-F -h '' -c synchronous_commit=off -c full_page_writes=off -c shared_buffers=16MB"


def programs() -> Path | None:
    """Returns the folder of the server's programs, or None if there is none here."""
    packaged = sorted(PACKAGE.glob("*/bin/initdb"))
    found = str(packaged[-1]) if packaged else shutil.which("initdb")
    return Path(found).resolve().parent if found else None


def is_missing() -> str:
    """Returns why there is no PostgreSQL here, or an empty string."""
    try:
        import psycopg  # noqa: F401
    except ImportError:
        return "psycopg is not installed: pip install 'fl-mobile[postgres]'"
    return "" if programs() else "PostgreSQL is not installed: apt-get install postgresql"


@dataclass
class Server:
    """A server that is up; gives empty databases.

    Attributes:
        folder: Of its socket and its cluster.
    """

    folder: Path
    _numbers: Iterator[int] = field(default_factory=itertools.count)

    def empty(self) -> str:
        """Returns the URL of a schema that has no tables."""
        import psycopg

        name = f"test_{next(self._numbers)}"
        with psycopg.connect(host=str(self.folder), user="tests", dbname="postgres", autocommit=True) as db:
            db.execute(f"CREATE SCHEMA {name}")  # type: ignore[arg-type]
        return f"postgresql://tests@/postgres?host={quote(str(self.folder))}&options=-csearch_path%3D{name}"


@contextlib.contextmanager
def running() -> Iterator[Server]:
    """Gives a server while the block runs."""
    where, nobody = programs(), pwd.getpwnam("nobody")
    assert where is not None
    folder = Path(tempfile.mkdtemp(prefix="pg-", dir="/tmp"))
    user: dict[str, Any] = {}
    if os.geteuid() == 0:
        os.chown(folder, nobody.pw_uid, nobody.pw_gid)
        user = {"user": nobody.pw_uid, "group": nobody.pw_gid, "extra_groups": []}

    def run(program: str, *arguments: object) -> None:
        command = [str(where / program), *map(str, arguments)]
        with open(folder / "told", "ab") as told:  # a pipe would stay open as long as the server does
            done = subprocess.run(command, cwd=folder, stdout=told, stderr=told, timeout=SECONDS, **user)
        assert done.returncode == 0, (folder / "told").read_text()

    try:
        run("initdb", "-D", folder / "data", "-U", "tests", "-A", "trust", "--no-sync", "-E", "UTF8", "--locale=C")
        run("pg_ctl", "-D", folder / "data", "-o", f"{QUIETLY} -k {folder}", "-w", "-l", folder / "log", "start")
        try:
            yield Server(folder)
        finally:
            run("pg_ctl", "-D", folder / "data", "-m", "immediate", "-w", "stop")
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(scope="session")
def postgres() -> Iterator[Server]:
    """A server for all tests of a session; where there is none, they are skipped by name, and CI fails."""
    if why := is_missing():
        (pytest.fail if os.environ.get(REQUIRED) == "required" else pytest.skip)(why)
    with running() as server:
        yield server


@pytest.fixture(params=["sqlite", "postgresql"])
def database(request: pytest.FixtureRequest) -> str:
    """The URL of an empty database, one kind after the other; empty is SQLite in the coordinator's folder."""
    return "" if request.param == "sqlite" else request.getfixturevalue("postgres").empty()
