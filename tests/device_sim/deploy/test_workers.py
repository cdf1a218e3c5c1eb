"""Two workers and a round master, killed at random: they end at the model and the rounds of the simulation."""

from __future__ import annotations

import random
import threading
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from device_sim.deploy.examples import Examples
from device_sim.deploy.fleet import Fleet
from device_sim.experiment.toml import parse_experiment
from device_sim.run.folder import RunFolder, create
from device_sim.run.log import read_rounds
from device_sim.run.loop import restore, simulate
from fl_mobile.client.participate import Trainer
from fl_mobile.client.remote import Patience
from fl_mobile.records import Update
from fl_mobile.tensors import weights_hash
from tests.crossings.test_two_roles import DEFAULT
from tests.device_sim.deploy.house import House, one_address
from tests.device_sim.deploy.loopback import held_by, on, registry_of
from tests.device_sim.deploy.test_deployed import SOME, told
from tests.device_sim.numpy_engine import numpy_federation
from tests.device_sim.rounds.test_oracle import PLAIN
from tests.postgres import Server

KEYS = (*SOME, *DEFAULT, "upload.memory=error-feedback")
PATIENCE = Patience(tries=60, first_seconds=0.02, most_seconds=1.0, timeout_seconds=10)
SECONDS = 240.0


MASKS = (*SOME, "masks.group=20", "upload.codec=sketch:k=64", "output.recipes=[]")


@pytest.mark.parametrize(
    ("kills", "seed", "keys"),
    [
        (3, 0, KEYS),
        *(pytest.param(12, seed, KEYS, marks=pytest.mark.slow) for seed in range(1, 6)),
        *(pytest.param(8, seed, MASKS, marks=pytest.mark.slow) for seed in range(6, 8)),
    ],
)
def test_killed_at_random_they_end_at_the_simulated_model(
    tmp_path: Path, postgres: Server, kills: int, seed: int, keys: tuple[str, ...]
) -> None:
    federation = numpy_federation(parse_experiment(PLAIN, keys))
    simulated = create(tmp_path / "simulated", federation.experiment)
    expected = list(simulate(federation, simulated))
    rng = random.Random(seed)
    victims = [("master", "worker 0", "worker 1")[n % 3] for n in range(kills)]
    rng.shuffle(victims)
    due = dict(zip(sorted(rng.sample(range(1, 15), kills)), victims, strict=True))  # fits of 16 at which one dies
    house, fits, timers = House(tmp_path / "run", postgres.empty(), keys), iter(range(10**6)), list[threading.Timer]()

    def train(examples: Examples) -> Trainer:
        real = on(federation.engine)(examples)

        def fitted(*arguments: Any, **more: Any) -> Update:
            if victim := due.get(next(fits)):
                timers.append(threading.Timer(rng.uniform(0, 0.1), house.kill, (victim,)))
                timers[-1].start()
            return real(*arguments, **more)

        return fitted

    try:
        house.begin()
        with one_address(house, seed) as url:
            fleet = Fleet(url, tmp_path / "clients", train, threads=3, patience=PATIENCE)
            fleet.registry = registry_of(federation, fleet.folder)
            limit = threading.Timer(SECONDS, fleet.stop)
            limit.daemon = True
            limit.start()
            visits = fleet.run(held_by(federation))
            limit.cancel()
    finally:
        for timer in timers:
            timer.join()
        code = house.end()
    assert code == 0
    assert len(house.killed) == kills
    rounds = read_rounds(RunFolder(tmp_path / "run"))
    assert told(rounds) == told(expected)
    hashes = [weights_hash(restore(federation, folder)[0].weights) for folder in (simulated, RunFolder(house.run))]
    assert hashes[0] == hashes[1]
    assert visits == Counter(accepted=16)
