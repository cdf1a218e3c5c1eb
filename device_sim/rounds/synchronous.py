"""A round: a cohort is asked at one moment, and the server waits for its updates, up to a deadline or a number of them.

```
publish ─▶ gather ─▶ travel: train, encode, policy, air ─▶ who is in time, among the first ─▶ fold ─▶ receipts ─▶ step
```
Where updates can be taken out of their sum again, packets are added up where they are made, and those that turn out
not to arrive leave it again; for every other rule the link comes first.
"""

from __future__ import annotations

import math
from collections import Counter
from pathlib import Path

import numpy as np

from device_sim.federation.federation import Federation
from device_sim.fleet.reasons import count
from device_sim.rounds.crew import Crew, gather
from device_sim.rounds.memory import FleetMemory
from device_sim.rounds.step import Step, close_step, open_step
from device_sim.rounds.traffic import Traffic
from device_sim.rounds.training import fold_packets
from device_sim.rounds.trip import (
    ACCEPTED,
    LATE,
    OFFLINE,
    REFUSED,
    SURPLUS,
    Trip,
    settle_clients,
    travel,
    write_down,
)
from fl_mobile.privacy.claim import POISSON
from fl_mobile.privacy.rules import cohort_seed
from fl_mobile.records import Receipt, RoundReport, ServerState
from fl_mobile.server.fold import Fold, closed

_NOBODY = np.zeros(0, np.int64)


def play_synchronously(
    federation: Federation, memory: FleetMemory, state: ServerState, updates: Path
) -> tuple[ServerState, RoundReport, Traffic]:
    """Returns the next state, what the server saw, and what travelled.

    Args:
        memory: Changed in place.
        updates: Folder that receives a few raw updates, for `fl-mobile measure`.

    Raises:
        DivergedError: Local training gave NaN or Inf; names client and round.
    """
    experiment, now = federation.experiment, memory.seconds
    step = open_step(federation, memory, state, updates)
    crew, skipped, deadline = ask(step, now)
    trip = travel(step, crew, deadline=deadline, fold=True)
    # Under Poisson sampling a cap would make who counts depend on all others, and undo what sampling hides.
    capped = not experiment.privacy.on or experiment.privacy.assumed != POISSON
    outcome, end = settle(trip, deadline, experiment.train.cohort if capped else len(crew))
    folded, receipts = _receive(step, trip, outcome)
    after, report = close_step(step, folded)
    settle_clients(step, trip, receipts)
    traffic = Traffic(start=now, end=end if len(crew) else now + experiment.clock.retry_seconds)
    traffic.add(trip, outcome)
    write_off(step, trip, outcome, skipped, traffic)
    return after, report, traffic


def ask(step: Step, now: float) -> tuple[Crew, Counter[str], float]:
    """Returns who is asked, why others were passed over, and the deadline in virtual seconds, infinite without one."""
    experiment, privacy = step.federation.experiment, step.state.privacy
    crew, skipped = gather(
        step.federation,
        step.memory,
        round_num=step.round_num,
        wanted=math.ceil(experiment.train.cohort * experiment.selection.over_selection),
        draw=step.round_num,
        now=now,
        under_way=_NOBODY,
        seed=cohort_seed(privacy) if privacy else None,
    )
    return crew, skipped, now + experiment.clock.deadline_seconds if experiment.clock.deadline_seconds else math.inf


def write_off(step: Step, trip: Trip, outcome: np.ndarray, skipped: Counter[str], traffic: Traffic) -> None:
    """Books who was passed over, who lied and who took part, and sets the clock to the end of the round."""
    traffic.skip(skipped + count(trip.declined))
    if attackers := step.federation.attackers:
        lying = attackers.among(trip.crew.devices.index)
        traffic.malicious["asked"] += int(lying.sum())
        traffic.count_malicious(lying, outcome)
    took_part = [name in (ACCEPTED, SURPLUS) or name.startswith(REFUSED) for name in outcome.tolist()]
    write_down(step, trip, np.array(took_part, bool))
    step.memory.seconds = traffic.end


def _receive(step: Step, trip: Trip, outcome: np.ndarray) -> tuple[Fold, dict[int, Receipt]]:
    """Returns the packets that arrived, aggregated, and the receipts that clients get; refusals go into ``outcome``."""
    arrived = np.flatnonzero(outcome[trip.place] == ACCEPTED)
    packets = [made.packet for made in trip.trained.answers]
    if (folded := trip.trained.folded) is not None:
        others = [packets[at] for at in np.setdiff1d(np.arange(len(packets)), arrived)]
        given = [folded.receipts[at] for at in arrived]
        folded.merge(fold_packets(step.federation.engine, others, step.folding, sign=-1))
    else:
        folded = fold_packets(step.federation.engine, [packets[at] for at in arrived], step.folding)
        folded = closed(folded, step.folding.rule)
        given = folded.receipts
    receipts = dict(zip(arrived.tolist(), given, strict=True))
    for at, receipt in receipts.items():
        if not receipt.accepted:
            outcome[trip.place[at]] = REFUSED + receipt.reason
    return folded, receipts


def settle(trip: Trip, deadline: float, most: int, *, waited: np.ndarray | None = None) -> tuple[np.ndarray, float]:
    """Returns ``object[n]`` outcomes and the virtual second at which the round ends.

    It ends with the arrival of update number ``most``, at the deadline, or when every device that will answer has,
    whichever is first. Devices that never answer are waited for only if there is a deadline.

    Args:
        deadline: Virtual seconds; infinite if there is none.
        most: Updates that count; later ones are ``surplus``.
        waited: ``bool[n]``: devices that it waits for up to the deadline if they never answer; None: all of them.
    """
    outcome, resolved = trip.outcomes(), trip.resolved()
    silent = outcome == OFFLINE
    outcome[~silent & (resolved > deadline)] = LATE
    arrived = np.flatnonzero(outcome == ACCEPTED)
    order = arrived[np.argsort(resolved[arrived], kind="stable")]
    outcome[order[most:]] = SURPLUS
    if len(order) >= most and len(outcome) > most:
        return outcome, float(resolved[order[most - 1]])
    if math.isfinite(deadline) and ((silent if waited is None else silent & waited) | (outcome == LATE)).any():
        return outcome, deadline
    return outcome, float(np.max(resolved[~silent], initial=trip.crew.asked.max(initial=0.0)))
