"""What a served federation cannot do is refused by its key, before anything is opened."""

from __future__ import annotations

import pytest

from device_sim.deploy.opening import deployable
from device_sim.experiment.toml import parse_experiment
from fl_mobile.errors import ConfigError


@pytest.mark.parametrize(
    ("key", "changes"),
    [
        ("train.batch-size", ["train.batch-size=0"]),
        ("policy.name", ["policy.name=periodic", "policy.period-seconds=50"]),
        ("attack.name", ["attack.name=garbage"]),
        ("server.aggregation", ["server.aggregation=fltrust"]),
    ],
)
def test_what_only_a_simulation_can_do_is_refused(key: str, changes: list[str]) -> None:
    with pytest.raises(ConfigError, match=f"serve: {key} cannot be used with real clients"):
        deployable(parse_experiment("", changes))
    assert deployable(parse_experiment("", ["server.aggregation=multi-krum"])).engine.name == "litert"
