"""The coordinator over real sockets: what honest clients meet, and what others do."""

from __future__ import annotations

import contextlib
import hashlib
import http.client
import json
import logging
import socket
import ssl
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta, timezone
from ipaddress import ip_address
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import NameOID

from fl_mobile.client.remote import Patience, Refused, Remote, Unreachable
from fl_mobile.coordinator.coordinator import Coordinator
from fl_mobile.coordinator.http import Tls, serving
from fl_mobile.coordinator.logs import LOGGER, log_to
from fl_mobile.coordinator.records import Limits, OpenRound
from fl_mobile.errors import ConfigError
from fl_mobile.protocol.signing import to_base64
from fl_mobile.protocol.terms import Blob
from tests.fl_mobile.coordinator.tiny import key_of, packet_of, round_of

LIMITS = Limits(header_seconds=1.0, grace_seconds=0.4, least_bytes_per_second=2000, body_seconds=3.0, header_bytes=8192)


@dataclass
class Served:
    coordinator: Coordinator
    url: str

    @property
    def address(self) -> tuple[str, int]:
        host, _, port = self.url.removeprefix("http://").partition(":")
        return host, int(port)

    def open(self, number: int = 0, **more: Any) -> OpenRound:
        round_ = round_of(number, **more)
        self.coordinator.open_round(round_)
        return round_

    def client(self, device: int = 0) -> Remote:
        remote = Remote(self.url, key_of(device), Patience(tries=2, timeout_seconds=10))
        remote.run = self.coordinator.run
        remote.device = remote.signed("/v1/devices", {"public_key": to_base64(remote.key.public)})["device"]
        return remote

    def assignment(self, remote: Remote) -> dict[str, Any]:
        answer = remote.signed(f"/v1/devices/{remote.device}/check-ins", {"held": 0})
        assert "assignment" in answer, answer
        return answer["assignment"]

    def raw(self, text: bytes, seconds: float = 5.0) -> bytes:
        """Returns all that is answered until the server closes or falls silent."""
        with socket.create_connection(self.address, timeout=seconds) as connection:
            connection.sendall(text)
            out = b""
            try:
                while more := connection.recv(65536):
                    out += more
                    if b"\r\n\r\n" in out:
                        connection.settimeout(0.3)
            except (TimeoutError, ConnectionResetError):
                pass
            return out


