"""The client's half of a masked sum; every step takes what the server sent and returns what it is sent, or refuses.

A client keeps its secrets to itself until the end, and then gives each neighbour's mask away or its key, never both:
with both, the server could read that neighbour's values.
"""

from __future__ import annotations

import hashlib
import os
import struct
from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np

from fl_mobile.errors import WireError
from fl_mobile.privacy.keys import derive
from fl_mobile.secure_sum import crypto
from fl_mobile.secure_sum.masks import add_masks, pack_values, words_of
from fl_mobile.secure_sum.shamir import SHARE_BYTES, Random, split
from fl_mobile.secure_sum.terms import _ENTRY, Entry, Roster, SumTerms, read_roster

SEALED = struct.Struct(f"<I{2 * SHARE_BYTES + crypto.TAG_BYTES}s")
"""To or from whom, and the sealed shares of masking key and own mask."""
INBOX = struct.Struct(f"<I{crypto.SIGNATURE_BYTES}s{2 * SHARE_BYTES + crypto.TAG_BYTES}s")
"""From whom, its signature of the roster, and what it sealed."""
SHARED_HEAD = crypto.SIGNATURE_BYTES + 32
"""Bytes before the sealed shares: signature of the roster, commitment to the own mask."""
REVEALED = struct.Struct(f"<IB{SHARE_BYTES}s")
"""Of whom, 0 for its own mask or 1 for its masking key, and the share."""
OWN_MASK, MASKING_KEY = 0, 1


