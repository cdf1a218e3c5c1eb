"""The table of what cannot meet: every row is met by two changes of the defaults, and told with both keys' values."""

from __future__ import annotations

import pytest

from device_sim.experiment.crossings import CROSSINGS
from device_sim.experiment.toml import all_keys, parse_experiment
from fl_mobile.errors import ConfigError

ROBUST, PRIVATE, LATE = "server.aggregation=median", "personal.private=*bias", "clock.mode=asynchronous"
OWN_NOISE = ("privacy.mode=local", "privacy.noise-multiplier=4")
NOISED = ("privacy.mode=central", "privacy.noise-multiplier=1")
SAMPLED = (*NOISED, "selection.sampler=poisson")
FIXED = (*NOISED, "privacy.sampling=fixed-size")
MASKED = ("masks.group=10", "upload.codec=sketch")
FORWARD = ("download.mode=forward", "upload.codec=sketch")
MEETINGS: dict[tuple[str, str], tuple[str, ...]] = {
    ("train.cohort", "data.devices"): ("train.cohort=11", "data.devices=10"),
    ("server.algorithm", "train.optimizer"): ("server.algorithm=scaffold", "train.optimizer=adam"),
    ("upload.memory", "server.algorithm"): ("server.algorithm=fednova", "upload.memory=cafe"),
    ("upload.codec", "server.algorithm"): ("upload.codec=q1", "server.algorithm=scaffold"),
    ("server.algorithm", "clock.mode"): ("server.algorithm=feddyn", LATE),
    ("train.cohort", "server.aggregation"): ("train.cohort=5", "server.aggregation=multi-krum"),
    ("server.aggregation", "server.algorithm"): (ROBUST, "server.algorithm=fednova"),
    ("server.aggregation", "upload.memory"): (ROBUST, "upload.memory=error-feedback"),
    ("server.averaging-broadcast", "server.algorithm"): (
        *("server.averaging=exponential", "server.averaging-broadcast=true", "server.algorithm=scaffold"),
    ),
    ("server.aggregation", "clock.mode"): (ROBUST, LATE),
    ("personal.method", "evaluation.device-test-fraction"): ("personal.method=fine-tune",),
    ("personal.method", "engine.name"): (
        *("personal.method=ditto", "evaluation.device-test-fraction=0.2", "engine.name=litert"),
    ),
    ("personal.private", "server.algorithm"): (PRIVATE, "server.algorithm=fedprox"),
    ("output.recipes", "personal.private"): (PRIVATE,),
    ("output.keep", "personal.private"): (PRIVATE, "output.keep=best", "output.recipes=[]"),
    ("output.keep-by", "evaluation.every"): ("output.keep-by=device-mean",),
    ("train.pruning.sparsity", "personal.private"): (PRIVATE, "train.pruning.sparsity=0.5", "output.recipes=[]"),
    ("train.pruning.sparsity", "engine.name"): ("train.pruning.sparsity=0.5", "engine.name=litert"),
    ("train.qat.begin-round", "engine.name"): ("train.qat.begin-round=3", "engine.name=litert"),
    ("upload.codec", "server.weighting"): ("upload.codec=ecsq:examples=50", "server.weighting=uniform"),
    ("download.ternary", "download.mode"): ("download.ternary=0.15",),
    ("download.mode", "upload.codec"): ("download.mode=forward",),
    ("download.mode", "server.algorithm"): (*FORWARD, "server.algorithm=fedadam"),
    ("download.mode", "clock.mode"): (*FORWARD, LATE),
    ("download.mode", "train.pruning.sparsity"): (*FORWARD, "train.pruning.sparsity=0.5"),
    ("download.mode", "upload.memory"): (*FORWARD, "upload.memory=cafe"),
    ("download.mode", "server.averaging-broadcast"): (
        *(*FORWARD, "server.averaging=last", "server.averaging-broadcast=true"),
    ),
    ("upload.memory", "clock.mode"): ("upload.memory=cafe", LATE),
    ("upload.target-ratio", "clock.mode"): ("upload.target-ratio=100", LATE),
    ("upload.budget-bytes", "clock.mode"): ("upload.budget-bytes=1000", LATE),
    ("selection.over-selection", "clock.mode"): ("selection.over-selection=1.5", LATE),
    ("clock.deadline-seconds", "clock.mode"): ("clock.deadline-seconds=60", LATE),
    ("selection.sampler", "privacy.sampling"): NOISED,
    ("selection.over-selection", "privacy.sampling"): (*SAMPLED, "selection.over-selection=1.5"),
    ("fleet.availability", "privacy.sampling"): (*FIXED, "fleet.availability=diurnal"),
    ("policy.name", "privacy.sampling"): (*FIXED, "policy.name=periodic"),
    ("policy.min-separation-seconds", "privacy.sampling"): (*FIXED, "policy.min-separation-seconds=5"),
    ("train.cohort", "privacy.mode"): (*SAMPLED, "train.cohort=1"),
    ("clock.mode", "privacy.mode"): (*SAMPLED, LATE),
    ("server.aggregation", "privacy.mode"): (*SAMPLED, ROBUST),
    ("server.algorithm", "privacy.mode"): (*SAMPLED, "server.algorithm=fednova"),
    ("upload.memory", "privacy.mode"): (*SAMPLED, "upload.memory=cafe"),
    ("upload.codec", "privacy.mode"): (*SAMPLED, "upload.codec=sketch"),
    ("upload.target-ratio", "privacy.mode"): (*SAMPLED, "upload.target-ratio=100"),
    ("upload.budget-bytes", "privacy.mode"): (*SAMPLED, "upload.budget-bytes=1000"),
    ("policy.name", "privacy.mode"): (*OWN_NOISE, "policy.name=event", "policy.min-update-norm=0.05"),
    ("privacy.clip-quantile", "privacy.mode"): (*OWN_NOISE, "privacy.clip-quantile=0.5"),
    ("data.words", "privacy.mode"): (*SAMPLED, "data.tokens=words", "data.words=9"),
    ("data.standardize", "privacy.mode"): (*OWN_NOISE, "data.standardize=federated"),
    ("masks.group", "privacy.mode"): ("privacy.mode=distributed", "privacy.noise-multiplier=4", "upload.codec=sketch"),
    ("evaluation.device-test-fraction", "privacy.mode"): (*SAMPLED, "evaluation.device-test-fraction=0.2"),
    ("output.tuning-origin", "privacy.mode"): (
        *(*SAMPLED, "output.tuning-origin=devices-agreed", "output.tuning-data=digits"),
    ),
    ("upload.codec", "masks.group"): ("masks.group=10",),
    ("train.cohort", "masks.group"): (*MASKED, "train.cohort=2"),
    ("clock.mode", "masks.group"): (*MASKED, LATE),
    ("server.aggregation", "masks.group"): (*MASKED, ROBUST),
    ("server.algorithm", "masks.group"): (*MASKED, "server.algorithm=fednova"),
    ("upload.memory", "masks.group"): (*MASKED, "upload.memory=error-feedback"),
    ("selection.sampler", "masks.group"): (*MASKED, "selection.sampler=oort"),
    ("selection.over-selection", "masks.group"): (*MASKED, "selection.over-selection=1.5"),
    ("policy.name", "masks.group"): (*MASKED, "policy.name=event", "policy.min-update-norm=0.05"),
    ("attack.name", "masks.group"): (*MASKED, "attack.name=garbage"),
    ("train.class-weights", "masks.group"): (*MASKED, "train.class-weights=balanced"),
    ("data.words", "masks.group"): (*MASKED, "data.tokens=words", "data.words=9"),
    ("data.standardize", "masks.group"): (*MASKED, "data.standardize=federated"),
    ("evaluation.device-test-fraction", "masks.group"): (*MASKED, "evaluation.device-test-fraction=0.2"),
    ("privacy.mode", "masks.group"): (*MASKED, *OWN_NOISE),
}


