"""Shamir's secret sharing of 32 bytes modulo the prime 2²⁵⁶ + 297: enough shares give them, fewer say nothing."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from fl_mobile.errors import WireError

PRIME = 2**256 + 297
SHARE_BYTES = 33

Random = Callable[[int], bytes]
"""Number of bytes → so many random ones: `os.urandom`, or a keystream where a simulation is to be repeated."""


def split(secret: bytes, holders: Sequence[int], threshold: int, random: Random) -> dict[int, bytes]:
    """Returns holder → share.

    Args:
        secret: 32 bytes.
        holders: Different whole numbers from 0.
        threshold: Shares that give it back, 1 to ``len(holders)``.
    """
    # 48 bytes modulo a 257-bit prime are uniform but for 2⁻¹²⁷.
    drawn = random(48 * (threshold - 1))
    higher = [int.from_bytes(drawn[at : at + 48], "big") % PRIME for at in range(0, len(drawn), 48)]
    coefficients = [*higher, int.from_bytes(secret, "big")]
    return {holder: _evaluate(coefficients, holder + 1).to_bytes(SHARE_BYTES, "big") for holder in holders}


def _evaluate(coefficients: Sequence[int], x: int) -> int:
    value = 0
    for coefficient in coefficients:
        value = (value * x + coefficient) % PRIME
    return value


def combine(shares: Mapping[int, bytes], threshold: int) -> bytes:
    """Returns the secret of ``threshold`` of the shares.

    Raises:
        WireError: There are too few, or they are not shares of 32 bytes.
    """
    if len(shares) < threshold:
        raise WireError("shares", f"{len(shares)} shares arrived and {threshold} are needed; play the round again")
    points = [(holder + 1, int.from_bytes(share, "big")) for holder, share in sorted(shares.items())[:threshold]]
    secret = 0
    for x, y in points:
        above, below = 1, 1
        for other, _ in points:
            if other != x:
                above, below = above * other % PRIME, below * (other - x) % PRIME
        secret = (secret + y * above * pow(below, -1, PRIME)) % PRIME
    if secret >> 256 or any(len(share) != SHARE_BYTES for share in shares.values()):
        raise WireError("shares", "the shares that arrived are not of one secret")
    return secret.to_bytes(32, "big")
