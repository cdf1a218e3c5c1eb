"""The local server gives away its table and nothing else, to this computer and nobody else."""

from __future__ import annotations

import base64
import hashlib
import http.client
import re
import socket
from collections.abc import Iterator
from urllib.parse import urlsplit

import pytest

from export.runtimes.browser.server import MIME_TYPES, Resource, content_security_policy, serving
from fl_mobile.errors import ConfigError

MAP = b'{"imports": {"a": "/a.js"}}'
PAGE = b'<script type="importmap">' + MAP + b"</script>"
RESOURCES = {
    "/": Resource.of("index.html", PAGE),
    "/a.js": Resource.of("a.js", b"export {};"),
    "/litert/wasm/x.wasm": Resource.of("x.wasm", b"\0asm"),
    "/int8.tflite": Resource.of("int8.tflite", b"TFL3" * 100_000),
}


@pytest.fixture(scope="module")
def port() -> Iterator[int]:
    with serving(RESOURCES) as url:
        found = urlsplit(url).port
        assert found
        yield found


def ask(port: int, path: str, method: str = "GET", host: str | None = None) -> tuple[int, dict[str, str], bytes]:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
    try:
        connection.putrequest(method, path, skip_host=True)
        connection.putheader("Host", f"127.0.0.1:{port}" if host is None else host)
        connection.endheaders()
        answer = connection.getresponse()
        return answer.status, {name.lower(): value for name, value in answer.getheaders()}, answer.read()
    finally:
        connection.close()


@pytest.mark.parametrize("path", RESOURCES)
def test_every_resource_is_served_whole_with_its_type(port: int, path: str) -> None:
    status, headers, body = ask(port, path)
    assert (status, body) == (200, RESOURCES[path].data)
    assert headers["content-type"] == RESOURCES[path].mime_type
    status, headers, body = ask(port, path, "HEAD")
    assert (status, body, headers["content-length"]) == (200, b"", str(len(RESOURCES[path].data)))


def test_webassembly_has_the_type_browsers_insist_on() -> None:
    assert MIME_TYPES[".wasm"] == "application/wasm"
    assert MIME_TYPES[".js"].startswith("text/javascript")


def test_a_query_does_not_change_the_file(port: int) -> None:
    assert ask(port, "/a.js?recipe=int8")[2] == b"export {};"


@pytest.mark.parametrize(
    "path",
    [
        "/etc/passwd",
        "/../../../../etc/passwd",
        "/..%2f..%2fetc%2fpasswd",
        "//etc/passwd",
        "/./a.js",
        "/litert/",
        "/litert/wasm/../../a.js",
        "/a.js/",
        "/a.js%00",
        "/A.js",
        "a.js",
        "*",
        "http://127.0.0.1/a.js",
        "/server.py",
        "/manifest.json",
        "/" + "x" * 60_000,
    ],
)
def test_whatever_is_not_in_the_table_is_not_found(port: int, path: str) -> None:
    status, _, body = ask(port, path)
    assert status == 404
    assert body == b"no such file\n"


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "OPTIONS", "TRACE", "CONNECT"])
def test_nothing_can_be_sent(port: int, method: str) -> None:
    assert ask(port, "/", method)[0] == 501


@pytest.mark.parametrize("host", ["evil.example", "evil.example:{port}", "127.0.0.1", "127.0.0.1:1", "", "localhost"])
def test_other_names_for_this_computer_are_refused(port: int, host: str) -> None:
    """A web site can point its own name at 127.0.0.1; its pages must not read the bundle."""
    status, _, body = ask(port, "/", host=host.format(port=port))
    assert status == 403
    assert b"importmap" not in body


def test_localhost_is_a_name_for_this_computer(port: int) -> None:
    assert ask(port, "/", host=f"localhost:{port}")[0] == 200


def test_it_listens_on_one_loopback_address_only(port: int) -> None:
    # 127.0.0.2 is this computer as well: only a server bound to every address would answer there.
    with pytest.raises(OSError, match=r"refused|unreachable|assign"):
        socket.create_connection(("127.0.0.2", port), timeout=5).close()


@pytest.mark.parametrize("path", ["/", "/no-such-file"])
def test_every_answer_keeps_the_page_to_itself(port: int, path: str) -> None:
    headers = ask(port, path)[1]
    policy = headers["content-security-policy"]
    assert "default-src 'none'" in policy
    assert "connect-src 'self'" in policy
    assert not re.search(r"https?:|\*|'unsafe-inline'|'unsafe-eval'", policy)
    assert headers["x-content-type-options"] == "nosniff"
    assert headers["cache-control"] == "no-store"
    assert headers["permissions-policy"].startswith("camera=(self)")
    assert headers["cross-origin-opener-policy"] == "same-origin"
    assert headers["cross-origin-embedder-policy"] == "require-corp"


def test_the_policy_allows_this_import_map_and_no_other() -> None:
    allowed = base64.b64encode(hashlib.sha256(MAP).digest()).decode()
    assert f"'sha256-{allowed}'" in content_security_policy(RESOURCES)
    changed = {"/": Resource.of("index.html", PAGE.replace(b"/a.js", b"/b.js"))}
    assert allowed not in content_security_policy(changed)


def test_a_taken_port_is_a_clear_error(port: int) -> None:
    with (
        pytest.raises(ConfigError, match=rf"port {port} on 127\.0\.0\.1: .*--port 0 picks a free one"),
        serving({}, port),
    ):
        pass


def test_the_port_is_free_again_afterwards() -> None:
    with serving(RESOURCES) as url:
        port = urlsplit(url).port or 0
        assert ask(port, "/")[0] == 200
    with serving(RESOURCES, port):
        assert ask(port, "/")[0] == 200
