"""Sums of real clients over HTTP give the constants that the simulator's devices give, to the bit."""

from __future__ import annotations

import threading
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from device_sim.datasets.scaling import written
from device_sim.deploy.examples import Examples, arrays_of
from device_sim.deploy.fitting import sums_of
from device_sim.deploy.fleet import Fleet
from device_sim.deploy.opening import deployable
from device_sim.deploy.serve import coordinator_folder
from device_sim.deploy.statistics import as_gathered, asks, gather, questions
from device_sim.experiment.class_weights import class_weights_of
from device_sim.experiment.experiment import Experiment, experiment_hash
from device_sim.experiment.toml import parse_experiment
from device_sim.federation.dealing import data_of, loaded, open_dataset
from device_sim.run.folder import RunFolder, create, reopen
from fl_mobile.client.sums import moments_of
from fl_mobile.coordinator.coordinator import Coordinator
from fl_mobile.errors import ConfigError, DataError, RunError
from fl_mobile.protocol.statistics import CLASSES, MOMENTS, Statistic
from fl_mobile.wire.sums import pack_sums
from tests.device_sim.deploy.loopback import PATIENCE, QUICK, SECONDS
from tests.device_sim.deploy.test_opening import PRIVATE as UNTIMED
from tests.fl_mobile.coordinator.asking import enrol, signed
from tests.fl_mobile.coordinator.tiny import key_of

DEVICES = 4
KEYS = (f"data.devices={DEVICES}", "train.cohort=2", "model.name=tabular-mlp")
PRIVATE = (*UNTIMED, "clock.deadline-seconds=60")
RUNS = {
    "features of a table": ("data.dataset=breast-cancer",),
    "numbers that are told, too": ("data.dataset=diabetes",),
    "and how often classes are held": ("data.dataset=breast-cancer", "train.class-weights=balanced"),
}


def held_by(experiment: Experiment) -> list[Examples]:
    dataset = loaded(experiment)
    data = data_of(experiment, dataset)
    return [Examples(f"client-{device}", arrays_of(dataset, data, device)) for device in range(data.population)]


def gathered(folder: RunFolder, people: list[Examples], *, sums: int, clients: Path) -> Experiment:
    """Returns the run's experiment with what these clients tell."""
    service, late = replace(QUICK, sums=sums), threading.Event()
    fleets: list[Fleet] = []
    errors: list[BaseException] = []
    over = threading.Timer(SECONDS, late.set)
    over.start()

    def play(line: str) -> None:
        url = line.partition(" come to ")[2].partition(" ")[0]
        fleet = Fleet(url, clients, lambda one: None, patience=PATIENCE)  # type: ignore[arg-type,return-value]
        fleets.append(fleet)

        def run() -> None:
            try:
                fleet.run(people)
            except BaseException as error:  # whoever waits for them is told
                errors.append(error)

        threading.Thread(target=run, daemon=True).start()

    try:
        experiment, served = gather(
            folder,
            loaded(reopen(folder.path)[1]),
            service,
            say=play,
            stopped=lambda: late.is_set() or bool(errors),
        )
        assert served.port, "the address stays where clients found it"
        return experiment
    finally:
        over.cancel()
        for fleet in fleets:
            fleet.stop()


@pytest.mark.parametrize("name", RUNS)
def test_clients_sums_are_the_simulators_constants(tmp_path: Path, name: str) -> None:
    asked = parse_experiment("", (*KEYS, *RUNS[name]))
    experiment = deployable(asked)
    assert asks(experiment), "a table's auto is federated here too"
    folder = create(tmp_path / "run", experiment)
    found = gathered(folder, held_by(experiment), sums=DEVICES, clients=tmp_path / "clients")
    simulated = open_dataset(asked)
    assert simulated.scaling is not None
    served = open_dataset(found)
    assert served.scaling is not None
    assert served.scaling.source == "sums that real clients sent"
    for field in ("mean", "spread", "target_mean", "target_spread"):
        assert getattr(served.scaling, field).tolist() == getattr(simulated.scaling, field).tolist()
    weights = [
        class_weights_of(e.train.class_weights, d, private=False) for e, d in ((asked, simulated), (found, served))
    ]
    assert weights[0] == weights[1]
    assert bool(weights[0]) == ("balanced" in "".join(RUNS[name]))
    assert not asks(found)
    assert reopen(folder.path, found)[1] == found, "whoever opens the run later reads it there"
    assert experiment_hash(as_gathered(experiment, found)) == experiment_hash(found), "the same command goes on"
    assert gather(folder, simulated, QUICK, stopped=lambda: True)[0] == found, "nobody is asked again"


