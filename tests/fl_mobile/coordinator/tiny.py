"""A run of one tensor of three numbers: real packets and real admission, small enough to make a thousand of."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from functools import cache

import numpy as np

from fl_mobile.aggregation import AGGREGATORS
from fl_mobile.codecs import parse_codec
from fl_mobile.coordinator.blobs import Blobs
from fl_mobile.coordinator.judging import judge_by, judge_masked
from fl_mobile.coordinator.published import told_of
from fl_mobile.coordinator.records import OpenRound, SumPace
from fl_mobile.protocol.signing import DeviceKey
from fl_mobile.protocol.terms import Blob, assignment_to_json
from fl_mobile.records import Assignment, FitPlan
from fl_mobile.seeds import rng_for
from fl_mobile.server.admission import Admission
from fl_mobile.server.fold import Folding
from fl_mobile.tensors import TensorSpec
from fl_mobile.wire import UPDATE, Header, Layout

SPEC = {"w": TensorSpec((3,))}
LAYOUT = Layout(SPEC, parse_codec("none"))
SUMMED = Layout(SPEC, parse_codec("linear:clip=8,bits=4,devices=8"))
"""Of rounds under masks."""


@cache
def key_of(device: int) -> DeviceKey:
    return DeviceKey(bytes([device + 1]) * 32)


@cache
def packet_of(device: int, round_num: int, flavour: int = 0) -> bytes:
    """An honest packet; another flavour is another update of the same device."""
    delta = {"w": np.array([device, round_num, flavour], np.float32)}
    return LAYOUT.pack(Header(UPDATE, round_num, round_num, 1 + device, 0.5), delta, rng_for(0, "unused"))


def round_of(
    number: int,
    *,
    ask: int = 3,
    most: int = 2,
    asynchronous: bool = False,
    seat_seconds: float = 600.0,
    masked: bool = False,
) -> OpenRound:
    layout = SUMMED if masked else LAYOUT
    admission = Admission(max_staleness=2 if asynchronous else 0)
    folding = Folding(number, layout, AGGREGATORS["mean"], admission, FitPlan())
    return OpenRound(
        number=number,
        assignment=assignment_to_json(Assignment(number, FitPlan(), layout.codec)),
        parts_for=lambda held: {"model": Blob("0" * 64, 100 + held)},
        seed_of=lambda device: 1000 * number + device,
        judge=(judge_masked if masked else judge_by)(folding),
        masks=SumPace(60.0, 1.0) if masked else None,
        ask=ask,
        most=most,
        asynchronous=asynchronous,
        seat_seconds=600.0,
        most_bytes=4096,
        told=told_of(0, folding),
    )


@dataclass(frozen=True)
class InMemory(Blobs):
    """Packets without a disk."""

    held: dict[str, bytes] = field(default_factory=dict)

    def put_all(self, named: Mapping[str, bytes]) -> None:
        self.held.update(named)

    def get(self, sha256: str) -> bytes:
        return self.held[sha256]

    def keep_only(self, names: Collection[str]) -> None:
        for name in [name for name in self.held if name not in names]:
            del self.held[name]
