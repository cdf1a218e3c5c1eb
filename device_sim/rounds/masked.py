"""A round under masks: the two roles of `fl_mobile.client.masked` and `fl_mobile.server.masked`, with a clock and air.

```
 invite ▼ advertise ▲ | roster ▼ share ▲ | inbox, model ▼ training, masked update ▲ | list ▼ unmask ▲      steps 1 to 4
```
Each step ends for everybody at once, when all have answered or left; the third one, the only long one, at the deadline
if there is one. Every byte is real and takes its time on air. A device is gone from the moment a transfer of its breaks
off or its training is interrupted; what it has masked until then is unmasked by its neighbours' shares.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path

import numpy as np

from device_sim.federation.federation import Federation
from device_sim.rounds.clients import SIMULATED
from device_sim.rounds.crew import Crew
from device_sim.rounds.memory import FleetMemory
from device_sim.rounds.step import Step, close_step, open_step
from device_sim.rounds.synchronous import ask, settle, write_off
from device_sim.rounds.traffic import Beside, Traffic
from device_sim.rounds.trip import ACCEPTED, LEFT, LOST, REFUSED, Trip, settle_clients, travel
from fl_mobile.client.masked import join, masked_packet
from fl_mobile.errors import WireError
from fl_mobile.privacy.keys import Keystream, derive
from fl_mobile.privacy.rules import key_of_seed
from fl_mobile.records import Receipt, RoundReport, ServerState
from fl_mobile.secure_sum import MaskedClient, crypto
from fl_mobile.seeds import seed_for, uniforms
from fl_mobile.server.masked import MaskedRound
from fl_mobile.wire import Layout


def play_masked(
    federation: Federation, memory: FleetMemory, state: ServerState, updates: Path
) -> tuple[ServerState, RoundReport, Traffic]:
    """Returns the next state, what the server saw, and what travelled; as the rows of `SERVERS`.

    Where no group's sum can be unmasked the model stays as it is.
    """
    start, step = memory.seconds, open_step(federation, memory, state, updates)
    crew, skipped, deadline = ask(step, start)
    sums = Sums(step, crew)
    server = sums.server
    rosters = server.rosters(sums.exchange(1, server.invite(crew.devices.index.tolist())))
    inboxes = server.inboxes(sums.exchange(2, rosters))
    groups = server.groups
    trip = travel(step, sums.rest(inboxes), deadline=deadline)
    outcome, sums.now = settle(trip, deadline, max(1, len(crew)), waited=sums.among(inboxes))
    request = server.request(sums.packets(trip, outcome, inboxes))
    revealed = sums.exchange(4, request, until=trip.training.downloaded + crew.mishaps.lasts_seconds)
    after, report = close_step(step, server.result(revealed))
    receipts = sums.told(trip, outcome, server.receipts)
    settle_clients(step, trip, receipts)
    traffic = Traffic(start=start, end=sums.now if len(crew) else start + federation.experiment.clock.retry_seconds)
    traffic.masks = {"groups": groups, "up": int(sums.beside.up.sum()), "down": int(sums.beside.down.sum())}
    traffic.add(trip, outcome, sums.beside)
    write_off(step, trip, outcome, skipped, traffic)
    return after, report, traffic


@dataclass
class Sums:
    """The clients of a round of masked sums, their clock, and what travels beside models and updates.

    Attributes:
        step: Of the server.
        crew: All that were asked.
        now: Virtual second at which the step that is played begins, for everybody.
        clients: Those that have joined, by number.
        left: Why those that left did so, by number; their `outcome`.
    """

    step: Step
    crew: Crew
    now: float = 0.0
    clients: dict[int, MaskedClient] = field(default_factory=dict)
    left: dict[int, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.now = float(self.crew.asked.max(initial=self.step.memory.seconds))
        self.beside = Beside.nothing(len(self.crew))
        self._place = {client: at for at, client in enumerate(self.crew.devices.index.tolist())}
        early = uniforms(self._seed, self.step.round_num, "masks-leaves", index=self.crew.devices.index)
        self._silent_from = np.where(self.crew.mishaps.silent, 1 + np.floor(4 * early), np.inf)

    @property
    def _seed(self) -> int:
        return self.step.federation.experiment.seed

    @cached_property
    def layout(self) -> Layout:
        """Of the round's upload packets."""
        return Layout(self.step.agreement.spec, self.step.assignment.upload)

    @cached_property
    def server(self) -> MaskedRound:
        """The server's half."""
        plan = self.step.agreement.masks
        assert plan is not None
        return MaskedRound(
            layout=self.layout,
            round_num=self.step.round_num,
            plan=plan,
            run=SIMULATED,
            identities=self.identities,
            fit=self.step.assignment.plan,
        )

    @cached_property
    def identities(self) -> dict[int, bytes]:
        """Client → public key, as a registrar that is not the server holds it."""
        return {client: crypto.identity_of(self._key(client, "identity")) for client in self._place}

    def _key(self, client: int, purpose: str) -> bytes:
        """Returns 32 bytes of a client's own; a simulation that is repeated has the same keys."""
        root = self.step.memory.secret or key_of_seed(self._seed)
        return derive(derive(root, "device", client), "masks", purpose)

    def exchange(self, number: int, sent: Mapping[int, bytes], *, until: np.ndarray | None = None) -> dict[int, bytes]:
        """Returns client → its answer in step 1, 2 or 4, of those whose answer arrives.

        Args:
            number: Of the step.
            sent: Client → what the server sends it.
            until: ``float64[n]`` virtual seconds from which on a device is interrupted.
        """
        there = [client for client in sent if self._silent_from[self._place[client]] > number]
        made = {client: self._answer(number, client, sent[client]) for client in there if client not in self.left}
        answers = {client: packet for client, packet in made.items() if packet is not None}
        at = np.array([self._place[client] for client in answers], np.int64)
        devices = self.crew.devices.take(at)
        air = devices.air(seed_for(self._seed, "masks", number), self.step.round_num)
        down, up = (np.array([len(side[client]) for client in answers], np.int64) for side in (sent, answers))
        down_seconds, up_seconds = devices.down_seconds(down, air), devices.up_seconds(up, air)
        done = self.now + down_seconds + up_seconds
        gone = np.zeros(len(at), bool) if until is None else done > until[at]
        self.beside.down[at] += down
        self.beside.up[at] += up
        self.beside.seconds[at] += down_seconds + up_seconds
        self.beside.joules[at] += devices.down_joules(down, down_seconds) + devices.up_joules(up, up_seconds)
        self.left |= {client: LOST for client, lost in zip(answers, air.lost | gone, strict=True) if lost}
        self.now = float(np.max(done[~gone], initial=self.now))
        return {client: packet for client, packet in answers.items() if client not in self.left}

    def _answer(self, number: int, client: int, packet: bytes) -> bytes | None:
        """Returns what a client answers; one that refuses has left."""
        try:
            if number == 1:
                self.clients[client] = self._join(client, packet)
                return self.clients[client].advertise()
            return (MaskedClient.share if number == 2 else MaskedClient.unmask)(self.clients[client], packet)
        except WireError:
            self.left[client] = LEFT
            return None

    def _join(self, client: int, invitation: bytes) -> MaskedClient:
        return join(
            invitation,
            layout=self.layout,
            round_num=self.step.round_num,
            run=SIMULATED,
            client=client,
            identity=self._key(client, "identity"),
            identities=self.identities,
            random=Keystream(derive(self._key(client, "secrets"), self.step.round_num)).take,
        )

    def among(self, clients: Mapping[int, bytes]) -> np.ndarray:
        """Returns ``bool[n]``: which of the crew are in ``clients``."""
        return np.isin(self.crew.devices.index, list(clients))

    def rest(self, inboxes: Mapping[int, bytes]) -> Crew:
        """Returns the crew that now gets the model; all that have left are silent in it."""
        silent = ~self.among(inboxes) | (self._silent_from <= 3)
        asked = np.full(len(self.crew), self.now)
        return replace(self.crew, asked=asked, mishaps=replace(self.crew.mishaps, silent=silent))

    def packets(self, trip: Trip, outcome: np.ndarray, inboxes: Mapping[int, bytes]) -> dict[int, bytes]:
        """Returns client → its masked packet, of all whose packet arrives; ``outcome`` says of the others why not."""
        for client, why in self.left.items():
            outcome[self._place[client]] = why
        out: dict[int, bytes] = {}
        for client, made in zip(trip.trained.clients, trip.trained.answers, strict=True):
            at = self._place[client]
            self.beside.down[at] += len(inboxes[client])
            if outcome[at] == ACCEPTED:
                try:
                    out[client] = masked_packet(
                        self.clients[client],
                        self.layout,
                        inboxes[client],
                        made.packet,
                        noise=self.step.agreement.share_noise,
                        secret=self._key(client, "noise"),
                    )
                except WireError:
                    self.left[client] = outcome[at] = LEFT
        return out

    def told(self, trip: Trip, outcome: np.ndarray, receipts: Mapping[int, Receipt]) -> dict[int, Receipt]:
        """Returns position in `Trip.place` → receipt; refusals go into ``outcome``."""
        for client, receipt in receipts.items():
            if not receipt.accepted:
                outcome[self._place[client]] = REFUSED + receipt.reason
        return {at: receipts[c] for at, c in enumerate(trip.trained.clients) if c in receipts}
