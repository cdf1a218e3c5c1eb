"""The devices that are asked together: who they are, what they hold and what will befall them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from typing import Any

import numpy as np

from device_sim.federation.federation import Federation
from device_sim.fleet.devices.columns import Devices
from device_sim.fleet.devices.links import Air
from device_sim.fleet.devices.mishaps import Mishaps, draw_mishaps
from device_sim.fleet.devices.task import Training, train_on
from device_sim.fleet.reasons import code_of, count
from device_sim.fleet.selection.cohort import Request
from device_sim.fleet.selection.samplers import choose
from device_sim.rounds.memory import FleetMemory
from fl_mobile.seeds import hashes


@dataclass(frozen=True)
class Crew:
    """Devices asked for one version of the model.

    Attributes:
        asked: ``float64[n]`` virtual seconds.
        seeds: ``uint64[n]``: all that is random in a device's training and packet hangs on its seed.
        devices: Their columns.
        examples: ``int64[n]`` each holds.
        air: What their transfers will meet.
        mishaps: What else will.
    """

    asked: np.ndarray
    seeds: np.ndarray
    devices: Devices
    examples: np.ndarray
    air: Air
    mishaps: Mishaps

    def __len__(self) -> int:
        return len(self.devices)

    def train(self, federation: Federation, download_bytes: np.ndarray) -> Training:
        """Returns when each has the model and has trained, from the bytes it downloads ``int64[n]``."""
        flops = federation.workload.flops(self.examples, federation.epochs)
        return train_on(
            devices=self.devices,
            asked=self.asked,
            air=self.air,
            mishaps=self.mishaps,
            flops=flops,
            download_bytes=download_bytes,
        )


def gather(
    federation: Federation,
    memory: FleetMemory,
    *,
    round_num: int,
    wanted: int,
    draw: int,
    now: float,
    under_way: np.ndarray,
    seed: int | None = None,
) -> tuple[Crew, Counter[str]]:
    """Returns the devices that are asked now, and why others were passed over.

    Args:
        round_num: Version of the global model.
        wanted: How many to ask; fewer where too few can.
        draw: Keys the choice and all that is random about the devices.
        under_way: ``int64[m]`` devices that are still busy with an earlier asking.
        seed: Keys the choice alone; None is the experiment's. Under differential privacy it is a secret.
    """
    experiment, data = federation.experiment, federation.data

    def ask(index: np.ndarray) -> np.ndarray:
        codes = federation.gate.refusals(memory.ledger, now, index)
        return np.where(data.holds(index), codes, code_of("no-examples"))

    def expected_seconds(index: np.ndarray) -> np.ndarray:
        flops = federation.workload.flops(data.counts(index), federation.epochs)
        return flops / federation.fleet.devices(index).train_flops_per_s

    request = Request(
        seed=experiment.seed if seed is None else seed,
        round_num=round_num,
        population=data.population,
        count=wanted,
        ask=ask,
        plan=experiment.selection.of_sampler,
        seconds_of=expected_seconds,
        draw=draw,
        under_way=under_way,
    )
    if experiment.selection.sampler == "stratified":
        request = replace(request, stratum_of=federation.strata.of, stratum_shares=federation.strata.shares)
    choice = choose(experiment.selection.sampler, request, memory.ledger)
    declined = federation.policy.before(memory.ledger, now, choice.devices)
    willing = choice.devices[declined == 0]
    devices = federation.fleet.devices(willing)
    mishaps = draw_mishaps(
        experiment.seed,
        draw,
        willing,
        dropout_rate=experiment.fleet.dropout_rate,
        interruptions_per_hour=experiment.fleet.interruptions_per_hour,
    )
    skipped = count(choice.refused) + count(declined)
    skipped.pop("under-way", None)
    air = devices.air(experiment.seed, draw)
    asked, seeds = np.full(len(devices), now), hashes(experiment.seed, draw, "train", index=willing)
    return Crew(
        asked=asked, seeds=seeds, devices=devices, examples=data.counts(willing), air=air, mishaps=mishaps
    ), skipped


def together(crews: Sequence[Crew]) -> Crew:
    """Returns one crew of several, at least one, end to end."""
    joined: Crew = _joined(crews)
    return joined


def _joined(parts: Sequence[Any]) -> Any:
    """Returns one record of arrays, or of records of arrays, from several."""
    if isinstance(parts[0], np.ndarray):
        return np.concatenate(parts)
    return type(parts[0])(*(_joined([getattr(part, f.name) for part in parts]) for f in fields(parts[0])))
