"""What of an experiment can be served, and what is refused before anything is loaded."""

from __future__ import annotations

import pytest

from device_sim.deploy.opening import deployable
from device_sim.experiment.toml import parse_experiment
from device_sim.run.loop import timeline_rounds
from fl_mobile.errors import ConfigError

SUMS = ("data.dataset=breast-cancer", "data.standardize=federated", "data.ranges=['0:9']")
PRIVATE = ("selection.sampler=poisson", "privacy.mode=central", "privacy.noise-multiplier=1", "upload.memory=none")


def test_a_served_run_keeps_no_timeline_that_a_report_would_miss_the_devices_of() -> None:
    served = deployable(parse_experiment("", ()))
    assert served.engine.name == "litert"
    assert timeline_rounds(served) == frozenset()
    assert served.data.standardize == "none"
    assert deployable(parse_experiment("", ("data.dataset=breast-cancer",))).data.standardize == "federated"


def test_a_private_run_needs_a_secret_draw_a_secret_key_and_a_deadline() -> None:
    timed = (*PRIVATE, "clock.deadline-seconds=60")
    assert deployable(parse_experiment("", timed), drawn=True).privacy.on
    for keys, drawn, told in [
        (timed, False, "privacy.mode.*--cohort drawn"),
        (PRIVATE, True, "give a deadline"),
        ((*timed, "privacy.reproducible=true"), True, "privacy.reproducible.*protects nobody"),
        ((*timed, *SUMS), True, "data.standardize.*no noised sums before round 1; use public"),
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
        ("data.dataset=text-folder", "data.tokens=words", "data.vocabulary=words.txt", "data.words=9"),
    ],
)
def test_what_only_a_simulation_can_do_is_refused_by_key(keys: tuple[str, ...]) -> None:
    with pytest.raises(ConfigError, match=r"serve: [a-z]+\.[a-z-]+ cannot be used with real clients: "):
        deployable(parse_experiment("", keys))
