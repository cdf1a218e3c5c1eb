"""The server's half of a masked sum: it passes messages on, adds what it cannot read, and unmasks the sum alone."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np

from fl_mobile.errors import WireError
from fl_mobile.secure_sum import crypto
from fl_mobile.secure_sum.checks import check_advertisement
from fl_mobile.secure_sum.client import (
    INBOX,
    MASKING_KEY,
    OWN_MASK,
    REVEALED,
    SEALED,
    SHARED_HEAD,
    own_key,
    pair_key,
    sign_of,
    threshold_of,
)
from fl_mobile.secure_sum.masks import add_masks, unpack_values, words_of
from fl_mobile.secure_sum.shamir import combine
from fl_mobile.secure_sum.terms import Roster, SumTerms, pack_roster, read_roster


@dataclass
class MaskedServer:
    """One sum. Clients that do not answer a step have left; what arrives damaged counts as that, by reason.

    Attributes:
        terms: Of the sum.
        identities: Client → Ed25519 public key.
        dropped: Client → why it is not in the sum, of those that sent something.
    """

    terms: SumTerms
    identities: Mapping[int, bytes]
    dropped: dict[int, str] = field(default_factory=dict)
    _roster: Roster | None = None
    _commitments: dict[int, bytes] = field(default_factory=dict)
    _shared_with: dict[int, tuple[int, ...]] = field(default_factory=dict)
    _summed: list[int] = field(default_factory=list)
    _total: np.ndarray = field(default_factory=lambda: np.zeros(0, np.uint32))

    @property
    def summed(self) -> list[int]:
        """Clients in the sum."""
        return self._summed

    def roster(self, advertised: Mapping[int, bytes]) -> bytes:
        """Returns who takes part, for all of them.

        Raises:
            WireError: They are too few.
        """
        entries = []
        for client, packet in sorted(advertised.items()):
            try:
                if client not in self.identities:
                    raise WireError("roster", f"client {client} is not known")
                entries.append(check_advertisement(packet, self.terms, client, self.identities[client]))
            except WireError as error:
                self.dropped[client] = error.reason
        packet = pack_roster(self.terms, entries)
        self._roster = read_roster(packet, self.terms, self.identities)
        return packet

    def inboxes(self, shared: Mapping[int, bytes]) -> dict[int, bytes]:
        """Returns client → what its neighbours sealed for it, for all whose shares arrived."""
        roster, sent = self._known(), {}
        for client, packet in sorted(shared.items()):
            body = packet[SHARED_HEAD:]
            to = [row[0] for row in SEALED.iter_unpack(body)] if len(body) % SEALED.size == 0 else []
            if client in roster.entries and len(packet) >= SHARED_HEAD and tuple(to) == roster.around[client]:
                sent[client] = dict(SEALED.iter_unpack(body))
                self._commitments[client] = packet[SHARED_HEAD - 32 : SHARED_HEAD]
            else:
                self.dropped[client] = "shares"
        out = {}
        for client in sent:
            there = tuple(other for other in roster.around[client] if other in sent)
            self._shared_with[client] = there
            out[client] = b"".join(
                INBOX.pack(other, shared[other][: crypto.SIGNATURE_BYTES], sent[other][client]) for other in there
            )
        return out

    def request(self, masked: Mapping[int, bytes]) -> bytes:
        """Adds what arrived, and returns the list of whom it is of, which goes to all of them.

        Raises:
            WireError: They are too few.
        """
        self._total = words_of(np.zeros(self.terms.values, np.int64), self.terms)
        for client, packet in sorted(masked.items()):
            try:
                if client not in self._shared_with:
                    raise WireError("roster", f"client {client} shared nothing")
                self._total += unpack_values(packet, self.terms)
                self._summed.append(client)
            except WireError as error:
                self.dropped[client] = error.reason
        if len(self._summed) < self.terms.least:
            raise WireError("group", f"{len(self._summed)} clients are too few for a sum, at least {self.terms.least}")
        return np.array(self._summed, "<u4").tobytes()

    def result(self, revealed: Mapping[int, bytes]) -> np.ndarray:
        """Returns the sum of those in it, ``int64[values]`` modulo 2^width.

        Raises:
            WireError: Too few shares arrived, or they are false; the round is to be played again.
        """
        roster, shares = self._known(), self._shares(revealed)
        total, summed = self._total.copy(), set(self._summed)
        for client in self._shared_with:
            here = client in summed
            held = shares.get((client, OWN_MASK if here else MASKING_KEY), {})
            if not here and not summed.intersection(self._shared_with[client]):
                continue
            secret = combine(held, threshold_of(roster, client))
            if here:
                if hashlib.sha256(b"own" + secret).digest() != self._commitments[client]:
                    raise WireError("shares", f"shares of client {client}'s mask are false; play the round again")
                add_masks(total, [(own_key(secret, roster), -1)])
                continue
            if crypto.public_of(secret) != roster.entries[client].masking:
                raise WireError("shares", f"shares of client {client}'s key are false; play the round again")
            left = [other for other in self._shared_with[client] if other in summed]
            add_masks(total, [(pair_key(secret, roster, client, o), -sign_of(o, client)) for o in left])
        return total.astype(np.int64) & (2**self.terms.width - 1)

    def _shares(self, revealed: Mapping[int, bytes]) -> dict[tuple[int, int], dict[int, bytes]]:
        """Returns (client, kind) → holder → share."""
        out: dict[tuple[int, int], dict[int, bytes]] = {}
        for holder, packet in revealed.items():
            if holder not in self._summed or len(packet) % REVEALED.size:
                self.dropped[holder] = "truncated"
                continue
            for client, kind, share in REVEALED.iter_unpack(packet):
                if holder in self._shared_with.get(client, ()):
                    out.setdefault((client, kind), {})[holder] = share
        return out

    def _known(self) -> Roster:
        assert self._roster is not None
        return self._roster
