"""A server that speaks as much S3 as the coordinator asks of one, and fails on demand: real sockets, a real client."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit
from xml.sax.saxutils import escape

import pytest

CREDENTIALS = {"AWS_ACCESS_KEY_ID": "tests", "AWS_SECRET_ACCESS_KEY": "tests", "AWS_DEFAULT_REGION": "us-east-1"}


class S3:
    """What the server holds, and how it fails.

    Attributes:
        held: ``bucket/key`` → bytes.
        failing: ``""``; ``503`` answers so; ``cut`` takes half of a body and hangs up.
        asked: Requests so far.
    """

    def __init__(self) -> None:
        self.held: dict[str, bytes] = {}
        self.failing, self.asked = "", 0


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    state: S3

    def log_message(self, format: str, *arguments: Any) -> None: ...

    def _answer(self, status: int, body: bytes = b"") -> None:
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.send_header("ETag", '"0"')
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def _refused(self) -> bool:
        self.state.asked += 1
        length = int(self.headers.get("Content-Length") or 0)
        if self.state.failing == "cut":
            self.rfile.read(length // 2)
            self.close_connection = True
            self.connection.close()
            return True
        self.body = self.rfile.read(length)
        if self.state.failing == "503":
            self._answer(503, b"<Error><Code>SlowDown</Code><Message>later</Message></Error>")
        return bool(self.state.failing)

    @property
    def _key(self) -> str:
        return unquote(urlsplit(self.path).path).strip("/")

    def do_PUT(self) -> None:
        if not self._refused():
            self.state.held[self._key] = self.body
            self._answer(200)

    def do_DELETE(self) -> None:
        if not self._refused():
            self.state.held.pop(self._key, None)
            self._answer(204)

    def do_HEAD(self) -> None:
        self.do_GET()

    def do_GET(self) -> None:
        if self._refused():
            return
        query = parse_qs(urlsplit(self.path).query)
        if "list-type" in query:
            self._list(query.get("prefix", [""])[0])
        elif self._key in self.state.held:
            self._answer(200, self.state.held[self._key])
        else:
            self._answer(404, b"<Error><Code>NoSuchKey</Code><Message>none</Message></Error>")

    def _list(self, prefix: str) -> None:
        bucket = self._key.partition("/")[0]
        keys = [key.removeprefix(f"{bucket}/") for key in sorted(self.state.held)]
        rows = "".join(
            f"<Contents><Key>{escape(key)}</Key><Size>1</Size><ETag>0</ETag>"
            "<LastModified>2026-01-01T00:00:00.000Z</LastModified><StorageClass>STANDARD</StorageClass></Contents>"
            for key in keys
            if key.startswith(prefix)
        )
        head = f"<Name>{bucket}</Name><Prefix>{escape(prefix)}</Prefix><IsTruncated>false</IsTruncated>"
        self._answer(200, f"<ListBucketResult>{head}{rows}</ListBucketResult>".encode())


@contextlib.contextmanager
def speaking() -> Iterator[tuple[S3, str]]:
    """Gives a server's state and its address."""
    state = S3()
    server = ThreadingHTTPServer(("127.0.0.1", 0), type("Handler", (_Handler,), {"state": state}))
    server.daemon_threads = True
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield state, f"http://127.0.0.1:{server.server_address[1]}"
    finally:
        server.shutdown()
        server.server_close()


@pytest.fixture
def s3(monkeypatch: pytest.MonkeyPatch) -> Iterator[S3]:
    """A store that ``s3://bucket`` leads to in this test."""
    pytest.importorskip("s3fs", reason="s3fs is not installed: pip install 'fl-mobile[s3]'")
    with speaking() as (state, address):
        for name, value in {**CREDENTIALS, "AWS_ENDPOINT_URL": address}.items():
            monkeypatch.setenv(name, value)
        yield state
