"""A crew's way through a step: model down, training, policy, packet up; when, how many bytes, how many joules."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import numpy as np

from device_sim.fleet.availability.presence import spend
from device_sim.fleet.devices.task import Sending, Training, send
from device_sim.fleet.reasons import REASONS
from device_sim.fleet.selection import policies
from device_sim.rounds.crew import Crew
from device_sim.rounds.step import Step
from device_sim.rounds.training import Trained, train_crew
from fl_mobile.client.answer import keep
from fl_mobile.records import Receipt

ACCEPTED, OFFLINE, LOST, INTERRUPTED, SURPLUS, LATE, LEFT = (
    "accepted",
    "offline",
    "lost",
    "interrupted",
    "surplus",
    "late",
    "left",
)
REFUSED = "refused: "
"""Before the server's reason, in the outcome of a packet that arrived and does not count."""


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
        trained: What those that trained in time have ready.
        place: ``int64[m]``: their positions in the crew.
    """

    crew: Crew
    download_bytes: np.ndarray
    training: Training
    sending: Sending
    packet_bytes: np.ndarray
    declined: np.ndarray
    loss: np.ndarray
    trained: Trained = field(default_factory=Trained)
    place: np.ndarray = field(default_factory=lambda: np.zeros(0, np.int64))

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


def travel(step: Step, crew: Crew, *, deadline: float = np.inf, fold: bool = False) -> Trip:
    """Plays a crew and returns its trip; devices whose training ends after the deadline are spared the computing.

    Args:
        deadline: Virtual seconds.
        fold: Whether packets are aggregated as they are made, where the rule allows it.

    Raises:
        DivergedError: Local training gave NaN or Inf; names client and round.
    """
    size, reached = len(crew), ~crew.mishaps.silent
    download_bytes, packet_bytes = np.zeros(size, np.int64), np.zeros(size, np.int64)
    declined, loss = np.zeros(size, np.uint8), np.full(size, np.nan)
    download_bytes[reached] = _download(step, crew.devices.index[reached])
    training = crew.train(step.federation, download_bytes)
    worked = np.flatnonzero(training.finished & (training.trained <= deadline))
    trained = train_crew(step, crew, worked, fold=fold)
    packet_bytes[worked] = [len(made.packet) for made in trained.answers]
    loss[worked] = [made.loss for made in trained.answers]
    norms = np.array([made.norm for made in trained.answers])
    seen = policies.Trained(crew.devices.index[worked], norms, loss[worked])
    declined[worked] = step.federation.policy.after(step.memory.ledger, seen)
    sends = np.zeros(size, bool)
    sends[worked] = declined[worked] == 0
    sending = send(crew.devices, replace(training, finished=sends), crew.air, packet_bytes)
    return Trip(
        crew=crew,
        download_bytes=download_bytes,
        training=training,
        sending=sending,
        packet_bytes=packet_bytes,
        declined=declined,
        loss=loss,
        trained=trained,
        place=worked,
    )


def _download(step: Step, clients: np.ndarray) -> np.ndarray:
    """Returns ``int64[n]``: what each client downloads to hold this step's version, which it does from now on."""
    versions, place = np.unique(step.memory.versions.get(clients), return_inverse=True)
    sizes = [len(step.publication.download_for(version)) for version in versions.tolist()]
    step.memory.versions.set(clients, step.round_num)
    return np.array(sizes, np.int64)[place]


def settle_clients(step: Step, trip: Trip, receipts: dict[int, Receipt]) -> None:
    """Tells every client that trained what became of its packet; each keeps what follows from that.

    Args:
        receipts: Position in `Trip.place` → what the server says; those without one have heard nothing.
    """
    if not step.clients_keep:
        return
    for at, (client, made) in enumerate(zip(trip.trained.clients, trip.trained.answers, strict=True)):
        before = step.memory.client_state(client)  # read again: a cohort's worth of them would not fit into memory
        after = keep(
            agreement=step.agreement, assignment=step.assignment, before=before, made=made, receipt=receipts.get(at)
        )
        step.memory.keep_client(client, step.round_num, before, after)


def write_down(step: Step, trip: Trip, took_part: np.ndarray) -> None:
    """Tells the ledger who took part, ``bool[n]``, and what it cost all of them, if anything will ever ask."""
    federation, ledger = step.federation, step.memory.ledger
    if not federation.uses_ledger:
        return
    crew, took = trip.crew, took_part
    now = float(crew.asked.max(initial=0.0))
    spend(
        doing=federation.gate.presence(crew.devices, now),
        devices=crew.devices,
        ledger=ledger,
        joules=trip.joules(),
        at_seconds=now,
    )
    ledger.took_part(
        crew.devices.index[took],
        round_num=step.round_num,
        at_seconds=trip.sending.uploaded[took],
        task_seconds=trip.sending.uploaded[took] - crew.asked[took],
        examples=crew.examples[took],
        loss=trip.loss[took],
    )
