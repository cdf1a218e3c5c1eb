"""What all clients of one sum agree on, its roster, and who is whose neighbour."""

from __future__ import annotations

import hashlib
import math
import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from fl_mobile.errors import ConfigError, WireError
from fl_mobile.secure_sum import crypto

_TERMS = struct.Struct("<16sIHIBHHH")
_ENTRY = struct.Struct("<I32s32s64s")
TERMS_BYTES, ENTRY_BYTES = _TERMS.size, _ENTRY.size
LEAST_GROUP = 3
"""In the sum of two each client can read the other's values."""


@dataclass(frozen=True)
class SumTerms:
    """One sum.

    Attributes:
        run: 16 bytes that no other run has.
        round_num: Of the run; a client takes part in a round once.
        group: Number of the group; the sums of groups may be added by anybody.
        values: Numbers in a vector.
        width: Bits of each and of their sum, 1 to 32: sums are modulo 2^width.
        neighbours: k, clients each shares masks and secrets with; all others where there are no more than that.
        threshold: Neighbours whose shares unmask a client; above ``k/2``, so that no two halves of them can be told
            different things about one client.
        least: Clients below which nothing is added.
    """

    run: bytes
    round_num: int
    values: int
    width: int
    neighbours: int
    threshold: int
    group: int = 0
    least: int = LEAST_GROUP

    def __post_init__(self) -> None:
        if len(self.run) != 16 or not 0 <= self.round_num < 2**32 or not 0 <= self.group < 2**16:
            raise ConfigError("a masked sum needs 16 bytes of its run, a round below 2^32 and a group below 2^16")
        if not 1 <= self.width <= 32 or not 0 <= self.values < 2**32:
            raise ConfigError(f"a masked sum is of 1 to 32 bits a value, got {self.width} bits, {self.values} values")
        if self.least < LEAST_GROUP:
            raise ConfigError(
                f"a masked sum needs at least {LEAST_GROUP} clients, got {self.least}: of two each reads the other"
            )
        if not self.neighbours // 2 < self.threshold <= self.neighbours < 2**16:
            raise ConfigError(
                f"the threshold must be above half of the {self.neighbours} neighbours and at most all, got"
                f" {self.threshold}: else two halves of them can be told different things"
            )

    def packed(self) -> bytes:
        """Returns the terms as every signature and key holds them."""
        return _TERMS.pack(
            *(self.run, self.round_num, self.group, self.values, self.width),
            *(self.neighbours, self.threshold, self.least),
        )


def read_terms(packet: bytes) -> SumTerms:
    """Returns the terms that a client is invited with; raises `WireError`."""
    if len(packet) != _TERMS.size:
        raise WireError("truncated", f"the terms of a sum have {_TERMS.size} bytes, got {len(packet)}")
    run, round_num, group, values, width, neighbours, threshold, least = _TERMS.unpack(packet)
    try:
        return SumTerms(run, round_num, values, width, neighbours, threshold, group, least)
    except ConfigError as error:
        raise WireError("terms", str(error)) from None


class Entry(NamedTuple):
    """A client in the roster.

    Attributes:
        client: Its number.
        sealing: X25519 key that shares for it are sealed with.
        masking: X25519 key that its masks follow from.
        signature: Its identity's, over terms and both keys.
    """

    client: int
    sealing: bytes
    masking: bytes
    signature: bytes

    def statement(self, terms: SumTerms) -> bytes:
        """Returns what is signed."""
        return b"advertise" + terms.packed() + _ENTRY.pack(self.client, self.sealing, self.masking, bytes(64))


def pack_roster(terms: SumTerms, entries: Sequence[Entry]) -> bytes:
    """Returns the roster as every client receives it."""
    return terms.packed() + b"".join(_ENTRY.pack(*entry) for entry in entries)


def read_entry(packet: bytes) -> Entry:
    """Returns what a client advertised; raises `WireError`."""
    if len(packet) != _ENTRY.size:
        raise WireError("truncated", f"an advertisement has {_ENTRY.size} bytes, got {len(packet)}")
    return Entry(*_ENTRY.unpack(packet))


def listed(roster: bytes) -> list[int]:
    """Returns the clients of a roster as it says them, nothing checked."""
    return [fields[0] for fields in _ENTRY.iter_unpack(roster[TERMS_BYTES:])]


