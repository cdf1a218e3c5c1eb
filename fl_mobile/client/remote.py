"""A client's connection to a coordinator: signed requests, tried again with jitter, every answer checked.

```
request ─▶ refused for good? ─▶ `Refused`      408, 429, 5xx, no connection ─▶ wait, twice as long each time ─┐
   ▲──────────────────────────────────────────────────────────────────────────────────────────────────────────┘
```
"""

from __future__ import annotations

import contextlib
import hashlib
import http.client
import json
import random
import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit

from fl_mobile.errors import ConfigError, FlMobileError, WireError
from fl_mobile.protocol.signing import DeviceKey, message, to_base64
from fl_mobile.protocol.terms import Blob

AGAIN = (408, 429, 500, 502, 503, 504, 507)
MOST_ANSWER_BYTES = 1 << 20
LEAST_BYTES_A_SECOND = 1000
"""A server that moves less, beside the time limit, is as good as one that is silent."""


class Refused(FlMobileError):
    """The coordinator has answered, and trying the same again would not help."""

    def __init__(self, status: int, problem: Mapping[str, Any], what: str) -> None:
        self.status, self.problem, self.reason = status, problem, str(problem.get("reason", "unknown"))
        super().__init__(f"{what}: the coordinator answers {status} {self.reason}: {problem.get('detail', '')}")


class Unreachable(FlMobileError):
    """No answer came, however often it was tried."""


@dataclass(frozen=True)
class Patience:
    """How often and how long a client tries.

    Attributes:
        tries: Of one request.
        first_seconds: Mean wait before the second try; doubles from try to try.
        most_seconds: Longest wait.
        timeout_seconds: Without a byte, a try is over; and beside the time that what moves may take.
    """

    tries: int = 8
    first_seconds: float = 0.5
    most_seconds: float = 60.0
    timeout_seconds: float = 30.0

    def wait_after(self, failed: int, draw: float) -> float:
        """Returns seconds to wait after so many failures in a row; ``draw`` in [0, 1) spreads a crowd of clients.

        >>> Patience().wait_after(3, 0.5)
        2.0
        """
        return min(self.most_seconds, self.first_seconds * 2.0 ** (failed - 1)) * (0.5 + draw)


