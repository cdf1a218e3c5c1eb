"""Clients and a server of masked sums in one process, and cryptography that costs nothing, for runs by the thousand."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field

import numpy as np
import pytest

from fl_mobile.errors import WireError
from fl_mobile.secure_sum import MaskedClient, MaskedServer, SumTerms, crypto
from tests.fl_mobile.samples import philox

RUN = bytes(range(16))


def terms(clients: int, **changes: int) -> SumTerms:
    """Returns the terms of a sum in which everybody is everybody's neighbour, unless told otherwise."""
    k = changes.pop("neighbours", clients - 1)
    t = changes.pop("threshold", k // 2 + 1)
    return SumTerms(
        **{"run": RUN, "round_num": 4, "values": 6, "width": 20, "neighbours": k, "threshold": t} | changes  # type: ignore[arg-type]
    )


def randomness(key: int) -> Callable[[int], bytes]:
    rng = philox(key)
    return lambda count: rng.bytes(count)


@dataclass
class Parties:
    """A sum; ``gone`` says who leaves before which step: 1 share, 2 mask, 3 unmask."""

    terms: SumTerms
    count: int
    key: int = 0
    gone: Mapping[int, int] = field(default_factory=dict)
    up: dict[str, int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        secret = {i: hashlib.sha256(f"{self.key}/{i}".encode()).digest() for i in range(self.count)}
        self.identities = {i: crypto.identity_of(secret[i]) for i in secret}
        self.clients = {
            i: MaskedClient(self.terms, i, secret[i], self.identities, randomness(1000 * self.key + i)) for i in secret
        }
        self.server = MaskedServer(self.terms, self.identities)

    def here(self, step: int, among: Collection[int]) -> list[int]:
        return [i for i in among if self.gone.get(i, 9) > step]

    def play(self, values: np.ndarray) -> tuple[np.ndarray, list[int]]:
        """Returns the sum and whose it is, of ``int64[clients, values]``."""
        advertised = {i: client.advertise() for i, client in self.clients.items()}
        roster = self.server.roster(advertised)
        shared = {i: self.clients[i].share(roster) for i in self.here(1, self.clients)}
        inboxes = self.server.inboxes(shared)
        masked = {i: self.clients[i].mask(inboxes[i], values[i]) for i in self.here(2, inboxes)}
        request = self.server.request(masked)
        summed = np.frombuffer(request, "<u4").tolist()
        revealed = {i: self.clients[i].unmask(request) for i in self.here(3, summed)}
        for name, sent in (("keys", advertised), ("shares", shared), ("values", masked), ("unmask", revealed)):
            self.up[name] = sum(map(len, sent.values()))
        return self.server.result(revealed), summed


def refused(what: Callable[[], object], reason: str) -> None:
    with pytest.raises(WireError) as told:
        what()
    assert told.value.reason == reason, str(told.value)


def make_free(monkeypatch: pytest.MonkeyPatch) -> None:
    """Replaces curves by hashes: as many bytes, as many different ones, no secrecy; a thousand times as fast."""

    def digest(*parts: bytes) -> bytes:
        return hashlib.sha256(b"|".join(parts)).digest()

    def exchange(private: bytes, public: bytes) -> bytes:
        return digest(b"agree", *sorted((public, free_public(private))))

    def free_public(private: bytes) -> bytes:
        return digest(b"public", private)

    monkeypatch.setattr(crypto, "public_of", free_public)
    monkeypatch.setattr(crypto, "identity_of", free_public)
    monkeypatch.setattr(crypto, "exchange", exchange)
    monkeypatch.setattr(crypto, "sign", lambda private, message: bytes(64))
    monkeypatch.setattr(crypto, "check_signature", lambda *args: None)
    monkeypatch.setattr(crypto, "seal", lambda shared, context, message: message + shared[:16])
    monkeypatch.setattr(crypto, "unseal", lambda shared, context, sealed: sealed[:-16])
