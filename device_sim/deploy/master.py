"""The round master: one server step on what real clients send, in the place of one on simulated clients.

```
open_step ─▶ coordinator.open_round ─▶ wait: enough, or the deadline ─▶ fold ─▶ server step      the loop does the rest
                                        └▶ under masks: `deploy.sums`, step by step ──┘
```
"""

from __future__ import annotations

import contextlib
import itertools
import math
import threading
import time
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from device_sim.deploy.sums import most_step_bytes, play_sums
from device_sim.federation.federation import Federation
from device_sim.rounds.crew import gather
from device_sim.rounds.memory import FleetMemory
from device_sim.rounds.step import Step, close_step, open_step
from device_sim.rounds.traffic import Traffic
from device_sim.rounds.training import fold_packets
from fl_mobile.coordinator.coordinator import Coordinator
from fl_mobile.coordinator.judging import judge_by, judge_masked
from fl_mobile.coordinator.published import seeds_of, told_of
from fl_mobile.coordinator.records import OpenRound, SumPace, most_packet_bytes
from fl_mobile.errors import RunError
from fl_mobile.privacy.claim import POISSON
from fl_mobile.privacy.rules import cohort_seed
from fl_mobile.protocol.terms import Blob, assignment_to_json
from fl_mobile.records import RoundReport, ServerState
from fl_mobile.server.publish import version_counted

SILENT = "silent"
"""Clients that were asked and sent nothing that counts; a server cannot know why."""


class Models:
    """What clients of a round fetch, made when the first one asks; blobs of rounds that nobody is in are deleted."""

    def __init__(self) -> None:
        self._rounds: list[dict[int, Mapping[str, Blob]]] = []
        self._kept = 2
        self._one = threading.Lock()

    def parts_of(self, step: Step, coordinator: Coordinator) -> Callable[[int], Mapping[str, Blob]]:
        """Begins a round; returns what a client fetches that holds a version, as for the app's model if nobody can."""
        made: dict[int, Mapping[str, Blob]] = {}
        clock = step.federation.experiment.clock
        with self._one:
            self._rounds.append(made)
            self._kept = 2 if clock.mode == "synchronous" else clock.max_staleness + 2

        def parts(held: int) -> Mapping[str, Blob]:
            held = version_counted(held, step.round_num)
            with self._one:
                if held not in made:
                    packets = vars(step.publication.download_for(held))
                    made[held] = {name: coordinator.blobs.put(data) for name, data in packets.items() if data}
                return made[held]

        return parts

    def forget(self, coordinator: Coordinator, fixed: frozenset[str]) -> None:
        """Deletes what only clients of rounds before the last one could want, under asynchronous rounds of all that
        are too old to count. A master that has just started does not know what those before it gave out, and waits.
        """
        with self._one:
            if len(self._rounds) <= self._kept:
                return
            del self._rounds[: -self._kept]
            given = {blob.sha256 for made in self._rounds for parts in made.values() for blob in parts.values()}
            with contextlib.suppress(OSError, RunError):  # what cannot be deleted now can be in another round
                coordinator.blobs.keep_only(fixed | given)