def test_every_row_has_a_meeting_and_names_two_keys() -> None:
    assert [row.keys for row in CROSSINGS] == list(MEETINGS)
    assert {key for row in CROSSINGS for key in row.keys} <= set(all_keys())


@pytest.mark.parametrize("row", CROSSINGS, ids=lambda row: "+".join(row.keys))
def test_what_cannot_meet_is_refused_with_its_own_reason(row) -> None:
    with pytest.raises(ConfigError) as told:
        parse_experiment("", MEETINGS[row.keys])
    before, _, after = row.reason.partition("{")
    assert before in str(told.value)
    assert after.rpartition("}")[2] in str(told.value)
    assert "{" not in str(told.value)
    for key in row.keys:
        value = dict(change.split("=", 1) for change in MEETINGS[row.keys]).get(key)
        assert key in str(told.value) or key.rpartition(".")[0] in str(told.value) or value in str(told.value)


def reason(changes: list[str]) -> str:
    try:
        parse_experiment("", changes)
    except ConfigError as error:
        return str(error)
    return ""


@pytest.mark.parametrize("row", CROSSINGS, ids=lambda row: "+".join(row.keys))
def test_one_change_less_and_they_do_not_meet(row) -> None:
    """Each change is there for a reason: without one of them another reason is given, or none."""
    told = reason(list(MEETINGS[row.keys]))
    for left_out in MEETINGS[row.keys]:
        assert reason([change for change in MEETINGS[row.keys] if change != left_out]) != told
