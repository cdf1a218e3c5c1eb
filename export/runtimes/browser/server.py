"""A local web server that can only give away what it was handed: a table of paths, on the loopback interface.

There is no folder behind it, so there is nothing to traverse. Every answer forbids the page to load anything from
elsewhere (Content-Security-Policy), and requests that name another host are refused, because a web site may point
its own name at 127.0.0.1 (DNS rebinding).
"""

from __future__ import annotations

import base64
import contextlib
import hashlib
import re
import threading
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import PurePosixPath

from fl_mobile.errors import ConfigError

LOOPBACK = "127.0.0.1"
MIME_TYPES: dict[str, str] = {
    ".html": "text/html; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".json": "application/json",
    ".svg": "image/svg+xml",
    ".wasm": "application/wasm",  # browsers compile while they download only with this type
    ".tflite": "application/octet-stream",
}
_INLINE_SCRIPT = re.compile(rb"<script type=\"importmap\">(.*?)</script>", re.DOTALL)


@dataclass(frozen=True)
class Resource:
    """What one path answers."""

    mime_type: str
    data: bytes

    @classmethod
    def of(cls, name: str, data: bytes) -> Resource:
        """Returns ``data`` with the type that the suffix of ``name`` stands for."""
        return cls(MIME_TYPES[PurePosixPath(name).suffix], data)


def content_security_policy(resources: Mapping[str, Resource]) -> str:
    """Returns the policy for a page made of ``resources``: own files only, WebAssembly, and the page's import map.

    An import map must stand in the page itself, so its SHA-256 is allowed rather than inline scripts at large.
    """
    maps = {
        m for r in resources.values() if r.mime_type.startswith("text/html") for m in _INLINE_SCRIPT.findall(r.data)
    }
    hashes = [f"'sha256-{base64.b64encode(hashlib.sha256(text).digest()).decode()}'" for text in sorted(maps)]
    return "; ".join(
        (
            "default-src 'none'",
            " ".join(("script-src 'self' 'wasm-unsafe-eval'", *hashes)),
            "style-src 'self'",
            "connect-src 'self'",
            "img-src 'self' blob: data:",
            "media-src blob:",
            "base-uri 'none'",
            "form-action 'none'",
            "frame-ancestors 'none'",
        )
    )


@contextlib.contextmanager
def serving(resources: Mapping[str, Resource], port: int = 0) -> Iterator[str]:
    """Serves ``resources`` by path on 127.0.0.1 while the block runs; yields the address, ending in ``/``.

    Args:
        resources: Absolute path → answer; ``/`` should be one of them.
        port: TCP port; 0 picks a free one.

    Raises:
        ConfigError: The port is taken or not allowed.
    """
    try:
        server = _Server((LOOPBACK, port), _Request)
    except (OSError, OverflowError) as error:
        reason = getattr(error, "strerror", None) or error
        raise ConfigError(f"port {port} on {LOOPBACK}: {reason}. Choose another; --port 0 picks a free one.") from error
    server.resources, server.policy = dict(resources), content_security_policy(resources)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.1}, daemon=True)
    thread.start()
    try:
        yield f"http://{LOOPBACK}:{server.server_port}/"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    resources: Mapping[str, Resource]
    policy: str

    def handle_error(self, request: object, client_address: object) -> None:
        """A browser that closes a connection early is no error of ours; anything else goes to stderr."""
        import sys

        if not isinstance(sys.exc_info()[1], ConnectionError):
            super().handle_error(request, client_address)  # type: ignore[arg-type]


class _Request(BaseHTTPRequestHandler):
    server: _Server
    protocol_version = "HTTP/1.1"
    server_version, sys_version = "fl-mobile", ""
    timeout = 60

    def do_GET(self) -> None:
        self._answer(with_body=True)

    def do_HEAD(self) -> None:
        self._answer(with_body=False)

    def _answer(self, *, with_body: bool) -> None:
        port = self.server.server_port
        if self.headers.get("Host") not in (f"{LOOPBACK}:{port}", f"localhost:{port}"):
            self._send(HTTPStatus.FORBIDDEN, Resource("text/plain", b"this server answers to localhost only\n"), True)
            return
        found = self.server.resources.get(self.path.partition("?")[0])
        if found is None:
            self._send(HTTPStatus.NOT_FOUND, Resource("text/plain", b"no such file\n"), with_body)
        else:
            self._send(HTTPStatus.OK, found, with_body)

    def _send(self, status: HTTPStatus, resource: Resource, with_body: bool) -> None:
        self.send_response(status)
        headers = {
            "Content-Type": resource.mime_type,
            "Content-Length": str(len(resource.data)),
            "Content-Security-Policy": self.server.policy,
            # Isolated from other origins, a page gets clocks of 5 microseconds instead of 100 for its latencies.
            "Cross-Origin-Opener-Policy": "same-origin",
            "Cross-Origin-Embedder-Policy": "require-corp",
            "Cross-Origin-Resource-Policy": "same-origin",
            "Permissions-Policy": "camera=(self), microphone=(), geolocation=()",
            "Referrer-Policy": "no-referrer",
            "X-Content-Type-Options": "nosniff",
            # A bundle is exported again under the same address; an old model from the cache would be shown for it.
            "Cache-Control": "no-store",
        }
        for name, value in headers.items():
            self.send_header(name, value)
        self.end_headers()
        if with_body:
            self.wfile.write(resource.data)

    def log_message(self, format: str, *args: object) -> None:
        """Keeps request lines off the terminal; what the page did is shown in the page."""
