"""The masked sum against the sum, with clients that leave; what the server holds; and what everybody refuses."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import fields, replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fl_mobile.errors import ConfigError, WireError
from fl_mobile.secure_sum import SumTerms, crypto, neighbours_for
from fl_mobile.secure_sum.client import REVEALED
from fl_mobile.secure_sum.masks import pack_values, unpack_values
from fl_mobile.secure_sum.shamir import PRIME, combine, split
from fl_mobile.secure_sum.terms import _ENTRY, _TERMS, neighbours_of
from tests.fl_mobile.samples import philox
from tests.fl_mobile.secure_sum.parties import RUN, Parties, make_free, randomness, refused, terms


def expected(values: np.ndarray, summed: list[int], width: int) -> list[int]:
    return [int(sum(int(v) for v in values[summed, j]) % 2**width) for j in range(values.shape[1])]


def test_the_sum_is_the_sum_and_nobody_need_stay() -> None:
    agreed = terms(7, width=32)
    values = philox(1).integers(-(2**31), 2**31, (7, 6))
    for gone in ({}, {2: 1}, {0: 2, 5: 2}, {1: 3, 6: 1}, {4: 2, 1: 1}):
        played, summed = Parties(agreed, 7, gone=gone).play(values)
        assert summed == [i for i in range(7) if gone.get(i, 9) > 2]
        assert played.tolist() == expected(values, summed, 32)


def test_a_sparse_graph_of_neighbours_gives_the_same_sum() -> None:
    agreed = terms(16, neighbours=8, threshold=5, width=9)
    values = philox(2).integers(0, 32, (16, 6))
    played, summed = Parties(agreed, 16, gone={3: 2, 11: 2, 7: 3}).play(values)
    assert played.tolist() == expected(values, summed, 9)


def many_runs(count: int, monkeypatch: pytest.MonkeyPatch) -> tuple[int, int]:
    """Returns how many sums there were, and how many rounds had to be given up; each sum is right to the bit."""
    make_free(monkeypatch)
    sums = repeated = 0
    for run in range(count):
        rng = philox(run)
        n, width, values = int(rng.integers(3, 9)), int(rng.integers(1, 33)), int(rng.integers(0, 8))
        k = n - 1 if rng.random() < 0.6 else 2 * int(rng.integers(1, max(2, n // 2)))
        agreed = terms(n, width=width, values=values, neighbours=k, round_num=run)
        gone = {i: int(rng.integers(1, 4)) for i in range(n) if rng.random() < 0.3}
        numbers = rng.integers(-(2**40), 2**40, (n, values))
        try:
            played, summed = Parties(agreed, n, run, gone).play(numbers)
        except WireError as error:
            if error.reason not in ("shares", "group"):
                raise
            repeated += 1
            continue
        assert played.tolist() == expected(numbers, summed, width), run
        sums += 1
    return sums, repeated


def test_random_runs_with_a_third_gone_are_right_to_the_bit(monkeypatch: pytest.MonkeyPatch) -> None:
    sums, repeated = many_runs(400, monkeypatch)
    assert sums > 150
    assert repeated > 20


@pytest.mark.slow
def test_ten_thousand_sums_are_right_to_the_bit(monkeypatch: pytest.MonkeyPatch) -> None:
    assert many_runs(22_000, monkeypatch)[0] >= 10_000


def held(thing: Any, seen: set[int] | None = None) -> Iterator[bytes]:
    """Yields every array and byte string that an object holds, however deep."""
    seen = set() if seen is None else seen
    if id(thing) in seen:
        return
    seen.add(id(thing))
    if isinstance(thing, bytes):
        yield thing
    elif isinstance(thing, np.ndarray):
        yield thing.tobytes()
    elif isinstance(thing, dict):
        for pair in thing.items():
            for one in pair:
                yield from held(one, seen)
    elif isinstance(thing, (list, tuple, set)):
        for one in thing:
            yield from held(one, seen)
    elif hasattr(thing, "__dict__"):
        for one in vars(thing).values():
            yield from held(one, seen)


def test_the_server_holds_nothing_but_masked_values_and_the_sum() -> None:
    """All it is sent, and all it keeps, is walked: no secret, no client's values, and no two kinds of one share."""
    n = 6
    agreed, values = terms(n, width=32), philox(3).integers(0, 100, (n, 6))
    parties = Parties(agreed, n, gone={5: 2})
    secrets: dict[int, dict[str, bytes]] = {}
    sent: list[bytes] = []
    advertised = {i: client.advertise() for i, client in parties.clients.items()}
    for i, client in parties.clients.items():
        secrets[i] = dict(client._secrets)
    roster = parties.server.roster(advertised)
    shared = {i: parties.clients[i].share(roster) for i in parties.clients}
    inboxes = parties.server.inboxes(shared)
    masked = {i: parties.clients[i].mask(inboxes[i], values[i]) for i in parties.here(2, inboxes)}
    request = parties.server.request(masked)
    sent += [*advertised.values(), *shared.values(), *masked.values()]
    before = b"".join([*sent, *held(parties.server)])
    for i in parties.clients:
        assert not any(secret in before for secret in secrets[i].values())
        assert pack_values(values[i].astype(np.uint32), agreed) not in before
    revealed = {i: parties.clients[i].unmask(request) for i in masked}
    kinds = {(client, kind) for packet in revealed.values() for client, kind, _ in REVEALED.iter_unpack(packet)}
    assert kinds == {(i, 0) for i in range(5)} | {(5, 1)}, "of nobody both its own mask and its key"
    assert parties.server.result(revealed).tolist() == expected(values, [0, 1, 2, 3, 4], 32)
    after = b"".join([*sent, *revealed.values(), *held(parties.server)])
    assert not any(pack_values(values[i].astype(np.uint32), agreed) in after for i in range(n))


