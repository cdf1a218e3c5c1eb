"""What the server remembers of devices that took part: a row each, as columns; nothing of the others."""

from __future__ import annotations

import base64
import binascii
import zlib
from collections.abc import Mapping
from typing import Any

import numpy as np

from fl_mobile.errors import RunError

COLUMNS = ("rounds", "last_round", "last_seconds", "task_seconds", "examples", "loss", "joules", "joules_seconds")
"""Of a device's last participation: how many there were, its round, virtual time, length, examples and local loss. Of
its battery: joules that federated work took since it was last full, and when that was last written down."""


class Ledger:
    """Device → its row. Grows with devices seen, never with the population.

    >>> ledger = Ledger()
    >>> ledger.record(np.array([7]), {"loss": np.array([0.5])})
    >>> ledger.column("loss", np.array([7, 8]))
    array([0.5, nan])
    """

    def __init__(self) -> None:
        self._row: dict[int, int] = {}
        self._values = np.full((16, len(COLUMNS)), np.nan)

    def __len__(self) -> int:
        return len(self._row)

    def devices(self) -> np.ndarray:
        """Returns ``int64[m]``: every device that has a row, in order of first appearance."""
        return np.fromiter(self._row, np.int64, len(self._row))

    def column(self, name: str, index: np.ndarray | None = None) -> np.ndarray:
        """Returns ``float64[n]`` for the devices at ``index``, or for all of `devices`; NaN where nothing is known."""
        values = self._values[:, COLUMNS.index(name)]
        if index is None:
            return values[: len(self._row)].copy()
        rows = np.fromiter((self._row.get(device, -1) for device in index.tolist()), np.int64, len(index))
        return np.where(rows >= 0, values[rows], np.nan)

    def record(self, index: np.ndarray, values: Mapping[str, np.ndarray]) -> None:
        """Writes columns of the devices at ``index``; columns not named stay as they are."""
        rows = np.array([self._row.setdefault(device, len(self._row)) for device in index.tolist()], np.int64)
        if len(self._row) > len(self._values):
            grown = np.full((2 * len(self._row), len(COLUMNS)), np.nan)
            grown[: len(self._values)] = self._values
            self._values = grown
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
        raw = np.ascontiguousarray(self._values[: len(self._row)], "<f8").tobytes()
        devices = self.devices().astype("<i8").tobytes()
        return {"columns": list(COLUMNS), "devices": _text(devices), "values": _text(raw)}

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> Ledger:
        """Returns the ledger that `as_json` gave.

        Raises:
            RunError: It is not one.
        """
        try:
            if tuple(value["columns"]) != COLUMNS:
                raise ValueError(f"columns are {value['columns']}, this version keeps {list(COLUMNS)}")
            devices = np.frombuffer(_bytes(value["devices"]), "<i8")
            values = np.frombuffer(_bytes(value["values"]), "<f8").reshape(len(devices), len(COLUMNS))
        except (KeyError, TypeError, ValueError, binascii.Error, zlib.error) as error:
            raise RunError(f"the checkpoint's ledger of devices cannot be read: {error}. Start the run anew.") from None
        ledger = cls()
        ledger.record(devices, dict(zip(COLUMNS, values.T, strict=True)))
        return ledger


def _text(raw: bytes) -> str:
    return base64.b64encode(zlib.compress(raw, 1)).decode("ascii")


def _bytes(text: str) -> bytes:
    return zlib.decompress(base64.b64decode(text, validate=True))
