"""The coordinator over HTTP/1.1: requests in, records to `core` by way of the writer, replies out."""

from __future__ import annotations

import asyncio
import hashlib
import json
import logging
import re
from typing import Any

from starlette.concurrency import run_in_threadpool
from starlette.requests import ClientDisconnect, Request
from starlette.responses import FileResponse, HTMLResponse, PlainTextResponse, Response

from fl_mobile.coordinator import page
from fl_mobile.coordinator.core import Place, Signed
from fl_mobile.coordinator.front import Front
from fl_mobile.coordinator.limits import App, Bounded
from fl_mobile.coordinator.logs import nameless
from fl_mobile.coordinator.parts import SMALL_BYTES, Parts, range_of
from fl_mobile.coordinator.records import NO_ROOM, Refusal, Reply
from fl_mobile.coordinator.routing import Handler, routed
from fl_mobile.coordinator.writer import MOST_TOGETHER
from fl_mobile.errors import WireError
from fl_mobile.protocol.forms import flat, parse, text, whole
from fl_mobile.protocol.signing import KEY_BYTES, SIGNATURE_BYTES, from_base64, to_base64
from fl_mobile.protocol.statistics import ABOUT, MOST_TEXT, statistics_to_json

PROTOCOL = 1
MOST_NUMBER = 2**32 - 1
CHECK_INS_AT_ONCE = 2 * MOST_TOGETHER
"""That wait for the database; by the turn of all others the round may be known to be full."""
_DIGEST = re.compile(r"sha-256=:([A-Za-z0-9+/]{43}=):")
_WHOLE = re.compile(r"[0-9]{1,15}")
_CHECK_IN = {"held": whole(0, MOST_NUMBER), "runtime": text(), "conditions": flat(16)}
_log = logging.getLogger("fl_mobile.coordinator")

_ATTEMPT = "/v1/rounds/{round}/devices/{device}/attempts/{attempt}"
_STEP = "/v1/rounds/{round}/devices/{device}/sum/{step}"
_ROUTES = {
    ("/", "GET"): "page",
    ("/metrics", "GET"): "metrics",
    ("/v1/run", "GET"): "run",
    ("/v1/devices", "POST"): "enrol",
    ("/v1/devices/{device}/check-ins", "POST"): "check_in",
    ("/v1/devices/{device}/sums/{about}", "POST"): "take_sums",
    ("/v1/blobs/{sha256}", "GET"): "blob",
    (_ATTEMPT, "PUT"): "upload",
    (_ATTEMPT, "GET"): "look_up",
    (_ATTEMPT, "DELETE"): "give_up",
    (_STEP, "GET"): "hear",
    (_STEP, "PUT"): "answer",
}


def make_app(coordinator: Front) -> App:
    """Returns the ASGI application; ``docs/protocol.md`` and ``docs/openapi.json`` say what it answers."""
    web = _Web(coordinator)
    table = {key: web.told(getattr(web, name)) for key, name in _ROUTES.items()}
    return Bounded(routed(table, web.unknown), coordinator.limits, web.most_bytes, coordinator.refused)


def routes_of() -> list[tuple[str, str]]:
    """Returns every path with its method."""
    return list(_ROUTES)


