"""The sections of an experiment about phones: what they are, which are asked, when they answer, and the clock."""

from __future__ import annotations

from dataclasses import dataclass, fields

from device_sim.experiment.keys import key, positive
from device_sim.fleet.availability.presence import PRESENCES, TRACE, Rules
from device_sim.fleet.availability.presence import Clock as DayClock
from device_sim.fleet.devices.fleet import Fleet as DrawnFleet
from device_sim.fleet.devices.links import LINKS
from device_sim.fleet.devices.profiles import PROFILES
from device_sim.fleet.selection.cohort import SamplerPlan
from device_sim.fleet.selection.policies import POLICIES, Policy, PolicyPlan, open_policy
from device_sim.fleet.selection.samplers import SAMPLERS
from device_sim.fleet.selection.strata import STRATA
from fl_mobile.errors import ConfigError, check_known

MODES = ("synchronous", "asynchronous")


@dataclass(frozen=True)
class Fleet:
    """[fleet]: what the phones are, when they can, and what befalls them."""

    profile: str = key("mixed", f"{' | '.join(PROFILES)}, or mixed")
    link: str = key("mixed", f"{' | '.join(LINKS)}, or mixed")
    devices_file: str = key("", "CSV or FedScale file of devices; what it leaves open is drawn")
    availability: str = key("always", f"{' | '.join(PRESENCES)} | trace")
    availability_file: str = key("", "trace: FedScale's client_behave_trace")
    charging: bool = key(False, "ask only phones that charge")
    unmetered: bool = key(False, "ask only phones on a link that is not paid by volume")
    idle: bool = key(False, "ask only phones nobody is using")
    min_battery: float = key(0.0, "ask only phones with this part of their battery left, or charging")
    start_hour: float = key(0.0, "diurnal: local hour of the first time zone when the run begins")
    time_zones: int = key(4, "diurnal: zones the devices are spread over")
    ram_share: float = key(0.25, "part of its memory a phone gives to training; a model that needs more is refused")
    dropout_rate: float = key(0.05, "probability that a chosen device never answers")
    interruptions_per_hour: float = key(0.0, "how often local training is broken off")

    def __post_init__(self) -> None:
        if not 0 <= self.dropout_rate < 1:
            raise ConfigError(f"fleet.dropout-rate must be in [0, 1), got {self.dropout_rate}")
        if not 0 < self.ram_share <= 1:
            raise ConfigError(f"fleet.ram-share must be in (0, 1], got {self.ram_share}")
        if not self.interruptions_per_hour >= 0:
            raise ConfigError(f"fleet.interruptions-per-hour must be ≥ 0, got {self.interruptions_per_hour}")
        DrawnFleet(0, 1, self.profile, self.link)  # names that no table holds
        check_known("fleet.availability", self.availability, (*PRESENCES, TRACE))
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
    over_selection: float = key(1.0, "ask so many times train.cohort devices; the first train.cohort to answer count")
    strata: str = key("profile", f"stratified: {' | '.join(STRATA)}, in proportion to the population")
    candidates: int = key(0, "power-of-choice: candidates, of which the highest losses are taken; 0 is 2 × cohort")
    exploration: float = key(0.9, "oort: part of the first cohort that are devices never seen")
    exploration_decay: float = key(0.98, "oort: factor a round on that")
    exploration_min: float = key(0.3, "oort: and its floor")
    round_percentile: float = key(30.0, "oort: tasks longer than this percentile of the known ones are penalised")
    pacer_rounds: int = key(20, "oort: after so many rounds the percentile rises")
    pacer_step: float = key(5.0, "oort: by so many points")
    round_penalty: float = key(2.0, "oort: exponent of the penalty")

    def __post_init__(self) -> None:
        check_known("selection.sampler", self.sampler, SAMPLERS)
        if not self.over_selection >= 1:
            raise ConfigError(f"selection.over-selection must be ≥ 1, got {self.over_selection}")
        check_known("selection.strata", self.strata, STRATA)
        self.plan()

    def plan(self) -> SamplerPlan:
        """Returns the sampler's options."""
        return SamplerPlan(**{f.name: getattr(self, f.name) for f in fields(SamplerPlan)})


@dataclass(frozen=True)
class UpdatePolicy:
    """[policy]: when a device that can take part does."""

    name: str = key("every-round", " | ".join(POLICIES))
    min_separation_seconds: float = key(0.0, "least virtual time between two participations of a device; 0 is off")
    period_seconds: float = key(86_400.0, "periodic: once in each window of this length")
    min_new_examples: int = key(50, "event: examples that must have come in since the last time; 0 is off")
    examples_per_hour: float = key(10.0, "event: median rate at which they come in")
    min_update_norm: float = key(0.0, "event: least L2 norm of an update worth sending; 0 is off")
    min_loss_drift: float = key(0.0, "event: least relative change of the local loss; 0 is off")

    def __post_init__(self) -> None:
        self.build(0)

    def build(self, seed: int) -> Policy:
        """Returns the policy."""
        plan = PolicyPlan(**{f.name: getattr(self, f.name) for f in fields(PolicyPlan)})
        return open_policy(self.name, plan, seed)


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
