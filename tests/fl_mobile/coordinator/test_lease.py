"""One coordinator writes a database: a second is refused or waits, and one that was taken for dead commits nothing."""

from __future__ import annotations

import threading
import time
from pathlib import Path

import pytest
from sqlalchemy import select

from fl_mobile.coordinator.coordinator import Coordinator
from fl_mobile.coordinator.core import Place
from fl_mobile.coordinator.lease import Lease
from fl_mobile.coordinator.records import Refusal
from fl_mobile.coordinator.store import _engine
from fl_mobile.coordinator.tables import attempts, leases, metadata
from fl_mobile.coordinator.writer import AtOnce
from fl_mobile.errors import RunError
from tests.fl_mobile.coordinator.asking import SECONDS, ask_and_upload, enrol
from tests.fl_mobile.coordinator.tiny import key_of, packet_of, round_of


@pytest.fixture
def url(database: str, tmp_path: Path) -> str:
    return database or f"sqlite:///{tmp_path / 'shared.db'}"


def test_a_second_is_refused_by_name_while_the_first_is_alive_and_idle(tmp_path: Path, url: str) -> None:
    lease = Lease(seconds=0.6)
    first = Coordinator(tmp_path, url=url, lease=lease)
    began = time.monotonic()
    with pytest.raises(RunError, match=f"another coordinator .{lease.holder}.*--standby"):
        Coordinator(tmp_path, url=url, lease=Lease(seconds=0.6))
    assert time.monotonic() - began < SECONDS
    assert enrol(first, key_of(0)) == 0
    first.close()
    second = Coordinator(tmp_path, url=url, lease=Lease(seconds=600))  # given back: nothing to wait for
    assert second.seen(None)[0] == 1
    second.close()


def test_a_standby_takes_over_when_the_first_ends(tmp_path: Path, url: str) -> None:
    first = Coordinator(tmp_path, url=url, lease=Lease(seconds=600))
    took: list[Coordinator] = []
    waiting = Lease(seconds=600, standby=True)
    thread = threading.Thread(target=lambda: took.append(Coordinator(tmp_path, url=url, lease=waiting)), daemon=True)
    thread.start()
    thread.join(1.5)
    assert thread.is_alive()
    assert not took
    first.close()
    thread.join(SECONDS)
    assert enrol(took[0], key_of(0)) == 0
    took[0].close()


def test_waiting_can_be_stopped(tmp_path: Path, url: str) -> None:
    first = Coordinator(tmp_path, url=url, lease=Lease(seconds=600))
    with pytest.raises(RunError, match="stopped while waiting"):
        Coordinator(tmp_path, url=url, lease=Lease(standby=True, stopped=lambda: True))
    first.close()


def test_one_that_was_taken_for_dead_commits_nothing(tmp_path: Path, url: str) -> None:
    dead = Coordinator(tmp_path, url=url, lease=Lease(seconds=0.3), writer=AtOnce)  # nothing renews it between requests
    dead.open_round(round_of(0))
    assert ask_and_upload(dead, key_of(0), 0).status == 201
    heir = Coordinator(tmp_path, url=url, lease=Lease(seconds=600))
    heir.open_round(round_of(0))
    with pytest.raises(Refusal, match="another-master") as told:
        dead.upload(Place(0, 0, 0), packet_of(0, 0)).result(SECONDS)
    assert told.value.status == 503
    with pytest.raises(RunError, match="was taken for dead"):
        dead.wait(seconds=0, least=0, stopped=lambda: False)
    dead.close()  # gives nothing back that is not its own
    assert heir.upload(Place(0, 0, 0), packet_of(0, 0)).result(SECONDS).body["receipt"]["accepted"]
    assert len(heir.wait(seconds=0, least=1, stopped=lambda: False)) == 1
    heir.close()


def test_a_transaction_that_is_under_way_holds_the_lease_to_its_end(tmp_path: Path, url: str) -> None:
    """The lease runs out while its holder is in the middle: the heir waits, and sees all that was committed."""
    holder = Coordinator(tmp_path, url=url, lease=Lease(seconds=0.3))
    began, go = threading.Event(), threading.Event()

    def work(tx: object) -> bool:
        began.set()
        return go.wait(SECONDS)

    done = holder._writer.submit(work)
    assert began.wait(SECONDS)
    heirs: list[Coordinator] = []
    thread = threading.Thread(
        target=lambda: heirs.append(Coordinator(tmp_path, url=url, lease=Lease(seconds=600, standby=True))), daemon=True
    )
    thread.start()
    thread.join(1.0)
    assert not heirs
    go.set()
    assert done.result(SECONDS)
    holder.close()
    thread.join(SECONDS)
    heirs[0].close()


def test_of_many_that_begin_at_once_one_has_it(url: str) -> None:
    engines = [_engine(url) for _ in range(6)]
    metadata.create_all(engines[0])
    leases_ = [Lease(seconds=600) for _ in engines]
    got: list[str] = []

    def take(at: int) -> None:
        if leases_[at]._try(engines[at]) is None:
            got.append(leases_[at].holder)

    threads = [threading.Thread(target=take, args=(at,), daemon=True) for at in range(len(engines))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(SECONDS)
    with engines[0].begin() as db:
        assert [db.execute(select(leases.c.holder)).scalar_one()] == got
        assert not db.execute(select(attempts)).all()
    for engine in engines:
        engine.dispose()
