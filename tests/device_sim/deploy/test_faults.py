"""A served run broken at any file-system call ends, run again, with the model that nothing happened to."""

from __future__ import annotations

import contextlib
import errno
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import device_sim.deploy.serve as serve
from device_sim.experiment.toml import parse_experiment
from device_sim.run.folder import create
from fl_mobile.coordinator import core
from fl_mobile.coordinator.store import Store, Transaction
from tests.device_sim.broken_fork import strace_is_missing
from tests.device_sim.deploy.fault_sweep import Sweep, points, sweeping
from tests.device_sim.deploy.loopback import on, serve_and_play
from tests.device_sim.deploy.test_deployed import SOME
from tests.device_sim.numpy_engine import numpy_federation
from tests.device_sim.rounds.test_oracle import PLAIN
from tests.postgres import Server


@pytest.mark.parametrize("most", [12, pytest.param(10**6, marks=pytest.mark.slow)])
def test_broken_anywhere_it_ends_with_the_same_model_and_receipts(most: int) -> None:
    if why := strace_is_missing():
        pytest.skip(why)
    with sweeping() as sweep:
        assert not broken(sweep, most, least=1000)


@pytest.mark.slow
def test_nor_does_it_with_its_rows_in_postgresql(postgres: Server) -> None:
    if why := strace_is_missing():
        pytest.skip(why)
    with sweeping(postgres.empty) as sweep:
        assert not broken(sweep, 10**6, least=500)


def broken(sweep: Sweep, most: int, least: int) -> list[tuple[str, str, str]]:
    """Returns the points, of ``most`` that are drawn from all, at which a law is broken."""
    every = points(sweep.calls())
    assert len(every) > least
    chosen = random.Random(1).sample(every, min(most, len(every)))
    return [(fault, call.text, wrong) for call, fault in chosen if (wrong := sweep.wrong(call, fault))]


@contextlib.contextmanager
def packets_after_rows(self: Store) -> Iterator[Transaction]:
    """A `Store.transaction` that writes packets when their receipts are safe already."""
    with self._engine.begin() as db:
        tx = Transaction(db)
        yield tx
    self.packets.put_all(tx.packets)


def settled_afterwards(tx: Transaction, *arguments: Any) -> None:
    """A `core._settle` in a transaction after the one that took the packet."""
    tx.db.exec_driver_sql("COMMIT")
    tx.db.exec_driver_sql("BEGIN IMMEDIATE")
    settle(tx, *arguments)


PLANTED = {
    "packets after rows": (Store, "transaction", packets_after_rows, "packets/"),
    "a commit in two": (core, "_settle", settled_afterwards, "coordinator.db-wal"),
}
settle = core._settle


@pytest.mark.slow
@pytest.mark.parametrize("bug", PLANTED)
def test_it_catches_a_promise_that_is_given_too_early(monkeypatch: pytest.MonkeyPatch, bug: str) -> None:
    if why := strace_is_missing():
        pytest.skip(why)
    where, name, planted, touched = PLANTED[bug]
    monkeypatch.setattr(where, name, planted)
    with sweeping() as sweep:
        killed = [call for call, fault in points(sweep.calls()) if fault == "kill -9" and touched in call.text]
        assert any(sweep.wrong(call, "kill -9") for call in killed)


def test_a_run_waits_while_its_disk_is_full_and_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    federation = numpy_federation(parse_experiment(PLAIN, SOME))
    folder = create(tmp_path / "run", federation.experiment)
    real, full = serve.simulate, iter([True, True])

    def simulate(*arguments: object) -> object:
        for done in real(*arguments):  # type: ignore[arg-type]
            yield done
            if done.round_num == 1 and next(full, False):
                raise OSError(errno.ENOSPC, "No space left on device", str(folder.checkpoint))

    monkeypatch.setattr(serve, "simulate", simulate)
    monkeypatch.setattr(serve, "DISK_SECONDS", 0.01)
    rounds, visits = serve_and_play(federation, folder, tmp_path / "clients", train=on(federation.engine))
    assert [r.round_num for r in rounds] == [0, 1, 2, 3]
    assert visits == {"accepted": 16}
