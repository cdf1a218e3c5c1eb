"""A round master and workers as processes that can be killed, behind an address that any of them may answer."""

from __future__ import annotations

import contextlib
import multiprocessing
import random
import socket
import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

import device_sim.deploy.serve as serve
from device_sim.experiment.toml import parse_experiment
from device_sim.run.folder import create, locked, reopen
from fl_mobile.coordinator.lease import Lease
from tests.device_sim.deploy.loopback import QUICK
from tests.device_sim.numpy_engine import numpy_federation
from tests.device_sim.rounds.test_oracle import PLAIN

SECONDS = 60.0
FORKED = multiprocessing.get_context("forkserver")
FORKED.set_forkserver_preload(["tests.device_sim.deploy.house"])


def lead(run: Path, database: str, port: int, keys: Sequence[str]) -> None:
    """Plays the rounds that are missing, and ends."""
    serve.Lease = partial(Lease, seconds=1.0)  # type: ignore[misc,assignment]  # one that was killed is soon followed
    federation = numpy_federation(parse_experiment(PLAIN, keys))
    experiment = federation.experiment
    folder = reopen(run, experiment)[0] if (run / "experiment.toml").exists() else create(run, experiment)
    service = replace(QUICK, port=port, database=database, standby=True)
    with locked(folder), serve.served(federation, folder, {}, service) as serving:
        for _ in serving.rounds:
            pass


def answer(run: Path, database: str, port: int) -> None:
    """Answers beside the master for as long as it is let."""
    with serve.beside(run, replace(QUICK, port=port, database=database)) as (_, worker):
        worker.serve(linger=SECONDS, stopped=lambda: False)


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return int(listener.getsockname()[1])


@dataclass
class House:
    """Processes by name; the first one leads.

    Attributes:
        killed: Names, in their order.
    """

    run: Path
    database: str
    keys: Sequence[str]
    workers: int = 2
    killed: list[str] = field(default_factory=list)
    _ports: dict[str, int] = field(default_factory=dict)
    _processes: dict[str, Any] = field(default_factory=dict)
    _one_by_one: threading.Lock = field(default_factory=threading.Lock)

    def begin(self) -> None:
        """Starts everybody; returns once the workers answer."""
        for name in ("master", *(f"worker {n}" for n in range(self.workers))):
            self._ports[name] = _free_port()
            self._start(name)
        for name in list(self._ports)[1:]:
            self._reach(name)

    def kill(self, name: str) -> None:
        """Kills a process as the kernel would, and starts its like; one that has ended is left alone."""
        with self._one_by_one:
            if self._processes[name].is_alive():
                self._processes[name].kill()
                self._processes[name].join(SECONDS)
                self.killed.append(name)
                self._start(name)

    def end(self) -> int | None:
        """Waits for the master to end and kills the workers; returns the master's exit code."""
        self._processes["master"].join(SECONDS)
        code = self._processes["master"].exitcode
        for process in self._processes.values():
            process.kill()
            process.join(SECONDS)
        return None if code is None else int(code)

    def connect(self, rng: random.Random) -> socket.socket | None:
        """Returns a connection to any process that listens now."""
        for port in rng.sample(list(self._ports.values()), len(self._ports)):
            with contextlib.suppress(OSError):
                return socket.create_connection(("127.0.0.1", port), timeout=SECONDS)
        return None

    def _start(self, name: str) -> None:
        place = (self.run, self.database, self._ports[name])
        target, arguments = (lead, (*place, self.keys)) if name == "master" else (answer, place)
        process = FORKED.Process(target=target, args=arguments, name=name, daemon=True)
        process.start()
        self._processes[name] = process

    def _reach(self, name: str) -> None:
        for _ in range(int(SECONDS / 0.05)):
            with contextlib.suppress(OSError):
                socket.create_connection(("127.0.0.1", self._ports[name]), timeout=1).close()
                return
            threading.Event().wait(0.05)
        raise TimeoutError(f"{name} does not listen")


@contextlib.contextmanager
def one_address(house: House, seed: int) -> Iterator[str]:
    """Passes each connection to any of the house's processes, as a proxy in front of them does; gives the URL."""
    listener, rng = socket.create_server(("127.0.0.1", 0), backlog=64), random.Random(seed)

    def pump(source: socket.socket, target: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while data := source.recv(65536):
                target.sendall(data)
        for each in (source, target):
            with contextlib.suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)

    def accept() -> None:
        with contextlib.suppress(OSError):
            while True:
                client = listener.accept()[0]
                server = house.connect(rng)
                if server is None:
                    client.close()
                    continue
                for pair in ((client, server), (server, client)):
                    threading.Thread(target=pump, args=pair, daemon=True).start()

    threading.Thread(target=accept, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"
    finally:
        listener.close()
