"""Who a request is from: Ed25519 over the request line, the time and the body's hash (RFC 8032).

```
FL-Time: 1767225600000            milliseconds since 1970, by the device's clock; rises from request to request
FL-Signature: <64 bytes, base64>  of seven lines: fl-mobile/1, run, METHOD, path, device or -, time, SHA-256 of the body
```
"""

from __future__ import annotations

import base64
import binascii
import hashlib
from dataclasses import dataclass, field

KEY_BYTES, SIGNATURE_BYTES = 32, 64


def message(*, run: str, method: str, path: str, device: int | None, time_ms: int, body: bytes) -> bytes:
    """Returns what is signed.

    >>> message(run="ab", method="GET", path="/v1", device=None, time_ms=5, body=b"")[:25]
    b'fl-mobile/1\\nab\\nGET\\n/v1\\n-\\n'
    """
    digest = hashlib.sha256(body).hexdigest()
    return f"fl-mobile/1\n{run}\n{method}\n{path}\n{'-' if device is None else device}\n{time_ms}\n{digest}".encode()


@dataclass(frozen=True)
class DeviceKey:
    """A device's key pair; ``seed`` is ``bytes[32]``, secret, and never leaves the device."""

    seed: bytes = field(repr=False)

    @property
    def public(self) -> bytes:
        """The half that enrolment sends, ``bytes[32]``."""
        from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

        return Ed25519PrivateKey.from_private_bytes(self.seed).public_key().public_bytes_raw()

    def sign(self, text: bytes) -> bytes:
        """Returns the signature, ``bytes[64]``; the same text always has the same."""
        from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

        return Ed25519PrivateKey.from_private_bytes(self.seed).sign(text)


def is_signed(public: bytes, signature: bytes, text: bytes) -> bool:
    """Whether the holder of ``public`` signed ``text``."""
    from cryptography.exceptions import InvalidSignature
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

    try:
        Ed25519PublicKey.from_public_bytes(public).verify(signature, text)
    except (InvalidSignature, ValueError):
        return False
    return True


def to_base64(data: bytes) -> str:
    """Returns standard base64."""
    return base64.b64encode(data).decode()


def from_base64(text: str, size: int | None = None) -> bytes:
    """Returns bytes, exactly ``size`` of them where it is given.

    Raises:
        ValueError: It is no base64 of so many bytes.
    """
    try:
        data = base64.b64decode(text.encode("ascii"), validate=True)
    except (binascii.Error, UnicodeEncodeError) as error:
        raise ValueError(f"not base64: {error}") from None
    if size is not None and len(data) != size:
        raise ValueError(f"expected {size} bytes in base64, got {len(data)}")
    return data
