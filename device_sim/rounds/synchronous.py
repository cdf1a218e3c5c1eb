"""A round: a cohort is asked at one moment, and the server waits for its updates, up to a deadline or a number of them.

```
gather ─▶ broadcast ─▶ train_crew: packets, their sum ─▶ policy ─▶ air ─▶ who is in time, among the first ─▶ step
```
Packets are added up where they are made; those that turn out not to arrive are taken out of the exact sum again.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import partial
from pathlib import Path

import numpy as np

from device_sim.federation.federation import Federation
from device_sim.fleet.reasons import count
from device_sim.rounds.crew import gather
from device_sim.rounds.download import Broadcast, broadcast
from device_sim.rounds.own import pull_of
from device_sim.rounds.phones import Answer, Folding
from device_sim.rounds.traffic import Traffic
from device_sim.rounds.training import fold_packets, folding_of, published_codec
from device_sim.rounds.trip import ACCEPTED, OFFLINE, SURPLUS, Trip, travel, write_down
from device_sim.run.memory import FleetMemory
from fl_mobile import wire
from fl_mobile.client import feedback
from fl_mobile.records import RoundReport, ServerState
from fl_mobile.server.rounds import Fold, finish_round

_NOBODY = np.zeros(0, np.int64)


def play_synchronously(
    federation: Federation, memory: FleetMemory, state: ServerState, updates: Path
) -> tuple[ServerState, RoundReport, Traffic]:
    """Returns the next state, what the server saw, and what travelled.

    Args:
        memory: Changed in place.
        updates: Folder that receives a few raw updates, for `fl-mobile measure`.

    Raises:
        DivergedError: Local training gave NaN or Inf; names device and round.
    """
    experiment, now = federation.experiment, memory.seconds
    wanted = math.ceil(experiment.train.cohort * experiment.selection.over_selection)
    crew, skipped = gather(federation, memory, wanted=wanted, draw=state.round_num, now=now, under_way=_NOBODY)
    down = broadcast(federation, memory, state)
    layout = wire.Layout(state.spec, published_codec(federation, memory))
    folding = folding_of(federation, state, layout, experiment.server.admission())
    deadline = now + experiment.clock.deadline_seconds if experiment.clock.deadline_seconds else math.inf
    trip = travel(federation, memory, state, crew, down, layout, updates, deadline=deadline, folding=folding)
    outcome, end = settle(trip, deadline, experiment.train.cohort)
    accepted = {a.device for a in trip.answers if outcome[trip.place[a.device]] == ACCEPTED}
    folded = _without_the_rest(federation, trip, accepted, folding)
    after, report = finish_round(
        *(state, folded),
        algorithm=federation.algorithm,
        prediction=down.prediction,
        population=federation.data.population,
        plan=federation.plan(state.round_num),
        sent=down.sent,
    )
    after = down.pruned(after)
    _remember(federation, memory, state, trip.answers, accepted, layout, report)
    for answer in trip.answers:
        if answer.device in accepted:
            _keep_variate(federation, memory, state, down, answer, layout)
    traffic = Traffic(start=now, end=end if len(crew) else now + experiment.clock.retry_seconds)
    traffic.add(trip, outcome)
    traffic.skip(skipped + count(trip.declined))
    write_down(federation, memory, state.round_num, trip, np.isin(outcome, (ACCEPTED, SURPLUS)))
    memory.seconds = traffic.end
    return after, report, traffic


def _without_the_rest(federation: Federation, trip: Trip, accepted: set[int], folding: Folding) -> Fold:
    """Returns the fold of accepted packets: that of all, made before it was known who arrives, less the others."""
    others = [answer.packet for answer in trip.answers if answer.device not in accepted]
    folded = fold_packets(federation.engine, others, partial(folding, sign=-1))
    if trip.folded:
        folded.merge(trip.folded)
    return folded


def settle(trip: Trip, deadline: float, most: int) -> tuple[np.ndarray, float]:
    """Returns ``object[n]`` outcomes and the virtual second at which the round ends.

    It ends with the arrival of update number ``most``, at the deadline, or when every device that will answer has,
    whichever is first. Devices that never answer are waited for only if there is a deadline.

    Args:
        deadline: Virtual seconds; infinite if there is none.
        most: Updates that count; later ones are ``surplus``.
    """
    outcome, resolved = trip.outcomes(), trip.resolved()
    silent = outcome == OFFLINE
    outcome[~silent & (resolved > deadline)] = "late"
    arrived = np.flatnonzero(outcome == ACCEPTED)
    order = arrived[np.argsort(resolved[arrived], kind="stable")]
    outcome[order[most:]] = SURPLUS
    if len(order) >= most and len(outcome) > most:
        return outcome, float(resolved[order[most - 1]])
    if math.isfinite(deadline) and (silent | (outcome == "late")).any():
        return outcome, deadline
    return outcome, float(np.max(resolved[~silent], initial=trip.crew.asked.max(initial=0.0)))


def _remember(
    federation: Federation,
    memory: FleetMemory,
    state: ServerState,
    answers: Sequence[Answer],
    accepted: set[int],
    layout: wire.Layout,
    report: RoundReport,
) -> None:
    """Keeps what the next round needs: residuals, the mean under CAFe, the step under rate control."""
    for answer in answers:
        if answer.wanted is not None:
            _keep_residual(memory, layout, state.round_num, answer, used=answer.device in accepted)
    if federation.experiment.upload.memory == "cafe" and report.mean is not None:
        memory.shelf.replace("mean", state.round_num, report.mean)
    if (control := federation.rate_control) and memory.upload_step is not None:
        memory.upload_step = control.next_step(memory.upload_step, report.upload_bytes)


def _keep_residual(memory: FleetMemory, layout: wire.Layout, round_num: int, answer: Answer, *, used: bool) -> None:
    """What was left out stays on the phone; where nothing of it was used, all of it does."""
    sent = layout.unpack(answer.packet).tensors if used else None
    memory.shelf.replace(f"residual-{answer.device}", round_num, feedback.residual_after(answer.wanted or {}, sent))


def _keep_variate(
    federation: Federation,
    memory: FleetMemory,
    state: ServerState,
    down: Broadcast,
    answer: Answer,
    layout: wire.Layout,
) -> None:
    """What the algorithm keeps on the device follows from the update as the server decoded it: see `DeviceState`."""
    pull = pull_of(federation, memory, state, down, answer.device)
    if pull is None or federation.algorithm.device is None:
        return
    admission, plan = federation.experiment.server.admission(), federation.plan(state.round_num)
    delta = admission.clipped(layout.unpack(answer.packet).tensors)
    steps = admission.local_steps(plan, answer.examples)
    kept = federation.algorithm.device.keep(pull, delta, steps, plan.learning_rate)
    memory.shelf.replace(f"variate-{answer.device}", state.round_num, kept)
