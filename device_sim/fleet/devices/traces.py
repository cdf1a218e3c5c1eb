"""Devices from a file: the user's CSV, or the capacities that FedScale publishes.

One row a device; a cell left empty is drawn from the tables as if there were no file. With fewer rows than devices,
each device takes a row drawn from the seed.
"""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from device_sim.fleet.devices.links import LINKS
from device_sim.fleet.devices.profiles import PROFILES
from fl_mobile.errors import DataError, nearest
from fl_mobile.seeds import hashes
from fl_mobile.storage.plain_pickle import load_plain

POSITIVE = ("train_flops_per_s", "ram_bytes", "battery_joules", "down_bps", "up_bps")
NOT_NEGATIVE = ("train_watts", "idle_watts", "latency_s")
SHARES = ("loss",)
NAMES: Mapping[str, tuple[str, ...]] = {"profile": tuple(PROFILES), "link": tuple(LINKS)}
COLUMNS = (*NAMES, *POSITIVE, *NOT_NEGATIVE, *SHARES)
"""What a CSV may have, in any order, at least one: the names of `profiles` and `links`, and their numbers."""

FEDSCALE_MACS = 300_000_000
"""Forward multiply-accumulates behind FedScale's ``computation``, milliseconds to infer one example. Its code calls the
speed profiled "w.r.t. MobileNet"; that this is MobileNetV2 at 224 pixels (Sandler et al., CVPR 2018) is assumed."""

_FEDSCALE_KBIT = 1024.0
"""Bits in the kilobit FedScale divides packet lengths by (``aggregator.py``: bytes / 1024 * 8)."""


@dataclass(frozen=True)
class DeviceRows:
    """A file of devices.

    Attributes:
        profile: ``int64[rows]``, positions in ``NAMES["profile"]``, −1 where the file has none.
        link: The same for ``NAMES["link"]``.
        numbers: Column → ``float64[rows]``, NaN where the file has none.
    """

    profile: np.ndarray
    link: np.ndarray
    numbers: Mapping[str, np.ndarray]

    def __len__(self) -> int:
        return len(self.profile)


def row_of(seed: int, population: int, rows: int, index: np.ndarray) -> np.ndarray:
    """Returns ``int64[n]``: device d is row d where there are enough rows, and a drawn one where there are not."""
    if population <= rows:
        return index
    drawn: np.ndarray = (hashes(seed, "row", index=index) % np.uint64(rows)).astype(np.int64)
    return drawn


def read_devices(path: str | Path) -> DeviceRows:
    """Returns the devices of a ``.csv`` file, or else of FedScale's ``client_device_capacity``.

    Raises:
        DataError: The file is missing or not what it should be; says line and column.
    """
    path = Path(path)
    raw = read_bytes(path, "fleet.devices-file")
    return _from_csv(raw, str(path)) if path.suffix.lower() == ".csv" else _from_fedscale(raw, str(path))


def read_bytes(path: Path, key: str) -> bytes:
    """Returns the file that the experiment's ``key`` names.

    Raises:
        DataError: There is none, or it cannot be read.
    """
    try:
        return path.read_bytes()
    except OSError as error:
        raise DataError(f"{key}: cannot read {path}: {error.strerror}. Give the path of a file.") from None


def _from_csv(raw: bytes, where: str) -> DeviceRows:
    try:
        text = raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise DataError(f"{where}: byte {error.start} is not UTF-8. Save the file as CSV in UTF-8.") from None
    reader = csv.reader(io.StringIO(text, newline=""), strict=True)
    cells: dict[str, list[float]] = {}
    try:
        for row in reader:
            if not cells:
                cells = {name: [] for name in _header(row, where)}
            elif row:  # csv gives [] for an empty line
                _read_row(cells, row, where, reader.line_num)
    except csv.Error as error:
        raise DataError(f"{where}, line {reader.line_num}: {error}. Expected comma-separated values.") from None
    rows = len(next(iter(cells.values()))) if cells else 0
    if not rows:
        raise DataError(f"{where}: no devices. Expected a header line and a line for each device.")
    unset = np.full(rows, -1, np.int64)
    numbers = {name: np.array(column) for name, column in cells.items() if name not in NAMES}
    positions = {name: np.array(cells[name], np.int64) if name in cells else unset for name in NAMES}
    return DeviceRows(positions["profile"], positions["link"], numbers)


