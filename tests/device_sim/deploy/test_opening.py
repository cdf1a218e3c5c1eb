"""What of an experiment can be served, and what is refused before anything is loaded."""

from __future__ import annotations

import pytest

from device_sim.datasets.scaling import column_names
from device_sim.deploy.opening import deployable, open_deployed
from device_sim.experiment.toml import parse_experiment
from device_sim.federation.dealing import open_dataset
from device_sim.run.loop import timeline_rounds
from fl_mobile.errors import ConfigError

PRIVATE = ("selection.sampler=poisson", "privacy.mode=central", "privacy.noise-multiplier=1", "upload.memory=none")


def test_a_served_run_keeps_no_timeline_that_a_report_would_miss_the_devices_of() -> None:
    served = deployable(parse_experiment("", ()))
    assert served.engine.name == "litert"
    assert timeline_rounds(served) == frozenset()
    assert served.data.standardize == "none", "a table's auto would ask clients for sums"


def test_a_private_run_needs_a_secret_draw_a_secret_key_and_a_deadline() -> None:
    timed = (*PRIVATE, "clock.deadline-seconds=60")
    assert deployable(parse_experiment("", timed), drawn=True).privacy.on
    for keys, drawn, told in [
        (timed, False, "privacy.mode.*--cohort drawn"),
        (PRIVATE, True, "give a deadline"),
        ((*timed, "privacy.reproducible=true"), True, "privacy.reproducible.*protects nobody"),
    ]:
        with pytest.raises(ConfigError, match=told):
            deployable(parse_experiment("", keys), drawn=drawn)


@pytest.mark.parametrize(
    "keys",
    [
        ("train.batch-size=0",),
        ("policy.name=event", "policy.min-new-examples=1"),
        ("evaluation.device-test-fraction=0.2",),
        ("evaluation.device-test-fraction=0.2", "personal.method=ditto"),
        PRIVATE,
        ("data.dataset=breast-cancer", "data.standardize=federated"),
        ("data.dataset=text-folder", "data.tokens=words", "data.vocabulary=words.txt", "data.words=9"),
        ("train.class-weights=balanced",),
    ],
)
def test_what_only_a_simulation_can_do_is_refused_by_key(keys: tuple[str, ...]) -> None:
    with pytest.raises(ConfigError, match=r"serve: [a-z]+\.[a-z-]+ cannot be used with real clients: "):
        deployable(parse_experiment("", keys))


@pytest.mark.tf
def test_numbers_in_units_of_their_spread_are_refused_because_clients_hold_them_as_they_are() -> None:
    plain = ("data.dataset=diabetes", "data.standardize=none")
    names = column_names(open_dataset(parse_experiment("", plain)))
    scaling = ",".join(f'"{name}=0:1"' for name in names)
    public = ("data.dataset=diabetes", "data.standardize=public", f"data.scaling=[{scaling}]")
    with pytest.raises(ConfigError, match=r"serve: data\.standardize = 'public' would train on the numbers"):
        open_deployed(deployable(parse_experiment("", public)))