class _Web:
    def __init__(self, coordinator: Front) -> None:
        self._coordinator = coordinator
        self._parts = Parts(coordinator.folder / "parts")
        if coordinator.owns_parts:
            self._parts.clear()
        self._parts_of = -1
        self._turns = asyncio.Queue[None]()  # a semaphore looks at all that wait whenever one has its turn
        for _ in range(CHECK_INS_AT_ONCE):
            self._turns.put_nowait(None)

    def most_bytes(self, method: str, path: str) -> int:
        """Returns the longest body of a request; a short one that no answer needs is left unread."""
        return self._coordinator.most_packet_bytes if method == "PUT" else self._coordinator.limits.json_bytes

    def told(self, handler: Handler) -> Handler:
        """Returns the handler with every refusal told as a problem, and counted."""

        async def answer(request: Request) -> Response:
            try:
                return await handler(request)
            except Refusal as refusal:
                return self._problem(request, refusal)
            except WireError as error:
                return self._problem(request, Refusal(400, error.reason, str(error)))
            except ClientDisconnect:
                self._coordinator.refused["gone"] += 1
                return Response(status_code=499)  # nobody reads it
            except OSError as error:
                _log.error("disk: %s", error)
                return self._problem(request, Refusal(NO_ROOM, "no-room", "the server's disk fails it now"))

        return answer

    async def unknown(self, request: Request, allowed: str) -> Response:
        """Answers what no route does."""
        if not allowed:
            return self._problem(request, Refusal(404, "unknown-path", "see /v1/run and docs/protocol.md"))
        response = self._problem(request, Refusal(405, "method", f"here one may {allowed}"))
        response.headers["allow"] = allowed
        return response

    async def page(self, request: Request) -> Response:
        """The operator's page."""
        return HTMLResponse(await run_in_threadpool(page.html, self._coordinator))

    async def metrics(self, request: Request) -> Response:
        """Numbers for Prometheus."""
        told = await run_in_threadpool(page.metrics, self._coordinator)
        return PlainTextResponse(told, media_type="text/plain; version=0.0.4")

    async def run(self, request: Request) -> Response:
        """Says which run this is, what its terms are and what time it is."""
        coordinator, terms = self._coordinator, self._coordinator.terms
        return _json(
            Reply(
                200,
                {
                    "protocol": PROTOCOL,
                    "run": coordinator.run,
                    "terms": None if terms is None else {"sha256": terms.sha256, "bytes": terms.bytes},
                    "statistics": statistics_to_json(coordinator.statistics),
                    "time_ms": int(coordinator.now() * 1000),
                    "finished": coordinator.finished,
                },
            )
        )

    async def enrol(self, request: Request) -> Response:
        """`Front.enrol`."""
        body = await request.body()
        got = parse(body, {"public_key": _key, "attestation": flat(8)}, optional={"attestation": {}})
        signed, key = _signed(request, body), got["public_key"]
        await run_in_threadpool(self._coordinator.check_attestation, signed, key, got["attestation"])
        return _json(await asyncio.wrap_future(self._coordinator.enrol(signed, key)))

    async def check_in(self, request: Request) -> Response:
        """`Front.check_in`."""
        device = _number(request, "device")
        if full := self._coordinator.full_for(device):  # a crowd is told so before anything it says is read
            return _json(full)
        body = await request.body()
        await self._turns.get()
        try:
            if full := self._coordinator.full_for(device):
                return _json(full)
            got = parse(body, _CHECK_IN, optional={"runtime": "", "conditions": {}})
            ready, signed = got["conditions"].get("ready") is not False, _signed(request, body)
            asked = self._coordinator.check_in(signed, device=device, held=got["held"], ready=ready)
            return self._counted(await asyncio.wrap_future(asked))
        finally:
            self._turns.put_nowait(None)

    async def take_sums(self, request: Request) -> Response:
        """`Front.take_sums`."""
        body = await request.body()
        packet = parse(body, {"sums": _packet})["sums"]
        device, about = _number(request, "device"), request.path_params["about"]
        if about not in ABOUT:
            raise Refusal(404, "unknown-path", f"sums are about {' or '.join(ABOUT)}")
        taken = self._coordinator.take_sums(_signed(request, body), device=device, about=about, packet=packet)
        return _json(await asyncio.wrap_future(taken))

    async def blob(self, request: Request) -> Response:
        """A program, a model or the terms, with HTTP ranges."""
        name = request.path_params["sha256"]
        try:
            path = await run_in_threadpool(self._coordinator.blobs.local, name)
        except ValueError:
            raise Refusal(400, "sha256", "expected a SHA-256, 64 hexadecimal digits") from None
        if path is None:
            raise Refusal(404, "unknown-blob", "no such blob is served now: check in again")
        return FileResponse(path, media_type="application/octet-stream", headers={"etag": f'"{name}"'})

    async def upload(self, request: Request) -> Response:
        """A packet, or a part of one."""
        place = self._authorised(request)
        declared = request.scope["declared_bytes"]
        part = range_of(request.headers.get("content-range"), declared, self.most_bytes("PUT", ""))
        digest = _digest_of(request)
        if part.carried == part.whole <= SMALL_BYTES:
            return await self._take(place, await request.body(), digest)
        if part.whole == 0:
            raise Refusal(400, "truncated", "an upload has at least one byte")
        if place.attempt >= self._coordinator.limits.attempts:  # core says so too, of a packet that is whole
            raise Refusal(429, "attempts", f"a client has {self._coordinator.limits.attempts} attempts in a round")
        if part.carried:
            await run_in_threadpool(self._forget_past_rounds)
            await self._receive(request, place, part.first)
        here = await run_in_threadpool(self._parts.received, place)
        if here < part.whole:
            return _json(Reply(202, {"received": here}))
        packet = await run_in_threadpool(self._parts.take, place)
        try:
            answer = await self._take(place, packet[: part.whole], digest)
        except Refusal as refusal:
            if refusal.status != NO_ROOM:  # what the disk does not take now, it may in a while
                await run_in_threadpool(self._parts.drop, place)
            raise
        await run_in_threadpool(self._parts.drop, place)
        return answer

    async def look_up(self, request: Request) -> Response:
        """The receipt, or how much of the packet is here."""
        place = self._authorised(request)
        if here := await run_in_threadpool(self._parts.received, place):
            return _json(Reply(202, {"received": here}))
        return _json(await asyncio.wrap_future(self._coordinator.look_up(place)))

    async def give_up(self, request: Request) -> Response:
        """The client sends nothing in this round."""
        place = self._authorised(request)
        await run_in_threadpool(self._parts.drop, place)
        return _json(await asyncio.wrap_future(self._coordinator.give_up(place)))

    async def hear(self, request: Request) -> Response:
        """What a client is told in a step of a masked round, or when to ask again."""
        place, step = self._authorised(request), _number(request, "step")
        return _json(await asyncio.wrap_future(self._coordinator.hear(place, step)))

    async def answer(self, request: Request) -> Response:
        """A client's answer to it."""
        place, step, digest = self._authorised(request), _number(request, "step"), _digest_of(request)
        packet = await request.body()
        _check_digest(packet, digest)
        return _json(await asyncio.wrap_future(self._coordinator.answer(place, step, packet)))

    def _authorised(self, request: Request) -> Place:
        attempt = _number(request, "attempt") if "attempt" in request.path_params else 0
        place = Place(_number(request, "round"), _number(request, "device"), attempt)
        scheme, _, token = request.headers.get("authorization", "").partition(" ")
        if scheme.lower() != "bearer":
            raise Refusal(401, "token", "an upload needs Authorization: Bearer, with the token of its assignment")
        self._coordinator.check_token(token.strip(), place)
        return place

    def _forget_past_rounds(self) -> None:
        """Deletes parts of packets that are late by now: who leaves them behind fills no disk."""
        round_ = self._coordinator.open
        if round_ is not None and not round_.asynchronous and self._parts_of != round_.number:
            self._parts.clear(but=round_.number)
            self._parts_of = round_.number

    async def _receive(self, request: Request, place: Place, at: int) -> None:
        """Writes the body as it comes; what came of a body that broke off stays, for the next part to go on from."""
        try:
            async for chunk in request.stream():
                if chunk:
                    await run_in_threadpool(self._parts.write, place, at, chunk)
                    at += len(chunk)
        except ClientDisconnect:
            self._coordinator.refused["broken-off"] += 1
            raise

    async def _take(self, place: Place, packet: bytes, digest: bytes) -> Response:
        _check_digest(packet, digest)
        return self._counted(await asyncio.wrap_future(self._coordinator.upload(place, packet)))

    def _counted(self, reply: Reply) -> Response:
        if reply.reason:
            self._coordinator.refused[reply.reason] += 1
        return _json(reply)

    def _problem(self, request: Request, refusal: Refusal) -> Response:
        self._coordinator.refused[refusal.reason] += 1
        told = {"method": request.method, "path": nameless(request.url.path), "status": refusal.status}
        _log.info("refused", extra={"told": told | {"reason": refusal.reason}})
        response = _json(refusal.reply)
        if refusal.status in (408, 413):
            response.headers["connection"] = "close"
        return response


