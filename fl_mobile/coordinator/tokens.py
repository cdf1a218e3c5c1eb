"""Tokens: who may upload what until when. HMAC-SHA-256 over fixed fields; there is no algorithm to choose.

``base64url(round uint32, device uint32, expires uint64) "." base64url(HMAC)``, numbers big endian; the run's name is
under the HMAC.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import struct
from dataclasses import dataclass

from fl_mobile.coordinator.records import Refusal

_FIELDS = struct.Struct(">IIQ")
TOLERANCE_SECONDS = 120


@dataclass(frozen=True)
class Minter:
    """Makes and checks the tokens of one run."""

    run: str
    secret: bytes

    def token(self, *, round_num: int, device: int, expires: float) -> str:
        """Returns a token for the packets of one device in one round."""
        body = _FIELDS.pack(round_num, device, int(expires))
        return f"{_text(body)}.{_text(self._mac(body))}"

    def check(self, token: str, *, round_num: int, device: int, now: float) -> None:
        """Raises `Refusal` unless the token is ours, for this round and device, and not over."""
        body, _, mac = token.partition(".")
        try:
            packed, given = _bytes(body), _bytes(mac)
        except ValueError:
            packed, given = b"", b""
        if len(packed) != _FIELDS.size or not hmac.compare_digest(self._mac(packed), given):
            raise Refusal(401, "token", "this token is not from this run: check in again")
        for_round, for_device, expires = _FIELDS.unpack(packed)
        if (for_round, for_device) != (round_num, device):
            raise Refusal(
                403,
                "token-of-another",
                f"the token is for device {for_device} in round {for_round}, not {device} in {round_num}",
            )
        if now > expires + TOLERANCE_SECONDS:
            raise Refusal(401, "token-expired", "the token is over: check in again")

    def _mac(self, body: bytes) -> bytes:
        return hmac.digest(self.secret, self.run.encode() + b"\n" + body, hashlib.sha256)


def _text(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def _bytes(text: str) -> bytes:
    if len(text) > 64 or not text.isascii():
        raise ValueError("no token")
    return base64.b64decode(text + "=" * (-len(text) % 4), altchars=b"-_", validate=True)