def _header(row: list[str], where: str) -> list[str]:
    names = [cell.strip() for cell in row]
    for name in names:
        if name not in COLUMNS:
            raise DataError(f"{where}, line 1: unknown column '{name}'.{nearest(name, COLUMNS)}")
        if names.count(name) > 1:
            raise DataError(f"{where}, line 1: column '{name}' is there twice. Remove one.")
    return names


def _read_row(cells: dict[str, list[float]], row: list[str], where: str, line: int) -> None:
    if len(row) != len(cells):
        raise DataError(f"{where}, line {line}: {len(row)} cells where the header has {len(cells)} columns.")
    for (name, column), cell in zip(cells.items(), row, strict=True):
        try:
            column.append(_value(name, cell.strip()))
        except ValueError as error:
            raise DataError(f"{where}, line {line}, column {name}: {error}") from None


def _value(name: str, cell: str) -> float:
    if name in NAMES:
        if cell and cell not in NAMES[name]:
            raise ValueError(f"unknown {name} '{cell}'.{nearest(cell, NAMES[name])}")
        return NAMES[name].index(cell) if cell else -1
    if not cell:
        return math.nan
    try:
        number = float(cell)
    except ValueError:
        raise ValueError(f"expected a number, got '{cell}'. Write it like 1500000 or 1.5e6.") from None
    _check(name, number)
    return number


def _check(name: str, number: float) -> None:
    if not math.isfinite(number):
        raise ValueError(f"must be finite, got {number}. Leave the cell empty to have it drawn.")
    if name in POSITIVE and number <= 0:
        raise ValueError(f"must be above 0, got {number:g}.")
    if number < 0 or (name in SHARES and number >= 1):
        raise ValueError(f"must be {'in [0, 1)' if name in SHARES else '≥ 0'}, got {number:g}.")


def _from_fedscale(raw: bytes, where: str) -> DeviceRows:
    """Returns speeds and rates of FedScale's capacities ``{id: {"computation": ms, "communication": kbit/s}}``.

    Lai et al., "FedScale: benchmarking model and system performance of federated learning at scale" (ICML 2022),
    ``benchmark/dataset/data/device_info``. One rate serves both directions; the rest is drawn.
    """
    entries = entries_of(raw, where)
    milliseconds = numbers_of(entries, "computation", where)
    kilobits = numbers_of(entries, "communication", where)
    unset = np.full(len(entries), -1, np.int64)
    flops = 2 * FEDSCALE_MACS / (milliseconds / 1000)
    rates = kilobits * _FEDSCALE_KBIT
    return DeviceRows(unset, unset, {"train_flops_per_s": flops, "down_bps": rates, "up_bps": rates})


def entries_of(raw: bytes, where: str) -> dict[object, dict[object, object]]:
    """Returns the ``{id: {…}}`` that all of FedScale's traces are.

    Raises:
        DataError: They are something else.
    """
    entries = load_plain(raw, where)
    if not isinstance(entries, dict) or not entries:
        raise DataError(f"{where}: expected FedScale's {{id: {{…}}}}, got a {type(entries).__name__} without entries.")
    for key, entry in entries.items():
        if not isinstance(entry, dict):
            raise DataError(f"{where}: entry {key!r}: expected a dict, got {type(entry).__name__}.")
    return entries


def numbers_of(entries: Mapping[object, Mapping[object, object]], name: str, where: str) -> np.ndarray:
    """Returns ``float64[rows]``: one positive number of every entry.

    Raises:
        DataError: It is missing or no such number; says which entry.
    """
    found = np.empty(len(entries))
    for row, (key, entry) in enumerate(entries.items()):
        value = entry.get(name)
        if not isinstance(value, int | float) or isinstance(value, bool) or not 0 < value < 1e300:
            raise DataError(f"{where}: entry {key!r}: '{name}' must be a number above 0, got {value!r}.")
        found[row] = value
    return found
