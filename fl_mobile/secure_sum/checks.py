"""What a server refuses of an answer when it comes, by what it has told that client: only looks, and keeps nothing.

Whatever passes here may still be false; clients find out, or the sum does.
"""

from __future__ import annotations

import hashlib

import numpy as np

from fl_mobile.errors import WireError
from fl_mobile.secure_sum import crypto
from fl_mobile.secure_sum.client import INBOX, MASKING_KEY, OWN_MASK, REVEALED, SEALED, SHARED_HEAD
from fl_mobile.secure_sum.terms import Entry, SumTerms, read_entry

_ANY_PRIVATE = bytes(range(32))


def check_advertisement(packet: bytes, terms: SumTerms, client: int, identity: bytes) -> Entry:
    """Returns what a client advertises, signed for this sum.

    Raises:
        WireError: It is of another client, run or round, or a key is zero, of low order or there twice.
    """
    entry = read_entry(packet)
    if entry.client != client:
        raise WireError("roster", f"client {client} advertises keys of client {entry.client}")
    if not any(entry.sealing) or not any(entry.masking) or entry.sealing == entry.masking:
        raise WireError("key", f"client {client}'s public keys must be two, and not zero")
    for key in (entry.sealing, entry.masking):
        crypto.exchange(_ANY_PRIVATE, key)
    crypto.check_signature(identity, entry.signature, entry.statement(terms), f"client {client}, for this sum,")
    return entry


def check_shares(packet: bytes, roster: bytes, client: int, identity: bytes) -> None:
    """Raises `WireError` unless a client has signed the roster that it was sent, and seals whole shares."""
    if len(packet) < SHARED_HEAD or (len(packet) - SHARED_HEAD) % SEALED.size:
        raise WireError("truncated", "the shares end in the middle of one")
    statement = b"roster" + hashlib.sha256(roster).digest()
    try:
        crypto.check_signature(identity, packet[: crypto.SIGNATURE_BYTES], statement, f"client {client}")
    except WireError:
        raise WireError("roster", f"client {client} signs another roster than the one it was sent") from None


def check_revealed(packet: bytes, inbox: bytes, request: bytes) -> None:
    """Raises `WireError` unless a client gives of every neighbour the one share that was asked for.

    Args:
        inbox: What its neighbours sealed for it.
        request: Whom the sum is of.
    """
    if len(packet) % REVEALED.size:
        raise WireError("truncated", "the shares end in the middle of one")
    summed = set(np.frombuffer(request, "<u4").tolist())
    asked = {row[0]: OWN_MASK if row[0] in summed else MASKING_KEY for row in INBOX.iter_unpack(inbox)}
    given: dict[int, int] = {}
    for other, kind, _ in REVEALED.iter_unpack(packet):
        if other in given:
            raise WireError("shares", f"two shares of client {other}: its mask and its key together would bare it")
        given[other] = kind
    if given != asked:
        raise WireError(
            "shares", "expected one share of every neighbour: of its mask if it is in the sum, else of its key"
        )
