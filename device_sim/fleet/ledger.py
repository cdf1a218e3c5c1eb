"""What the server remembers of devices that took part: a row each, as columns; nothing of the others."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from device_sim.fleet.by_device import ByDevice, packed, parsed, unpacked

COLUMNS = ("rounds", "last_round", "last_seconds", "task_seconds", "examples", "loss", "joules", "joules_seconds")
"""Of a device's last participation: how many there were, its round, virtual time, length, examples and local loss. Of
its battery: joules that federated work took since it was last full, and when that was last written down."""


class Ledger:
    """Device → its row: some 90 bytes a device seen, nothing for the others.

    >>> ledger = Ledger()
    >>> ledger.record(np.array([7]), {"loss": np.array([0.5])})
    >>> ledger.column("loss", np.array([7, 8]))
    array([0.5, nan])
    """

    def __init__(self) -> None:
        self._row = ByDevice()  # counted from 1
        self._devices = np.zeros(0, np.int64)
        self._values = np.full((16, len(COLUMNS)), np.nan)

    def __len__(self) -> int:
        return len(self._devices)

    def devices(self) -> np.ndarray:
        """Returns ``int64[m]``: every device that has a row, in order of first appearance."""
        return self._devices

    def column(self, name: str, index: np.ndarray | None = None) -> np.ndarray:
        """Returns ``float64[n]`` for the devices at ``index``, or for all of `devices`; NaN where nothing is known."""
        values = self._values[:, COLUMNS.index(name)]
        if index is None:
            return values[: len(self)].copy()
        row = self._row.get(index)
        return np.where(row > 0, values[row - 1], np.nan)

    def record(self, index: np.ndarray, values: Mapping[str, np.ndarray]) -> None:
        """Writes columns of the devices at ``index``, none twice; columns not named stay as they are."""
        new = index[self._row.get(index) == 0]
        self._row.set(new, len(self) + 1 + np.arange(len(new)))
        self._devices = np.concatenate([self._devices, new])
        if len(self) > len(self._values):
            grown = np.full((len(self) * 5 // 4, len(COLUMNS)), np.nan)
            grown[: len(self._values)] = self._values
            self._values = grown
        rows = self._row.get(index) - 1
        for name, column in values.items():
            self._values[rows, COLUMNS.index(name)] = column

    def took_part(
        self,
        index: np.ndarray,
        *,
        round_num: int,
        at_seconds: float | np.ndarray,
        task_seconds: np.ndarray,
        examples: np.ndarray,
        loss: np.ndarray,
    ) -> None:
        """Writes down one participation of each device at ``index``; samplers and policies go by it.

        Args:
            at_seconds: Virtual time of the update's arrival.
            task_seconds: ``float64[n]`` from being asked to that.
        """
        times = np.nan_to_num(self.column("rounds", index)) + 1
        self.record(
            index,
            {
                "rounds": times,
                "last_round": np.full(len(index), round_num),
                "last_seconds": np.broadcast_to(at_seconds, len(index)),
                "task_seconds": task_seconds,
                "examples": examples,
                "loss": loss,
            },
        )

    def as_json(self) -> dict[str, Any]:
        """Returns a JSON value that `from_json` restores bit for bit."""
        values = packed(self._values[: len(self)], "<f8")
        return {"columns": list(COLUMNS), "devices": packed(self._devices, "<i8"), "values": values}

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> Ledger:
        """Returns the ledger that `as_json` gave.

        Raises:
            RunError: It is not one.
        """

        def parse() -> Ledger:
            if tuple(value["columns"]) != COLUMNS:
                raise ValueError(f"columns are {value['columns']}, this version keeps {list(COLUMNS)}")
            devices = unpacked(value["devices"], "<i8")
            values = unpacked(value["values"], "<f8").reshape(len(devices), len(COLUMNS))
            ledger = cls()
            ledger.record(devices, dict(zip(COLUMNS, values.T, strict=True)))
            return ledger

        return parsed("ledger of devices", parse)
