"""What a connection may take, without sockets."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Callable
from typing import Any

import pytest

from fl_mobile.coordinator.limits import Bounded
from fl_mobile.coordinator.records import Limits

LIMITS = Limits(grace_seconds=0.2, least_bytes_per_second=1000)


def answered(
    receive: Callable[[], Any], *, busy_seconds: float = 0.0, waits_seconds: float = 0.0, declared: bytes = b"4"
) -> tuple[int, bytes]:
    """Returns status and body of a request to an application that is busy, waits and then echoes."""
    sent: list[dict[str, Any]] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        time.sleep(busy_seconds)  # the whole loop stands still, as under load
        await asyncio.sleep(waits_seconds)
        body = b""
        while (message := await receive()).get("more_body"):
            body += message["body"]
        body += message["body"]
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": body})

    async def send(message: Any) -> None:
        sent.append(message)

    head = [(b"content-length", declared)]
    scope = {"type": "http", "method": "POST", "path": "/", "raw_path": b"/", "headers": head}
    asyncio.run(Bounded(app, LIMITS, lambda method, path: 10, Counter())(scope, receive, send))
    return sent[0]["status"], sent[1]["body"]


@pytest.mark.parametrize("busy_seconds", [0.0, 0.5])
def test_a_body_that_is_here_is_not_late_however_late_it_is_looked_at(busy_seconds: float) -> None:
    parts = iter([b"ab", b"cd", b""])

    async def receive() -> Any:
        part = next(parts)
        return {"type": "http.request", "body": part, "more_body": bool(part)}

    assert answered(receive, busy_seconds=busy_seconds) == (200, b"abcd")


@pytest.mark.parametrize("busy_seconds", [0.0, 0.5])
def test_one_that_does_not_come_is_refused(busy_seconds: float) -> None:
    async def receive() -> Any:
        await asyncio.sleep(30)

    status, told = answered(receive, busy_seconds=busy_seconds)
    assert status == 408
    assert b"too-slow" in told


def test_an_answer_may_take_longer_than_a_body() -> None:
    async def receive() -> Any:
        return {"type": "http.request", "body": b"", "more_body": False}

    assert answered(receive, waits_seconds=0.5, declared=b"0") == (200, b"")
