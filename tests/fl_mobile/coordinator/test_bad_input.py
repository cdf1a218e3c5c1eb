"""What issue 17 names as bad input: 4xx with one reason, counted; a clock that is wrong; a disk that fills up."""

from __future__ import annotations

import contextlib
import os
import subprocess
import time
import zlib
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from fl_mobile.aggregation import AGGREGATORS
from fl_mobile.client.remote import Patience, Refused, Remote
from fl_mobile.codecs import parse_codec
from fl_mobile.coordinator.coordinator import Coordinator
from fl_mobile.coordinator.core import Place
from fl_mobile.coordinator.http import serving
from fl_mobile.coordinator.judging import judge_by
from fl_mobile.coordinator.records import OpenRound, Refusal
from fl_mobile.protocol.signing import to_base64
from fl_mobile.records import FitPlan
from fl_mobile.seeds import rng_for
from fl_mobile.server.admission import Admission
from fl_mobile.server.fold import Folding
from fl_mobile.tensors import TensorSpec
from fl_mobile.wire import MODEL, UPDATE, Header, Layout
from tests.fl_mobile.coordinator.asking import SECONDS, ask_and_upload, signed
from tests.fl_mobile.coordinator.test_web import LIMITS, path_of
from tests.fl_mobile.coordinator.tiny import key_of, packet_of, round_of

SPEC = {"w": TensorSpec((4000,))}
LAYOUT = Layout(SPEC, parse_codec("q8+deflate"))
DELTA = {"w": np.zeros(4000, np.float32)}


def packet(header: Header, layout: Layout = LAYOUT, size: int = 4000) -> bytes:
    return layout.pack(header, {"w": np.zeros(size, np.float32)}, rng_for(0, "unused"))


def sealed(payload: bytes) -> bytes:
    """A packet whose checksum is right, whatever its payload."""
    return LAYOUT.seal(Header(UPDATE, 0, 0, 3, 0.5), DELTA, payload)


GOOD = packet(Header(UPDATE, 0, 0, 3, 0.5))
PACKETS: dict[str, tuple[bytes, str]] = {
    "of another model": (
        packet(Header(UPDATE, 0, 0, 3), Layout({"w": TensorSpec((4001,))}, LAYOUT.codec), 4001),
        "fingerprint",
    ),
    "of another codec": (packet(Header(UPDATE, 0, 0, 3), Layout(SPEC, parse_codec("none"))), "codec"),
    "of a round to come": (packet(Header(UPDATE, 1, 1, 3)), "round"),
    "a model": (packet(Header(MODEL, 0, 0)), "kind"),
    "on no example": (packet(Header(UPDATE, 0, 0, 0)), "examples"),
    "cut": (GOOD[:-1], "checksum"),
    "almost nothing": (GOOD[:3], "truncated"),
    "not ours": (b"\x7fELF" + GOOD[4:], "magic"),
    "a bomb": (sealed(zlib.compress(bytes(50_000_000), 9)), ""),
    "a bomb in a bomb": (sealed(zlib.compress(zlib.compress(bytes(50_000_000), 9), 9)), ""),
    "noise": (sealed(bytes(range(256)) * 8), ""),
}
"""Name → packet, and the reason; where it is empty, whichever the codec gives."""


def wide(number: int = 0) -> OpenRound:
    folding = Folding(number, LAYOUT, AGGREGATORS["mean"], Admission(), FitPlan())
    return replace(round_of(number, ask=100, most=50), judge=judge_by(folding), most_bytes=100_000)


@contextlib.contextmanager
def clients(coordinator: Coordinator) -> Iterator[Callable[[int], Remote]]:
    with serving(coordinator, host="127.0.0.1", port=0) as url:

        def client(device: int) -> Remote:
            remote = Remote(url, key_of(device), Patience(tries=2, timeout_seconds=10))
            remote.run = coordinator.run
            remote.device = remote.signed("/v1/devices", {"public_key": to_base64(remote.key.public)})["device"]
            return remote

        yield client


