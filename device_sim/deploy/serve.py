"""An experiment served from first model to verified bundle: the simulator's loop, on clients that come over HTTP."""

from __future__ import annotations

import contextlib
import errno
import logging
import threading
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from device_sim.deploy.master import Master
from device_sim.deploy.opening import publish_terms
from device_sim.federation.federation import Federation
from device_sim.run.folder import RunFolder
from device_sim.run.log import Round
from device_sim.run.loop import simulate
from fl_mobile.coordinator.coordinator import DISK_SECONDS, Coordinator
from fl_mobile.coordinator.http import Tls, serving
from fl_mobile.coordinator.lease import Lease
from fl_mobile.coordinator.object_store import UNREACHABLE
from fl_mobile.coordinator.records import Limits, Pace
from fl_mobile.coordinator.worker import Worker
from fl_mobile.table import load

NO_ROOM = (errno.ENOSPC, errno.EDQUOT, UNREACHABLE)
_log = logging.getLogger("fl_mobile.coordinator")
COORDINATOR = "coordinator"
MOST_BYTES_A_COLUMN = 24
"""Of a packet of sums in base64: two float64 a column."""
SHOWN = ("round_num", "accuracy", "loss", "cohort", "accepted", "upload_bytes", "download_bytes")
SHOWN_IN_PRIVATE = SHOWN[:3]


@dataclass(frozen=True)
class Service:
    """Where and how a run is served.

    Attributes:
        database: URL of SQLAlchemy; empty is SQLite in the run folder.
        blobs: URL of what holds packets and models, see `blobs_at`; empty is the run folder.
        standby: Whether to wait for another coordinator of this database to end.
        attest: ``package.module:function`` that says whether a device may enrol, see `Attest`; empty lets everybody.
        least: Packets without which a deadline ends no round.
        seat_seconds: How long a client that was asked is waited for.
        step_seconds: How long answers to a step of a masked round are waited for, the packet apart.
        drawn: Whether the clients that the simulator would draw are asked, instead of whoever comes first.
        sums: Devices whose sums are waited for before round 1, where some are asked for; 0 is as many as a cohort.
    """

    host: str = "127.0.0.1"
    port: int = 8470
    tls: Tls | None = None
    database: str = ""
    blobs: str = ""
    standby: bool = False
    attest: str = ""
    least: int = 1
    seat_seconds: float = 3600.0
    step_seconds: float = 60.0
    drawn: bool = False
    sums: int = 0
    limits: Limits = field(default_factory=Limits)
    pace: Pace = field(default_factory=Pace)


@dataclass(frozen=True)
class Serving:
    """A run that is being served.

    Attributes:
        url: Of the coordinator.
        rounds: Finishes rounds as clients send them; those already on disk come first.
    """

    url: str
    coordinator: Coordinator
    rounds: Iterator[Round]


def coordinator_folder(folder: RunFolder) -> Path:
    """Returns where the coordinator keeps its files."""
    return folder.path / COORDINATOR


@contextlib.contextmanager
def gathering(
    folder: RunFolder, service: Service, columns: int, stopped: Callable[[], bool]
) -> Iterator[tuple[Coordinator, str]]:
    """Lets devices enrol and tell sums while the block runs; gives the coordinator, which has no terms yet, and URL.

    Args:
        columns: Of the longest question: packets of them are read.
        stopped: Asked while waiting for another coordinator to end.

    Raises:
        ConfigError, RunError: As `served`.
    """
    limits = service.limits
    longest = max(limits.json_bytes, 1024 + MOST_BYTES_A_COLUMN * columns)
    coordinator = _coordinator(folder, replace(service, limits=replace(limits, json_bytes=longest)), stopped)
    try:
        with serving(coordinator, host=service.host, port=service.port, tls=service.tls) as url:
            yield coordinator, url
    finally:
        coordinator.close()


@contextlib.contextmanager
def served(
    federation: Federation,
    folder: RunFolder,
    programs: dict[str, bytes],
    service: Service,
    *,
    stopped: Callable[[], bool] = lambda: False,
) -> Iterator[Serving]:
    """Serves a run while the block runs. The folder must be locked by this process.

    Raises:
        ConfigError: The address cannot be used.
        RunError: The coordinator's database is damaged, or does not fit the checkpoint.
    """
    coordinator = _coordinator(folder, service, stopped)
    try:
        fixed = publish_terms(federation, coordinator)
        master = Master(
            coordinator,
            {name: coordinator.blobs.put(data) for name, data in programs.items()},
            least=service.least,
            seat_seconds=service.seat_seconds,
            step_seconds=service.step_seconds,
            fixed=fixed,
            drawn=service.drawn,
            stopped=stopped,
        )
        with serving(coordinator, host=service.host, port=service.port, tls=service.tls) as url:
            yield Serving(
                url, coordinator, _shown(_patiently(lambda: simulate(federation, folder, master)), coordinator)
            )
    finally:
        coordinator.close()


@contextlib.contextmanager
def beside(
    path: Path, service: Service, *, stopped: Callable[[], bool] = lambda: False
) -> Iterator[tuple[str, Worker]]:
    """Answers clients of a run that another process plays, while the block runs; gives URL and worker.

    Args:
        path: Of the run folder that both see.

    Raises:
        ConfigError: Database or address cannot be used.
        RunError: It was stopped before a round master had begun.
    """
    worker = Worker(
        path / COORDINATOR,
        url=service.database,
        blobs=service.blobs,
        limits=service.limits,
        stopped=stopped,
        **({"attest": load("--attest", service.attest)} if service.attest else {}),
    )
    try:
        with serving(worker, host=service.host, port=service.port, tls=service.tls) as url:
            yield url, worker
    finally:
        worker.close()


def _coordinator(folder: RunFolder, service: Service, stopped: Callable[[], bool]) -> Coordinator:
    return Coordinator(
        coordinator_folder(folder),
        url=service.database,
        blobs=service.blobs,
        lease=Lease(standby=service.standby, stopped=stopped),
        limits=service.limits,
        pace=service.pace,
        **({"attest": load("--attest", service.attest)} if service.attest else {}),
    )


def _patiently(play: Callable[[], Iterator[Round]]) -> Iterator[Round]:
    """Yields rounds; while the disk is full it looks again, and goes on from the last round that is safe."""
    shown = 0
    while True:
        try:
            for done in play():
                if done.round_num >= shown:
                    shown = done.round_num + 1
                    yield done
            return
        except OSError as error:
            if error.errno not in NO_ROOM:
                raise
            _log.error("%s: %s; waiting for it", error.filename, error.strerror)
        threading.Event().wait(DISK_SECONDS)


def _shown(rounds: Iterator[Round], coordinator: Coordinator) -> Iterator[Round]:
    for done in rounds:
        line: dict[str, Any] = asdict(done)
        shown = {name: line[name] for name in (SHOWN_IN_PRIVATE if done.privacy else SHOWN)}
        coordinator.history.append(shown)
        _log.info("round done", extra={"told": shown})
        yield done
    coordinator.finish()
