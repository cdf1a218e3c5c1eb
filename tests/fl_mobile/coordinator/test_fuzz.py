"""Any bytes: never 5xx, no exception in the server, no growth; an honest client is served afterwards."""

from __future__ import annotations

import asyncio
import logging
import random
import socket
import time
from collections import Counter
from pathlib import Path

import pytest

from fl_mobile.protocol.signing import message, to_base64
from tests.fl_mobile.coordinator.memory_sockets import Answering
from tests.fl_mobile.coordinator.test_web import Served, opened, path_of, served
from tests.fl_mobile.coordinator.tiny import packet_of

__all__ = ["opened", "served"]

TOGETHER = 32

WORDS = (
    *(b"\r\n", b"\r\n\r\n", b"\x00", b"\xff\xfe", b"-1", b"0", b"99999999999999999999", b"NaN", b"null", b"{", b"[[[["),
    *(
        b"bytes */5",
        b"bytes 0-0/1",
        b"bytes 5-1/9",
        b"Bearer ",
        b"../",
        b"%2e%2e%2f",
        b"chunked",
        b"Transfer-Encoding: ",
    ),
    *(b"Content-Length: 5\r\n", b"Expect: 100-continue\r\n", b"Range: bytes=5-1\r\n", b"Upgrade: h2c\r\n", b"HTTP/9.9"),
)


def seeds(served: Served) -> list[bytes]:
    """Returns one honest request of every kind."""
    remote = served.client(0)
    told = served.assignment(remote)
    packet = packet_of(told["device"], told["round"])
    body, now = b'{"held": 0}', time.time_ns() // 10**6 + 50
    path = f"/v1/devices/{remote.device}/check-ins"
    text = message(run=remote.run, method="POST", path=path, device=remote.device, time_ms=now, body=body)
    signed = f"FL-Time: {now}\r\nFL-Signature: {to_base64(remote.key.sign(text))}\r\n"
    import hashlib

    digest = to_base64(hashlib.sha256(packet).digest())
    auth = f"Authorization: Bearer {told['token']}\r\nRepr-Digest: sha-256=:{digest}:\r\n"
    blob = served.coordinator.blobs.put(b"blob" * 100).sha256

    def request(method: str, path: str, headers: str, body: bytes = b"") -> bytes:
        return f"{method} {path} HTTP/1.1\r\nHost: x\r\n{headers}Content-Length: {len(body)}\r\n\r\n".encode() + body

    return [
        request("POST", path, signed, body),
        request("POST", "/v1/devices", signed, b'{"public_key": "' + b"A" * 43 + b'="}'),
        request("PUT", path_of(told), auth, packet),
        request(
            "PUT", path_of(told, 1), f"{auth}Content-Range: bytes 3-{len(packet) - 1}/{len(packet)}\r\n", packet[3:]
        ),
        request("GET", path_of(told), auth),
        request("DELETE", path_of(told, 2), auth),
        request("GET", f"/v1/blobs/{blob}", "Range: bytes=10-20\r\n"),
        request("GET", "/v1/run", ""),
        request("GET", "/metrics", ""),
    ]


def mutated(rng: random.Random, seed: bytes) -> bytes:
    out = bytearray(seed)
    for _ in range(rng.randint(1, 4)):
        at = rng.randrange(len(out) + 1)
        way = rng.randrange(5)
        if way == 0:
            out[at : at + 1] = bytes([rng.randrange(256)])
        elif way == 1:
            out[at : at + rng.randint(1, 20)] = b""
        elif way == 2:
            out[at:at] = rng.choice(WORDS)
        elif way == 3:
            out[at:at] = out[at : at + rng.randint(1, 40)] * rng.randint(1, 9)
        else:
            out[at : at + 4] = rng.choice(WORDS)
    return bytes(out)


def resident_mb() -> float:
    return int(Path("/proc/self/statm").read_text().split()[1]) * 4096 / 2**20


def answer(served: Served, request: bytes) -> bytes:
    """Sends a request and closes our side; returns what came."""
    with socket.create_connection(served.address, timeout=5) as connection:
        try:
            connection.sendall(request)
            connection.shutdown(socket.SHUT_WR)
            out = b""
            while more := connection.recv(65536):
                out += more
        except OSError:
            return b""
        return out


@pytest.mark.parametrize("count", [200, pytest.param(20_000, marks=pytest.mark.slow)])
def test_any_bytes_are_answered_without_a_fault_of_ours(
    opened: Served, caplog: pytest.LogCaptureFixture, count: int
) -> None:
    rng, honest = random.Random(count), seeds(opened)
    before = 0.0
    with caplog.at_level(logging.ERROR):
        for number in range(count):
            request = mutated(rng, rng.choice(honest))
            told = answer(opened, request)
            assert b"HTTP/1.1 5" not in told, (request, told)
            assert not caplog.records, (request, caplog.text)
            if number == count // 10:
                before = resident_mb()
    assert resident_mb() - before < 32
    assert opened.client(1).get("/v1/run")["run"] == opened.coordinator.run


@pytest.mark.parametrize("count", [640, pytest.param(1_000_000, marks=pytest.mark.slow)])
def test_a_million_requests_of_any_bytes(opened: Served, caplog: pytest.LogCaptureFixture, count: int) -> None:
    """Without sockets, thirty at a time; `answer_all` says of what the server's fault would be."""
    rng, honest, statuses = random.Random(count), seeds(opened), Counter[bytes]()

    async def answer_all() -> None:
        server, before = Answering(opened.coordinator), 0.0
        for done in range(0, count, TOGETHER):
            requests = [mutated(rng, rng.choice(honest)) for _ in range(TOGETHER)]
            told = await asyncio.gather(*map(server.answer, requests))
            for request, each in zip(requests, told, strict=True):
                statuses[each[9:12]] += 1
                assert b"HTTP/1.1 5" not in each, (request, each)
            assert not caplog.records, (requests, caplog.text)
            if before == 0.0 and done >= count // 10:
                before = resident_mb()
        assert resident_mb() - before < 32

    with caplog.at_level(logging.ERROR):
        asyncio.run(answer_all())
    assert {b"200", b"400", b"401", b"404"} <= set(statuses)
    assert opened.client(1).get("/v1/run")["run"] == opened.coordinator.run
