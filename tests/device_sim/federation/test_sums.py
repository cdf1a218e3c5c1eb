"""Federated statistics of a run: exact where they may be, noised and booked under [privacy], else refused."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from sklearn.preprocessing import StandardScaler

from device_sim.datasets import Dataset, Samples, load_dataset
from device_sim.datasets.records import Ends, make_dataset
from device_sim.datasets.scaling import column_names
from device_sim.experiment.as_compiled import like
from device_sim.experiment.class_weights import class_weights_of
from device_sim.experiment.experiment import Experiment
from device_sim.experiment.toml import parse_experiment, to_toml
from device_sim.federation.dealing import data_of, open_dataset, with_sums_released
from device_sim.federation.private import claim_of
from device_sim.federation.sums import standardised, with_class_counts
from device_sim.run.folder import RunFolder
from device_sim.run.privacy import privacy_told
from device_sim.verify.run import verify_run
from fl_mobile.client.sums import moments_of, moments_question
from fl_mobile.errors import ConfigError
from fl_mobile.models.ends import Port
from fl_mobile.privacy import open_ledger
from fl_mobile.tasks.heads import joined
from fl_mobile.wire.sums import pack_sums
from tests.device_sim.experiment.test_class_weights import MOOD, PAIN, STEPS, of_heads

RANGES = 'data.ranges=["0:5000"]'
PRIVATE = (
    *("data.dataset=diabetes", "data.devices=300", "train.cohort=200", "train.rounds=2", "upload.memory=none"),
    *("selection.sampler=poisson", "privacy.mode=central", "privacy.noise-multiplier=1", RANGES),
    "privacy.sampling=none-assumed",
    "data.standardize=federated",
)


def asked(*changes: str) -> Experiment:
    return parse_experiment("", changes)


@pytest.mark.parametrize("name", ["breast-cancer", "diabetes"])
@pytest.mark.parametrize("partition", ["iid", "quantity-skew"])
def test_sums_of_devices_give_what_a_scaler_gives_on_all_of_it(name: str, partition: str):
    raw = load_dataset(name, seed=0)
    found = open_dataset(asked(f"data.dataset={name}", "data.devices=13", f"data.partition={partition}"))
    scaler = StandardScaler().fit(raw.train.x.astype(np.float64))
    assert found.scaling is not None
    np.testing.assert_allclose(found.scaling.mean, scaler.mean_, rtol=1e-12)
    np.testing.assert_allclose(found.scaling.spread, scaler.scale_, rtol=1e-9)
    assert np.array_equal(found.train.x, raw.train.x), "features are standardised in the graph"
    columns = len(column_names(raw))
    length = len(pack_sums(moments_question(columns), moments_of(np.zeros((1, columns), np.float32))))
    assert found.statistics_bytes == 13 * length
    assert f"{length} bytes of each device" in found.scaling.source
    if name == "diabetes":
        assert abs(float(found.train.y.mean())) < 1e-6
        back = found.test.y * found.scaling.target_spread + found.scaling.target_mean
        np.testing.assert_allclose(back, raw.test.y, rtol=1e-6)


def test_nothing_but_what_devices_hold_is_in_it():
    experiment = asked("data.dataset=diabetes", "data.devices=4", "train.cohort=2")
    raw = load_dataset("diabetes", seed=0)
    held = data_of(experiment, replace(raw, train=Samples(raw.train.x[:100], raw.train.y[:100])))
    found = standardised(experiment, raw, lambda: held, table=True)
    assert found.scaling is not None
    np.testing.assert_allclose(found.scaling.mean, raw.train.x[:100].astype(float).mean(axis=0), rtol=1e-12)


def test_a_feature_that_never_changes_is_left_in_place():
    raw = load_dataset("diabetes", seed=0)
    train, test = (
        Samples(np.hstack([part.x, np.full((len(part), 1), 7.1, np.float32)]), part.y) for part in (raw.train, raw.test)
    )
    found = dealt(
        replace(raw, train=train, test=test), asked("data.dataset=diabetes", "data.devices=5", "train.cohort=2")
    )
    assert found.scaling is not None
    assert found.scaling.spread[-1] == 1


def test_numbers_too_large_to_be_summed_up_are_refused_by_name():
    raw = load_dataset("diabetes", seed=0)
    huge = replace(raw, train=Samples(raw.train.x * np.float32(1e16), raw.train.y))
    with pytest.raises(
        ConfigError, match=r"sums of 5 devices cannot be told, a column of diabetes holds numbers beyond"
    ):
        dealt(huge, asked("data.dataset=diabetes", "data.devices=5", "train.cohort=2"))


def dealt(dataset: Dataset, experiment: Experiment) -> Dataset:
    return standardised(experiment, dataset, lambda: data_of(experiment, dataset), table=True)


def test_public_constants_are_taken_as_they_are():
    given = ("data.dataset=diabetes", "data.standardize=public")
    found = open_dataset(asked(*given, 'data.scaling=["0=48.5:13.1", "1:2"]'))
    assert found.scaling is not None
    assert found.scaling.mean.tolist() == [48.5, *[1.0] * 9]
    assert found.scaling.target_spread.tolist() == [2.0]
    assert found.statistics_bytes == 0
    assert found.scaling.source == "public constants"


def test_a_private_run_releases_noised_sums_once_and_books_them(tmp_path: Path):
    begun = with_sums_released(asked(*PRIVATE))
    raw, found = load_dataset("diabetes", seed=0), open_dataset(begun)
    assert begun.data.scaling
    assert found.scaling is not None
    again = open_dataset(parse_experiment(to_toml(begun), ()))
    assert again.scaling is not None
    assert np.array_equal(again.scaling.mean, found.scaling.mean), "to the bit, from disk"
    assert with_sums_released(begun) == begun
    assert (np.abs(found.scaling.mean - raw.train.x.mean(axis=0)) < 2500 * 0.25).all()
    assert not np.array_equal(with_sums_released(asked(*PRIVATE)).data.scaling, begun.data.scaling), "its own noise"
    assert begun.sums_before == 1
    assert begun.private_releases == 3
    assert like(asked(*PRIVATE), begun, frozenset()) == begun, "a run that goes on releases nothing again"


@pytest.mark.tf
@pytest.mark.slow
def test_the_ledger_of_such_a_run_has_one_release_more(tmp_path: Path):
    from device_sim.cli.simulate import run

    experiment = asked(*PRIVATE, "model.name=tabular-mlp", "output.recipes=[]", "fleet.dropout-rate=0")
    summary = run(experiment, tmp_path / "run", (), open_keys=frozenset(), resume=False, quiet=True)
    stored = parse_experiment((tmp_path / "run" / "experiment.toml").read_text(), ())
    assert stored.data.scaling
    assert summary["privacy"]["rounds"] == 3
    assert summary["privacy"]["sums_before"] == 1
    assert summary["privacy"]["epsilon"] == open_ledger(claim_of(experiment, 300), 3).after(3).epsilon
    assert "after 2 rounds and the statistics before them" in privacy_told(summary["privacy"])
    assert summary["traffic"]["statistics_bytes"] > 0
    verify_run(RunFolder(tmp_path / "run"))
    lines = [json.loads(line) for line in (tmp_path / "run" / "rounds.jsonl").read_text().splitlines()]
    assert lines[0]["privacy"]["epsilon"] > 0
    assert lines[-1]["privacy"]["epsilon"] == summary["privacy"]["epsilon"]


def test_balanced_class_weights_come_from_counts_that_devices_send():
    given = ("data.dataset=digits", "data.devices=6", "train.cohort=2", "train.class-weights=balanced")
    found = open_dataset(asked(*given))
    assert found.class_counts == tuple(np.bincount(found.train.y, minlength=10).tolist())
    assert 6 * 16 < found.statistics_bytes < 6 * (16 + 10 * 3)
    held = data_of(asked(*given), replace(found, train=Samples(found.train.x[:200], found.train.y[:200])))
    fewer = with_class_counts(asked(*given), load_dataset("digits", seed=0), lambda: held)
    assert sum(fewer.class_counts) == 200, "nothing but what devices hold"
    assert not open_dataset(asked("data.dataset=digits")).class_counts, "nobody is asked for what is not needed"


def test_of_several_inputs_those_that_are_rows_of_numbers_are_standardised():
    rng = np.random.default_rng(0)
    ports = (Port("lab", (2,), "float32"), Port("words", (3,), "int32"), Port("vitals", (3,), "float32"))
    numbers, words = rng.normal(5, 2, (40, 5)), rng.integers(0, 9, (40, 3))
    x = joined({"lab": numbers[:, :2], "words": words, "vitals": numbers[:, 2:]})
    part = Samples(x, numbers[:, :1].astype(np.float32))
    dataset = make_dataset("ward", part, part, (), source="", task="regression", ends=Ends(ports))
    assert column_names(dataset) == ("lab.0", "lab.1", "vitals.0", "vitals.1", "vitals.2", "y0")
    keys = ("data.devices=4", "train.cohort=2", "data.partition=iid", "data.standardize=federated")
    found = dealt(dataset, asked(*keys))
    assert found.scaling is not None
    scaler = StandardScaler().fit(numbers.astype(np.float32).astype(np.float64))
    np.testing.assert_allclose(found.scaling.mean, scaler.mean_, rtol=1e-12)
    np.testing.assert_allclose(found.scaling.spread, scaler.scale_, rtol=1e-9)
    np.testing.assert_allclose(found.scaling.target_mean, scaler.mean_[:1], rtol=1e-12)
    assert np.array_equal(found.train.x, part.x), "features are standardised in the graph"
    with pytest.raises(ConfigError, match=r"needs an input that is a row of numbers.* ward has words:int32:3"):
        dealt(replace(dataset, ends=Ends(ports[1:2])), asked(*keys))


def test_counts_of_several_heads_come_in_one_packet_of_each_device():
    dataset = of_heads(PAIN, MOOD, STEPS)
    experiment = asked("data.devices=4", "train.cohort=2", "data.partition=iid", "train.class-weights=balanced")
    found = with_class_counts(experiment, dataset, lambda: data_of(experiment, dataset))
    told = dataset.told(dataset.train.y)
    counts = [np.bincount(told["mood"], minlength=3), np.bincount(told["steps"][told["steps"] >= 0], minlength=2)]
    assert found.class_counts == tuple(np.concatenate(counts).tolist())
    assert class_weights_of("balanced", found, private=False) == class_weights_of("balanced", dataset, private=False)


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        (("data.dataset=digits", "data.standardize=federated"), "needs rows of numbers"),
        (("data.dataset=diabetes", "data.standardize=public"), "needs data.scaling"),
        (("data.dataset=diabetes", 'data.scaling=["0:1"]'), "data.scaling does nothing with"),
        (("data.dataset=diabetes", RANGES), "data.ranges does nothing with"),
        (("data.dataset=diabetes", "data.standardize=public", 'data.scaling=["0=1:2"]'), "missing of column '1'"),
        (("data.dataset=diabetes", "data.standardize=public", 'data.scaling=["age=1:2"]'), "no column 'age'"),
        (("data.dataset=diabetes", "data.standardize=public", 'data.scaling=["0=one"]'), "expected column=number:numb"),
        (("data.dataset=diabetes", "data.standardize=public", 'data.scaling=["1:0"]'), "spread must be above 0"),
        (PRIVATE, "released once, by a run that simulate begins"),
        ((*PRIVATE, "privacy.reproducible=true", "train.cohort=10"), "halves of its range, of 10 devices"),
        ((*PRIVATE, "privacy.reproducible=true", 'data.ranges=["1:1"]'), "low below high"),
        ((*PRIVATE, "privacy.reproducible=true", "data.ranges=[]"), "data.ranges: two numbers are missing"),
        ((*PRIVATE, "privacy.reproducible=true", "privacy.max-epsilon=0.001"), "the statistics and one round spend"),
        (
            ("data.dataset=diabetes", "data.standardize=federated", "privacy.mode=local", "privacy.noise-multiplier=4"),
            "none to the sums that come before",
        ),
        (
            ("data.dataset=diabetes", "data.standardize=federated", "masks.group=5", "upload.codec=sketch:k=64"),
            "go to the server without a mask",
        ),
    ],
)
def test_what_cannot_be_is_refused_by_name(changes: tuple[str, ...], told: str):
    with pytest.raises(ConfigError, match=told):
        open_dataset(asked(*changes, *(() if "privacy.mode=local" not in changes else ("upload.memory=none",))))


@pytest.mark.parametrize("section", [PRIVATE[4:8], ("masks.group=5", "upload.codec=sketch:k=64", "upload.memory=none")])
def test_auto_lets_no_sums_out_where_they_would_be_bare(section: tuple[str, ...]):
    assert open_dataset(asked("data.dataset=diabetes", *section)).scaling is None
