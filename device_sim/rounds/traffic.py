"""What one server step's transfers, times and losses add up to, and the table of its devices."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from device_sim.fleet.devices.links import LINKS
from device_sim.fleet.devices.profiles import PROFILES
from device_sim.fleet.reasons import REASONS, saved_bytes
from device_sim.rounds.trip import ACCEPTED, REFUSED, Trip


@dataclass
class Beside:
    """What travels to and from each device beside models and updates.

    Attributes:
        up: ``int64[n]`` bytes.
        down: ``int64[n]`` bytes.
        seconds: ``float64[n]`` on air.
        joules: ``float64[n]`` of the radio.
    """

    up: np.ndarray
    down: np.ndarray
    seconds: np.ndarray
    joules: np.ndarray

    @classmethod
    def nothing(cls, count: int) -> Beside:
        """Returns what it is before anything travelled."""
        return cls(np.zeros(count, np.int64), np.zeros(count, np.int64), np.zeros(count), np.zeros(count))


@dataclass
class Traffic:
    """One server step as the fleet saw it.

    Attributes:
        asked: Devices that were asked.
        lost: Outcome → devices that were asked and are not in the average.
        skipped: Reason → devices that were not asked, or declined.
        saved_bytes: What those would have cost.
        upload_bytes: Length of all packets sent; one that breaks off on its way is counted whole.
        uploads: Their number.
        downloads: Devices that received the model.
        air_seconds: Longest download plus upload of one device.
        joules: Spent by all devices.
        start: Virtual seconds.
        end: Virtual seconds.
        columns: What became of each device, by column; see ``timeline.jsonl``.
        masks: Of masked sums: ``groups``, and bytes of keys, shares and lists ``up`` and ``down``, which are counted in
            ``upload_bytes`` and ``download_bytes`` too; empty without them.
        malicious: ``asked``, ``accepted`` and ``refused`` malicious devices; empty where nobody attacks.
    """

    asked: int = 0
    lost: Counter[str] = field(default_factory=Counter)
    skipped: Counter[str] = field(default_factory=Counter)
    saved_bytes: int = 0
    upload_bytes: int = 0
    uploads: int = 0
    download_bytes: int = 0
    downloads: int = 0
    air_seconds: float = 0.0
    joules: float = 0.0
    start: float = 0.0
    end: float = 0.0
    columns: dict[str, list[Any]] = field(default_factory=dict)
    masks: dict[str, float] = field(default_factory=dict)
    malicious: Counter[str] = field(default_factory=Counter)

    def count_malicious(self, lying: np.ndarray, outcome: np.ndarray) -> None:
        """Counts what became of the malicious clients among some: ``bool[n]``, ``object[n]``."""
        told = outcome[lying].tolist()
        self.malicious["accepted"] += told.count(ACCEPTED)
        self.malicious["refused"] += sum(name.startswith(REFUSED) for name in told)

    def add(self, trip: Trip, outcome: np.ndarray, beside: Beside | None = None) -> None:
        """Adds a crew's bytes, joules and rows; ``outcome`` is ``object[n]``, ``accepted`` for those that count.

        Args:
            beside: What else travelled.
        """
        beside = beside or Beside.nothing(len(trip.crew))
        sent, devices = np.isfinite(trip.sending.uploaded), trip.crew.devices
        self.asked += len(trip.crew)
        self.lost.update(name for name in outcome.tolist() if _is_lost(name))
        self.download_bytes += int((trip.download_bytes + beside.down).sum())
        self.downloads += int(np.isfinite(trip.training.downloaded).sum())
        self.upload_bytes += int(trip.packet_bytes[sent].sum() + beside.up.sum())
        self.uploads += int(sent.sum())
        download = trip.training.downloaded[sent] - trip.crew.asked[sent]
        upload = trip.sending.uploaded[sent] - trip.training.trained[sent]
        self.air_seconds = max(self.air_seconds, float(np.max(download + upload + beside.seconds[sent], initial=0.0)))
        self.joules += float((trip.joules() + beside.joules).sum())
        columns = {
            "device": devices.index,
            "profile": np.array(list(PROFILES), object)[devices.profile],
            "link": np.array(list(LINKS), object)[devices.link],
            "asked": trip.crew.asked,
            "downloaded": trip.training.downloaded,
            "trained": trip.training.trained,
            "uploaded": trip.sending.uploaded,
            "outcome": outcome,
            "upload_bytes": np.where(sent, trip.packet_bytes, 0) + beside.up,
            "download_bytes": trip.download_bytes + beside.down,
            "loss": trip.loss,
            "joules": trip.joules() + beside.joules,
        }
        for name, values in columns.items():
            self.columns.setdefault(name, []).extend(_plain(values))

    def skip(self, skipped: Counter[str]) -> None:
        """Adds devices that were passed over or declined; what that saved is priced at this step's means."""
        self.skipped += skipped
        down = round(self.download_bytes / self.downloads) if self.downloads else 0
        up = round(self.upload_bytes / self.uploads) if self.uploads else 0
        self.saved_bytes += saved_bytes(skipped, download_bytes=down, upload_bytes=up)

    def timeline(self, round_num: int) -> dict[str, Any]:
        """Returns one line of ``timeline.jsonl``: columns of equal length, times in virtual seconds."""
        return {"round_num": round_num, "start": self.start, "end": self.end, "devices": self.columns}


def _is_lost(outcome: str) -> bool:
    """Whether a device was lost on its way: what declines is skipped, what the server refuses is in its report."""
    return outcome != ACCEPTED and outcome not in REASONS and not outcome.startswith(REFUSED)


def _plain(values: np.ndarray) -> list[Any]:
    """Returns a column as JSON can hold it: None for NaN and Inf."""
    plain = values.astype(object)
    if values.dtype.kind == "f":
        plain[~np.isfinite(values)] = None
    return plain.tolist()
