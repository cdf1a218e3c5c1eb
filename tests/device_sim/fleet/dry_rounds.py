"""Rounds without training: every part of the fleet in the order a simulation calls them."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field

import numpy as np

from device_sim.fleet.availability.gate import Gate
from device_sim.fleet.availability.presence import Clock, Rules, open_presence, spend
from device_sim.fleet.devices.fleet import Fleet, open_fleet
from device_sim.fleet.devices.mishaps import draw_mishaps
from device_sim.fleet.devices.profiles import GIB
from device_sim.fleet.devices.task import send, train_on
from device_sim.fleet.devices.timing import Workload
from device_sim.fleet.ledger import Ledger
from device_sim.fleet.reasons import count
from device_sim.fleet.selection.cohort import Request
from device_sim.fleet.selection.policies import News, Trained, Windows, open_policy
from device_sim.fleet.selection.samplers import choose
from fl_mobile.seeds import uniforms

WORK = Workload(forward_macs=2_600_000, parameters=225_000, activations=40_000)
DOWNLOAD_BYTES, UPLOAD_BYTES = 400_000, 20_000
RULES = Rules(charging=True, unmetered=True, idle=True, min_battery=0.3)
PLANS = {
    "event": News(min_new_examples=20, min_update_norm=0.2),
    "periodic": Windows(period_seconds=6 * 3600),
}


@dataclass
class Run:
    """What a run has to keep, and what it saw."""

    fleet: Fleet
    now: float = 0.0
    ledger: Ledger = field(default_factory=Ledger)
    cohorts: list[list[int]] = field(default_factory=list)
    skipped: Counter[str] = field(default_factory=Counter)
    joules: float = 0.0


def new_run(population: int, seed: int = 0) -> Run:
    return Run(open_fleet(seed, population))


def play(run: Run, round_num: int, *, sampler: str, policy: str, wanted: int) -> None:
    """Plays one round and moves the run's time to its end."""
    fleet, seed = run.fleet, run.fleet.seed
    rules_of_policy = open_policy(policy, seed, PLANS.get(policy), min_separation_seconds=3600)
    presence = open_presence("diurnal", seed, fleet.population, clock=Clock())
    gate = Gate(fleet, presence, RULES, 0.6 * GIB, 0.25)
    request = Request(
        *(seed, round_num, fleet.population, wanted),
        ask=lambda index: gate.refusals(run.ledger, run.now, index),
        stratum_of=lambda index: index % 2,
        stratum_shares=(0.5, 0.5),
        seconds_of=lambda index: 1e10 / fleet.devices(index).train_flops_per_s,
    )
    chosen = choose(sampler, request, run.ledger)
    declined = rules_of_policy.before(run.ledger, run.now, chosen.devices)
    devices = fleet.devices(chosen.devices[declined == 0])
    size, index = len(devices), devices.index
    examples = np.floor(10 + 90 * uniforms(seed, "examples", index=index))
    air = devices.air(seed, round_num)
    mishaps = draw_mishaps(seed, round_num, index, dropout_rate=0.05, interruptions_per_hour=0.5)
    asked, down = np.full(size, run.now), np.full(size, DOWNLOAD_BYTES)
    training = train_on(devices, asked, air, mishaps, WORK.flops(examples, 5), down)
    loss = uniforms(seed, round_num, "loss", index=index)
    norm = uniforms(seed, round_num, "norm", index=index)
    kept = np.where(training.finished, rules_of_policy.after(run.ledger, Trained(index, norm, loss)), 0)
    sending = send(devices, training, air, np.where(kept, 0, UPLOAD_BYTES))
    joules = training.joules + sending.joules
    spend(presence(devices, run.now), devices, run.ledger, joules, run.now)
    there = sending.arrived & (kept == 0)
    run.ledger.took_part(
        index[there],
        round_num=round_num,
        at_seconds=sending.uploaded[there],
        task_seconds=sending.uploaded[there] - run.now,
        examples=examples[there],
        loss=loss[there],
    )
    run.cohorts.append(index.tolist())
    run.skipped += count(chosen.refused) + count(declined) + count(kept.astype(np.uint8))
    run.joules += float(joules.sum())
    run.now = float(np.max(sending.uploaded[there], initial=run.now + 1800))
