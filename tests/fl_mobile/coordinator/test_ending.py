"""Whatever ends - a request, the writer, the HTTP server, the coordinator - nobody waits for it for ever."""

from __future__ import annotations

import asyncio
import http.client
import threading
import time
from concurrent.futures import Future
from pathlib import Path
from typing import Any

import pytest
import uvicorn

from fl_mobile.coordinator import http as served_over
from fl_mobile.coordinator import writer as writers
from fl_mobile.coordinator.coordinator import Coordinator
from fl_mobile.coordinator.core import Place
from fl_mobile.coordinator.http import serving
from fl_mobile.coordinator.records import Refusal
from fl_mobile.errors import RunError
from tests.fl_mobile.coordinator.asking import SECONDS, ask_and_upload
from tests.fl_mobile.coordinator.tiny import key_of, round_of


class Held:
    """A writer that is at work until it is let go."""

    def __init__(self, coordinator: Coordinator) -> None:
        self.writer, self.go, began = coordinator._writer, threading.Event(), threading.Event()

        def work(tx: object) -> bool:
            began.set()
            return self.go.wait(SECONDS)

        self.done = self.writer.submit(work)
        assert began.wait(SECONDS)


def test_who_no_longer_waits_for_a_receipt_takes_the_writer_from_nobody(tmp_path: Path) -> None:
    coordinator = Coordinator(tmp_path)
    held = Held(coordinator)
    left, stays = (held.writer.submit(lambda tx: 7) for _ in range(2))
    assert not left.cancel()
    held.go.set()
    assert (left.result(SECONDS), stays.result(SECONDS)) == (7, 7)
    coordinator.close()


def test_a_request_after_the_end_is_told_so(tmp_path: Path) -> None:
    coordinator = Coordinator(tmp_path)
    coordinator.close()
    with pytest.raises(Refusal, match="ended") as told:
        coordinator.look_up(Place(0, 0, 0)).result(SECONDS)
    assert told.value.status == 503
    coordinator.close()  # twice is once


@pytest.mark.filterwarnings("ignore:Exception in thread coordinator-writer")
def test_a_writer_that_dies_leaves_nobody_waiting(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    coordinator = Coordinator(tmp_path)
    coordinator.open_round(round_of(0))
    held = Held(coordinator)
    real = writers.Writer._commit

    def dies(self: writers.Writer, batch: Any) -> None:
        real(self, batch)
        raise SystemExit

    monkeypatch.setattr(writers.Writer, "_commit", dies)
    waiting: Future[int] = held.writer.submit(lambda tx: 7)
    held.go.set()
    assert waiting.result(SECONDS) == 7
    held.writer._thread.join(SECONDS)
    with pytest.raises(Refusal, match="ended"):
        coordinator.wait(seconds=None, least=1, stopped=lambda: False)
    coordinator.close()


def test_a_disk_that_does_not_return_is_told_at_the_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    coordinator = Coordinator(tmp_path)
    held = Held(coordinator)
    monkeypatch.setattr(writers, "CLOSE_SECONDS", 0.05)
    with pytest.raises(RunError, match="did not take what was waiting"):
        coordinator.close()
    held.go.set()
    held.writer._thread.join(SECONDS)
    coordinator.close()


def test_the_master_hears_that_the_http_server_has_ended(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    coordinator, go = Coordinator(tmp_path), threading.Event()
    coordinator.open_round(round_of(0))
    real = uvicorn.Server.on_tick

    async def on_tick(self: uvicorn.Server, counter: int) -> bool:
        if go.is_set():
            raise ZeroDivisionError
        return await real(self, counter)

    monkeypatch.setattr(uvicorn.Server, "on_tick", on_tick)
    with serving(coordinator, host="127.0.0.1", port=0):
        go.set()
        with pytest.raises(RunError, match="HTTP server ended by itself: ZeroDivisionError"):
            coordinator.wait(seconds=None, least=1, stopped=lambda: False)
    coordinator.close()


def opened(url: str, body: bytes, length: int) -> http.client.HTTPConnection:
    """A request of which ``body`` has come and ``length`` bytes are to come."""
    connection = http.client.HTTPConnection(url.removeprefix("http://"), timeout=SECONDS)
    connection.putrequest("POST", "/v1/devices")
    connection.putheader("Content-Length", str(length))
    connection.endheaders(body)
    return connection


def test_the_server_ends_while_requests_are_open(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(served_over, "GRACE_SECONDS", 1)
    coordinator = Coordinator(tmp_path)
    coordinator.open_round(round_of(0))
    with serving(coordinator, host="127.0.0.1", port=0) as url:
        half = opened(url, b"{", 1000)
        held = Held(coordinator)
        page = http.client.HTTPConnection(url.removeprefix("http://"), timeout=SECONDS)
        page.request("GET", f"/v1/blobs/{'0' * 64}")
        assert page.getresponse().status == 404
        began = time.monotonic()
        threading.Timer(2.0, held.go.set).start()
        page.request("GET", "/metrics")  # asks the writer, who is at work for longer than the server waits
    assert time.monotonic() - began < SECONDS
    for connection in (half, page):
        connection.close()
    assert ask_and_upload(coordinator, key_of(0), 0).status == 201  # the writer is alive
    coordinator.close()


def test_a_server_that_does_not_end_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async def shutdown(self: uvicorn.Server, sockets: object = None) -> None:
        await asyncio.sleep(1)

    monkeypatch.setattr(uvicorn.Server, "shutdown", shutdown)
    monkeypatch.setattr(served_over, "END_SECONDS", 0.3)
    coordinator = Coordinator(tmp_path)
    with (
        pytest.raises(RunError, match=r"did not end within 0\.3 s"),
        serving(coordinator, host="127.0.0.1", port=0),
    ):
        pass
    coordinator.close()
