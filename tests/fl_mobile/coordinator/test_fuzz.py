"""Any bytes: never 5xx, no exception in the server, no growth, nothing dear; the next client is served."""

from __future__ import annotations

import asyncio
import logging
import random
import socket
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from fl_mobile.coordinator.coordinator import Coordinator
from fl_mobile.coordinator.writer import AtOnce
from tests.fl_mobile.coordinator.asking import ask_and_upload
from tests.fl_mobile.coordinator.memory_sockets import Answering
from tests.fl_mobile.coordinator.mutated import Asked, honest, mutated
from tests.fl_mobile.coordinator.test_web import LIMITS, Served, opened, served
from tests.fl_mobile.coordinator.tiny import key_of, round_of

__all__ = ["opened", "served"]

TOGETHER, A_ROUND = 32, 2_048
"""Requests at one time, and in one round: its tokens and times stay good, its seats are taken again."""
GROWTH_MB, CPU_SECONDS = 32, 0.25


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
    rng, requests = random.Random(count), honest(opened.coordinator)
    before = 0.0
    with caplog.at_level(logging.ERROR):
        for number in range(count):
            request = mutated(rng, rng.choice(requests))
            told = answer(opened, request)
            assert b"HTTP/1.1 5" not in told, (request, told)
            assert not caplog.records, (request, caplog.text)
            if number == count // 10:
                before = resident_mb()
    assert resident_mb() - before < GROWTH_MB
    assert opened.client(1).get("/v1/run")["run"] == opened.coordinator.run


@pytest.fixture
def alone(tmp_path: Path) -> Iterator[Coordinator]:
    """A coordinator that does everything where it is asked to: no thread, no socket."""
    coordinator = Coordinator(tmp_path, limits=LIMITS, writer=AtOnce)
    yield coordinator
    coordinator.close()


def cost(coordinator: Coordinator, request: bytes) -> float:
    """Returns CPU seconds that a request takes by itself, the least of three times."""

    async def once() -> float:
        began = time.process_time()
        await Answering(coordinator).answer(request)
        return time.process_time() - began

    return min(asyncio.run(once()) for _ in range(3))


@pytest.mark.parametrize(
    ("count", "seed"), [(2_048, 0), *(pytest.param(500_000, seed, marks=pytest.mark.slow) for seed in (1, 2))]
)
def test_a_million_requests_of_any_bytes(
    alone: Coordinator, caplog: pytest.LogCaptureFixture, count: int, seed: int
) -> None:
    """Without sockets, in two halves, thirty at a time; such thirty take a tenth of what one may."""
    rng, statuses, dear = random.Random(seed), Counter[bytes](), list[bytes]()

    async def answer_all() -> float:
        server, before, requests = Answering(alone), 0.0, list[Asked]()
        for done in range(0, count, TOGETHER):
            if done % A_ROUND == 0:
                alone.open_round(round_of(done // A_ROUND))
                requests = honest(alone)
            sent = [mutated(rng, rng.choice(requests)) for _ in range(TOGETHER)]
            began = time.process_time()
            told = await asyncio.gather(*map(server.answer, sent))
            if time.process_time() - began > CPU_SECONDS:
                dear.extend(sent)
            for request, each in zip(sent, told, strict=True):
                statuses[each[9:12]] += 1
                assert b"HTTP/1.1 5" not in each, (request, each)
            assert not caplog.records, (sent, caplog.text)
            if before == 0.0 and done >= count // 10:
                before = resident_mb()
            if done % (16 * A_ROUND) == 0:
                print(f"{done} requests, {resident_mb() - before:.0f} MB", flush=True)
        return resident_mb() - before

    with caplog.at_level(logging.ERROR):
        grown = asyncio.run(answer_all())
    print(f"{statuses.total()} requests, grown by {grown:.1f} MB, {len(dear)} looked at again: {dict(statuses)}")
    assert statuses.total() >= count
    assert grown < GROWTH_MB
    assert not [request for request in dear if cost(alone, request) > CPU_SECONDS]
    assert {b"200", b"201", b"400", b"401", b"404", b"409", b"422"} <= set(statuses)
    last = -(-count // A_ROUND)
    alone.open_round(round_of(last))
    assert ask_and_upload(alone, key_of(0), last).status == 201
