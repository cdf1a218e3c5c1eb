"""When devices can: what each is doing at a moment of virtual time, and which rules that breaks."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import FunctionType

import numpy as np

from device_sim.fleet.availability.behaviour import Behaviour, read_behaviour
from device_sim.fleet.devices.columns import Devices
from device_sim.fleet.devices.traces import row_of
from device_sim.fleet.draws import normals, pair
from device_sim.fleet.ledger import Ledger
from device_sim.fleet.reasons import first_of
from fl_mobile.errors import ConfigError, check_known
from fl_mobile.seeds import uniforms
from fl_mobile.table import Table

TRACE = "trace"
HOUR = 3600.0
DAY_HOURS = 24.0


@dataclass(frozen=True)
class Rules:
    """What a device must be for it to take part.

    Attributes:
        charging: On power.
        unmetered: On a link that is not paid by volume.
        idle: Nobody uses it.
        min_battery: Least share of the battery that must be left, 0 to 1; 0 does not ask.
    """

    charging: bool = False
    unmetered: bool = False
    idle: bool = False
    min_battery: float = 0.0

    def __post_init__(self) -> None:
        if not 0 <= self.min_battery <= 1:
            raise ConfigError(f"fleet.min-battery must be a share of the battery, 0 to 1, got {self.min_battery}")


@dataclass(frozen=True)
class Clock:
    """Where the fleet's day stands.

    Attributes:
        start_hour: Local hour of the first time zone at virtual time 0.
        time_zones: Devices are spread evenly over so many zones, each an hour later.
    """

    start_hour: float = 0.0
    time_zones: int = 4

    def __post_init__(self) -> None:
        if not 0 <= self.start_hour < DAY_HOURS:
            raise ConfigError(f"fleet.start-hour must be in [0, 24), got {self.start_hour}")
        if not 1 <= self.time_zones <= DAY_HOURS:
            raise ConfigError(f"fleet.time-zones must be 1 to 24, got {self.time_zones}")


@dataclass(frozen=True)
class Doing:
    """What devices are doing at one moment.

    Attributes:
        online: ``bool[n]``, switched on and reachable.
        charging: ``bool[n]``.
        busy: ``bool[n]``, in their owner's hand.
        battery: ``float64[n]``, 0 to 1, as their owners' use leaves it; federated work comes off that.
        full_at: ``float64[n]``, virtual seconds of the last full charge; before 0 for those before the run.
    """

    online: np.ndarray
    charging: np.ndarray
    busy: np.ndarray
    battery: np.ndarray
    full_at: np.ndarray


Presence = Callable[[Devices, float], Doing]
"""What the devices are doing at so many virtual seconds."""


def always(seed: int, clock: Clock) -> Presence:
    """Returns devices that lie on a charger, switched on and unused, all day."""

    def presence(devices: Devices, at_seconds: float) -> Doing:
        yes, full = np.ones(len(devices), bool), np.ones(len(devices))
        return Doing(online=yes, charging=yes, busy=~yes, battery=full, full_at=np.full(len(devices), at_seconds))

    return presence


def diurnal(seed: int, clock: Clock) -> Presence:
    """Returns devices that follow their owners' days."""

    def presence(devices: Devices, at_seconds: float) -> Doing:
        zone = np.floor(uniforms(seed, "time-zone", index=devices.index) * clock.time_zones)
        hours = at_seconds / HOUR + clock.start_hour - zone  # local hours since the first midnight
        charging, battery, full_hours = _charge(seed, devices, hours)
        hour_of_day = np.floor(hours).astype(np.int64) % 24  # whole hours: -1e-16 % 24.0 is 24.0
        slot = np.floor(hours * _SLOTS_PER_HOUR).astype(np.int64)
        return Doing(
            online=uniforms(seed, "online", index=pair(devices.index, np.floor(hours))) >= OFFLINE[hour_of_day],
            charging=charging,
            busy=uniforms(seed, "busy", index=pair(devices.index, slot)) < BUSY[hour_of_day],
            battery=battery,
            full_at=at_seconds - (hours - full_hours) * HOUR,
        )

    return presence


PRESENCES: Table[Callable[[int, Clock], Presence]] = Table(
    "availability", FunctionType, {"always": always, "diurnal": diurnal}
)
"""Without a file; `traced` is what devices did."""


def traced(seed: int, population: int, behaviour: Behaviour) -> Presence:
    """Returns devices that do what a trace says: FedScale's active devices are on power, unused and online."""

    def presence(devices: Devices, at_seconds: float) -> Doing:
        row = row_of(seed, population, len(behaviour), devices.index)
        active, full = behaviour.is_active(row, at_seconds), np.ones(len(devices))
        return Doing(
            online=active, charging=active, busy=~active, battery=full, full_at=np.full(len(devices), at_seconds)
        )

    return presence


