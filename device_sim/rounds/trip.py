"""A crew's way through a step: model down, training, policy, packet up; when, how many bytes, how many joules."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from device_sim.federation.federation import Federation
from device_sim.fleet.availability.presence import spend
from device_sim.fleet.devices.task import Sending, Training, send
from device_sim.fleet.reasons import REASONS
from device_sim.fleet.selection.policies import Trained
from device_sim.rounds.crew import Crew
from device_sim.rounds.download import Broadcast
from device_sim.rounds.phones import Answer, Folding
from device_sim.rounds.training import train_crew
from device_sim.run.memory import FleetMemory
from fl_mobile import wire
from fl_mobile.records import ServerState
from fl_mobile.server.rounds import Fold

ACCEPTED, OFFLINE, LOST, INTERRUPTED, SURPLUS = "accepted", "offline", "lost", "interrupted", "surplus"


@dataclass(frozen=True)
class Trip:
    """What became of a crew, one entry a device.

    Attributes:
        crew: Who.
        download_bytes: ``int64[n]``.
        training: Up to the end of local training.
        sending: Uploads.
        packet_bytes: ``int64[n]``, whole lengths; 0 where nothing was encoded.
        declined: ``uint8[n]``: reason codes of devices that kept their update to themselves.
        loss: ``float64[n]``, NaN where nothing was trained.
        answers: Of those that trained in time.
        folded: All their packets added up, if that was asked for.
        place: Device → position.
    """

    crew: Crew
    download_bytes: np.ndarray
    training: Training
    sending: Sending
    packet_bytes: np.ndarray
    declined: np.ndarray
    loss: np.ndarray
    answers: Sequence[Answer]
    folded: Fold | None
    place: dict[int, int]

    def outcomes(self) -> np.ndarray:
        """Returns ``object[n]``: ``accepted`` for packets that arrived, else why not, before any deadline."""
        outcome = np.full(len(self.crew), ACCEPTED, object)
        outcome[~self.sending.arrived] = LOST
        outcome[self.declined > 0] = np.array(REASONS, object)[self.declined[self.declined > 0]]
        outcome[~self.training.finished] = INTERRUPTED
        outcome[self.crew.mishaps.silent] = OFFLINE
        return outcome

    def resolved(self) -> np.ndarray:
        """Returns ``float64[n]`` virtual seconds at which each is done one way or another; inf if it never answered."""
        uploaded = self.sending.uploaded
        return np.where(np.isfinite(uploaded), uploaded, self.training.trained)

    def joules(self) -> np.ndarray:
        """Returns ``float64[n]`` spent."""
        spent: np.ndarray = self.training.joules + self.sending.joules
        return spent


def travel(
    federation: Federation,
    memory: FleetMemory,
    state: ServerState,
    crew: Crew,
    down: Broadcast,
    layout: wire.Layout,
    updates: Path,
    *,
    deadline: float = np.inf,
    folding: Folding | None = None,
) -> Trip:
    """Plays a crew and returns its trip; devices whose training ends after the deadline are spared the computing.

    Args:
        layout: Of the upload packets.
        folding: Adds them up where they are made.

    Raises:
        DivergedError: Local training gave NaN or Inf; names device and round.
    """
    size, reached = len(crew), ~crew.mishaps.silent
    download_bytes, packet_bytes = np.zeros(size, np.int64), np.zeros(size, np.int64)
    declined, loss = np.zeros(size, np.uint8), np.full(size, np.nan)
    download_bytes[reached] = down.bytes_for(crew.devices.index[reached], memory)
    training = crew.train(federation, download_bytes)
    worked = np.flatnonzero(training.finished & (training.trained <= deadline))
    ready = train_crew(federation, memory, state, crew, worked, down, layout, updates, folding)
    answers = ready.answers
    packet_bytes[worked] = [len(answer.packet) for answer in answers]
    loss[worked] = [answer.loss for answer in answers]
    trained = Trained(crew.devices.index[worked], np.array([answer.norm for answer in answers]), loss[worked])
    declined[worked] = federation.policy.after(memory.ledger, trained)
    sends = np.zeros(size, bool)
    sends[worked] = declined[worked] == 0
    sending = send(crew.devices, replace(training, finished=sends), crew.air, packet_bytes)
    place = {answer.device: at for answer, at in zip(answers, worked.tolist(), strict=True)}
    return Trip(crew, download_bytes, training, sending, packet_bytes, declined, loss, answers, ready.folded, place)


def write_down(federation: Federation, memory: FleetMemory, version: int, trip: Trip, took_part: np.ndarray) -> None:
    """Tells the ledger who took part, ``bool[n]``, and what it cost all of them, if anything will ever ask."""
    if not federation.uses_ledger:
        return
    crew, took = trip.crew, took_part
    now = float(crew.asked.max(initial=0.0))
    spend(federation.gate.presence(crew.devices, now), crew.devices, memory.ledger, trip.joules(), now)
    memory.ledger.took_part(
        crew.devices.index[took],
        round_num=version,
        at_seconds=trip.sending.uploaded[took],
        task_seconds=trip.sending.uploaded[took] - crew.asked[took],
        examples=crew.examples[took],
        loss=trip.loss[took],
    )