def _check_digest(packet: bytes, digest: bytes) -> None:
    if hashlib.sha256(packet).digest() != digest:
        raise Refusal(400, "digest", "the bytes that came are not those of Repr-Digest: send them again")


def _json(reply: Reply) -> Response:
    if reply.data is not None:
        return Response(reply.data, reply.status, media_type="application/octet-stream")
    kind = "application/problem+json" if reply.status >= 400 else "application/json"
    headers = dict(reply.headers)
    if reply.status in (429, 503, NO_ROOM):
        headers["retry-after"] = "5"
    return Response(json.dumps(reply.body), reply.status, headers, kind)


def _number(request: Request, name: str) -> int:
    told = request.path_params[name]
    if not _WHOLE.fullmatch(told) or int(told) > MOST_NUMBER:
        raise Refusal(404, "unknown-path", f"{name} is a number of 32 bits")
    return int(told)


def _signed(request: Request, body: bytes) -> Signed:
    time_ms = request.headers.get("fl-time", "")
    if not _WHOLE.fullmatch(time_ms):
        raise Refusal(401, "signature", "FL-Time is missing: milliseconds since 1970")
    try:
        signature = from_base64(request.headers.get("fl-signature", ""), SIGNATURE_BYTES)
    except ValueError as error:
        raise Refusal(401, "signature", f"FL-Signature: {error}") from None
    return Signed(
        method=request.method, path=request.scope["path"], body=body, time_ms=int(time_ms), signature=signature
    )


def _key(value: Any) -> bytes:
    return from_base64(text(100)(value), KEY_BYTES)


def _packet(value: Any) -> bytes:
    return from_base64(text(MOST_TEXT)(value))


def _digest_of(request: Request) -> bytes:
    found = _DIGEST.fullmatch(request.headers.get("repr-digest", "").strip())
    if found is None:
        raise Refusal(400, "digest", "an upload needs Repr-Digest: sha-256=:BASE64:, of the whole packet (RFC 9530)")
    return from_base64(found[1], 32)


def digest_header(packet: bytes) -> str:
    """Returns the Repr-Digest of a packet.

    >>> digest_header(b"")
    'sha-256=:47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU=:'
    """
    return f"sha-256=:{to_base64(hashlib.sha256(packet).digest())}:"