def test_rows_of_several_inputs_and_classes_of_several_heads_are_summed_up_too(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    rows, words = rng.normal(50, 9, (40, 5)), rng.integers(0, 9, (40, 3))
    heads = {"y.mood": rng.integers(0, 3, 40), "y.pain": rng.random(40), "y.steps": rng.integers(-1, 3, (40, 4))}
    np.savez(tmp_path / "ward.npz", **{"x.lab": rows[:, :2], "x.words": words, "x.vitals": rows[:, 2:], **heads})
    keys = (f"data.path={tmp_path}/ward.npz", "data.partition=iid", "data.standardize=federated")
    asked = parse_experiment("", ("data.dataset=npz", *KEYS[:2], *keys, "train.class-weights=balanced"))
    experiment, simulated = deployable(asked), open_dataset(asked)
    questioned = questions(experiment, loaded(experiment))
    assert [one.parts for one in questioned] == [("x.lab:2", "x.vitals:3"), ("y.mood:3", "y.steps:3")]
    people = held_by(experiment)
    found = gathered(create(tmp_path / "run", experiment), people, sums=DEVICES, clients=tmp_path / "clients")
    served = open_dataset(found)
    assert served.scaling is not None
    assert simulated.scaling is not None
    assert served.scaling.mean.tolist() == simulated.scaling.mean.tolist()
    assert served.scaling.spread.tolist() == simulated.scaling.spread.tolist()
    weights = class_weights_of("balanced", simulated, private=False)
    assert class_weights_of(found.train.class_weights, served, private=False) == weights
    with pytest.raises(DataError, match=r"for sums of y\.mood and y\.steps before round 1; .* save 'y\.steps' too"):
        sums_of(Examples("one", {"x.lab": rows[:, :2], "y.mood": heads["y.mood"]}), questioned[1])


def test_the_first_that_come_are_a_cohort_and_the_others_wait(tmp_path: Path) -> None:
    experiment = deployable(parse_experiment("", (*KEYS, *RUNS["features of a table"])))
    people = held_by(experiment)
    folder = create(tmp_path / "run", experiment)
    found = gathered(folder, people[:2], sums=0, clients=tmp_path / "clients")
    every = gathered(create(tmp_path / "all", experiment), people, sums=DEVICES, clients=tmp_path / "others")
    assert found.data.scaling != every.data.scaling
    assert len(found.data.scaling) == len(written(loaded(experiment), *[open_dataset(found).scaling.mean] * 2))  # type: ignore[union-attr]


def test_sums_of_other_data_are_refused_when_the_run_goes_on(tmp_path: Path) -> None:
    experiment = deployable(parse_experiment("", (*KEYS, *RUNS["features of a table"])))
    folder, other = create(tmp_path / "run", experiment), Statistic(MOMENTS, 3)
    before = Coordinator(coordinator_folder(folder))
    before.statistics, before.most_sums = (other,), 1
    packet = pack_sums(other.question, moments_of(np.ones((2, 3), np.float32)))
    device = enrol(before, key_of(0))
    asked = signed(before.run, key_of(0), f"/v1/devices/{device}/sums/moments", device=device)
    assert before.take_sums(asked, device=device, about=MOMENTS, packet=packet).result(SECONDS).status == 201
    before.close()
    with pytest.raises(RunError, match="1 devices have sent sums of 'moments' that answer another question: the data"):
        gather(folder, loaded(experiment), replace(QUICK, sums=1))
    assert reopen(folder.path)[1] == experiment, "nothing of it is written"


def test_what_cannot_be_summed_up_is_refused_by_name(tmp_path: Path) -> None:
    for change, told in (
        (("data.dataset=digits", "data.standardize=federated", "model.name=mlp"), "needs rows of numbers"),
        (("data.dataset=diabetes", "train.class-weights=balanced"), "targets of task 'regression' are numbers"),
        (("data.dataset=breast-cancer", "train.class-weights=balanced", *PRIVATE), "needs exact counts of classes"),
    ):
        experiment = deployable(parse_experiment("", (*KEYS[:2], *change)), drawn=True)
        with pytest.raises(ConfigError, match=told):
            questions(experiment, loaded(experiment))
    held = Examples("one", held_by(parse_experiment("", (*KEYS, *RUNS["features of a table"])))[0].arrays)
    for asked, change_of, told in (
        (Statistic(MOMENTS, 30), {"x": None}, "asks for sums of x before round 1; this client holds y: save 'x' too"),
        (Statistic(MOMENTS, 31), {}, r"'x' is float32\(\d+, 30\), the coordinator takes float32\('n', 31\)"),
        (Statistic(MOMENTS, 32, 2), {}, r"'y' is int64\(\d+,\), the coordinator takes"),
        (Statistic(CLASSES, 1), {}, "the coordinator takes classes from 0 to 0 to count"),
    ):
        arrays = {name: value for name, value in {**held.arrays, **change_of}.items() if value is not None}
        with pytest.raises(DataError, match=told):
            sums_of(Examples("one", arrays), asked)
