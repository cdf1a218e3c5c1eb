"""Between client and coordinator everything can break: a packet counts once, and a blob is whole or none."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from fl_mobile.client.remote import Patience, Remote
from tests.fl_mobile.coordinator.proxy import KINDS, Fault, failing
from tests.fl_mobile.coordinator.test_web import Served, opened, path_of, served
from tests.fl_mobile.coordinator.tiny import key_of, packet_of

__all__ = ["opened", "served"]

PATIENCE = Patience(tries=6, first_seconds=0.01, timeout_seconds=0.5)
PLACES = {"head": 20, "body": 330, "answer": 150}
"""Bytes of an upload's connection at which something happens: its head has some 300, the packet 56."""


def through(served: Served, url: str) -> Remote:
    remote = Remote(url, key_of(0), PATIENCE)
    remote.run, remote.device = served.coordinator.run, 0
    return remote


NOT_ITS_OWN = {("damage", "head"), ("damage", "answer")}
"""Without TLS, a damaged head is another request, and a damaged answer is told as such: the next visit asks again."""


@pytest.mark.parametrize(
    ("kind", "place"), [case for case in itertools.product(KINDS, PLACES) if case not in NOT_ITS_OWN]
)
def test_an_upload_counts_once_whatever_the_network_does(opened: Served, kind: str, place: str) -> None:
    told = opened.assignment(opened.client(0))
    packet = packet_of(told["device"], told["round"])
    fault = Fault(kind, place != "answer", PLACES[place])
    with failing(opened.address, [fault, fault]) as proxy:
        remote = through(opened, proxy.url)
        status, answer = remote.send(path_of(told), packet, told["token"])
        remote.close()
        assert proxy.met
    assert status in (200, 201)
    assert answer["receipt"]["accepted"]
    assert opened.coordinator.counts(told["round"]).packets == 1


@pytest.mark.parametrize("kind", KINDS)
def test_a_blob_comes_whole_whatever_the_network_does(opened: Served, kind: str) -> None:
    data = np.random.default_rng(0).bytes(300_000)
    blob = opened.coordinator.blobs.put(data)
    with failing(opened.address, [Fault(kind, False, at) for at in (100_000, 150_000)]) as proxy:
        remote = through(opened, proxy.url)
        assert remote.fetch(blob) == data
        remote.close()
        assert proxy.met
