"""When real phones were there: FedScale's published behaviour trace."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from device_sim.fleet.devices.traces import entries_of, numbers_of, read_bytes
from fl_mobile.errors import DataError


@dataclass(frozen=True)
class Behaviour:
    """Times at which devices became active and inactive, each device's one behind the other's.

    Attributes:
        period_seconds: ``float64[rows]``: a device's trace starts again after so long.
        active: ``float64[…]`` seconds, rising within a device.
        active_start: ``int64[rows + 1]``: device r's are ``active[active_start[r]:active_start[r + 1]]``.
        inactive: The same for becoming inactive.
        inactive_start: ``int64[rows + 1]``.
    """

    period_seconds: np.ndarray
    active: np.ndarray
    active_start: np.ndarray
    inactive: np.ndarray
    inactive_start: np.ndarray

    def __len__(self) -> int:
        return len(self.period_seconds)

    def is_active(self, row: np.ndarray, at_seconds: float) -> np.ndarray:
        """Returns ``bool[n]``: whether the last thing that happened to each row was that it became active.

        Before its first event a device is in the state that this event ended.
        """
        now = at_seconds % self.period_seconds[row]
        came = _last(self.active, self.active_start[row], self.active_start[row + 1], now)
        went = _last(self.inactive, self.inactive_start[row], self.inactive_start[row + 1], now)
        first_came = self.active[self.active_start[row]]
        first_went = self.inactive[self.inactive_start[row]]
        return np.where(np.isneginf(np.maximum(came, went)), first_went < first_came, came > went)


def read_behaviour(path: str | Path) -> Behaviour:
    """Returns FedScale's ``client_behave_trace``: ``{id: {"active": […], "inactive": […], "finish_time": s, …}}``.

    Raises:
        DataError: The file is missing or not that.
    """
    path = Path(path)
    where = str(path)
    entries = entries_of(read_bytes(path, "fleet.availability-file"), where)
    period = numbers_of(entries, "finish_time", where)
    active, active_start = _times(entries, "active", where)
    inactive, inactive_start = _times(entries, "inactive", where)
    return Behaviour(
        period_seconds=period,
        active=active,
        active_start=active_start,
        inactive=inactive,
        inactive_start=inactive_start,
    )


def _times(entries: dict[object, dict[object, object]], name: str, where: str) -> tuple[np.ndarray, np.ndarray]:
    parts, lengths = [], np.empty(len(entries), np.int64)
    for row, (key, entry) in enumerate(entries.items()):
        value = entry.get(name)
        if type(value) is not list or not value or {type(t) for t in value} - {int, float}:
            raise DataError(f"{where}: entry {key!r}: '{name}' must be a list of seconds, got {str(value)[:40]}.")
        try:
            times = np.array(value, np.float64)
        except OverflowError:
            times = np.array([np.inf])
        if not np.isfinite(times).all() or (np.diff(times) < 0).any() or times[0] < 0:
            raise DataError(f"{where}: entry {key!r}: '{name}' must be finite, rising seconds from 0.")
        parts.append(times)
        lengths[row] = len(times)
    return np.concatenate(parts), np.concatenate([[0], np.cumsum(lengths)])


def _last(times: np.ndarray, low: np.ndarray, high: np.ndarray, now: np.ndarray) -> np.ndarray:
    """Returns ``float64[n]``: the last of ``times[low:high]`` at or before ``now``, −inf if there is none.

    A binary search for all devices at once.
    """
    start, low, high = low, low.copy(), high.copy()
    while (open_ := low < high).any():
        middle = (low + high) // 2
        before = open_ & (times[np.minimum(middle, len(times) - 1)] <= now)
        low = np.where(before, middle + 1, low)
        high = np.where(open_ & ~before, middle, high)
    return np.where(low > start, times[low - 1], -np.inf)
