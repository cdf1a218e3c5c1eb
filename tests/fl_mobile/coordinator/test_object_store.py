"""Packets and models by URL, in memory, a shared folder or S3: whole or not there, waited for while they fail."""

from __future__ import annotations

import hashlib
import threading
from pathlib import Path

import pytest

from fl_mobile.client.remote import Patience, Remote
from fl_mobile.coordinator import coordinator as coordinators
from fl_mobile.coordinator.blobs import Blobs
from fl_mobile.coordinator.coordinator import Coordinator
from fl_mobile.coordinator.core import Place
from fl_mobile.coordinator.http import serving
from fl_mobile.coordinator.object_store import UNREACHABLE, blobs_at
from fl_mobile.coordinator.records import Refusal
from fl_mobile.errors import ConfigError, RunError
from fl_mobile.protocol.terms import Blob
from tests.fl_mobile.coordinator.asking import SECONDS, ask_and_upload
from tests.fl_mobile.coordinator.s3 import S3, s3
from tests.fl_mobile.coordinator.tiny import key_of, packet_of, round_of

__all__ = ["s3"]

DATA = b"packet" * 1000
NAME = hashlib.sha256(DATA).hexdigest()


@pytest.fixture(params=["file", "memory", "s3"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """An empty store of each kind."""
    if request.param == "file":
        return f"file://{tmp_path / 'shared'}"
    if request.param == "memory":
        pytest.importorskip("fsspec", reason="fsspec is not installed: pip install 'fl-mobile[s3]'")
        return f"memory://{tmp_path.name}"
    request.getfixturevalue("s3")
    return "s3://bucket/some/where"


def at(url: str, folder: Path, run: str = "run") -> Blobs:
    return blobs_at(url, folder / "packets").of_run(run)


def test_the_laws_of_blobs_hold_wherever_they_lie(url: str, tmp_path: Path) -> None:
    blobs, others = at(url, tmp_path / "here"), at(url, tmp_path / "there", "another")
    assert blobs.missing([NAME]) == [NAME]
    assert blobs.local(NAME) is None
    assert blobs.put(DATA) == Blob(NAME, len(DATA))
    assert blobs.put(DATA) == Blob(NAME, len(DATA))
    elsewhere = at(url, tmp_path / "elsewhere")
    assert elsewhere.get(NAME) == DATA
    local = elsewhere.local(NAME)
    assert local is not None
    assert local.read_bytes() == DATA
    more = {hashlib.sha256(bytes([n])).hexdigest(): bytes([n]) for n in range(5)}
    blobs.put_all(more)
    assert blobs.missing([NAME, *more, "0" * 64]) == ["0" * 64]
    others.put(DATA)
    blobs.keep_only({NAME})
    assert blobs.missing([NAME, *more]) == sorted(more)
    assert others.get(NAME) == DATA  # a URL may be many runs'
    with pytest.raises(RunError, match="missing"):
        blobs.get("0" * 64)
    with pytest.raises(ValueError, match="no SHA-256"):
        blobs.get("../../etc/passwd")


def test_a_run_goes_on_where_another_process_left_it(url: str, tmp_path: Path) -> None:
    first = Coordinator(tmp_path / "run", blobs=url)
    first.open_round(round_of(0))
    assert ask_and_upload(first, key_of(0), 0).status == 201
    model = first.blobs.put(DATA)
    first.close()
    again = Coordinator(tmp_path / "run", blobs=url)
    again.open_round(round_of(0))
    assert [again.packet(name) for name in again.wait(seconds=0, least=1, stopped=lambda: False)] == [packet_of(0, 0)]
    with serving(again, host="127.0.0.1", port=0) as address:
        assert Remote(address, key_of(0), Patience(tries=1)).fetch(model) == DATA
    again.open_round(round_of(1))
    assert not again._store.packets.missing([])
    with pytest.raises(RunError, match="missing"):
        again.packet(hashlib.sha256(packet_of(0, 0)).hexdigest())
    again.close()


def test_a_packet_that_is_gone_is_told_at_the_start(s3: S3, tmp_path: Path) -> None:
    first = Coordinator(tmp_path, blobs="s3://bucket")
    first.open_round(round_of(0))
    assert ask_and_upload(first, key_of(0), 0).status == 201
    first.close()
    s3.held.clear()
    with pytest.raises(RunError, match="packets that have receipts"):
        Coordinator(tmp_path, blobs="s3://bucket")


@pytest.mark.parametrize("failing", ["503", "cut"])
def test_while_the_store_fails_clients_come_again_and_the_master_waits(
    s3: S3, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, failing: str
) -> None:
    monkeypatch.setattr(coordinators, "DISK_SECONDS", 0.05)
    coordinator = Coordinator(tmp_path, blobs="s3://bucket")
    coordinator.open_round(round_of(0))
    model = coordinator.blobs.put(DATA)
    s3.failing = failing
    with pytest.raises(Refusal, match="no-room") as told:
        ask_and_upload(coordinator, key_of(0), 0)
    assert told.value.status == 507
    assert isinstance(told.value.__cause__, OSError)
    assert told.value.__cause__.errno == UNREACHABLE
    with pytest.raises(OSError, match="cannot be asked now"):
        coordinator.blobs.get(model.sha256)
    with pytest.raises(Refusal, match="unknown-attempt"):
        coordinator.look_up(Place(0, 0, 0)).result(SECONDS)
    assert not [key for key in s3.held if "/packets/" in key]  # half of a packet is none
    opening = threading.Thread(target=coordinator.open_round, args=(round_of(1),), daemon=True)
    opening.start()
    opening.join(0.5)
    assert opening.is_alive()
    s3.failing = ""
    opening.join(SECONDS)
    assert not opening.is_alive()
    assert coordinator.blobs.get(model.sha256) == DATA
    assert ask_and_upload(coordinator, key_of(0), 1).status == 201
    coordinator.close()


def test_what_is_damaged_there_is_handed_to_nobody(s3: S3, tmp_path: Path) -> None:
    coordinator = Coordinator(tmp_path, blobs="s3://bucket")
    blob = coordinator.blobs.put(DATA)
    (key,) = s3.held
    s3.held[key] = DATA[:-1]
    with pytest.raises(OSError, match="another hash"):
        coordinator.blobs.local(blob.sha256)
    with pytest.raises(RunError, match="another hash"):
        coordinator.blobs.get(blob.sha256)
    coordinator.close()


@pytest.mark.parametrize(
    ("url", "told"),
    [("ftp://host/path", "whole or not there"), ("nonsense", "whole or not there"), ("file://x", "file")],
)
def test_a_store_that_cannot_be_used_is_one_line(tmp_path: Path, url: str, told: str) -> None:
    with pytest.raises(ConfigError, match=told):
        Coordinator(tmp_path, blobs=url)