def open_presence(
    name: str, seed: int, population: int, *, clock: Clock, availability_file: str | Path = ""
) -> Presence:
    """Returns what decides when the devices of a fleet can.

    Args:
        name: Of `PRESENCES`, or ``trace`` for FedScale's ``client_behave_trace`` in ``availability_file``.

    Raises:
        ConfigError: No such name, a trace without a file, or a file without a trace.
        DataError: The file is missing or malformed.
    """
    check_known("fleet.availability", name, (*PRESENCES, TRACE))
    if (name == TRACE) != bool(availability_file):
        raise ConfigError(
            f"fleet.availability '{TRACE}' and fleet.availability-file belong together, got '{name}' and"
            f" '{availability_file}'. Give both or neither."
        )
    if name == TRACE:
        return traced(seed, population, read_behaviour(availability_file))
    return PRESENCES[name](seed, clock)


BUSY = np.repeat([0.03, 0.01, 0.12, 0.25, 0.22, 0.25, 0.35, 0.20], 3)
"""``float64[24]``: chance that a device is in use, by local hour. 4.3 hours a day in all, an evening peak and a quiet
night: the shape and the range of Falaki et al., "Diversity in smartphone usage" (MobiSys 2010); round figures."""

OFFLINE = np.repeat([0.15, 0.15, 0.08, 0.04, 0.04, 0.04, 0.04, 0.10], 3)
"""``float64[24]``: chance that a device is off or out of reach, by local hour; round assumptions."""

_SLOTS_PER_HOUR = 6
_PLUG_IN_HOUR = 22.5
_CHARGE_HOURS = 8.5
_CHARGE_CHANCE = 0.9
_CHARGE_WATTS = 10.0
_TOP_UP_CHANCE = 0.1
_NIGHTS_BACK = 4


def _charge(seed: int, devices: Devices, hours: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Returns charging ``bool[n]``, battery ``float64[n]`` and local hours of the last full charge ``float64[n]``."""
    habit = normals(seed, "plug-in", index=devices.index)
    charging = np.zeros(len(devices), bool)
    full_hours = hours - DAY_HOURS * _NIGHTS_BACK
    plugged_hours = np.zeros(len(devices))
    for back in range(_NIGHTS_BACK, -1, -1):
        night = np.floor(hours / DAY_HOURS) - back
        which = pair(devices.index, night)
        start = night * DAY_HOURS + _PLUG_IN_HOUR + 1.2 * habit + 0.5 * normals(seed, "plug-in", index=which)
        end = start + _CHARGE_HOURS + normals(seed, "unplug", index=which)
        plugs_in = uniforms(seed, "charges", index=which) < _CHARGE_CHANCE
        now = plugs_in & (start <= hours) & (hours < end)
        charging |= now
        plugged_hours = np.where(now, hours - start, plugged_hours)
        full_hours = np.where(plugs_in & (end <= hours), end, full_hours)
    topped_up = uniforms(seed, "top-up", index=pair(devices.index, np.floor(hours))) < _TOP_UP_CHANCE
    drained = (hours - plugged_hours - full_hours) * HOUR * devices.idle_watts
    joules = devices.battery_joules - drained + plugged_hours * HOUR * _CHARGE_WATTS
    with np.errstate(invalid="ignore"):  # an ideal battery is infinite: inf / inf
        battery = np.nan_to_num(joules / devices.battery_joules, nan=1.0)
    full_hours = np.where(charging, hours, full_hours)
    return charging | topped_up, np.clip(battery, 0.02, 1.0), full_hours


def battery_left(doing: Doing, devices: Devices, ledger: Ledger) -> np.ndarray:
    """Returns ``float64[n]``, 0 to 1: the battery less what federated work took since it was last full."""
    left: np.ndarray = np.clip(doing.battery - _spent(doing, devices, ledger) / devices.battery_joules, 0.0, 1.0)
    return left


def spend(doing: Doing, devices: Devices, ledger: Ledger, joules: np.ndarray, at_seconds: float) -> None:
    """Writes down what federated work took from each battery, ``float64[n]`` joules, whether or not it came to an end.

    Args:
        doing: What the devices are doing at ``at_seconds``.
    """
    total = _spent(doing, devices, ledger) + joules
    ledger.record(devices.index, {"joules": total, "joules_seconds": np.full(len(devices), at_seconds)})


def _spent(doing: Doing, devices: Devices, ledger: Ledger) -> np.ndarray:
    """Returns ``float64[n]`` joules since each battery was last full."""
    since_full = ledger.column("joules_seconds", devices.index) >= doing.full_at
    return np.where(since_full, ledger.column("joules", devices.index), 0.0)


def refusals(doing: Doing, devices: Devices, rules: Rules, battery: np.ndarray) -> np.ndarray:
    """Returns ``uint8[n]``: the code of the first rule a device breaks, 0 if it can.

    Args:
        battery: `battery_left`.
    """
    return first_of(
        [
            ("offline-hours", ~doing.online),
            ("not-charging", ~doing.charging & rules.charging),
            ("metered", devices.metered & rules.unmetered),
            ("busy", doing.busy & rules.idle),
            ("battery", (battery < rules.min_battery) & ~doing.charging),
        ],
        len(devices),
    )
