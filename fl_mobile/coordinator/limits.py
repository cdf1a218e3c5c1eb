"""What a connection may take before anybody has looked at what it says: time, rate, length, and a place among others.

`Bounded` wraps an ASGI application and watches bodies; `Punctual` is uvicorn's protocol with a deadline for headers. No
server bounds a slow body by itself (uvicorn, granian and hypercorn were measured), and uvicorn no slow header.
"""

from __future__ import annotations

import asyncio
import json
from collections import Counter
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol

from fl_mobile.coordinator.records import Limits, Refusal

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[MutableMapping[str, Any], Receive, Send], Awaitable[None]]


A_TURN = 0.05
"""Seconds in which an event loop sees what has come already."""
TOO_SLOW, SLOW_READER = "too-slow", "slow-reader"


class Bounded:
    """Refuses bodies that are too long by what they declare, and cuts off those that come too slowly.

    Args:
        most_bytes: (method, path) → longest body; told before a byte of it is received.
        refused: Counts refusals by reason.
    """

    def __init__(self, app: App, limits: Limits, most_bytes: Callable[[str, str], int], refused: Counter[str]) -> None:
        self._app, self._limits, self._most, self._refused = app, limits, most_bytes, refused
        self._uploads = 0

    async def __call__(self, scope: MutableMapping[str, Any], receive: Receive, send: Send) -> None:
        """Serves one request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        is_upload = scope["method"] == "PUT"
        try:
            self._check_head(scope)
            declared = self._check_length(scope)
            if is_upload and self._uploads >= self._limits.uploads_at_once:
                raise Refusal(429, "busy", "too many uploads at once: send it again in a while", retry_after_seconds=5)
            scope["declared_bytes"] = declared
        except Refusal as refusal:
            self._refused[refusal.reason] += 1
            await send_problem(send, refusal)
            return
        self._uploads += is_upload
        begun = False

        async def sending(message: Message) -> None:
            nonlocal begun
            begun = True
            await send(message)

        watch = _Watch(receive, self._limits, declared)
        try:
            await self._app(scope, watch.receive, sending)
        except asyncio.CancelledError:
            if not watch.reason:
                raise
            self._refused[watch.reason] += 1  # who reads slowly comes again with a range
            if watch.reason == TOO_SLOW and not begun:
                least = self._limits.least_bytes_per_second
                await send_problem(
                    send, Refusal(408, TOO_SLOW, f"the body came more slowly than {least:g} bytes a second")
                )
        finally:
            watch.end()
            self._uploads -= is_upload

    def _check_head(self, scope: MutableMapping[str, Any]) -> None:
        head = len(scope["raw_path"]) + sum(len(name) + len(value) for name, value in scope["headers"])
        if head > self._limits.header_bytes:  # `punctual` sees heads that come in pieces only
            raise _long_head(head, self._limits)

    def _check_length(self, scope: MutableMapping[str, Any]) -> int:
        headers = {name: value for name, value in scope["headers"] if name in (b"content-length", b"transfer-encoding")}
        if b"transfer-encoding" in headers:
            raise Refusal(411, "length-required", "give Content-Length; chunked bodies are not read")
        text = headers.get(b"content-length", b"0")
        if not text.isdigit() or len(text) > 18:
            raise Refusal(400, "length", "Content-Length is no number")
        declared, most = int(text), self._most(scope["method"], scope["path"])
        if declared > most:
            raise Refusal(413, "too-long", f"a body of {declared} bytes; here at most {most} are read", most_bytes=most)
        return declared


class _Watch:
    """Cancels the task of a request whose body comes too slowly, or whose answer takes too long; says which.

    One timer, looked at when it may be late: a deadline for every message would cost as much as answering.
    """

    def __init__(self, receive: Receive, limits: Limits, declared: int) -> None:
        self._receive, self._limits, self._loop = receive, limits, asyncio.get_running_loop()
        self._task, self._begun = asyncio.current_task(), self._loop.time()
        self._got, self._ended, self._last_turn = 0, not declared, False
        self.reason = ""
        self._timer = self._loop.call_at(self._late, self._look)

    async def receive(self) -> Message:
        """Returns the next message; what follows the body is the client's going away, for which there is no hurry."""
        message = await self._receive()
        if not self._ended:
            self._got += len(message.get("body", b""))
            self._ended = not message.get("more_body", False)
        return message

    def end(self) -> None:
        """Nothing is watched any more."""
        self._timer.cancel()

    @property
    def _late(self) -> float:
        limits = self._limits
        if self._ended:
            return self._begun + limits.answer_seconds
        slowest = limits.grace_seconds + self._got / limits.least_bytes_per_second
        return self._begun + min(limits.body_seconds, slowest)

    def _look(self) -> None:
        now, late = self._loop.time(), self._late
        if now < late:
            self._last_turn = False
            self._timer = self._loop.call_at(late, self._look)
        elif not self._last_turn:  # what has come while this process was busy is nobody's lateness but ours
            self._last_turn = True
            self._timer = self._loop.call_at(now + A_TURN, self._look)
        else:
            self.reason = SLOW_READER if self._ended else TOO_SLOW
            if self._task is not None:
                self._task.cancel()


