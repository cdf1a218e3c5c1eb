"""FedBuff: so many devices always train, and every ``clock.buffer`` updates make a step, late ones weighing less.

Nguyen et al., "Federated learning with buffered asynchronous aggregation" (AISTATS 2022).

```
a device is heard of ─▶ buffer it ─▶ full? step ─▶ ask another in its place
```
Devices asked at different moments of one version train from the same weights, so they are trained together: as late as
possible, but before the clock could reach the first of them. Nothing is approximated by that.
"""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np

from device_sim.federation.federation import Federation
from device_sim.fleet.reasons import REASONS, count
from device_sim.rounds.crew import Crew, gather, together
from device_sim.rounds.memory import FleetMemory, Flight
from device_sim.rounds.step import Step, close_step, open_step
from device_sim.rounds.traffic import Traffic
from device_sim.rounds.training import fold_packets
from device_sim.rounds.trip import ACCEPTED, OFFLINE, REFUSED, Trip, settle_clients, travel, write_down
from fl_mobile.errors import RunError
from fl_mobile.records import RoundReport, ServerState

PATIENCE = 10_000
"""Askings in a row that find nobody before the run is given up."""


def play_asynchronously(
    federation: Federation, memory: FleetMemory, state: ServerState, updates: Path
) -> tuple[ServerState, RoundReport, Traffic]:
    """Plays until the buffer is full; arguments and result as in `play_synchronously`.

    Raises:
        DivergedError: Local training gave NaN or Inf; names device and round.
        RunError: No device can take part any more.
    """
    experiment = federation.experiment
    keys, wanted = experiment.clock, experiment.clock.buffer or max(1, experiment.train.cohort // 2)
    step = open_step(federation, memory, state, updates)
    version = _Version(step)
    buffer: list[Flight] = []
    in_vain = 0
    while len(buffer) < wanted:
        asked = version.ask(experiment.train.cohort - len(memory.flights) - version.waiting)
        if not memory.flights and not version.waiting:
            memory.seconds += keys.retry_seconds
            in_vain += 1
            if in_vain == PATIENCE:
                raise RunError(
                    f"no device could take part for {PATIENCE * keys.retry_seconds:g} virtual seconds, because of"
                    f" {dict(version.skipped)}. Loosen the rules in [fleet] or [policy]."
                )
            continue
        in_vain = 0 if asked else in_vain
        if version.earliest() <= min((f.resolved for f in memory.flights), default=np.inf):
            version.train()
            continue
        flight = min(memory.flights, key=lambda f: (f.resolved, f.device))
        memory.flights.remove(flight)
        memory.seconds = flight.resolved
        if flight.outcome == ACCEPTED:
            buffer.append(flight)
        else:
            version.traffic.lost[flight.outcome] += flight.outcome not in REASONS
    version.train()
    folded = fold_packets(federation.engine, [flight.packet for flight in buffer], step.folding)
    if federation.attackers:
        lying = federation.attackers.among(np.array([flight.device for flight in buffer], np.int64))
        told = [ACCEPTED if one.accepted else REFUSED + one.reason for one in folded.receipts]
        version.traffic.count_malicious(lying, np.array(told, object))
    after, report = close_step(step, folded)
    memory.keep_flights(state.round_num)
    return after, report, version.close()


class _Version:
    """Devices asked during one version of the model, and what they cost."""

    def __init__(self, step: Step) -> None:
        self._step, self._federation, memory = step, step.federation, step.memory
        self._memory = memory
        self._crews: list[Crew] = []
        self.skipped: Counter[str] = Counter()
        self.traffic = Traffic(start=memory.seconds)

    @property
    def waiting(self) -> int:
        """Devices that were asked and have not been trained here."""
        return sum(map(len, self._crews))

    def ask(self, wanted: int) -> int:
        """Asks devices that are not under way; returns how many take part."""
        if wanted <= 0:
            return 0
        memory = self._memory
        busy = [crew.devices.index for crew in self._crews]
        under_way = np.concatenate([*busy, np.array([flight.device for flight in memory.flights], np.int64)])
        draw = memory.askings
        memory.askings += 1
        crew, skipped = gather(
            self._federation,
            memory,
            round_num=self._step.round_num,
            wanted=wanted,
            draw=draw,
            now=memory.seconds,
            under_way=under_way,
        )
        self.skipped += skipped
        if len(crew):
            self._crews.append(crew)
        return len(crew)

    def earliest(self) -> float:
        """Returns a virtual second before which none of the waiting devices can be heard of."""
        soonest = [crew.train(self._federation, np.zeros(len(crew), np.int64)).trained for crew in self._crews]
        given_up = [crew.asked + self._federation.experiment.clock.retry_seconds for crew in self._crews]
        return min((float(np.minimum(*pair).min()) for pair in zip(soonest, given_up, strict=True)), default=np.inf)

    def train(self) -> None:
        """Trains all waiting devices; what they have ready to send is under way from now on."""
        if not self._crews:
            return
        crew, self._crews = together(self._crews), []
        trip = travel(self._step, crew)
        settle_clients(self._step, trip, {})  # private tensors alone: nothing else outlives an asynchronous round
        self._send_off(trip)

    def _send_off(self, trip: Trip) -> None:
        outcome, resolved = trip.outcomes(), trip.resolved()
        given_up = trip.crew.asked + self._federation.experiment.clock.retry_seconds
        resolved = np.where(outcome == OFFLINE, given_up, resolved)
        packets = {client: made.packet for client, made in zip(trip.trained.clients, trip.trained.answers, strict=True)}
        for device, what, when in zip(trip.crew.devices.index.tolist(), outcome, resolved.tolist(), strict=True):
            packet = packets[device] if what == ACCEPTED else b""
            self._memory.flights.append(
                Flight(device=device, version=self._step.round_num, resolved=when, outcome=what, packet=packet)
            )
        write_down(self._step, trip, outcome == ACCEPTED)
        losses = self.traffic.lost.copy()
        self.traffic.add(trip, outcome)
        if attackers := self._federation.attackers:
            self.traffic.malicious["asked"] += int(attackers.among(trip.crew.devices.index).sum())
        self.traffic.lost = losses  # counted when the server hears of them
        self.skipped += count(trip.declined)

    def close(self) -> Traffic:
        """Returns what the step added up to."""
        self.traffic.end = self._memory.seconds
        self.traffic.skip(self.skipped)
        return self.traffic
