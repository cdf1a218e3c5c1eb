"""The sections of an experiment about phones: what they are, which are asked, when they answer, and the clock."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from device_sim.experiment.keys import chosen, fill_chosen, key, positive
from device_sim.fleet.availability.presence import PRESENCES, TRACE, Rules
from device_sim.fleet.availability.presence import Clock as DayClock
from device_sim.fleet.devices.fleet import MIXED
from device_sim.fleet.devices.links import LINKS
from device_sim.fleet.devices.profiles import PROFILES
from device_sim.fleet.selection.policies import POLICIES, Policy, open_policy
from device_sim.fleet.selection.samplers import SAMPLERS
from fl_mobile.errors import ConfigError, check_known
from fl_mobile.table import check_row

MODES = ("synchronous", "asynchronous")


@dataclass(frozen=True)
class Fleet:
    """[fleet]: what the phones are, when they can, and what befalls them."""

    profile: str = key("mixed", f"{' | '.join(PROFILES)}, or mixed")
    link: str = key("mixed", f"{' | '.join(LINKS)}, or mixed")
    devices_file: str = key("", "CSV or FedScale file of devices; what it leaves open is drawn", "devices.csv")
    availability: str = key("always", f"{' | '.join(PRESENCES)} | trace")
    availability_file: str = key("", "trace: FedScale's client_behave_trace", "trace.json")
    charging: bool = key(False, "ask only phones that charge")
    unmetered: bool = key(False, "ask only phones on a link that is not paid by volume")
    idle: bool = key(False, "ask only phones nobody is using")
    min_battery: float = key(0.0, "ask only phones with this part of their battery left, or charging")
    start_hour: float = key(0.0, "diurnal: local hour of the first time zone when the run begins")
    time_zones: int = key(4, "diurnal: zones the devices are spread over")
    ram_share: float = key(0.25, "part of its memory a phone gives to training; a model that needs more is refused")
    dropout_rate: float = key(
        0.05, "probability that a chosen device never answers; under masks, from one of four steps on"
    )
    interruptions_per_hour: float = key(0.0, "how often local training is broken off")

    def __post_init__(self) -> None:
        if not 0 <= self.dropout_rate < 1:
            raise ConfigError(f"fleet.dropout-rate must be in [0, 1), got {self.dropout_rate}")
        if not 0 < self.ram_share <= 1:
            raise ConfigError(f"fleet.ram-share must be in (0, 1], got {self.ram_share}")
        if not self.interruptions_per_hour >= 0:
            raise ConfigError(f"fleet.interruptions-per-hour must be ≥ 0, got {self.interruptions_per_hour}")
        check_row("fleet.profile", self.profile, PROFILES, [MIXED])
        check_row("fleet.link", self.link, LINKS, [MIXED])
        check_row("fleet.availability", self.availability, PRESENCES, [TRACE])
        self.rules()
        self.clock()

    def rules(self) -> Rules:
        """Returns what a phone must be to be asked."""
        return Rules(self.charging, self.unmetered, self.idle, self.min_battery)

    def clock(self) -> DayClock:
        """Returns where the fleet's day stands when the run begins."""
        return DayClock(self.start_hour, self.time_zones)


@dataclass(frozen=True)
class Selection:
    """[selection]: which devices a round asks."""

    sampler: str = key("uniform", " | ".join(SAMPLERS))
    of_sampler: Any = chosen("sampler", SAMPLERS)
    over_selection: float = key(1.0, "ask so many times train.cohort devices; the first train.cohort to answer count")

    def __post_init__(self) -> None:
        fill_chosen(self, "selection")
        if not self.over_selection >= 1:
            raise ConfigError(f"selection.over-selection must be ≥ 1, got {self.over_selection}")


@dataclass(frozen=True)
class UpdatePolicy:
    """[policy]: when a device that can take part does."""

    name: str = key("every-round", " | ".join(POLICIES))
    of_policy: Any = chosen("name", POLICIES)
    min_separation_seconds: float = key(0.0, "least virtual time between two participations of a device; 0 is off")

    def __post_init__(self) -> None:
        fill_chosen(self, "policy")
        if not self.min_separation_seconds >= 0:
            raise ConfigError(f"policy.min-separation-seconds must be ≥ 0, got {self.min_separation_seconds}")

    def build(self, seed: int) -> Policy:
        """Returns the policy."""
        return open_policy(self.name, seed, self.of_policy, min_separation_seconds=self.min_separation_seconds)

    @property
    def asks_norms(self) -> bool:
        """Whether it goes by the length of an update."""
        return bool(getattr(self.of_policy, "min_update_norm", 0.0) > 0)


@dataclass(frozen=True)
class Clock:
    """[clock]: virtual time, and whether the server waits for a cohort."""

    mode: str = key("synchronous", f"{' | '.join(MODES)}: rounds, or FedBuff, where train.cohort devices always train")
    deadline_seconds: float = key(0.0, "synchronous: a round takes no longer; 0 waits for all that will answer")
    buffer: int = key(0, "asynchronous: updates of one server step; 0 is half of train.cohort")
    max_staleness: int = key(20, "asynchronous: an update further behind is refused")
    staleness_exponent: float = key(0.5, "asynchronous: a in the weight (1 + staleness)^-a")
    retry_seconds: float = key(600.0, "wait before asking again when no device could take part")

    def __post_init__(self) -> None:
        check_known("clock.mode", self.mode, MODES)
        if self.deadline_seconds < 0 or self.buffer < 0 or self.max_staleness < 0 or self.staleness_exponent < 0:
            raise ConfigError("clock.deadline-seconds, buffer, max-staleness and staleness-exponent must be ≥ 0")
        positive("clock", retry_seconds=self.retry_seconds)
