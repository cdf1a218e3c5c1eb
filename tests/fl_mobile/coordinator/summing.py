"""A masked round over a store, and clients of it that can be made to say anything."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

import numpy as np

from fl_mobile.client.masked import join, masked_packet
from fl_mobile.records import FitPlan
from fl_mobile.secure_sum import MaskedClient, MaskPlan
from fl_mobile.secure_sum.registry import with_keys, without_keys
from fl_mobile.seeds import rng_for
from fl_mobile.server.fold import Fold
from fl_mobile.server.masked import MaskedRound
from fl_mobile.wire import UPDATE, Header
from tests.fl_mobile.coordinator.tiny import SUMMED, key_of
from tests.fl_mobile.secure_sum.parties import randomness

PLAN = MaskPlan(group=8, dropouts=0.4)
TRUSTED = frozenset(key_of(who).public for who in range(8))


def update_of(device: int, round_num: int) -> np.ndarray:
    return np.array([device, -round_num, 1], np.float32)


def plain_packet(device: int, round_num: int) -> bytes:
    delta = {"w": update_of(device, round_num)}
    return SUMMED.pack(Header(UPDATE, round_num, round_num, 1, float("nan")), delta, rng_for(device, "codec"))


@dataclass
class Member:
    """An honest client; ``who`` it is keys it, ``device`` is its index."""

    who: int
    device: int
    run: str
    round_num: int
    life: int = 0
    client: MaskedClient | None = None

    def keys(self, invitation: bytes) -> bytes:
        key = key_of(self.who)
        self.client = join(
            invitation,
            layout=SUMMED,
            round_num=self.round_num,
            run=self.run,
            client=self.device,
            identity=key.seed,
            identities={},
            random=randomness(1000 * self.round_num + 10 * self.who + self.life),
        )
        return self.client.advertise()

    def shares(self, packet: bytes) -> bytes:
        assert self.client is not None
        roster, self.client.identities = without_keys(packet, TRUSTED)
        return self.client.share(roster)

    def packet(self, inbox: bytes) -> bytes:
        assert self.client is not None
        return masked_packet(self.client, SUMMED, inbox, plain_packet(self.device, self.round_num))

    def unmasking(self, request: bytes) -> bytes:
        assert self.client is not None
        return self.client.unmask(request)

    def says(self, step: int, message: bytes) -> bytes:
        return (self.keys, self.shares, self.packet, self.unmasking)[step - 1](message)


@dataclass
class Leader:
    """What a round master computes from what was said, step by step; the same whoever computes it again."""

    run: str
    round_num: int
    said: list[Mapping[int, bytes]] = field(default_factory=list)

    def next(self, said: Mapping[int, bytes]) -> dict[int, bytes] | Fold:
        """Returns the messages of the step after the one that was closed with these answers."""
        self.said.append(said)
        server = MaskedRound(SUMMED, self.round_num, PLAN, self.run, self.said[0], FitPlan())
        out: dict[int, bytes] | Fold = {}
        for step, answers in enumerate(self.said):
            if step == 0:
                out = server.invite(sorted(answers))
            elif step == 1:
                out = {c: with_keys(roster, self.said[0]) for c, roster in server.rosters(answers).items()}
            else:
                out = (server.inboxes, server.request, server.result)[step - 2](answers)
        self.receipts = server.receipts
        return out


def expected_mean(devices: Iterable[int], round_num: int) -> np.ndarray:
    """Returns the mean of what single packets decode to."""
    return np.mean([SUMMED.unpack(plain_packet(d, round_num)).tensors["w"] for d in devices], axis=0)
