"""Between client and coordinator everything can break: a packet counts once, and a blob is whole or none."""

from __future__ import annotations

import contextlib
import itertools
import socket
import threading
import time
from collections.abc import Iterator

import numpy as np
import pytest

from fl_mobile.client.remote import Patience, Remote, Unreachable
from fl_mobile.protocol.terms import Blob
from tests.fl_mobile.coordinator.proxy import KINDS, Fault, failing
from tests.fl_mobile.coordinator.test_web import Served, opened, path_of, served
from tests.fl_mobile.coordinator.tiny import key_of, packet_of

__all__ = ["opened", "served"]

PATIENCE = Patience(tries=6, first_seconds=0.01, timeout_seconds=0.5)
PLACES = {"head": 20, "body": 330, "answer": 150}
"""Bytes of an upload's connection at which something happens: its head has some 300, the packet 56."""


def through(served: Served, url: str) -> Remote:
    remote = Remote(url, key_of(0), PATIENCE)
    remote.run, remote.device = served.coordinator.run, 0
    return remote


NOT_ITS_OWN = {("damage", "head"), ("damage", "answer")}
"""Without TLS, a damaged head is another request, and a damaged answer is told as such: the next visit asks again."""


@pytest.mark.parametrize(
    ("kind", "place"), [case for case in itertools.product(KINDS, PLACES) if case not in NOT_ITS_OWN]
)
def test_an_upload_counts_once_whatever_the_network_does(opened: Served, kind: str, place: str) -> None:
    told = opened.assignment(opened.client(0))
    packet = packet_of(told["device"], told["round"])
    fault = Fault(kind, place != "answer", PLACES[place])
    with failing(opened.address, [fault, fault]) as proxy:
        remote = through(opened, proxy.url)
        status, answer = remote.send(path_of(told), packet, told["token"])
        remote.close()
        assert proxy.met
    assert status in (200, 201)
    assert answer["receipt"]["accepted"]
    assert opened.coordinator.counts(told["round"]).packets == 1


@pytest.mark.parametrize("kind", KINDS)
def test_a_blob_comes_whole_whatever_the_network_does(opened: Served, kind: str) -> None:
    data = np.random.default_rng(0).bytes(300_000)
    blob = opened.coordinator.blobs.put(data)
    with failing(opened.address, [Fault(kind, False, at) for at in (100_000, 150_000)]) as proxy:
        remote = through(opened, proxy.url)
        assert remote.fetch(blob) == data
        remote.close()
        assert proxy.met


HEAD = b"HTTP/1.1 200 OK\r\ncontent-length: 300\r\n\r\n"


@contextlib.contextmanager
def trickling(at_once: bytes) -> Iterator[str]:
    """A server that answers so much at once, and then a byte every hundredth of a second, for ever."""
    listener, over = socket.create_server(("127.0.0.1", 0)), threading.Event()

    def serve(client: socket.socket) -> None:
        with contextlib.suppress(OSError), client:
            client.recv(65536)
            client.sendall(at_once)
            while not over.wait(0.01):
                client.sendall(b"x")

    def accept() -> None:
        with contextlib.suppress(OSError):
            while True:
                threading.Thread(target=serve, args=(listener.accept()[0],), daemon=True).start()

    threading.Thread(target=accept, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"
    finally:
        over.set()
        listener.close()


@pytest.mark.parametrize("at_once", [HEAD, b"HTTP/1.1 200 OK\r\nfl-slow: "], ids=["body", "head"])
def test_a_server_that_trickles_is_as_good_as_a_silent_one(at_once: bytes) -> None:
    """Every byte comes within the time limit of a read; 300 of them take three seconds, a head has no end."""
    patience = Patience(tries=2, first_seconds=0.01, timeout_seconds=0.2)
    with trickling(at_once) as url:
        for ask in (lambda it: it.get("/v1/run"), lambda it: it.fetch(Blob("0" * 64, 300))):
            began, remote = time.monotonic(), Remote(url, key_of(0), patience)
            with pytest.raises(Unreachable, match="no answer in 2 tries"):
                ask(remote)
            assert time.monotonic() - began < 2.5, "two tries of 0.2 s and a thousandth of a second a byte"
            remote.close()
