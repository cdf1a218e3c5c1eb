"""One small number a device, for fleets of millions, and how numbers get into a checkpoint's JSON."""

from __future__ import annotations

import base64
import binascii
import zlib
from collections.abc import Callable
from typing import Any, TypeVar

import numpy as np

from fl_mobile.errors import RunError

T = TypeVar("T")


class ByDevice:
    """Device → whole number, 0 until it is set: 12 bytes a device that was ever set, nothing for the others.

    >>> held = ByDevice()
    >>> held.set(np.array([7, 2]), np.array([3, 4]))
    >>> held.get(np.array([2, 7, 1_000_000]))
    array([4, 3, 0])
    """

    def __init__(self) -> None:
        self._devices, self._values = np.zeros(0, np.int64), np.zeros(0, np.int32)  # devices rise

    def get(self, index: np.ndarray) -> np.ndarray:
        """Returns ``int64[n]`` of the devices at ``index`` ``int64[n]``."""
        place, known = self._find(index)
        found = np.zeros(len(index), np.int64)
        found[known] = self._values[place[known]]
        return found

    def set(self, index: np.ndarray, values: np.ndarray | int) -> None:
        """Sets the numbers, below 2³¹, of the devices at ``index`` ``int64[n]``, none twice."""
        place, known = self._find(index)
        values = np.broadcast_to(values, len(index))
        self._values[place[known]] = values[known]
        new = np.argsort(index[~known])
        at = place[~known][new]
        self._devices = np.insert(self._devices, at, index[~known][new])
        self._values = np.insert(self._values, at, values[~known][new])

    def _find(self, index: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Returns where each device is or belongs, ``int64[n]``, and whether it is there, ``bool[n]``."""
        place = np.searchsorted(self._devices, index)
        return place, np.append(self._devices, -1)[place] == index

    @property
    def largest(self) -> int:
        """The largest number of all, 0 of none."""
        return int(self._values.max(initial=0))

    def as_json(self) -> dict[str, str]:
        """Returns a JSON value that `from_json` restores."""
        return {"devices": packed(self._devices, "<i8"), "values": packed(self._values, "<i4")}

    @classmethod
    def from_json(cls, value: Any) -> ByDevice:
        """Returns what `as_json` gave.

        Raises:
            RunError: It is not that.
        """

        def parse() -> ByDevice:
            devices, values = unpacked(value["devices"], "<i8"), unpacked(value["values"], "<i4")
            if len(devices) != len(values):
                raise ValueError(f"{len(devices)} devices have {len(values)} versions")
            found = cls()
            found.set(devices, values)
            return found

        return parsed("versions that devices hold", parse)


def packed(array: np.ndarray, dtype: str) -> str:
    """Returns an array as text for JSON: little-endian bytes, deflated, in base 64."""
    return base64.b64encode(zlib.compress(np.ascontiguousarray(array, dtype).tobytes(), 1)).decode("ascii")


def unpacked(text: str, dtype: str) -> np.ndarray:
    """Returns the array ``[n]`` of `packed`; for use in `parsed`."""
    return np.frombuffer(zlib.decompress(base64.b64decode(text, validate=True)), dtype)


def parsed(what: str, parse: Callable[[], T]) -> T:
    """Returns what ``parse`` makes of a checkpoint.

    Raises:
        RunError: It cannot be read; ``what`` says which part of the checkpoint it is.
    """
    try:
        return parse()
    except (KeyError, TypeError, ValueError, IndexError, binascii.Error, zlib.error) as error:
        raise RunError(f"the checkpoint's {what} cannot be read: {error}. Start the run anew.") from None
