"""A federation served over loopback to reference clients that train on the same engine as the simulator."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from device_sim.deploy.examples import Examples, arrays_of
from device_sim.deploy.fleet import Fleet
from device_sim.deploy.serve import Service, served
from device_sim.engines import Engine, Task
from device_sim.federation.federation import Federation
from device_sim.run.folder import RunFolder
from device_sim.run.log import Round
from fl_mobile.client.kept import device_key
from fl_mobile.client.participate import Trainer
from fl_mobile.client.remote import Patience
from fl_mobile.coordinator.records import Pace
from fl_mobile.records import FitPlan, Update
from fl_mobile.tensors import Tensors

SECONDS = 240.0
"""No test is served for longer: whatever it waits for then will not come."""
PATIENCE = Patience(first_seconds=0.02, timeout_seconds=10)
QUICK = Service(port=0, pace=Pace(least_seconds=0.02, check_ins_per_second=1000), drawn=True)


def held_by(federation: Federation) -> list[Examples]:
    held = (arrays_of(federation.dataset, federation.data, device) for device in range(federation.data.population))
    return [Examples(f"client-{device:06d}", arrays) for device, arrays in enumerate(held)]


def registry_of(federation: Federation, clients: Path) -> frozenset[bytes]:
    """Returns the public keys of all clients, as somebody who is not the server holds them."""
    return frozenset(device_key(clients / one.name).public for one in held_by(federation))


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
        task = Task(0, examples.arrays["x"], examples.arrays["y"], seed, start=start, pull=pull)
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
    everybody: Sequence[Examples] = (),
) -> tuple[list[Round], Counter[str]]:
    """Returns the rounds, and what became of the clients' visits; after ``rounds`` rounds it is stopped.

    Args:
        everybody: What clients hold, where it is not what the simulated devices do.

    Raises:
        BaseException: What ended the clients, though the server could have waited for them for ever.
        TimeoutError: It was not over within `SECONDS`.
    """
    outcome: dict[str, Any] = {}
    over = threading.Event()
    limit = threading.Timer(SECONDS, over.set)
    limit.daemon = True
    limit.start()
    done: list[Round] = []

    def stopped() -> bool:
        return over.is_set() or "error" in outcome

    with served(federation, folder, programs or {}, service, stopped=stopped) as serving:
        fleet = Fleet(serving.url, clients, train, threads=threads, patience=PATIENCE)
        fleet.registry = registry_of(federation, clients)

        def play() -> None:
            try:
                outcome["visits"] = fleet.run(everybody or held_by(federation))
            except BaseException as error:
                outcome["error"] = error

        thread = threading.Thread(target=play, name="clients", daemon=True)
        thread.start()
        try:
            for each in serving.rounds:
                done.append(each)
                if len(done) == rounds:
                    break
            else:
                thread.join(SECONDS)  # clients hear that it is finished
        except KeyboardInterrupt:  # how a master that is stopped ends
            if not stopped():
                raise
        finally:
            fleet.stop()
    thread.join(SECONDS)
    limit.cancel()
    if "error" in outcome and len(done) < rounds:
        raise outcome["error"]
    if over.is_set() or thread.is_alive():
        raise TimeoutError(f"no end within {SECONDS:g} s: {len(done)} rounds, clients at work: {thread.is_alive()}")
    return done, outcome.get("visits", Counter())
