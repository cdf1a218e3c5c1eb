"""Keys and random words of the noise: HKDF-SHA-256 (RFC 5869) and ChaCha20 (RFC 8439), from the `cryptography` package.

Noise that protects people must not follow from anything an attacker can know: never from the experiment's seed.
"""

from __future__ import annotations

import functools

import numpy as np

KEY_BYTES = 32


def derive(key: bytes, *purpose: int | str | bytes) -> bytes:
    """Returns a 32-byte key for one purpose.

    >>> derive(bytes(32), "noise", 1) == derive(bytes(32), "noise", 1) != derive(bytes(32), "noise", "1")
    True
    """
    from cryptography.hazmat.primitives.hashes import SHA256
    from cryptography.hazmat.primitives.kdf.hkdf import HKDF

    parts = [type(part).__name__.encode() + b":" + _bytes(part) for part in purpose]
    info = b"fl-mobile" + b"".join(len(part).to_bytes(4, "big") + part for part in parts)
    return HKDF(SHA256(), KEY_BYTES, salt=None, info=info).derive(key)


def _bytes(part: int | str | bytes) -> bytes:
    return part if isinstance(part, bytes) else str(part).encode()


class Keystream:
    """The ChaCha20 keystream of one key, with nonce 0: a key is used for one purpose, once."""

    def __init__(self, key: bytes) -> None:
        from cryptography.hazmat.primitives.ciphers import Cipher, algorithms

        self._encryptor = Cipher(algorithms.ChaCha20(key, bytes(16)), mode=None).encryptor()

    def take(self, count: int) -> bytes:
        """Returns the next ``count`` bytes."""
        return self._encryptor.update(bytes(count))

    def words(self, count: int) -> np.ndarray:
        """Returns the next ``int64[count]``, all 64 bits of each uniform."""
        return self.fill(np.empty(2 * count, "<u4")).view("<i8").astype(np.int64, copy=False)

    def fill(self, words: np.ndarray) -> np.ndarray:
        """Returns ``words``, whole numbers, filled from the stream: nothing is allocated where many masks are added."""
        zeros = _zeros(words.nbytes)
        self._encryptor.update_into(zeros, words.view(np.uint8).data)
        return words


@functools.lru_cache(maxsize=4)
def _zeros(count: int) -> bytes:
    return bytes(count)