@dataclass
class MaskedClient:
    """One client in one sum.

    Attributes:
        terms: Of the sum.
        client: Its number.
        identity: Its Ed25519 private key.
        identities: Client → Ed25519 public key of all it would share a sum with.
        random: Where its secrets come from.
    """

    terms: SumTerms
    client: int
    identity: bytes = field(repr=False)
    identities: Mapping[int, bytes] = field(repr=False)
    random: Random = field(default=os.urandom, repr=False)
    _step: int = 0
    _secrets: dict[str, bytes] = field(default_factory=dict, repr=False)
    _roster: Roster | None = field(default=None, repr=False)
    _held: dict[int, bytes] = field(default_factory=dict, repr=False)

    @property
    def roster_digest(self) -> bytes:
        """SHA-256 of the roster that it has signed: no other sum has the same."""
        return self._known().digest

    def advertise(self) -> bytes:
        """Returns its public keys, signed."""
        self._next(1)
        self._secrets = {name: self.random(crypto.KEY_BYTES) for name in ("sealing", "masking", "own")}
        sealing, masking = (crypto.public_of(self._secrets[name]) for name in ("sealing", "masking"))
        entry = Entry(self.client, sealing, masking, b"")
        return _ENTRY.pack(*entry[:3], crypto.sign(self.identity, entry.statement(self.terms)))

    def share(self, packet: bytes) -> bytes:
        """Returns its secrets, in shares that its neighbours alone can read, and its signature of the roster.

        Raises:
            WireError: The roster is not one that it can trust.
        """
        self._next(2)
        roster = read_roster(packet, self.terms, self.identities)
        own = roster.entries.get(self.client)
        if own is None or own.masking != crypto.public_of(self._secrets["masking"]):
            raise WireError("roster", f"client {self.client} is not in the roster with the keys it advertised")
        self._roster = roster
        around, threshold = roster.around[self.client], threshold_of(roster, self.client)
        keys = split(self._secrets["masking"], around, threshold, self.random)
        masks = split(self._secrets["own"], around, threshold, self.random)
        sealed = [
            SEALED.pack(
                other, crypto.seal(self._agreed(other), self._context(self.client, other), keys[other] + masks[other])
            )
            for other in around
        ]
        commitment = hashlib.sha256(b"own" + self._secrets["own"]).digest()
        return crypto.sign(self.identity, roster.statement) + commitment + b"".join(sealed)

    def mask(self, packet: bytes, values: np.ndarray) -> bytes:
        """Returns ``int64[values]`` modulo 2^width, masked.

        Args:
            packet: What its neighbours sealed for it; those that are missing have left.

        Raises:
            WireError: A neighbour was given another roster, too many have left, or what they sealed is damaged.
        """
        self._next(3)
        roster = self._known()
        if len(packet) % INBOX.size:
            raise WireError("truncated", "the neighbours' shares end in the middle of one")
        for other, signature, sealed in INBOX.iter_unpack(packet):
            if other not in roster.around[self.client] or other in self._held:
                raise WireError("roster", f"client {other} is no neighbour, or is there twice")
            crypto.check_signature(self.identities[other], signature, roster.statement, f"client {other}")
            self._held[other] = crypto.unseal(self._agreed(other), self._context(other, self.client), sealed)
        if len(self._held) < threshold_of(roster, self.client):
            raise WireError("shares", f"only {len(self._held)} neighbours are left; play the round again")
        masked = words_of(values, self.terms)
        if masked.shape != (self.terms.values,):
            raise WireError("values", f"the sum is of {self.terms.values} values, got {masked.shape}")
        pairs = [
            (pair_key(self._secrets["masking"], roster, self.client, o), sign_of(self.client, o)) for o in self._held
        ]
        add_masks(masked, [*pairs, (own_key(self._secrets["own"], roster), 1)])
        return pack_values(masked, self.terms)

    def unmask(self, packet: bytes) -> bytes:
        """Returns shares of its neighbours' own masks, where they are in the sum, or else of their masking keys.

        Args:
            packet: The clients in the sum, rising, four bytes each.

        Raises:
            WireError: It was asked before, is not in the sum itself, or the sum is of too few.
        """
        self._next(4)
        roster = self._known()
        if len(packet) % 4:
            raise WireError("truncated", "the list of clients in the sum ends in the middle of one")
        summed = np.frombuffer(packet, "<u4").tolist()
        if summed != sorted(set(summed)) or not set(summed) <= set(roster.entries) or self.client not in summed:
            raise WireError("roster", "the clients in the sum must be of the roster, this one among them, once each")
        if len(summed) < self.terms.least:
            raise WireError("group", f"{len(summed)} clients are too few for a sum, at least {self.terms.least}")
        there = [other for other in self._held if other in set(summed)]
        if len(there) < threshold_of(roster, self.client):
            raise WireError("shares", f"only {len(there)} neighbours are in the sum; play the round again")
        out = []
        for other, both in self._held.items():
            kind = OWN_MASK if other in there else MASKING_KEY
            share = both[SHARE_BYTES:] if kind == OWN_MASK else both[:SHARE_BYTES]
            out.append(REVEALED.pack(other, kind, share))
        self._secrets.clear()
        self._held.clear()
        return b"".join(out)

    def _next(self, step: int) -> None:
        if self._step != step - 1:
            raise WireError("round", f"client {self.client} was asked for step {step} after step {self._step}")
        self._step = step

    def _known(self) -> Roster:
        assert self._roster is not None
        return self._roster

    def _agreed(self, other: int) -> bytes:
        return crypto.exchange(self._secrets["sealing"], self._known().entries[other].sealing)

    def _context(self, sender: int, receiver: int) -> bytes:
        return self._known().digest + struct.pack("<II", sender, receiver)


def threshold_of(roster: Roster, client: int) -> int:
    """Returns the shares that unmask a client: of fewer neighbours than agreed still above half."""
    around = len(roster.around[client])
    return min(roster.terms.threshold, around) if around >= roster.terms.neighbours else around // 2 + 1


def pair_key(private: bytes, roster: Roster, mine: int, other: int) -> bytes:
    """Returns the key of the mask that two clients share; the same whichever of them asks."""
    return derive(crypto.exchange(private, roster.entries[other].masking), "mask", roster.digest)


def own_key(secret: bytes, roster: Roster) -> bytes:
    """Returns the key of a client's own mask."""
    return derive(secret, "own mask", roster.digest)


def sign_of(client: int, other: int) -> int:
    """Returns the sign with which a client adds the mask it shares with another: both add up to nothing."""
    return 1 if client < other else -1