@dataclass(frozen=True)
class Master:
    """Plays a server step on the clients of a coordinator; fits `device_sim.run.loop.simulate`.

    Attributes:
        programs: What clients run, stored already.
        fixed: What else clients fetch in any round: terms and the app's model.
        least: Packets without which a deadline ends no round; nor does it with fewer than the aggregation rule needs.
            Under privacy a deadline ends every round, and noise hides that nobody came.
        seat_seconds: How long a client that was asked is waited for.
        drawn: Whether the clients that the simulator would draw are asked, instead of whoever comes first.
        step_seconds: How long answers to a step of a masked round are waited for, the packet apart.
        stopped: Whether to leave the round open and end.
    """

    coordinator: Coordinator
    programs: Mapping[str, Blob]
    least: int = 1
    seat_seconds: float = 3600.0
    drawn: bool = False
    step_seconds: float = 60.0
    fixed: frozenset[str] = frozenset()
    stopped: Callable[[], bool] = lambda: False
    _models: Models = field(default_factory=Models)

    def __call__(
        self, federation: Federation, memory: FleetMemory, state: ServerState, updates: Path
    ) -> tuple[ServerState, RoundReport, Traffic]:
        """Returns the next state, what the server saw, and what travelled."""
        began, start = time.monotonic(), memory.seconds
        step = open_step(federation, memory, state, updates)
        number = step.round_num
        round_ = self._round(step)
        self.coordinator.open_round(round_)
        self._models.forget(self.coordinator, self.fixed | {blob.sha256 for blob in self.programs.values()})
        seconds, rule = federation.experiment.clock.deadline_seconds or None, step.folding.rule
        least = next(n for n in itertools.count(self.least) if n >= round_.most or not rule.too_few(n))
        if state.privacy is not None:  # who is late counts in no round, however few came: it would hang on the others
            seconds, least = seconds if round_.most else 0.0, 0
        keys: dict[str, int] = {}
        if round_.masks is not None:
            folded, keys = play_sums(step, self.coordinator, least=least, seconds=seconds, stopped=self.stopped)
        else:
            names = self.coordinator.wait(seconds=seconds, least=least, stopped=self.stopped)
            if self.stopped():
                raise KeyboardInterrupt
            packets = [self.coordinator.packet(name) for name in names]
            folded = fold_packets(federation.engine, packets, step.folding)
        after, report = close_step(step, folded)
        counts = self.coordinator.counts(number)
        memory.seconds = start + time.monotonic() - began
        silent = Counter({SILENT: max(0, counts.asked - counts.packets)})
        traffic = Traffic(
            asked=counts.asked,
            lost=+(counts.refused + silent),
            upload_bytes=counts.upload_bytes + keys.get("up", 0),
            uploads=counts.packets,
            download_bytes=counts.download_bytes + keys.get("down", 0),
            downloads=counts.asked,
            start=start,
            end=memory.seconds,
        )
        traffic.masks = {**keys}
        return after, report, traffic

    def _round(self, step: Step) -> OpenRound:
        """Returns the round as clients are asked for it."""
        keys, number = step.federation.experiment, step.round_num
        masks = step.agreement.masks
        waits, cohort = keys.clock.mode == "synchronous", keys.train.cohort
        ask = math.ceil(cohort * keys.selection.over_selection) if waits else cohort
        most = cohort if waits else keys.clock.buffer or max(1, cohort // 2)
        invited = None
        if self.drawn:
            chosen = _drawn(step, ask)
            # Under Poisson sampling a cap would make who counts depend on all others, and undo what sampling hides.
            capped = not keys.privacy.on or keys.privacy.assumed != POISSON
            most = min(most, len(chosen)) if capped else len(chosen)
            ask, invited = len(chosen), chosen
        return OpenRound(
            number=number,
            assignment=assignment_to_json(step.assignment),
            parts_for=self._models.parts_of(step, self.coordinator),
            seed_of=seeds_of(keys.seed, number),
            judge=(judge_masked if masks else judge_by)(step.folding),
            ask=ask,
            most=most,
            seat_seconds=self.seat_seconds,
            asynchronous=not waits,
            invited=invited,
            most_bytes=max(most_packet_bytes(step.agreement.spec), most_step_bytes(masks.group) if masks else 0),
            masks=SumPace(self.step_seconds, min(self.step_seconds / 20, self.coordinator.pace.least_seconds))
            if masks
            else None,
            programs=self.programs,
            told=told_of(keys.seed, step.folding),
            discreet=keys.privacy.on,
        )


def _drawn(step: Step, wanted: int) -> frozenset[int]:
    """Returns the clients that the simulator would ask in this round."""
    crew, _ = gather(
        step.federation,
        step.memory,
        round_num=step.round_num,
        wanted=wanted,
        draw=step.round_num,
        now=step.memory.seconds,
        under_way=np.zeros(0, np.int64),
        seed=cohort_seed(step.state.privacy) if step.state.privacy else None,
    )
    return frozenset(crew.devices.index.tolist())
