"""The server's half of a masked round: messages between clients pass through it, and of every group it reads the sum.

```
invite ─▶ advertise ─▶ rosters ─▶ share ─▶ inboxes ─▶ packets ─▶ request ─▶ unmask ─▶ result      down, up: 4 times
```
A group of which more leave than its terms allow is not in the round; the others are. What comes out is the mean of the
clients in it, each once: nobody could check a weight that only its client knows.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from fl_mobile.aggregation.summed_fields import SummedFields
from fl_mobile.codecs.base import in_round
from fl_mobile.codecs.summed import Summed, summed
from fl_mobile.errors import ConfigError, WireError
from fl_mobile.records import FitPlan, Receipt
from fl_mobile.secure_sum.plan import MaskPlan, run_of
from fl_mobile.secure_sum.server import MaskedServer
from fl_mobile.secure_sum.terms import LEAST_GROUP
from fl_mobile.server.admission import Admission, header_of
from fl_mobile.server.fold import Fold
from fl_mobile.wire import Layout


def payload_of(packet: bytes, layout: Layout, round_num: int) -> bytes:
    """Returns the masked payload of a packet; raises `WireError` for one that is of no sum of this round."""
    codec = summed(in_round(layout.codec, round_num))
    assert codec is not None
    header_of(packet, round_num=round_num, layout=layout, rules=Admission(weighting="uniform"))
    _, _, payload = layout.open(packet)
    expected = -(-codec.count_fields(layout.coded) * codec.width // 8)
    if len(payload) != expected:
        raise WireError("length", f"expected {expected} bytes of masked fields, got {len(payload)}")
    return bytes(payload)


@dataclass
class MaskedRound:
    """One round of masked sums on the server.

    Attributes:
        layout: Of the upload packets, with the codec that was published for the round.
        round_num: The server's.
        plan: How the cohort is cut.
        run: Names the federation.
        identities: Client → Ed25519 public key.
        fit: Local training of the round; receipts say what it came to.
        dropped: Reason → packets that arrived and are in no sum.
        receipts: Client → what it is told, of all whose packets arrived; complete once `result` has been asked for.
    """

    layout: Layout
    round_num: int
    plan: MaskPlan
    run: str
    identities: Mapping[int, bytes]
    fit: FitPlan
    dropped: Counter[str] = field(default_factory=Counter)
    receipts: dict[int, Receipt] = field(default_factory=dict)
    _groups: list[MaskedServer] = field(default_factory=list)
    _group_of: dict[int, MaskedServer] = field(default_factory=dict)
    _lengths: dict[int, int] = field(default_factory=dict)
    _lost: set[int] = field(default_factory=set)
    _codec: Summed = field(init=False)

    def __post_init__(self) -> None:
        codec = summed(in_round(self.layout.codec, self.round_num))
        if codec is None or any(tensor.size for tensor in self.layout.exact.values()):
            told = self.layout.codec.name if codec is None else next(iter(self.layout.exact))
            raise ConfigError(f"'{told}' cannot be added under masks: only fields of a fixed width can")
        self._codec = codec

    @property
    def groups(self) -> int:
        """Sums of the round."""
        return len(self._groups)

    def invite(self, clients: Sequence[int]) -> dict[int, bytes]:
        """Returns client → the terms of its group's sum; nobody is invited where so few would have to be told apart."""
        out: dict[int, bytes] = {}
        if len(clients) < LEAST_GROUP:
            return out
        codec = self._codec
        run = run_of(self.run, self.layout.fingerprint, self.layout.codec.name)
        for number, members in enumerate(self.plan.groups(clients)):
            terms = self.plan.terms(
                run=run,
                round_num=self.round_num,
                group=number,
                clients=len(members),
                values=codec.count_fields(self.layout.coded),
                width=codec.width,
            )
            group = MaskedServer(terms, {client: self.identities[client] for client in members})
            self._groups.append(group)
            self._group_of |= dict.fromkeys(members, group)
            out |= dict.fromkeys(members, terms.packed())
        return out

    def rosters(self, advertised: Mapping[int, bytes]) -> dict[int, bytes]:
        """Returns client → the roster of its group, of all that are in one."""

        def one(group: MaskedServer, sent: dict[int, bytes]) -> dict[int, bytes]:
            roster = group.roster(sent)
            return dict.fromkeys((client for client in sent if client not in group.dropped), roster)

        return self._each(advertised, one)

    def inboxes(self, shared: Mapping[int, bytes]) -> dict[int, bytes]:
        """Returns client → what its neighbours sealed for it."""
        return self._each(shared, MaskedServer.inboxes)

    def request(self, packets: Mapping[int, bytes]) -> dict[int, bytes]:
        """Adds up what arrived, and returns client → whom its group's sum is of."""
        payloads: dict[int, bytes] = {}
        for client, packet in packets.items():
            try:
                payloads[client] = payload_of(packet, self.layout, self.round_num)
                self._lengths[client] = len(packet)
            except WireError as error:
                self._refuse([client], error.reason)

        def one(group: MaskedServer, sent: dict[int, bytes]) -> dict[int, bytes]:
            request = group.request(sent)
            return dict.fromkeys(np.frombuffer(request, "<u4").tolist(), request)

        return self._each(payloads, one)

    def result(self, revealed: Mapping[int, bytes]) -> Fold:
        """Returns the sums of all groups that could be unmasked, as the aggregate of the round."""
        codec, spec = self._codec, self.layout.coded
        folded = Fold(SummedFields(spec, codec, np.zeros(codec.count_fields(spec), np.int64)))

        def one(group: MaskedServer, sent: dict[int, bytes]) -> dict[int, bytes]:
            total = codec.signed(group.result(sent))
            codec.decode_total(total, spec, len(group.summed))  # refuses what so many cannot reach
            folded.total.merge(SummedFields(spec, codec, total, len(group.summed)))
            folded.upload_bytes.update(self._lengths[client] for client in group.summed)
            self.receipts |= {client: Receipt(weight=1, local_steps=self.fit.local_steps(1)) for client in group.summed}
            return {}

        self._each(revealed, one)
        self._groups.clear()
        self._group_of.clear()
        folded.full_weight = folded.examples = folded.accepted
        folded.dropped = self.dropped
        return folded

    def _each(
        self, packets: Mapping[int, bytes], one: Callable[[MaskedServer, dict[int, bytes]], dict[int, bytes]]
    ) -> dict[int, bytes]:
        """Returns what every group makes of its packets; one that cannot go on is left out, by reason."""
        out: dict[int, bytes] = {}
        for number, group in enumerate(self._groups):
            if number in self._lost:
                continue
            try:
                out |= one(group, {c: p for c, p in packets.items() if self._group_of.get(c) is group})
            except WireError as error:
                self._lost.add(number)
                self._refuse([c for c in self._lengths if self._group_of.get(c) is group], error.reason)
            else:
                self._refuse([c for c in group.dropped if c in self._lengths], "")
        return out

    def _refuse(self, clients: Sequence[int], reason: str) -> None:
        """Tells clients whose packet arrived that it is in no sum."""
        for client in clients:
            if client not in self.receipts:
                why = reason or self._group_of[client].dropped[client]
                self.receipts[client] = Receipt(reason=why)
                self.dropped[why] += 1
