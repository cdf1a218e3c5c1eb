"""What the coordinator must not forget, and how it says so when it was made to."""

from __future__ import annotations

import errno
from collections.abc import Mapping
from pathlib import Path

import pytest
from sqlalchemy import create_engine, text

from fl_mobile.coordinator import core
from fl_mobile.coordinator.blobs import Blobs
from fl_mobile.coordinator.coordinator import Coordinator
from fl_mobile.coordinator.core import Place
from fl_mobile.coordinator.records import Refusal
from fl_mobile.coordinator.store import Store, Transaction, _engine, database_url
from fl_mobile.errors import FlMobileError, RunError
from tests.fl_mobile.coordinator.asking import SECONDS, ask_and_upload
from tests.fl_mobile.coordinator.tiny import key_of, packet_of, round_of
from tests.postgres import Server


def counted(folder: Path, database: str = "") -> Coordinator:
    """A coordinator in whose round 0 one packet counts."""
    coordinator = Coordinator(folder, url=database)
    coordinator.open_round(round_of(0))
    assert ask_and_upload(coordinator, key_of(0), 0).status == 201
    return coordinator


def test_a_restart_knows_the_packet_and_its_place_and_the_run(tmp_path: Path, database: str) -> None:
    first = counted(tmp_path, database)
    run = first.run
    first.close()
    again = Coordinator(tmp_path, url=database)
    again.open_round(round_of(0))
    assert again.run == run
    assert again.look_up(Place(0, 0, 0)).result(SECONDS).body["receipt"]["accepted"]
    packets = again.wait(seconds=0, least=1, stopped=lambda: False)
    assert [again.packet(name) for name in packets] == [packet_of(0, 0)]
    again.close()


def test_packets_of_a_finished_round_are_gone_and_its_receipts_are_not(tmp_path: Path, database: str) -> None:
    coordinator = counted(tmp_path, database)
    coordinator.open_round(round_of(1))
    assert not [p for p in (tmp_path / "packets").rglob("*") if p.is_file()]
    assert coordinator.look_up(Place(0, 0, 0)).result(SECONDS).body["receipt"]["accepted"]
    with pytest.raises(RunError, match="same backup"):
        coordinator.open_round(round_of(0))
    coordinator.close()


@pytest.mark.parametrize("harm", ["blob", "version"])
def test_damage_is_found_at_the_start(tmp_path: Path, database: str, harm: str) -> None:
    counted(tmp_path, database).close()
    if harm == "blob":
        next(p for p in (tmp_path / "packets").rglob("*") if p.is_file()).unlink()
    else:
        with _engine(database or database_url(tmp_path)).begin() as db:
            db.execute(text("update facts set value = '99' where name = 'schema'"))
    with pytest.raises(RunError, match=r"[Rr]estore|version"):
        Coordinator(tmp_path, url=database)


def test_a_damaged_page_is_found_at_the_start(tmp_path: Path) -> None:
    counted(tmp_path).close()
    path = tmp_path / "coordinator.db"
    whole = bytearray(path.read_bytes())
    whole[4096 : 3 * 4096] = b"\xa5" * 2 * 4096
    path.write_bytes(whole)
    with pytest.raises(RunError, match="Restore"):
        Coordinator(tmp_path)


@pytest.mark.parametrize(
    ("url", "told"),
    [
        ("mysql://x/y", "expected a URL of sqlite or postgresql"),
        ("nonsense", "expected postgresql://USER@HOST/NAME"),
        ("postgresql://somebody:secret@127.0.0.1:1/none", "cannot be used"),
    ],
)
def test_a_database_that_cannot_be_used_is_one_line_without_its_password(tmp_path: Path, url: str, told: str) -> None:
    if url.startswith("postgresql"):
        pytest.importorskip("psycopg")
    with pytest.raises(FlMobileError, match=told) as error:
        Coordinator(tmp_path, url=url)
    assert "secret" not in str(error.value)
    assert "\n" not in str(error.value)


def test_numbers_of_32_bits_and_words_of_any_bytes_are_looked_up_and_not_found(tmp_path: Path, database: str) -> None:
    coordinator = counted(tmp_path, database)
    for place in (Place(2**32 - 1, 0, 0), Place(0, 2**32 - 1, 0), Place(0, 0, 2**32 - 1)):
        with pytest.raises(Refusal) as told:
            coordinator.upload(place, b"\x00").result(SECONDS)
        assert told.value.status in (404, 409)
    coordinator.close()


def test_a_database_server_that_goes_away_is_told_and_asked_again(tmp_path: Path, postgres: Server) -> None:
    coordinator = counted(tmp_path, postgres.empty())
    writer = coordinator._writer

    def cut(tx: Transaction) -> None:
        tx.db.exec_driver_sql("insert into devices values (1, '1', 0)")
        tx.db.exec_driver_sql("select pg_terminate_backend(pg_backend_pid())")

    with pytest.raises(Refusal, match="no-room") as told:
        writer.submit(cut).result(SECONDS)
    assert told.value.status == 507
    assert coordinator.seen(0) == (1, coordinator.counts(0))
    assert coordinator.counts(0).packets == 1
    coordinator.close()


class Full(Blobs):
    """A disk that takes nothing while ``full``."""

    full = False

    def put_all(self, named: Mapping[str, bytes]) -> None:
        if Full.full:
            raise OSError(errno.ENOSPC, "No space left on device")
        super().put_all(named)


def test_a_full_disk_is_told_to_clients_and_nothing_of_it_stays(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("fl_mobile.coordinator.object_store.Blobs", Full)
    coordinator = Coordinator(tmp_path)
    coordinator.open_round(round_of(0))
    monkeypatch.setattr(Full, "full", True)
    with pytest.raises(Refusal, match="no-room") as told:
        ask_and_upload(coordinator, key_of(0), 0)
    assert told.value.status == 507
    monkeypatch.setattr(Full, "full", False)
    with pytest.raises(Refusal, match="unknown-attempt"):
        coordinator.look_up(Place(0, 0, 0)).result(SECONDS)
    assert coordinator.upload(Place(0, 0, 0), packet_of(0, 0)).result(SECONDS).status == 201
    coordinator.close()


def test_a_fault_of_ours_in_one_request_takes_no_other_with_it(tmp_path: Path, database: str) -> None:
    coordinator = counted(tmp_path, database)
    writer = coordinator._writer

    def fails(tx: object) -> None:
        raise ZeroDivisionError

    futures = [writer.submit(work) for work in (lambda tx: 1, fails, lambda tx: core.packets_of(tx.db, 0))]
    assert futures[0].result(SECONDS) == 1
    with pytest.raises(ZeroDivisionError):
        futures[1].result(SECONDS)
    assert len(futures[2].result(SECONDS)) == 1
    coordinator.close()


def test_the_packet_is_on_disk_before_its_row_is(tmp_path: Path) -> None:
    store = Store(database_url(tmp_path), Blobs(tmp_path / "packets"))
    seen = []

    class Watched(Blobs):
        def put_all(self, named: Mapping[str, bytes]) -> None:
            seen.append(
                create_engine(database_url(tmp_path)).connect().execute(text("select count(*) from devices")).scalar()
            )
            super().put_all(named)

    store.packets = Watched(tmp_path / "packets")
    with store.transaction() as tx:
        tx.db.execute(text("insert into devices values (0, x'00', 0)"))
        tx.packets["a" * 64] = b"packet"
    assert seen == [0]
    store.close()
