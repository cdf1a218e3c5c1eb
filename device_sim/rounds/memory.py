"""What the simulator remembers beside the server's state: what clients keep, the clock, who is under way.

Small things go into the checkpoint; tensors lie on a `Shelf`, one file each, in the run folder. A round only ever adds
files of its own number, so going back to a checkpoint means deleting the files of later rounds.
"""

from __future__ import annotations

from dataclasses import dataclass, field, fields, replace
from typing import Any

import numpy as np

from device_sim.fleet.by_device import ByDevice
from device_sim.fleet.ledger import Ledger
from fl_mobile.client.state import ClientState
from fl_mobile.storage.shelf import Shelf
from fl_mobile.tensors import Tensors

_KEPT = tuple(f.name for f in fields(ClientState))


@dataclass(frozen=True)
class Flight:
    """One device that was asked, under an asynchronous server.

    Attributes:
        device: Index in the fleet.
        version: Model version it trains from.
        resolved: Virtual seconds at which the server hears of it, one way or another.
        outcome: ``accepted`` if a packet arrives then.
        packet: That packet; empty otherwise.
    """

    device: int
    version: int
    resolved: float
    outcome: str
    packet: bytes = b""

    @property
    def key(self) -> str:
        """Name of its packet on the shelf."""
        return f"{self.device}-{self.version}"

    def as_json(self) -> dict[str, Any]:
        """Returns all but the packet."""
        return {"device": self.device, "version": self.version, "resolved": self.resolved, "outcome": self.outcome}

    @classmethod
    def from_json(cls, value: dict[str, Any], packets: Tensors) -> Flight:
        """Returns the flight with its packet from the shelf."""
        flight = cls(**value)
        return replace(flight, packet=packets[flight.key].tobytes()) if flight.key in packets else flight


def client_state(shelf: Shelf, client: int, wanted: tuple[str, ...] = _KEPT) -> ClientState:
    """Returns what a client keeps, or the ``wanted`` part of it, as the last round that changed it has left it."""
    return ClientState(**{what: shelf.newest(f"{what}-{client}") for what in wanted})


@dataclass
class FleetMemory:
    """Mutable state of one run; `as_json` goes into every checkpoint.

    Attributes:
        shelf: What single clients keep (``residual-<client>``, ``variate-…``, ``private-…``, ``personal-…``), and the
            lattice points of published versions (``point``).
        versions: Client → model version it holds; version 0 ships with the app.
        seconds: Virtual time since the run began.
        ledger: What is known of devices that took part.
        askings: How often devices were asked (asynchronous).
        secret: 32 bytes that every device's own secret follows from, where devices add noise; else empty.
        answers: Device → answers it has made, each of them charged, where devices add noise.
        flights: Devices that were asked and have not been heard of (asynchronous); their packets are on the shelf.
    """

    shelf: Shelf
    versions: ByDevice = field(default_factory=ByDevice)
    seconds: float = 0.0
    ledger: Ledger = field(default_factory=Ledger)
    askings: int = 0
    secret: bytes = field(default=b"", repr=False)
    answers: ByDevice = field(default_factory=ByDevice)
    flights: list[Flight] = field(default_factory=list)

    def client_state(self, client: int) -> ClientState:
        """Returns what a client keeps, as the last round that changed it has left it."""
        return client_state(self.shelf, client)

    def keep_client(self, client: int, round_num: int, before: ClientState, after: ClientState) -> None:
        """Stores what round ``round_num`` changed of what a client keeps."""
        for what in _KEPT:
            tensors = getattr(after, what)
            if tensors is not None and tensors is not getattr(before, what):
                self.shelf.replace(f"{what}-{client}", round_num, tensors)

    def charge_answers(self, clients: list[int]) -> None:
        """Counts an answer of each client, before anybody has it."""
        index = np.array(clients, np.int64)
        self.answers.set(index, self.answers.get(index) + 1)

    def as_json(self) -> dict[str, Any]:
        """Returns what the checkpoint keeps."""
        return {
            "versions": self.versions.as_json(),
            "seconds": self.seconds,
            "ledger": self.ledger.as_json() if len(self.ledger) else None,
            "askings": self.askings,
            **({"secret": self.secret.hex(), "answers": self.answers.as_json()} if self.secret else {}),
            "flights": [flight.as_json() for flight in self.flights],
        }

    def restore(self, kept: dict[str, Any], round_num: int) -> None:
        """Goes back to what a checkpoint kept before round ``round_num``."""
        self.versions = ByDevice.from_json(kept["versions"]) if kept else ByDevice()
        self.seconds = float(kept.get("seconds", 0.0))
        self.ledger = Ledger.from_json(kept["ledger"]) if kept.get("ledger") else Ledger()
        self.askings = int(kept.get("askings", 0))
        self.secret = bytes.fromhex(kept.get("secret", ""))
        self.answers = ByDevice.from_json(kept["answers"]) if self.secret else ByDevice()
        self.shelf.rewind(round_num)
        packets = (self.shelf.get("flights", before=round_num) or {}) if kept.get("flights") else {}
        self.flights = [Flight.from_json(value, packets) for value in kept.get("flights", ())]

    def keep_flights(self, round_num: int) -> None:
        """Puts the packets of devices under way on the shelf, where a checkpoint after this round finds them."""
        packets = {flight.key: np.frombuffer(flight.packet, np.uint8) for flight in self.flights if flight.packet}
        self.shelf.replace("flights", round_num, packets)