def test_masked_values_look_uniform_whatever_they_hide() -> None:
    agreed = terms(3, values=4000, width=8)
    parties = Parties(agreed, 3)
    roster = parties.server.roster({i: c.advertise() for i, c in parties.clients.items()})
    inboxes = parties.server.inboxes({i: c.share(roster) for i, c in parties.clients.items()})
    packet = parties.clients[0].mask(inboxes[0], np.zeros(4000, np.int64))
    counts = np.bincount(unpack_values(packet, agreed), minlength=256)
    assert abs(((counts - 4000 / 256) ** 2 / (4000 / 256)).sum() - 255) < 6 * (2 * 255) ** 0.5


def started(**changes: int) -> tuple[Parties, bytes]:
    parties = Parties(terms(5, **changes), 5)
    return parties, parties.server.roster({i: c.advertise() for i, c in parties.clients.items()})


def with_entry(roster: bytes, at: int, **changes: bytes | int) -> bytes:
    start = _TERMS.size + at * _ENTRY.size
    names = ("client", "sealing", "masking", "signature")
    entry = dict(zip(names, _ENTRY.unpack(roster[start : start + _ENTRY.size]), strict=True)) | changes
    return roster[:start] + _ENTRY.pack(*entry.values()) + roster[start + _ENTRY.size :]


def resigned(parties: Parties, roster: bytes, at: int, **changes: bytes) -> bytes:
    """Returns a roster in which client ``at`` itself signed other keys."""
    from fl_mobile.secure_sum.terms import Entry

    start = _TERMS.size + at * _ENTRY.size
    entry = Entry(*_ENTRY.unpack(roster[start : start + _ENTRY.size]))._replace(**changes)
    signature = crypto.sign(parties.clients[at].identity, entry.statement(parties.terms))
    return with_entry(roster, at, **changes, signature=signature)


def test_clients_refuse_a_roster_they_cannot_trust() -> None:
    parties, roster = started()
    stranger = crypto.public_of(bytes([7]) * 32)
    low = (1).to_bytes(32, "little")
    for packet, reason in (
        (with_entry(roster, 2, masking=stranger), "signature"),
        (resigned(parties, roster, 2, masking=bytes(32)), "key"),
        (resigned(parties, roster, 2, sealing=_entry(roster, 1)[1]), "key"),
        (roster[: _TERMS.size] + roster[_TERMS.size + _ENTRY.size :], "roster"),  # without the client itself
        (roster[: _TERMS.size + 2 * _ENTRY.size], "group"),
        (roster + roster[-_ENTRY.size :], "roster"),
        (roster[:-1], "truncated"),
        (replace(parties.terms, round_num=5).packed() + roster[_TERMS.size :], "round"),
        (replace(parties.terms, least=4).packed() + roster[_TERMS.size :], "round"),
        (with_entry(roster, 4, client=99), "roster"),
        (resigned(parties, roster, 2, sealing=low), "point"),
    ):
        client = Parties(parties.terms, 5).clients[0]
        client.advertise()
        refused(lambda client=client, packet=packet: client.share(packet), reason)  # type: ignore[misc]


