"""What outlives a round beside the server's state: residuals and versions of devices, the upload step, the last mean.

Small things go into the checkpoint; tensors lie on a `Shelf`, one file each, in the run folder. A round only ever adds
files of its own number, so going back to a checkpoint means deleting the files of later rounds.
"""

from __future__ import annotations

import os
import re
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from device_sim.fleet.by_device import ByDevice
from device_sim.fleet.ledger import Ledger
from fl_mobile.errors import RunError
from fl_mobile.storage.files import sync_files
from fl_mobile.storage.npz import read_arrays, write_arrays
from fl_mobile.tensors import Tensors

_FILE = re.compile(r"([\w-]+)\.(\d+)\.npz")


class Shelf:
    """Tensors on disk by (what, round): ``memory/<what>.<round>.npz``; memory does not grow with devices or rounds.

    The folder is listed once and belongs to this object from then on: a listing per device and round would be
    quadratic in the population.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._rounds: dict[str, list[int]] | None = None
        self._unsynced: set[Path] = set()

    def put(self, what: str, round_num: int, tensors: Tensors) -> None:
        """Stores tensors a round has made; playing the round again writes the same bytes.

        A loss of power may take them until `sync`, and with them nothing: until the checkpoint that comes after it,
        a restart deletes them and plays the round again.
        """
        arrays = {str(i): value for i, value in enumerate(tensors.values())}
        names = np.frombuffer("\n".join(tensors).encode(), np.uint8)
        path = self._file(what, round_num)
        write_arrays(path, {"names": names, **arrays}, sync=False)
        self._unsynced.add(path)
        rounds = self._index().setdefault(what, [])
        if round_num not in rounds:
            rounds.append(round_num)

    def replace(self, what: str, round_num: int, tensors: Tensors) -> None:
        """Stores tensors in place of those of earlier rounds, of which the newest is kept for a restart."""
        self.put(what, round_num, tensors)
        self.forget(what, before=round_num, keep=1)

    def newest(self, what: str) -> Tensors | None:
        """Returns the newest tensors, or None."""
        rounds = self._index().get(what)
        return self.get_exactly(what, max(rounds)) if rounds else None

    def get(self, what: str, before: int) -> Tensors | None:
        """Returns the newest tensors made before round ``before``, or None.

        Raises:
            RunError: The file is damaged.
        """
        rounds = [r for r in self._index().get(what, ()) if r < before]
        return self.get_exactly(what, max(rounds)) if rounds else None

    def get_exactly(self, what: str, round_num: int) -> Tensors | None:
        """Returns the tensors one round made, or None if they are not kept."""
        if round_num not in self._index().get(what, ()):
            return None
        path = self._file(what, round_num)
        try:
            arrays = read_arrays(path)
            names = arrays["names"].tobytes().decode()
            return {name: arrays[str(i)] for i, name in enumerate(names.split("\n") if names else ())}
        except (FileNotFoundError, ValueError, KeyError) as error:
            raise RunError(
                f"{path}: damaged ({error}); restore it from a copy, or start again with another --out"
            ) from None

    def forget(self, what: str, before: int, *, keep: int) -> None:
        """Deletes all but the newest ``keep`` files made before round ``before``."""
        for old in sorted(r for r in self._index().get(what, ()) if r < before)[:-keep]:
            self._delete(what, old)

    def sync(self) -> None:
        """Makes what was stored outlast a loss of power; to be called before the checkpoint that counts on it."""
        sync_files(sorted(self._unsynced))
        self._unsynced.clear()

    def rewind(self, round_num: int) -> None:
        """Deletes what rounds from ``round_num`` on have made: they will be played again."""
        for what, rounds in self._index().items():
            for late in [r for r in rounds if r >= round_num]:
                self._delete(what, late)

    def _delete(self, what: str, round_num: int) -> None:
        path = self._file(what, round_num)
        path.unlink(missing_ok=True)
        self._unsynced.discard(path)
        self._index()[what].remove(round_num)

    def _file(self, what: str, round_num: int) -> Path:
        return self.path / f"{what}.{round_num}.npz"

    def _index(self) -> dict[str, list[int]]:
        if self._rounds is None:
            rounds: dict[str, list[int]] = {}
            # Not glob: on some versions of Python it takes a folder that cannot be read for an empty one.
            for name in os.listdir(self.path) if self.path.is_dir() else ():
                if found := _FILE.fullmatch(name):
                    rounds.setdefault(found[1], []).append(int(found[2]))
            self._rounds = rounds
        return self._rounds


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


@dataclass
class FleetMemory:
    """Mutable state of one run; `as_json` goes into every checkpoint.

    Attributes:
        shelf: Residuals (``residual-<device>``), control variates (``variate-<device>``), private tensors
            (``private-<device>``), broadcast points (``point``) and mean updates (``mean``).
        versions: Device → model version it holds; version 0 ships with the app.
        upload_step: Step of the upload codec under rate control, else None.
        seconds: Virtual time since the run began.
        ledger: What is known of devices that took part.
        askings: How often devices were asked (asynchronous).
        flights: Devices that were asked and have not been heard of (asynchronous); their packets are on the shelf.
    """

    shelf: Shelf
    versions: ByDevice = field(default_factory=ByDevice)
    upload_step: float | None = None
    seconds: float = 0.0
    ledger: Ledger = field(default_factory=Ledger)
    askings: int = 0
    flights: list[Flight] = field(default_factory=list)

    def as_json(self) -> dict[str, Any]:
        """Returns what the checkpoint keeps."""
        return {
            "versions": self.versions.as_json(),
            "upload_step": self.upload_step,
            "seconds": self.seconds,
            "ledger": self.ledger.as_json() if len(self.ledger) else None,
            "askings": self.askings,
            "flights": [flight.as_json() for flight in self.flights],
        }

    def restore(self, kept: dict[str, Any], round_num: int) -> None:
        """Goes back to what a checkpoint kept before round ``round_num``."""
        self.versions = ByDevice.from_json(kept["versions"]) if kept else ByDevice()
        self.upload_step = kept.get("upload_step", self.upload_step)
        self.seconds = float(kept.get("seconds", 0.0))
        self.ledger = Ledger.from_json(kept["ledger"]) if kept.get("ledger") else Ledger()
        self.askings = int(kept.get("askings", 0))
        self.shelf.rewind(round_num)
        packets = (self.shelf.get("flights", before=round_num) or {}) if kept.get("flights") else {}
        self.flights = [Flight.from_json(value, packets) for value in kept.get("flights", ())]

    def keep_flights(self, round_num: int) -> None:
        """Puts the packets of devices under way on the shelf, where a checkpoint after this round finds them."""
        packets = {flight.key: np.frombuffer(flight.packet, np.uint8) for flight in self.flights if flight.packet}
        self.shelf.replace("flights", round_num, packets)
