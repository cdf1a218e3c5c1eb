"""An honest client of a coordinator, without HTTP."""

from __future__ import annotations

import time

from fl_mobile.coordinator.coordinator import Coordinator
from fl_mobile.coordinator.core import Place, Signed
from fl_mobile.coordinator.records import Reply
from fl_mobile.protocol.signing import DeviceKey, message
from tests.fl_mobile.coordinator.tiny import packet_of

SECONDS = 30.0
"""A coordinator that has not answered by then will not."""


def signed(run: str, key: DeviceKey, path: str, body: bytes = b"{}", *, device: int | None) -> Signed:
    time_ms = time.time_ns() // 1_000_000
    text = message(run=run, method="POST", path=path, device=device, time_ms=time_ms, body=body)
    return Signed("POST", path, body, time_ms, key.sign(text))


def enrol(coordinator: Coordinator, key: DeviceKey) -> int:
    asked = signed(coordinator.run, key, "/v1/devices", device=None)
    return int(coordinator.enrol(asked, key.public).result(SECONDS).body["device"])


def ask_and_upload(coordinator: Coordinator, key: DeviceKey, round_num: int) -> Reply:
    """Enrols, checks in and uploads an honest packet; returns the last reply."""
    device = enrol(coordinator, key)
    asked = signed(coordinator.run, key, f"/v1/devices/{device}/check-ins", device=device)
    reply = coordinator.check_in(asked, device=device, held=0).result(SECONDS)
    assert "assignment" in reply.body, reply
    return coordinator.upload(Place(round_num, device, 0), packet_of(device, round_num)).result(SECONDS)