def _entry(roster: bytes, at: int) -> tuple[Any, ...]:
    return _ENTRY.unpack(roster[_TERMS.size + at * _ENTRY.size : _TERMS.size + (at + 1) * _ENTRY.size])


def test_two_rosters_are_noticed_by_the_signature_that_neighbours_show() -> None:
    parties, roster = started()
    other = roster[: -_ENTRY.size]  # without the last client
    shared = {i: parties.clients[i].share(other if i == 1 else roster) for i in range(4)}
    genuine = Parties(parties.terms, 5)
    packets = {i: c.advertise() for i, c in genuine.clients.items()}
    honest = {i: genuine.clients[i].share(genuine.server.roster(packets)) for i in range(5)}
    inbox = genuine.server.inboxes(honest)[0]
    refused(lambda: genuine.clients[0].mask(inbox.replace(honest[1][:64], shared[1][:64]), np.zeros(6)), "signature")


def test_clients_refuse_a_second_question_and_questions_out_of_order() -> None:
    parties = Parties(terms(5), 5)
    parties.play(np.zeros((5, 6), np.int64))
    client = parties.clients[0]
    everybody = np.arange(5, dtype="<u4").tobytes()
    for again in (
        lambda: client.unmask(everybody),
        client.advertise,
        lambda: client.share(b""),
        lambda: client.mask(b"", np.zeros(6)),
    ):
        refused(again, "round")
    assert not client._secrets
    assert not client._held


@pytest.mark.parametrize(
    ("summed", "reason"),
    [([0, 1], "group"), ([1, 2, 3], "roster"), ([0, 0, 1], "roster"), ([0, 1, 9], "roster"), ([2, 1, 0], "roster")],
)
def test_clients_refuse_lists_of_a_sum_that_could_give_somebody_away(summed: list[int], reason: str) -> None:
    parties, roster = started()
    inboxes = parties.server.inboxes({i: c.share(roster) for i, c in parties.clients.items()})
    client = parties.clients[0]
    client.mask(inboxes[0], np.zeros(6, np.int64))
    refused(lambda: client.unmask(np.array(summed, "<u4").tobytes()), reason)


def test_shares_for_somebody_else_and_damaged_ones_are_refused() -> None:
    parties, roster = started()
    inboxes = parties.server.inboxes({i: c.share(roster) for i, c in parties.clients.items()})
    flipped = bytearray(inboxes[0])
    flipped[-1] ^= 1
    refused(lambda: parties.clients[0].mask(bytes(flipped), np.zeros(6)), "sealed")
    other = Parties(parties.terms, 5)
    roster = other.server.roster({i: c.advertise() for i, c in other.clients.items()})
    inboxes = other.server.inboxes({i: c.share(roster) for i, c in other.clients.items()})
    swapped = struct.pack("<I", 2) + inboxes[0][4:]
    refused(lambda: other.clients[0].mask(swapped, np.zeros(6)), "signature")


def test_false_shares_give_no_false_sum() -> None:
    parties, roster = started()
    inboxes = parties.server.inboxes({i: c.share(roster) for i, c in parties.clients.items()})
    masked = {i: c.mask(inboxes[i], np.ones(6, np.int64)) for i, c in parties.clients.items() if i != 4}
    request = parties.server.request(masked)
    revealed = {i: parties.clients[i].unmask(request) for i in masked}
    for at in (10, len(revealed[0]) - 5):
        bad = bytearray(revealed[0])
        bad[at] ^= 4
        refused(lambda bad=bad: parties.server.result({**revealed, 0: bytes(bad)}), "shares")  # type: ignore[misc]
    refused(lambda: parties.server.result(dict(list(revealed.items())[:1])), "shares")
    assert parties.server.result(revealed).tolist() == [4] * 6


