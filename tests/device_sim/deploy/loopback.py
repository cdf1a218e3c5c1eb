"""A federation served over loopback to reference clients that train on the same engine as the simulator."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

from device_sim.deploy.examples import Examples
from device_sim.deploy.fleet import Fleet
from device_sim.deploy.serve import Service, served
from device_sim.engines import Engine, Task
from device_sim.federation.federation import Federation
from device_sim.run.folder import RunFolder
from device_sim.run.log import Round
from fl_mobile.client.participate import Trainer
from fl_mobile.client.remote import Patience
from fl_mobile.coordinator.records import Pace
from fl_mobile.records import FitPlan, Update
from fl_mobile.tensors import Tensors

QUICK = Service(port=0, pace=Pace(least_seconds=0.02, check_ins_per_second=1000), drawn=True)


def everybody(federation: Federation) -> list[Examples]:
    held = (federation.data.examples(device) for device in range(federation.data.population))
    return [Examples(f"client-{device:06d}", *each) for device, each in enumerate(held)]


def on(engine: Engine) -> Callable[[Examples], Trainer]:
    """Returns clients' training on an engine; one at a time, because its workers are not theirs."""

    def fit(
        examples: Examples,
        program: Mapping[str, bytes],
        weights: Tensors,
        plan: FitPlan,
        *,
        seed: int,
        start: Tensors | None,
        pull: Tensors | None,
    ) -> Update:
        task = Task(0, examples.x, examples.y, seed, start=start, pull=pull)
        return next(iter(engine.train(weights, [task], plan, lambda _, updates: updates[0])))

    return lambda examples: partial(fit, examples)


def serve_and_play(
    federation: Federation,
    folder: RunFolder,
    clients: Path,
    *,
    train: Callable[[Examples], Trainer],
    programs: dict[str, bytes] | None = None,
    service: Service = QUICK,
    threads: int = 3,
    rounds: int = 10**9,
) -> tuple[list[Round], Counter[str]]:
    """Returns the rounds, and what became of the clients' visits."""
    outcome: dict[str, Any] = {}

    with served(federation, folder, programs or {}, service) as serving:
        fleet = Fleet(serving.url, clients, train, threads=threads, patience=Patience(first_seconds=0.02))

        def play() -> None:
            try:
                outcome["visits"] = fleet.run(everybody(federation))
            except BaseException as error:
                outcome["error"] = error

        thread = threading.Thread(target=play)
        thread.start()
        done: list[Round] = []
        try:
            for each in serving.rounds:
                done.append(each)
                if len(done) == rounds:
                    fleet._stop.set()
                    break
        finally:
            if thread.is_alive() and len(done) < rounds:
                thread.join(30)
    thread.join(30)
    if "error" in outcome and rounds == 10**9:
        raise outcome["error"]
    return done, outcome.get("visits", Counter())