def test_packets_that_are_none_are_refused_by_reason_counted_and_take_no_place(tmp_path: Path) -> None:
    coordinator = Coordinator(tmp_path, limits=LIMITS)
    coordinator.open_round(wide())
    with clients(coordinator) as client:
        for device, (name, (bad, reason)) in enumerate(PACKETS.items()):
            remote = client(device)
            told = remote.signed(f"/v1/devices/{remote.device}/check-ins", {"held": 0})["assignment"]
            before = coordinator.refused.copy()
            status, problem = remote.send(path_of(told), bad, told["token"])
            assert status == 422, name
            assert problem["reason"] == (reason or problem["reason"]), name
            assert coordinator.refused - before == {problem["reason"]: 1}, name
            assert remote.send(path_of(told, 1), GOOD, told["token"])[0] == 201, name
    assert coordinator.counts(0).packets == 2 * len(PACKETS)
    coordinator.close()


def test_a_token_that_is_over_is_told_so_and_a_new_one_is_a_check_in_away(tmp_path: Path) -> None:
    now = [time.time()]
    coordinator = Coordinator(tmp_path, limits=LIMITS, now=lambda: now[0])
    coordinator.open_round(wide())
    with clients(coordinator) as client:
        remote = client(0)
        told = remote.signed(f"/v1/devices/{remote.device}/check-ins", {"held": 0})["assignment"]
        now[0] += 86_400
        status, problem = remote.send(path_of(told), GOOD, told["token"])
        assert (status, problem["reason"]) == (401, "token-expired")
        assert coordinator.refused["token-expired"] == 1
        again = remote.signed(f"/v1/devices/{remote.device}/check-ins", {"held": 0})["assignment"]
        assert remote.send(path_of(again), GOOD, again["token"])[0] == 201
        other = client(1)
        with pytest.raises(Refused, match="unknown-device"):
            other.signed("/v1/devices/99/check-ins", {"held": 0})
        assert coordinator.refused["unknown-device"] == 1
    coordinator.close()


@pytest.mark.parametrize("days", [1, -1])
def test_a_server_whose_clock_is_set_right_again_takes_its_clients_back(tmp_path: Path, days: int) -> None:
    """Clients have followed its clock a day off: what they signed then says nothing of now."""
    now = [time.time() + days * 86_400]
    coordinator = Coordinator(tmp_path, limits=LIMITS, now=lambda: now[0])
    coordinator.open_round(wide())
    with clients(coordinator) as client:
        remote = client(0)
        path = f"/v1/devices/{remote.device}/check-ins"
        assert "assignment" in remote.signed(path, {"held": 0})
        now[0] -= days * 86_400
        assert "assignment" in remote.signed(path, {"held": 0})
    asked = signed(coordinator.run, key_of(0), path, device=0)
    now[0] = asked.time_ms / 1000
    assert coordinator.check_in(asked, device=0, held=0).result(SECONDS).status == 200
    with pytest.raises(Refusal, match="replayed"):  # by a right clock, the same is a replay
        coordinator.check_in(asked, device=0, held=0).result(SECONDS)
    coordinator.close()


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 3 MB."""
    if os.geteuid() != 0:
        pytest.skip("only root may mount a small disk")
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=3m", "tmpfs", str(tmp_path)], capture_output=True, timeout=30
    )
    if mounted.returncode:
        pytest.skip("no file system can be mounted here")
    yield tmp_path
    subprocess.run(["umount", "-l", str(tmp_path)], check=True, timeout=30)


def test_a_disk_that_is_full_is_told_as_507_and_the_run_goes_on_when_there_is_room(small_disk: Path) -> None:
    coordinator = Coordinator(small_disk / "run", limits=LIMITS)
    coordinator.open_round(round_of(0, ask=50, most=50))
    assert ask_and_upload(coordinator, key_of(0), 0).status == 201
    ballast, told = small_disk / "ballast", set[tuple[int, str]]()
    with contextlib.suppress(OSError), open(ballast, "wb") as file:
        while True:
            file.write(bytes(4096))
            file.flush()
    for device in range(1, 40):  # the log of the database may have room for a few
        try:
            ask_and_upload(coordinator, key_of(device), 0)
        except Refusal as refusal:
            told.add((refusal.status, refusal.reason))
    assert told == {(507, "no-room")}
    assert coordinator.look_up(Place(0, 0, 0)).result(SECONDS).body["receipt"]["accepted"]
    ballast.unlink()
    assert ask_and_upload(coordinator, key_of(41), 0).status == 201
    names = coordinator.wait(seconds=0, least=1, stopped=lambda: False)
    assert packet_of(0, 0) in [coordinator.packet(name) for name in names]
    coordinator.close()