@given(st.lists(st.binary(max_size=200), min_size=5, max_size=5))
def test_any_bytes_from_clients_are_dropped_by_reason(junk: list[bytes]) -> None:
    parties, _ = started()
    server = Parties(parties.terms, 5).server
    with pytest.raises(WireError):
        server.roster(dict(enumerate(junk)))
    assert set(server.dropped) == set(range(5))


def test_bytes_that_are_damaged_on_their_way_cost_one_client_and_no_sum() -> None:
    parties = Parties(terms(7), 7)
    roster = parties.server.roster({i: c.advertise() for i, c in parties.clients.items()})
    shared = {i: c.share(roster) for i, c in parties.clients.items()}
    inboxes = parties.server.inboxes({**shared, 3: shared[3][:-1]})
    masked = {i: parties.clients[i].mask(inboxes[i], np.ones(6, np.int64)) for i in inboxes}
    request = parties.server.request({**masked, 2: masked[2][:-1]})
    revealed = {i: parties.clients[i].unmask(request) for i in (0, 1, 4, 5, 6)}
    assert parties.server.result(revealed).tolist() == [5] * 6
    assert parties.server.dropped == {3: "shares", 2: "truncated"}


@given(st.binary(min_size=32, max_size=32), st.integers(1, 9), st.data())
def test_any_threshold_of_shares_gives_the_secret_and_fewer_do_not(secret: bytes, t: int, data: st.DataObject) -> None:
    shares = split(secret, range(9), t, randomness(5))
    some = data.draw(st.permutations(range(9)))
    assert combine({i: shares[i] for i in some[:t]}, t) == secret
    if t > 1:
        refused(lambda: combine({i: shares[i] for i in some[: t - 1]}, t), "shares")


def test_the_prime_is_one() -> None:
    d, r = PRIME - 1, 0
    while d % 2 == 0:
        d, r = d // 2, r + 1
    for base in (2, 3, 5, 7, 11, 13, 17, 19, 23, 29, 31, 37):
        x = pow(base, d, PRIME)
        assert x in (1, PRIME - 1) or any((x := x * x % PRIME) == PRIME - 1 for _ in range(r - 1))


def test_neighbours_are_mutual_even_and_follow_from_the_roster() -> None:
    clients = list(range(0, 90, 3))
    around = neighbours_of(bytes(32), clients, 8)
    assert all(len(a) == 8 and c not in a for c, a in around.items())
    assert all(c in around[other] for c, a in around.items() for other in a)
    assert around != neighbours_of(bytes([1]) * 32, clients, 8)
    assert neighbours_for(1000, 0.05)[0] < 30


def test_key_traffic_is_small_beside_the_values() -> None:
    """100 clients, 10⁵ values of 4 bits in fields of 11: at most 1.05 × what the fields alone would take."""
    k, t = neighbours_for(100, 0.05)
    sealed, revealed = 86 * k, 38 * k
    overhead = _ENTRY.size + 96 + sealed + revealed
    agreed = terms(100, neighbours=k, threshold=t, values=100_000, width=11)
    fields_bytes = len(pack_values(np.zeros(100_000, np.uint32), agreed))
    assert (fields_bytes + overhead) / fields_bytes <= 1.05
    parties = Parties(terms(20, neighbours=6, threshold=4), 20)
    parties.play(np.zeros((20, 6), np.int64))
    assert parties.up["keys"] + parties.up["shares"] + parties.up["unmask"] == 20 * (_ENTRY.size + 96 + 124 * 6)


@pytest.mark.parametrize(
    "changes",
    [{"width": 0}, {"width": 33}, {"least": 2}, {"threshold": 2, "neighbours": 4}, {"threshold": 5, "neighbours": 4}],
)
def test_terms_that_protect_nobody_are_refused(changes: dict[str, int]) -> None:
    with pytest.raises(ConfigError):
        terms(9, **changes)
    with pytest.raises(ConfigError, match="16 bytes"):
        SumTerms(RUN[:3], 0, 1, 8, 2, 2)


def test_no_secret_is_printed() -> None:
    parties = Parties(terms(3), 3)
    parties.clients[0].advertise()
    shown = repr(parties.clients[0])
    assert not any(name in shown for name in ("_secrets", "identity=", "_held"))
    assert {f.name for f in fields(parties.clients[0]) if f.repr} == {"terms", "client", "_step"}