def _long_head(here: int, limits: Limits) -> Refusal:
    detail = f"path and headers of {here} bytes; here at most {limits.header_bytes} are read"
    return Refusal(431, "long-head", detail)


def _problem(refusal: Refusal) -> tuple[list[tuple[bytes, bytes]], bytes]:
    """Returns headers and body of a problem after which the connection ends: what was sent may not have been read."""
    body = json.dumps(refusal.reply.body).encode()
    kind, length = (b"content-type", b"application/problem+json"), (b"content-length", str(len(body)).encode())
    return [kind, length, (b"connection", b"close")], body


async def send_problem(send: Send, refusal: Refusal) -> None:
    """Answers with a problem and closes the connection."""
    headers, body = _problem(refusal)
    await send({"type": "http.response.start", "status": refusal.status, "headers": headers})
    await send({"type": "http.response.body", "body": body})


def punctual(limits: Limits, refused: Counter[str]) -> type[HttpToolsProtocol]:
    """Returns uvicorn's protocol, with limits on what it takes before a request's head is whole.

    A connection on which no whole head arrives for ``limits.header_seconds`` is closed; a head that is longer than
    ``limits.header_bytes`` is answered with 431 when that many bytes of it have come (the parser itself has no limit).

    Args:
        refused: Counts what is no HTTP, and heads that are too long.
    """

    class Punctual(HttpToolsProtocol):
        def connection_made(self, transport: Any) -> None:
            super().connection_made(transport)
            self._head: int | None = None
            self._of_others = False
            self._answered: Any = self.cycle
            self._patience = self.loop.call_later(limits.header_seconds, self._look)

        def connection_lost(self, exc: Exception | None) -> None:
            self._patience.cancel()
            super().connection_lost(exc)

        def data_received(self, data: bytes) -> None:
            self._of_others = self.cycle is not None and self.cycle.more_body
            super().data_received(data)
            if self._head is None or self._of_others or self.transport.is_closing():
                return
            self._head += len(data)
            if self._head > limits.header_bytes:
                refusal = _long_head(self._head, limits)
                refused[refusal.reason] += 1
                headers, body = _problem(refusal)
                told = b"".join(name + b": " + value + b"\r\n" for name, value in headers)
                self.transport.write(STATUS_LINE[refusal.status] + told + b"\r\n" + body)
                self.transport.close()

        def on_message_begin(self) -> None:
            super().on_message_begin()
            self._head = 0

        def on_headers_complete(self) -> None:
            self._head = None
            super().on_headers_complete()

        def on_message_complete(self) -> None:
            self._of_others = True  # of the bytes that came together, not all are of the next head
            super().on_message_complete()

        def send_400_response(self, msg: str) -> None:
            refused["no-http"] += 1
            super().send_400_response(msg)

        def _look(self) -> None:
            at_work = self.cycle is not None and not self.cycle.response_complete
            if not at_work and self.cycle is self._answered:
                self.transport.close()
                return
            self._answered = self.cycle
            self._patience = self.loop.call_later(limits.header_seconds, self._look)

    return Punctual
