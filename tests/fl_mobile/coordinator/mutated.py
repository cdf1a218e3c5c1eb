"""Requests that were honest before something was done to them: to their bytes, or to a part that is then signed."""

from __future__ import annotations

import hashlib
import random
import time
from dataclasses import dataclass, replace

from fl_mobile.coordinator.coordinator import Coordinator
from fl_mobile.protocol.signing import message, to_base64
from tests.fl_mobile.coordinator.asking import SECONDS, enrol, signed
from tests.fl_mobile.coordinator.tiny import key_of, packet_of

WORDS = (
    *(b"\r\n", b"\r\n\r\n", b"\x00", b"\xff\xfe", b"-1", b"0", b"99999999999999999999", b"NaN", b"null", b"{", b"[[[["),
    *(b"bytes */5", b"bytes 0-0/1", b"bytes 5-1/9", b"Bearer ", b"../", b"%2e%2e%2f", b"chunked"),
    *(b"Transfer-Encoding: ", b"Content-Length: 5\r\n", b"Expect: 100-continue\r\n", b"Range: bytes=5-1\r\n"),
    *(b"Upgrade: h2c\r\n", b"HTTP/9.9"),
)


@dataclass(frozen=True)
class Asked:
    """A request that can be put together again around what a mutation left.

    Attributes:
        headers: Beside those that follow from the body.
        signs: Who signs it, as which device.
        hashes: Whether it names its body's hash.
    """

    run: str
    method: str
    path: bytes
    headers: bytes = b""
    body: bytes = b""
    signs: tuple[int, int | None] | None = None
    hashes: bool = False

    @property
    def request(self) -> bytes:
        """What travels: length, hash and signature are those of the body and path that are here now."""
        head = self.headers
        if self.hashes:
            head += b"Repr-Digest: sha-256=:" + to_base64(hashlib.sha256(self.body).digest()).encode() + b":\r\n"
        if self.signs is not None:
            key, device = self.signs
            now, path = time.time_ns() // 1_000_000, self.path.decode("latin-1")
            text = message(run=self.run, method=self.method, path=path, device=device, time_ms=now, body=self.body)
            head += f"FL-Time: {now}\r\nFL-Signature: {to_base64(key_of(key).sign(text))}\r\n".encode()
        start = self.method.encode() + b" " + self.path + b" HTTP/1.1\r\nHost: x\r\n"
        return start + head + f"Content-Length: {len(self.body)}\r\n\r\n".encode() + self.body


def honest(coordinator: Coordinator, devices: int = 4) -> list[Asked]:
    """Returns requests of every kind, some of them about places that were given to devices now."""
    run, blob = coordinator.run, coordinator.blobs.put(b"blob" * 100).sha256
    out = [
        Asked(run, "GET", f"/v1/blobs/{blob}".encode(), b"Range: bytes=10-20\r\n"),
        *(Asked(run, "GET", path) for path in (b"/v1/run", b"/metrics", b"/")),
    ]
    for who in range(devices):
        key = key_of(who)
        device, body = enrol(coordinator, key), b'{"held": 0, "conditions": {"ready": true}}'
        path = f"/v1/devices/{device}/check-ins"
        out.append(Asked(run, "POST", path.encode(), body=body, signs=(who, device)))
        public = b'{"public_key": "' + to_base64(key.public).encode() + b'", "attestation": {"a": 1}}'
        out.append(Asked(run, "POST", b"/v1/devices", body=public, signs=(who, None)))
        told = coordinator.check_in(signed(run, key, path, device=device), device=device, held=0).result(SECONDS).body
        if "assignment" not in told:
            continue
        number, token = told["assignment"]["round"], told["assignment"]["token"]
        auth, packet = f"Authorization: Bearer {token}\r\n".encode(), packet_of(device, number)
        places = [f"/v1/rounds/{number}/devices/{device}/attempts/{attempt}".encode() for attempt in range(3)]
        part = f"Content-Range: bytes 3-{len(packet) - 1}/{len(packet)}\r\n".encode()
        out += [Asked(run, "PUT", place, auth, packet, hashes=True) for place in places]
        out.append(Asked(run, "PUT", places[1], auth + part, packet[3:], hashes=True))
        steps = [f"/v1/rounds/{number}/devices/{device}/sum/{step}".encode() for step in (1, 2, 4)]
        out += [Asked(run, "PUT", step, auth, packet, hashes=True) for step in steps]
        out += [Asked(run, "GET", step, auth) for step in steps]
        out += [Asked(run, method, places[0], auth) for method in ("GET", "DELETE")]
    return out


def mutated(rng: random.Random, asked: Asked) -> bytes:
    """Returns a request with one part changed and all else fitting, or any of its bytes; now and then as it was."""
    way = rng.randrange(4)
    if rng.randrange(16) == 0:
        return asked.request
    if way == 0:
        return scrambled(rng, asked.request)
    if way == 1 and asked.body:
        return replace(asked, body=scrambled(rng, asked.body)).request
    if way == 2 and asked.headers:
        return replace(asked, headers=scrambled(rng, asked.headers)).request
    return replace(asked, path=scrambled(rng, asked.path)).request


def scrambled(rng: random.Random, data: bytes) -> bytes:
    """Returns the bytes after up to four changes."""
    out = bytearray(data)
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
