"""A client's part in one masked round, a step a visit; it is in memory alone, so that whoever is killed has left it.

```
keys ─▶ shares ─▶ model, training, masked packet ─▶ unmasking ─▶ receipt        between them: are the others done?
```
Keys are fresh, and go with this object: another life of the client has none of them and can only leave.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from fl_mobile.client.answer import Answer
from fl_mobile.client.asked import Asked
from fl_mobile.client.masked import join, masked_packet
from fl_mobile.client.remote import Remote
from fl_mobile.errors import WireError
from fl_mobile.privacy.shares import ShareNoise
from fl_mobile.protocol.forms import number
from fl_mobile.protocol.terms import receipt_from_json
from fl_mobile.records import Receipt
from fl_mobile.secure_sum.client import MaskedClient
from fl_mobile.secure_sum.plan import MaskPlan
from fl_mobile.secure_sum.registry import without_keys
from fl_mobile.wire import Layout

KEYS, SHARES, PACKET, UNMASK, RECEIPT = range(1, 6)
MOST_SECONDS = 600.0
"""Between two questions, whatever the server says."""


@dataclass(frozen=True)
class Left:
    """The client is in the round no more, or never was; why."""

    reason: str


@dataclass
class InSum:
    """One client in one round.

    Attributes:
        asked: Its assignment.
        layout: Of the round's packets.
        trusted: Public keys of devices, from its app or a registrar.
        plan: What the run's terms say of groups; a sum of fewer is not unmasked.
        noise: What it adds a share of.
        begin: Is called before keys leave it: from then on it takes part in no other sum of this round.
        train: Returns its answer, charged where it is noisy, or why there is none.
        made: What it has sent.
    """

    remote: Remote
    asked: Asked
    layout: Layout
    trusted: frozenset[bytes]
    plan: MaskPlan
    noise: ShareNoise | None
    begin: Callable[[], None]
    train: Callable[[], Answer | Left]
    made: Answer | None = None
    _step: int = KEYS
    _ready: bytes | None = field(default=None, repr=False)
    _client: MaskedClient | None = field(default=None, repr=False)

    def go_on(self) -> float | Left | Receipt:
        """Returns seconds to wait before it is asked to go on, or what became of it.

        Raises:
            WireError: What came from the server cannot be trusted; the client is to leave.
        """
        path, token = self.asked.path(0), self.asked.token
        if self._step == RECEIPT:
            status, told = self.remote.ask("GET", path, token)
            return _wait(told) if status == 202 else _settled(told)
        step = f"{self.asked.seat}/sum/{self._step}"
        if self._ready is None:
            status, message, told = self.remote.message(step, token)
            if status == 202:
                return _wait(told)
            if status == 410 and self._step == UNMASK:  # without this client, or its group: the receipt says it
                self._step = RECEIPT
                return 0.0
            if status != 200:
                return _settled(told)
            answer = self._answer(message)
            if isinstance(answer, Left):
                return answer
            self._ready = answer
        status, told = self.remote.send(path if self._step == PACKET else step, self._ready, token)
        if status not in (200, 201):
            return _settled(told)
        self._ready, self._step = None, self._step + 1
        return 0.0

    def _answer(self, message: bytes) -> bytes | Left:
        if self._step == KEYS:
            self.begin()
            self._client = self._joined(message)
            return self._client.advertise()
        client = self._client
        assert client is not None
        if self._step == SHARES:
            roster, client.identities = without_keys(message, self.trusted)
            least = self.plan.least(len(client.identities))
            if client.terms.least < least:
                raise WireError("group", f"a sum of {client.terms.least} may be read, the terms say at least {least}")
            return client.share(roster)
        if self._step == UNMASK:
            return client.unmask(message)
        made = self.train()
        if isinstance(made, Left):
            return made
        self.made = made
        return masked_packet(client, self.layout, message, made.packet, noise=self.noise, secret=self.remote.key.seed)

    def _joined(self, invitation: bytes) -> MaskedClient:
        return join(
            invitation,
            layout=self.layout,
            round_num=self.asked.assignment.round_num,
            run=self.remote.run,
            client=self.asked.device,
            identity=self.remote.key.seed,
            identities={},
            random=os.urandom,
        )


def _wait(told: Mapping[str, Any]) -> float:
    try:
        return min(max(0.0, number(told.get("wait_seconds"))), MOST_SECONDS)
    except ValueError as error:
        raise WireError("json", f"wait_seconds: {error}") from None


def _settled(told: Mapping[str, Any]) -> Receipt | Left:
    if "receipt" in told:
        return receipt_from_json(told["receipt"])
    reason = told.get("reason")
    if not isinstance(reason, str):
        raise WireError("json", "the answer to a step of a masked round says neither receipt nor reason")
    return Left(reason)
