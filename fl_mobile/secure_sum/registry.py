"""Who is a device: public keys that a client takes from its app or a registrar, and never from the server that adds.

A server that made up clients of its own could sit around one of the others and read it. It says which number stands for
which key, and a client believes it of keys that it knows.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from pathlib import Path

from fl_mobile.errors import ConfigError, WireError
from fl_mobile.protocol.signing import from_base64
from fl_mobile.secure_sum.crypto import KEY_BYTES
from fl_mobile.secure_sum.terms import ENTRY_BYTES, TERMS_BYTES, listed


def read_registry(path: Path) -> frozenset[bytes]:
    """Returns the public keys of a file: base64, one a line; empty lines and such that begin with # are skipped.

    Raises:
        ConfigError: The file is not there, or a line is no key.
    """
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: expected a text file of public keys, one a line ({error})") from None
    keys = set()
    for number, line in enumerate(lines, 1):
        text = line.strip()
        if not text or text.startswith("#"):
            continue
        try:
            keys.add(from_base64(text, KEY_BYTES))
        except ValueError:
            told = f"{path}, line {number}: expected base64 of the {KEY_BYTES} bytes of a public key"
            raise ConfigError(told) from None
    return frozenset(keys)


def with_keys(roster: bytes, identities: Mapping[int, bytes]) -> bytes:
    """Returns a roster as it travels: after it the public keys of its clients, in its order."""
    return roster + b"".join(identities[client] for client in listed(roster))


def roster_of(packet: bytes) -> bytes:
    """Returns the roster of one that travels with keys."""
    return _cut(packet)[0]


def without_keys(packet: bytes, trusted: Collection[bytes]) -> tuple[bytes, dict[int, bytes]]:
    """Returns the roster, and client → public key.

    Args:
        trusted: Keys of devices.

    Raises:
        WireError: A key is not of a device, or there twice.
    """
    roster, keys = _cut(packet)
    if len(set(keys)) != len(keys):
        raise WireError("identity", "two clients in the roster have one public key")
    clients = listed(roster)
    for client, key in zip(clients, keys, strict=True):
        if key not in trusted:
            raise WireError("identity", f"client {client} in the roster is no device that this one knows")
    return roster, dict(zip(clients, keys, strict=True))


def _cut(packet: bytes) -> tuple[bytes, list[bytes]]:
    count, rest = divmod(len(packet) - TERMS_BYTES, ENTRY_BYTES + KEY_BYTES)
    if rest or count < 0:
        raise WireError("truncated", "the roster ends in the middle of a client")
    end = TERMS_BYTES + count * ENTRY_BYTES
    return packet[:end], [packet[at : at + KEY_BYTES] for at in range(end, len(packet), KEY_BYTES)]
