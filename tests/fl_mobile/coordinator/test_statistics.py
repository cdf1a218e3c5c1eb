"""Sums before round 1: each device counts once, whatever it repeats, and nothing counts that cannot be read."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fl_mobile.client.participate import Client
from fl_mobile.client.remote import Patience, Refused, Remote
from fl_mobile.client.sums import EXAMPLES, SQUARES, SUMS, counts_of, moments_of
from fl_mobile.coordinator.coordinator import Coordinator
from fl_mobile.coordinator.http import serving
from fl_mobile.coordinator.records import Refusal, Reply
from fl_mobile.errors import DataError, WireError
from fl_mobile.protocol.forms import read
from fl_mobile.protocol.statistics import CLASSES, MOMENTS, Statistic, statistics_from_json, statistics_to_json
from fl_mobile.server.sums import add_up
from fl_mobile.wire.sums import pack_sums
from tests.fl_mobile.coordinator.asking import SECONDS, enrol, signed
from tests.fl_mobile.coordinator.test_openapi import DOCUMENT, check
from tests.fl_mobile.coordinator.tiny import key_of
from tests.postgres import Server

ASKED = (Statistic(MOMENTS, 3, 1, ("x.lab:2",)), Statistic(CLASSES, 2))


@pytest.fixture
def coordinator(tmp_path: Path) -> Iterator[Coordinator]:
    made = Coordinator(tmp_path)
    made.statistics, made.most_sums = ASKED, 2
    yield made
    made.close()


def packet(seed: int, about: str = MOMENTS) -> bytes:
    rng = np.random.default_rng(seed)
    one = next(one for one in ASKED if one.about == about)
    values = moments_of(rng.standard_normal((4, 3))) if about == MOMENTS else counts_of(rng.integers(0, 2, 5), 1)
    return pack_sums(one.question, values)


def claimed(part: str, at: int, value: float) -> bytes:
    """Returns a packet of four examples in which one number is a lie."""
    values = moments_of(np.random.default_rng(0).standard_normal((4, 3)))
    values[part][at] = value
    return pack_sums(ASKED[0].question, values)


def say(coordinator: Coordinator, device: int, sent: bytes, about: str = MOMENTS) -> Reply:
    key = key_of(device)
    number = enrol(coordinator, key)
    asked = signed(coordinator.run, key, f"/v1/devices/{number}/sums/{about}", device=number)
    return coordinator.take_sums(asked, device=number, about=about, packet=sent).result(SECONDS)


def test_each_device_counts_once_and_the_first_that_come(coordinator: Coordinator) -> None:
    schema = DOCUMENT["components"]["schemas"]["Taken"]
    for device in (0, 1):
        for status in (201, 200):
            reply = say(coordinator, device, packet(device))
            check(reply.body, schema)
            assert reply.status == status
    for device, sent, reason in ((0, packet(7), "conflict"), (2, packet(2), "late")):
        with pytest.raises(Refusal, match=reason) as refused:
            say(coordinator, device, sent)
        check(refused.value.reply.body, DOCUMENT["components"]["schemas"]["Problem"])
    assert say(coordinator, 2, packet(2, CLASSES), CLASSES).status == 201, "another question is open still"
    assert coordinator.statistics_bytes() == sum(map(len, (packet(0), packet(1), packet(2, CLASSES))))
    stopped = iter([False, True])
    assert coordinator.gather(ASKED, most=2, stopped=lambda: next(stopped)) is None
    found = coordinator.gather(ASKED[:1], most=2, stopped=lambda: False)
    assert found == {MOMENTS: [packet(0), packet(1)]}
    with pytest.raises(Refusal, match="late"):
        say(coordinator, 3, packet(3))


@pytest.mark.parametrize(
    ("sent", "about", "reason"),
    [
        (b"", MOMENTS, "truncated"),
        (packet(0)[:-1], MOMENTS, "checksum"),
        (packet(0, CLASSES), MOMENTS, "question"),
        (claimed(SUMS, 1, np.nan), MOMENTS, "value"),
        (claimed(SQUARES, 2, np.inf), MOMENTS, "value"),
        (claimed(SUMS, 0, 1e31), MOMENTS, "value"),
        (claimed(SUMS, 0, 1e29), MOMENTS, "value"),
        (claimed(SQUARES, 0, -1.0), MOMENTS, "value"),
        *((claimed(EXAMPLES, 0, count), MOMENTS, "value") for count in (-4.0, 0.0, 0.5, 4.5, 2.0**31)),
        (packet(0), "everything", "late"),
    ],
)
def test_what_cannot_be_read_is_refused_and_leaves_nothing(
    coordinator: Coordinator, sent: bytes, about: str, reason: str
) -> None:
    with pytest.raises(Refusal, match=reason):
        say(coordinator, 0, sent, about)
    assert coordinator.statistics_bytes() == 0
    assert say(coordinator, 0, packet(0)).status == 201


def test_strangers_and_echoes_are_refused(coordinator: Coordinator) -> None:
    device = enrol(coordinator, key_of(0))
    honest = signed(coordinator.run, key_of(0), f"/v1/devices/{device}/sums/moments", device=device)
    forged = signed(coordinator.run, key_of(1), f"/v1/devices/{device}/sums/moments", device=device)
    more = {"about": MOMENTS, "packet": packet(0)}
    assert coordinator.take_sums(honest, device=device, **more).result(SECONDS).status == 201  # type: ignore[arg-type]
    for request, number, reason in (
        (forged, device, "signature"),
        (honest, device, "replayed"),
        (honest, 9, "unknown"),
    ):
        with pytest.raises(Refusal, match=reason):
            coordinator.take_sums(request, device=number, **more).result(SECONDS)  # type: ignore[arg-type]


def test_a_client_makes_its_sums_once_and_waits_for_the_terms(coordinator: Coordinator, tmp_path: Path) -> None:
    made: list[Statistic] = []

    def sums(asked: Statistic) -> bytes:
        made.append(asked)
        return packet(0, asked.about)

    def never(*_: Any, **__: Any) -> Any:
        raise AssertionError("there is nothing to train")

    with serving(coordinator, host="127.0.0.1", port=0) as url:
        remotes = [Remote(url, key_of(n), Patience(tries=2, timeout_seconds=10)) for n in (0, 1)]
        client = Client(remotes[0], tmp_path / "0", never, sums=sums)
        visits = [client.visit() for _ in range(3)]
        assert made == list(ASKED)
        assert all(visit.wait_seconds > 0 and visit.round_num is None for visit in visits)
        with pytest.raises(DataError, match="asks for sums of 'moments' first, which this client does not make"):
            Client(remotes[1], tmp_path / "1", never).visit()
        with pytest.raises(Refused, match="404 unknown-path: sums are about moments or classes"):
            remotes[0].signed("/v1/devices/0/sums/%00", {"sums": ""})


def test_a_coordinator_that_was_killed_has_what_came_before(tmp_path: Path) -> None:
    kill_while_gathering(tmp_path, "")


def test_and_so_it_is_on_postgresql(tmp_path: Path, postgres: Server) -> None:
    kill_while_gathering(tmp_path, postgres.empty())


def kill_while_gathering(folder: Path, url: str) -> None:
    first = Coordinator(folder, url=url)
    first.statistics, first.most_sums = ASKED[:1], 2
    say(first, 0, packet(0))
    first.close()
    second, found = Coordinator(folder, url=url), {}

    def gather() -> None:
        found["packets"] = second.gather(ASKED[:1], most=2, stopped=lambda: False)

    thread = threading.Thread(target=gather, daemon=True)
    thread.start()
    while not second.statistics and thread.is_alive():
        threading.Event().wait(0.01)
    say(second, 1, packet(1))
    thread.join(SECONDS)
    second.close()
    assert found["packets"] == {MOMENTS: [packet(0), packet(1)]}
    assert add_up(ASKED[0].question, found["packets"][MOMENTS]).values[EXAMPLES] == 8


def test_questions_travel_as_json_and_others_are_refused() -> None:
    assert statistics_from_json(json.loads(json.dumps(statistics_to_json(ASKED)))) == ASKED
    one = statistics_to_json(ASKED)[0]
    check(one, DOCUMENT["components"]["schemas"]["Statistic"])
    changes = ({"about": "names"}, {"columns": 0}, {"columns": 2**15 + 1}, {"x": 1}, {"targets": one["columns"]})
    parts = (None, ["x.lab"], ["z.lab:2"], ["x.lab:0"], ["x.lab:1"], [2])
    changes = (*changes, {"targets": 0}, *({"parts": each} for each in parts))
    for odd in (None, {}, [one] * 5, *([{**one, **change}] for change in changes)):
        with pytest.raises(WireError, match="json: "):
            read({"statistics": odd}, {"statistics": statistics_from_json})