@dataclass
class Remote:
    """One client's connection; not for two threads at once.

    Attributes:
        url: ``http://host:port`` or ``https://…``.
        key: Signs what needs to be signed.
        rest: Waits so many seconds; raises to give up.
        context: Of TLS; None trusts what the system trusts.
    """

    url: str
    key: DeviceKey
    patience: Patience = field(default_factory=Patience)
    rest: Callable[[float], None] = field(default=lambda seconds: None)
    context: ssl.SSLContext | None = None
    clock_ms: Callable[[], int] = field(default=lambda: time.time_ns() // 1_000_000)
    run: str = ""
    device: int | None = None
    _off_ms: int = 0
    _last_ms: int = 0
    _connection: http.client.HTTPConnection | None = None

    def __post_init__(self) -> None:
        parts = urlsplit(self.url)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise ConfigError(f"--server must be http://HOST:PORT or https://HOST, got '{self.url}'")

    def get(self, path: str) -> dict[str, Any]:
        """Returns what an unsigned question is answered with."""
        return _object(self._answered("GET", path, dict, b"", what=path)[1])

    def signed(self, path: str, value: Mapping[str, Any]) -> dict[str, Any]:
        """Posts a signed message; if our clock is refused, the server's is taken and the message signed anew."""
        body = json.dumps(value).encode()
        for corrected in (False, True):
            try:
                return _object(self._answered("POST", path, lambda: self._signature(path, body), body, what=path)[1])
            except Refused as refused:
                theirs = refused.problem.get("server_time_ms")
                if corrected or refused.reason != "clock" or type(theirs) is not int:
                    raise
                self._off_ms = theirs - self.clock_ms()
                self._last_ms = 0
        raise AssertionError("unreachable")

    def fetch(self, blob: Blob) -> bytes:
        """Returns a blob, going on where a broken connection stopped; its hash is checked before anybody sees it."""
        data, failed, what = b"", 0, f"blob {blob.sha256[:12]}"
        while True:
            headers = {"Range": f"bytes={len(data)}-"} if data else {}
            try:
                status, more = self._once("GET", f"/v1/blobs/{blob.sha256}", headers, b"", most=blob.bytes)
            except _CUT as error:
                more, status = getattr(error, "partial", b""), 206 if data else 200
                self._close()
                if len(more) < LEAST_BYTES_A_SECOND * self.patience.timeout_seconds:  # what came is kept all the same
                    failed = self._failed(failed, what, error)
                if not more:
                    continue
            if status not in (200, 206):
                self._raise_or_wait(status, more, failed := failed + 1, what)
                continue
            had, data = len(data), data + more if status == 206 else more
            if len(data) < blob.bytes:
                if len(data) <= had:
                    failed = self._failed(failed, what, WireError("length", f"only {len(more)} bytes came"))
                continue
            if hashlib.sha256(data).hexdigest() == blob.sha256:
                return data
            failed = self._failed(failed, what, WireError("digest", "the bytes that came have another hash"))
            data = b""

    def send(self, path: str, packet: bytes, token: str) -> tuple[int, dict[str, Any]]:
        """Uploads a packet, going on where it stopped; returns status and answer, whatever it is."""
        digest = f"sha-256=:{to_base64(hashlib.sha256(packet).digest())}:"
        auth = {"Authorization": f"Bearer {token}", "Repr-Digest": digest}
        whole, at, failed = len(packet), 0, 0
        while True:
            headers = auth if not at else {**auth, "Content-Range": f"bytes {at}-{whole - 1}/{whole}"}
            try:
                status, body = self._once("PUT", path, headers, packet[at:])
            except _CUT as error:
                self._close()
                failed = self._failed(failed, path, error)
                at = self._received(path, auth, whole)
                continue
            if status in AGAIN:
                self._raise_or_wait(status, body, failed := failed + 1, path)
                at = self._received(path, auth, whole)
                continue
            answer = _object(body)
            if status == 400 and answer.get("reason") == "digest" and failed + 1 < self.patience.tries:
                at, failed = 0, failed + 1  # damaged on its way
                continue
            if status != 202:
                return status, answer
            at = min(int(answer.get("received", 0)), whole - 1)

    def ask(self, method: str, path: str, token: str) -> tuple[int, dict[str, Any]]:
        """Asks about an upload, or gives it up; returns status and answer."""
        status, body = self._about(method, path, token)
        return status, _object(body)

    def message(self, path: str, token: str) -> tuple[int, bytes, dict[str, Any]]:
        """Returns status, message of a step of a masked round, and what is told where there is none."""
        status, body = self._about("GET", path, token)
        return (status, body, {}) if status == 200 else (status, b"", _object(body))

    def close(self) -> None:
        """Closes the connection."""
        self._close()

    def _received(self, path: str, auth: Mapping[str, str], whole: int) -> int:
        """Returns how much of an upload is there, as far as that can be learnt now."""
        with contextlib.suppress(*_CUT, ValueError):
            status, body = self._once("GET", path, auth, b"")
            return min(int(_object(body).get("received", 0)), whole - 1) if status == 202 else 0
        self._close()
        return 0

    def _signature(self, path: str, body: bytes) -> dict[str, str]:
        self._last_ms = max(self._last_ms + 1, self.clock_ms() + self._off_ms)
        text = message(run=self.run, method="POST", path=path, device=self.device, time_ms=self._last_ms, body=body)
        return {"FL-Time": str(self._last_ms), "FL-Signature": to_base64(self.key.sign(text))}

    def _about(self, method: str, path: str, token: str) -> tuple[int, bytes]:
        auth = {"Authorization": f"Bearer {token}"}
        return self._answered(method, path, lambda: auth, b"", what=path, refusals=True)

    def _answered(
        self,
        method: str,
        path: str,
        headers: Callable[[], Mapping[str, str]],
        body: bytes,
        *,
        what: str,
        refusals: bool = False,
    ) -> tuple[int, bytes]:
        failed = 0
        while True:
            try:
                status, answer = self._once(method, path, headers(), body)
            except _CUT as error:
                self._close()
                failed = self._failed(failed, what, error)
                continue
            if status < 300 or (refusals and status not in AGAIN):
                return status, answer
            self._raise_or_wait(status, answer, failed := failed + 1, what)

    def _once(
        self, method: str, path: str, headers: Mapping[str, str], body: bytes, *, most: int = MOST_ANSWER_BYTES
    ) -> tuple[int, bytes]:
        connection = self._connect()
        with self._cut_after(len(body)):
            connection.request(
                method, path, body or None, {**headers, "Content-Length": str(len(body))} if body else dict(headers)
            )
            response = connection.getresponse()
        most = max(most, MOST_ANSWER_BYTES)
        if response.length is None or response.length > most:
            self._close()
            raise WireError("too-long", f"{path}: an answer of {response.length} bytes; at most {most} are read")
        with self._cut_after(response.length):
            data = response.read()  # with a length of its own it would take a broken connection for the end
        if response.will_close:
            self._close()
        return response.status, data

    @contextlib.contextmanager
    def _cut_after(self, count: int) -> Iterator[None]:
        """Cuts the connection if the block takes longer than so many bytes may; reading then ends as if it broke."""
        assert self._connection is not None
        limit, cut = self.patience.timeout_seconds + count / LEAST_BYTES_A_SECOND, threading.Event()
        timer = threading.Timer(limit, _cut, [self._connection.sock, cut])
        timer.daemon = True
        timer.start()
        try:
            yield
        finally:
            timer.cancel()
        if cut.is_set():  # http.client takes the end of the bytes for the end of the head
            raise TimeoutError(f"no whole answer in {limit:g} s")

    def _connect(self) -> http.client.HTTPConnection:
        if self._connection is None:
            parts = urlsplit(self.url)
            kind: Any = http.client.HTTPConnection
            more: dict[str, Any] = {"timeout": self.patience.timeout_seconds}
            if parts.scheme == "https":
                kind, more["context"] = http.client.HTTPSConnection, self.context or ssl.create_default_context()
            self._connection = kind(parts.hostname, parts.port, **more)
            self._connection.connect()
            self._connection.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return self._connection

    def _close(self) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    def _failed(self, failed: int, what: str, error: BaseException) -> int:
        if failed + 1 >= self.patience.tries:
            raise Unreachable(f"{self.url}, {what}: no answer in {failed + 1} tries ({error!r})") from None
        self.rest(self.patience.wait_after(failed + 1, random.random()))
        return failed + 1

    def _raise_or_wait(self, status: int, body: bytes, failed: int, what: str) -> None:
        problem = _object(body, strict=False)
        if status not in AGAIN or failed >= self.patience.tries:
            raise Refused(status, problem, what)
        self.rest(self.patience.wait_after(failed, random.random()))


def _cut(sock: socket.socket, cut: threading.Event) -> None:
    cut.set()
    with contextlib.suppress(OSError):
        sock.shutdown(socket.SHUT_RDWR)


_CUT = (OSError, http.client.HTTPException)


def _object(body: bytes, *, strict: bool = True) -> dict[str, Any]:
    try:
        value = json.loads(body)
    except (ValueError, RecursionError):
        value = None
    if not isinstance(value, dict):
        if strict:
            raise WireError("json", "the answer is no JSON object; is there another server at this address?")
        return {}
    return value