@pytest.fixture(scope="module", params=["sqlite", pytest.param("postgresql", marks=pytest.mark.slow)])
def served(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    url = "" if request.param == "sqlite" else request.getfixturevalue("postgres").empty()
    coordinator = Coordinator(tmp_path_factory.mktemp("run"), url=url, limits=LIMITS)
    with serving(coordinator, host="127.0.0.1", port=0) as url:
        yield Served(coordinator, url)
    coordinator.close()


@pytest.fixture
def opened(served: Served) -> Served:
    """With a round of its own for every test, whose number rises."""
    number = 0 if served.coordinator.open is None else served.coordinator.open.number + 1
    served.open(number)
    return served


def path_of(assignment: dict[str, Any], attempt: int = 0) -> str:
    return f"/v1/rounds/{assignment['round']}/devices/{assignment['device']}/attempts/{attempt}"


def test_a_client_is_asked_uploads_and_gets_the_same_receipt_again(opened: Served) -> None:
    remote = opened.client()
    told = opened.assignment(remote)
    packet = packet_of(told["device"], told["round"])
    first = remote.send(path_of(told), packet, told["token"])
    again = remote.send(path_of(told), packet, told["token"])
    asked = remote.ask("GET", path_of(told), told["token"])
    assert (first[0], again[0], asked[0]) == (201, 200, 200)
    assert first[1] == again[1] == asked[1]
    assert first[1]["receipt"]["accepted"] is True


def test_a_packet_that_does_not_count_is_refused_by_reason_and_the_next_attempt_may(opened: Served) -> None:
    remote = opened.client()
    told = opened.assignment(remote)
    good = packet_of(told["device"], told["round"])
    status, problem = remote.send(path_of(told), good[:-1] + b"!", told["token"])
    assert (status, problem["reason"], problem["receipt"]["accepted"]) == (422, "checksum", False)
    assert remote.send(path_of(told, 1), good, told["token"])[0] == 201
    status, problem = remote.send(path_of(told, 2), packet_of(told["device"], told["round"], 1), told["token"])
    assert (status, problem["reason"]) == (409, "already-counted")


def test_an_upload_goes_on_where_it_broke_off(opened: Served) -> None:
    remote = opened.client()
    told = opened.assignment(remote)
    packet = packet_of(told["device"], told["round"])
    head = {
        "Authorization": f"Bearer {told['token']}",
        "Repr-Digest": f"sha-256=:{to_base64(hashlib.sha256(packet).digest())}:",
    }
    connection = http.client.HTTPConnection(*opened.address, timeout=10)

    def put(first: int, last: int) -> tuple[int, dict[str, Any]]:
        headers = {**head, "Content-Range": f"bytes {first}-{last - 1}/{len(packet)}"}
        connection.request("PUT", path_of(told), packet[first:last], headers)
        answer = connection.getresponse()
        return answer.status, json.loads(answer.read())

    assert put(0, 10) == (202, {"received": 10})
    assert put(20, 30)[0] == 409
    assert put(10, 25) == (202, {"received": 25})
    assert remote.ask("GET", path_of(told), told["token"]) == (202, {"received": 25})
    assert put(25, len(packet))[0] == 201
    assert put(0, 10)[0] in (200, 202)
    connection.close()


def test_parts_that_nobody_comes_back_for_fill_no_disk(opened: Served) -> None:
    remote, folder = opened.client(), opened.coordinator.folder / "parts"

    def put_part(told: dict[str, Any], attempt: int) -> int:
        packet = packet_of(told["device"], told["round"])
        head = {
            "Authorization": f"Bearer {told['token']}",
            "Repr-Digest": f"sha-256=:{to_base64(hashlib.sha256(packet).digest())}:",
            "Content-Range": f"bytes 0-9/{len(packet)}",
        }
        connection = http.client.HTTPConnection(*opened.address, timeout=10)
        connection.request("PUT", path_of(told, attempt), packet[:10], head)
        status = connection.getresponse().status
        connection.close()
        return status

    told = opened.assignment(remote)
    assert [put_part(told, attempt) for attempt in (0, 1, 2, 3, 4_000_000)] == [202, 202, 202, 429, 429]
    assert len(list(folder.glob(f"{told['round']}-*.part"))) == 3
    opened.open(told["round"] + 1)
    told = opened.assignment(remote)
    assert put_part(told, 0) == 202
    assert [path.name for path in folder.glob("*.part")] == [f"{told['round']}-{told['device']}-0.part"]


def test_a_device_whose_clock_is_a_day_off_is_told_the_time_and_comes_in(opened: Served) -> None:
    for days in (-1, 1):
        remote = opened.client()
        remote.clock_ms = lambda days=days: time.time_ns() // 1_000_000 + days * 86_400_000
        assert opened.assignment(remote)["round"] == opened.coordinator.open.number  # type: ignore[union-attr]


@pytest.mark.parametrize(
    ("change", "status", "reason"),
    [
        ({"token": "AAAA.BBBB"}, 401, "token"),
        ({"device": 4_000_000_000}, 403, "token-of-another"),
        ({"round": 77}, 403, "token-of-another"),
    ],
)
def test_a_token_is_for_one_device_and_round(opened: Served, change: dict[str, Any], status: int, reason: str) -> None:
    remote = opened.client()
    told = {**opened.assignment(remote), **change}
    answer = remote.send(path_of(told), packet_of(0, 0), told["token"])
    assert (answer[0], answer[1]["reason"]) == (status, reason)


def test_a_late_packet_is_told_when_to_come_again(opened: Served) -> None:
    remote = opened.client()
    told = opened.assignment(remote)
    opened.open(told["round"] + 1)
    status, problem = remote.send(path_of(told), packet_of(told["device"], told["round"]), told["token"])
    assert (status, problem["reason"]) == (410, "late")
    assert problem["retry"]["before_seconds"] > problem["retry"]["after_seconds"] > 0


def test_a_request_signed_by_another_key_or_sent_twice_is_refused(opened: Served) -> None:
    remote, other = opened.client(0), opened.client(1)
    other.device = remote.device
    with pytest.raises(Refused, match="signature"):
        other.signed(f"/v1/devices/{remote.device}/check-ins", {"held": 0})
    remote.device = 4_000_000
    with pytest.raises(Refused, match="unknown-device"):
        remote.signed("/v1/devices/4000000/check-ins", {"held": 0})


def test_a_blob_comes_whole_in_ranges_and_damaged_never(opened: Served) -> None:
    data = bytes(range(256)) * 400
    blob, remote = opened.coordinator.blobs.put(data), opened.client()
    assert remote.fetch(blob) == data
    connection = http.client.HTTPConnection(*opened.address, timeout=10)
    connection.request("GET", f"/v1/blobs/{blob.sha256}", headers={"Range": "bytes=1000-1999"})
    answer = connection.getresponse()
    assert (answer.status, answer.read()) == (206, data[1000:2000])
    connection.close()
    with pytest.raises(Refused, match="unknown-blob"):
        remote.fetch(Blob("a" * 64, 5))
    path = opened.coordinator.blobs.path(blob.sha256)
    path.write_bytes(data[:-1] + b"x")
    with pytest.raises(Unreachable, match="another hash"):
        remote.fetch(blob)


HEAD, ATTEMPT = b"Host: x\r\n", b"/v1/rounds/0/devices/7/attempts/0"
BAD_REQUESTS = {
    "no path": b"GET /nothing HTTP/1.1\r\n" + HEAD + b"\r\n",
    "climbing": b"GET /v1/blobs/../../etc/passwd HTTP/1.1\r\n" + HEAD + b"\r\n",
    "climbing, encoded": b"GET /v1/blobs/..%2f..%2fcoordinator.db HTTP/1.1\r\n" + HEAD + b"\r\n",
    "a name that is no hash": b"GET /v1/blobs/" + b"A" * 64 + b" HTTP/1.1\r\n" + HEAD + b"\r\n",
    "method": b"BREW /v1/run HTTP/1.1\r\n" + HEAD + b"\r\n",
    "no HTTP": b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n",
    "a number of many digits": b"POST /v1/devices/"
    + b"9" * 5000
    + b"/check-ins HTTP/1.1\r\n"
    + HEAD
    + b"Content-Length: 0\r\n\r\n",
    "json": b"POST /v1/devices HTTP/1.1\r\n" + HEAD + b"Content-Length: 4\r\n\r\n[[[[",
    "deep json": b"POST /v1/devices HTTP/1.1\r\n" + HEAD + b"Content-Length: 9000\r\n\r\n" + b"[" * 9000,
    "not utf-8": b"POST /v1/devices HTTP/1.1\r\n" + HEAD + b"Content-Length: 2\r\n\r\n\xff\xfe",
    "negative length": b"POST /v1/devices HTTP/1.1\r\n" + HEAD + b"Content-Length: -5\r\n\r\n",
    "declared 10 GB": b"PUT /v1/rounds/0/devices/0/attempts/0 HTTP/1.1\r\n"
    + HEAD
    + b"Content-Length: 10000000000\r\n\r\n",
    "chunked": b"POST /v1/devices HTTP/1.1\r\n" + HEAD + b"Transfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n",
    "no token": b"PUT /v1/rounds/0/devices/0/attempts/0 HTTP/1.1\r\n" + HEAD + b"Content-Length: 2\r\n\r\nhi",
    "long header": b"GET / HTTP/1.1\r\n" + HEAD + b"X: " + b"y" * 100_000 + b"\r\n\r\n",
}


@pytest.mark.parametrize("name", BAD_REQUESTS)
def test_a_bad_request_is_4xx_with_a_reason_and_the_next_client_is_served(opened: Served, name: str) -> None:
    answer = opened.raw(BAD_REQUESTS[name])
    assert answer.startswith(b"HTTP/1.1 4"), answer[:200]
    assert opened.client().get("/v1/run")["run"] == opened.coordinator.run


def test_a_body_that_trickles_is_cut_off_and_so_is_a_head(opened: Served) -> None:
    begun = time.monotonic()
    with socket.create_connection(opened.address, timeout=10) as connection:
        connection.sendall(b"POST /v1/devices HTTP/1.1\r\n" + HEAD + b"Content-Length: 5000\r\n\r\n" + b"x")
        answer = connection.recv(4096)
    assert answer.startswith(b"HTTP/1.1 408")
    with socket.create_connection(opened.address, timeout=10) as connection:
        connection.sendall(b"GET /v1/run HTT")
        assert connection.recv(4096) == b""
    assert time.monotonic() - begun < 8


def test_a_head_without_end_is_refused_when_it_is_longer_than_any_may_be(opened: Served) -> None:
    before, sent = opened.coordinator.refused["long-head"], 0
    with socket.create_connection(opened.address, timeout=10) as connection:
        connection.sendall(b"GET /v1/run HTTP/1.1\r\n")
        connection.settimeout(0.05)
        answer = b""
        while not answer and sent < 100_000:
            connection.sendall(b"x-more: " + b"y" * 1000 + b"\r\n")
            sent += 1010
            with contextlib.suppress(TimeoutError):
                answer = connection.recv(4096)
    assert answer.startswith(b"HTTP/1.1 431"), answer
    assert json.loads(answer.partition(b"\r\n\r\n")[2])["reason"] == "long-head"
    assert LIMITS.header_bytes < sent < 4 * LIMITS.header_bytes
    assert opened.coordinator.refused["long-head"] == before + 1


def test_a_body_that_comes_with_half_of_the_next_head_is_not_taken_for_it(opened: Served) -> None:
    body = b"{" + b" " * (LIMITS.header_bytes + 4000)
    first = b"POST /v1/devices HTTP/1.1\r\n" + HEAD + f"Content-Length: {len(body)}\r\n\r\n".encode() + body
    answer = opened.raw(first + b"GET /v1/run HTT")
    assert answer.startswith(b"HTTP/1.1 400"), answer


def test_the_page_and_the_metrics_name_no_device(opened: Served) -> None:
    remote = opened.client()
    told = opened.assignment(remote)
    remote.send(path_of(told), packet_of(told["device"], told["round"])[:-1], told["token"])
    connection = http.client.HTTPConnection(*opened.address, timeout=10)
    pages = []
    for path in ("/", "/metrics"):
        connection.request("GET", path)
        pages.append(connection.getresponse().read().decode())
    connection.close()
    assert "clients asked" in pages[0]
    assert 'fl_mobile_refused_total{reason="checksum"}' in pages[1]
    assert to_base64(remote.key.public) not in "".join(pages)


def test_a_reader_that_reads_nothing_is_let_go(tmp_path: Path) -> None:
    coordinator = Coordinator(tmp_path, limits=Limits(answer_seconds=0.5))
    blob = coordinator.blobs.put(bytes(40_000_000))
    with serving(coordinator, host="127.0.0.1", port=0) as url:
        host, _, port = url.removeprefix("http://").partition(":")
        with socket.create_connection((host, int(port)), timeout=10) as connection:
            connection.sendall(f"GET /v1/blobs/{blob.sha256} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
            until = time.monotonic() + 10
            while not coordinator.refused["slow-reader"] and time.monotonic() < until:
                threading.Event().wait(0.05)
            got = 0
            try:
                while more := connection.recv(1 << 20):
                    got += len(more)
            except ConnectionResetError:
                pass
    assert coordinator.refused["slow-reader"] == 1
    assert got < blob.bytes
    coordinator.close()


def test_who_may_enrol_is_asked_of_whoever_knows_and_never_for_a_stranger(tmp_path: Path) -> None:
    seen: list[tuple[bytes, dict[str, Any]]] = []

    def attest(public_key: bytes, told: Any) -> str:
        seen.append((public_key, told))
        return {"ok": "", "bad": "this device is rooted"}[told["verdict"]]

    coordinator = Coordinator(tmp_path, attest=attest)
    with serving(coordinator, host="127.0.0.1", port=0) as url:
        remote = Remote(url, key_of(0), Patience(tries=1, timeout_seconds=10))
        with pytest.raises(Refused, match="signature"):  # signed for no run
            remote.signed("/v1/devices", {"public_key": to_base64(remote.key.public), "attestation": {"verdict": "ok"}})
        assert not seen
        remote.run = coordinator.run
        for verdict, told in (("bad", "403 attestation: this device is rooted"), ("?", "503 attestation-unchecked")):
            with pytest.raises(Refused, match=told):
                remote.signed(
                    "/v1/devices", {"public_key": to_base64(remote.key.public), "attestation": {"verdict": verdict}}
                )
        assert coordinator.seen(None)[0] == 0
        asked = {"public_key": to_base64(remote.key.public), "attestation": {"verdict": "ok"}}
        assert remote.signed("/v1/devices", asked) == {"device": 0}
    assert [key for key, _ in seen] == [remote.key.public] * 3
    coordinator.close()


def test_a_client_that_cannot_train_now_takes_nobodys_place(opened: Served) -> None:
    remote = opened.client()
    path = f"/v1/devices/{remote.device}/check-ins"
    assert remote.signed(path, {"held": 0, "conditions": {"ready": False}})["retry"]["reason"] == "not-ready"
    assert opened.coordinator.counts(opened.coordinator.open.number).asked == 0  # type: ignore[union-attr]
    assert "assignment" in remote.signed(path, {"held": 0, "conditions": {"ready": True}})


def test_the_log_says_what_happened_and_names_nobody(opened: Served, tmp_path: Path) -> None:
    file = tmp_path / "log.jsonl"
    handler = log_to(file)
    try:
        remote = opened.client()
        told = opened.assignment(remote)
        remote.ask("GET", path_of(told), told["token"])
        opened.open(told["round"] + 1)
    finally:
        logging.getLogger(LOGGER).removeHandler(handler)
        handler.close()
    lines = [json.loads(line) for line in file.read_text().splitlines()]
    assert [line["event"] for line in lines] == ["refused", "round opened"]
    refused = {name: lines[0][name] for name in ("method", "path", "status", "reason")}
    assert refused == {
        "method": "GET",
        "path": f"/v1/rounds/{told['round']}/devices/*/attempts/0",
        "status": 404,
        "reason": "unknown-attempt",
    }
    with pytest.raises(ConfigError, match="--log"):
        log_to(tmp_path / "none" / "log.jsonl")


def certificate(folder: Path) -> Tls:
    """A certificate of its own for 127.0.0.1."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "coordinator")])
    now = datetime.now(timezone.utc)
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ip_address("127.0.0.1"))]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    tls = Tls(folder / "cert.pem", folder / "key.pem")
    tls.certificate.write_bytes(made.public_bytes(Encoding.PEM))
    tls.key.write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    return tls


def test_tls_by_certificate_files_and_a_client_that_trusts_nobody_else(tmp_path: Path) -> None:
    tls, coordinator = certificate(tmp_path), Coordinator(tmp_path / "run")
    with serving(coordinator, host="127.0.0.1", port=0, tls=tls) as url:
        assert url.startswith("https://127.0.0.1")
        trusting = ssl.create_default_context(cafile=str(tls.certificate))
        patience = Patience(tries=2, first_seconds=0.01, timeout_seconds=5)
        assert Remote(url, key_of(0), patience, context=trusting).get("/v1/run")["run"] == coordinator.run
        with pytest.raises(Unreachable, match="CERTIFICATE_VERIFY_FAILED"):
            Remote(url, key_of(0), patience).get("/v1/run")
    tls.key.write_text("nonsense")
    with pytest.raises(ConfigError, match="--tls-cert"), serving(coordinator, host="127.0.0.1", port=0, tls=tls):
        pass
    coordinator.close()


def test_a_port_that_is_taken_is_one_line(opened: Served, tmp_path: Path) -> None:
    coordinator = Coordinator(tmp_path)
    with (
        pytest.raises(ConfigError, match="Choose another --port"),
        serving(coordinator, host="127.0.0.1", port=opened.address[1]),
    ):
        pass
    coordinator.close()


@pytest.mark.parametrize(
    ("method", "path", "allowed"),
    [
        ("GET", "/v1/devices", "POST"),
        ("POST", "/v1/rounds/0/devices/0/attempts/0", "PUT, GET, HEAD, DELETE"),
        ("DELETE", "/v1/run", "GET, HEAD"),
        ("GET", "/v1/run/", ""),
        ("GET", "//evil.example/v1/run", ""),
    ],
)
def test_what_no_route_answers_says_what_one_may(opened: Served, method: str, path: str, allowed: str) -> None:
    answer = opened.raw(f"{method} {path} HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n".encode())
    assert answer.startswith(b"HTTP/1.1 405" if allowed else b"HTTP/1.1 404")
    assert (f"allow: {allowed}\r\n".encode() in answer) == bool(allowed)


@pytest.mark.parametrize(("method", "path", "status"), [
    ("TRACE", "/v1/run", 405),
    ("GET", "/v1/devices", 405),
    ("DELETE", "/v1/rounds/0/devices/0/sum/0", 405),
    ("GET", "/v1/run", 200),
])  # fmt: skip
def test_a_body_that_no_answer_needs_changes_no_answer(opened: Served, method: str, path: str, status: int) -> None:
    for length, expected in ((4, status), (LIMITS.json_bytes + 1, 413)):
        head = f"{method} {path} HTTP/1.1\r\nHost: x\r\nContent-Length: {length}\r\n\r\n"
        asked = b"GET /metrics HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n" if length == 4 else b""
        answer = opened.raw(head.encode() + b"null" + asked)
        assert answer.startswith(f"HTTP/1.1 {expected}".encode())
        assert (b"fl_mobile_round" in answer) == (length == 4), "the next request of the connection is answered too"


def test_a_crowd_is_told_that_a_round_is_full_without_a_look_at_the_database(opened: Served) -> None:
    clients = [opened.client(device) for device in range(5)]
    path = "/v1/devices/{}/check-ins"
    told = [remote.signed(path.format(remote.device), {"held": 0}) for remote in clients]
    assert ["assignment" in each for each in told] == [True, True, True, False, False]
    full, held = opened.coordinator.full_for, threading.Event()
    waiting = opened.coordinator._writer.submit(lambda tx: held.wait(10))  # nothing else is written meanwhile
    again = clients[4].signed(path.format(clients[4].device), {"held": 0})
    assert not waiting.done()
    held.set()
    assert again["retry"].keys() == told[4]["retry"].keys()
    assert [full(remote.device) is None for remote in clients[:3]] == [True] * 3  # type: ignore[arg-type]
    assert full(10**6) is None  # who is not enrolled is told so