@dataclass(frozen=True)
class Roster:
    """Who takes part in a sum, checked.

    Attributes:
        digest: SHA-256 of its bytes; what clients sign, and what every key follows from.
        entries: By client, rising.
        around: Client → its neighbours, rising.
    """

    terms: SumTerms
    digest: bytes
    entries: dict[int, Entry]
    around: dict[int, tuple[int, ...]]

    @property
    def statement(self) -> bytes:
        """What every client signs, and shows its neighbours: that this is the roster it was given."""
        return b"roster" + self.digest


def read_roster(packet: bytes, terms: SumTerms, identities: Mapping[int, bytes]) -> Roster:
    """Returns the roster, all of its signatures checked.

    Args:
        identities: Client → Ed25519 key, as its app or a registrar holds them; never from the server that adds.

    Raises:
        WireError: It is of another round, too small, or holds a client twice, unknown or with another's keys.
    """
    head, body = packet[: _TERMS.size], packet[_TERMS.size :]
    if head != terms.packed():
        raise WireError("round", "the roster is of another run, round or group, or of other terms")
    if len(body) % _ENTRY.size:
        raise WireError("truncated", "the roster ends in the middle of a client")
    listed = [Entry(*fields) for fields in _ENTRY.iter_unpack(body)]
    clients = [entry.client for entry in listed]
    if clients != sorted(set(clients)):
        raise WireError("roster", "clients must be in the roster once each, in rising order")
    if len(listed) < terms.least:
        raise WireError("group", f"{len(listed)} clients are too few to hide among, at least {terms.least}")
    keys = [key for entry in listed for key in (entry.sealing, entry.masking)]
    if len(set(keys)) != len(keys) or not all(map(any, keys)):
        raise WireError("key", "a public key in the roster is zero, or there twice")
    for entry in listed:
        if entry.client not in identities:
            raise WireError("roster", f"client {entry.client} in the roster is not known")
        crypto.check_signature(
            identities[entry.client], entry.signature, entry.statement(terms), f"client {entry.client}"
        )
    digest = hashlib.sha256(packet).digest()
    return Roster(terms, digest, {e.client: e for e in listed}, neighbours_of(digest, clients, terms.neighbours))


def neighbours_of(digest: bytes, clients: Sequence[int], count: int) -> dict[int, tuple[int, ...]]:
    """Returns client → its neighbours: on a circle in an order that nobody chose, ``count/2`` to either side.

    The order follows from the roster, so that a server cannot surround a client with its own before it is fixed.
    """
    n = len(clients)
    if count >= n - 1:
        return {client: tuple(c for c in clients if c != client) for client in clients}
    circle = sorted(clients, key=lambda c: hashlib.sha256(digest + c.to_bytes(4, "little")).digest())
    half = count // 2
    steps = [*range(-half, 0), *range(1, half + 1)]
    return {client: tuple(sorted(circle[(at + s) % n] for s in steps)) for at, client in enumerate(circle)}


def neighbours_for(clients: int, dropouts: float, *, corrupt: float = 0.0, failure: float = 1e-6) -> tuple[int, int]:
    """Returns the fewest neighbours, even, and their threshold with which a round fails with probability ``failure``.

    Args:
        clients: In a group.
        dropouts: Share that leaves in the middle of the sum.
        corrupt: Share that would give the server both kinds of share; the threshold is above ``(1 + corrupt)·k/2``.
        failure: That some client has too few neighbours left, by a bound over clients.

    >>> neighbours_for(100, 0.05), neighbours_for(1000, 0.05)
    ((22, 12), (24, 13))
    """
    for k in range(2, clients - 1, 2):
        threshold = math.floor((1 + corrupt) * k / 2) + 1
        if threshold <= k and clients * _fewer(k, 1 - dropouts, threshold) <= failure:
            return k, threshold
    return clients - 1, min(clients - 1, math.floor((1 + corrupt) * (clients - 1) / 2) + 1)


def _fewer(n: int, p: float, limit: int) -> float:
    """Returns the probability that a binomial is below ``limit``."""
    return math.fsum(math.comb(n, i) * p**i * (1 - p) ** (n - i) for i in range(limit))
