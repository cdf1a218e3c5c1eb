"""Two rounds of each row of `brand_new_rows`, named by its key; collected by `test_contributing.py` alone."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from device_sim.engines import open_engine
from device_sim.experiment.toml import parse_experiment, read_experiment, to_toml
from device_sim.federation.dealing import data_of, open_dataset
from device_sim.federation.federation import assemble
from device_sim.fleet.devices.timing import Workload
from device_sim.run.folder import create
from device_sim.run.loop import simulate
from fl_mobile.errors import ConfigError

KEYS = {
    "codec stage": ("upload.codec=brandnew+deflate",),
    "algorithm": ("server.algorithm=brandnew", "server.damping=0.25"),
    "aggregation rule": ("server.aggregation=brandnew", "server.quantile=0.4"),
    "local optimizer": ("train.optimizer=brandnew",),
    "sampler": ("selection.sampler=brandnew",),
    "update policy": ("policy.name=brandnew", "policy.rest-seconds=1.0"),
    "stratum": ("selection.sampler=stratified", "selection.strata=brandnew"),
    "partitioner": ("data.partition=brandnew",),
    "dataset": ("data.dataset=brandnew",),
    "phone class": ("fleet.profile=brandnew",),
    "link": ("fleet.link=brandnew",),
    "attack": ("attack.name=brandnew", "attack.fraction=0.25"),
    "engine": ("engine.name=brandnew",),
}
SMALL = ("engine.name=brandnew", "data.dataset=synthetic", "data.devices=12", "train.cohort=6", "train.rounds=2")


@pytest.mark.parametrize("keys", KEYS.values(), ids=KEYS)
def test_brandnew_federation(keys: tuple[str, ...], tmp_path: Path) -> None:
    experiment = parse_experiment("", [*SMALL, *keys])
    (tmp_path / "experiment.toml").write_text(to_toml(experiment))
    assert read_experiment(tmp_path / "experiment.toml") == experiment
    dataset = open_dataset(experiment)
    engine = open_engine("brandnew", lambda: None, dataset.train.x[:8], workers=1)
    federation = assemble(
        experiment, dataset, data_of(experiment, dataset), engine, Workload(1000, 1000, 1000), lambda: None
    )
    rounds = list(simulate(federation, create(tmp_path / "run", experiment)))
    assert len(rounds) == 2
    assert sum(done.accepted for done in rounds) > 0
    assert np.isfinite(rounds[-1].loss)


@pytest.mark.parametrize(
    ("wrong", "says"),
    [
        (("server.algorithm=brandnew", "server.damping=1"), r"server\.damping must be ≥ 0 and below 1, got 1"),
        (("server.damping=0.1",), "server.damping"),
        (("server.algorithm=brandnew", "server.dampng=0.1"), "damping"),
        (("server.aggregation=brandnew", "server.quantile=0.5"), r"server\.quantile must be .* below 0\.5"),
        (("policy.name=brandnew", "policy.rest-seconds=-1"), r"policy\.rest-seconds must be ≥ 0"),
    ],
)
def test_brandnew_parameter_is_checked(wrong: tuple[str, ...], says: str) -> None:
    with pytest.raises(ConfigError, match=says):
        parse_experiment("", [*SMALL, *wrong])
