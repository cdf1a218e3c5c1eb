"""Devices that the data knows stay as they are, unless the experiment deals their examples anew."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from device_sim.datasets import load_dataset
from device_sim.datasets.records import Dataset
from device_sim.experiment.toml import parse_experiment
from device_sim.federation.dealing import data_of, deal_out, dealt_as
from device_sim.federation.federation import assemble
from device_sim.fleet.devices.timing import Workload
from fl_mobile.errors import ConfigError
from tests.device_sim.dataset_files import write_leaf, write_pictures
from tests.device_sim.numpy_engine import numpy_engine


def data_in(folder: Path, name: str) -> tuple[list[str], Dataset]:
    """Returns the changes that name a small dataset of people's own, and the dataset."""
    path = folder / name
    if name == "image-folder":
        write_pictures(path)
    elif name == "leaf":
        write_leaf(path)
    else:
        path = folder / "mine.npz"
        arrays = {"x": np.random.default_rng(1).normal(size=(60, 5)), "y": np.arange(60) % 3}
        np.savez(path, **arrays, **({"device": np.arange(60) // 10} if name == "npz" else {}))
    kind = "npz" if name == "npz without devices" else name
    changes = [f"data.dataset={kind}", f'data.path="{path}"', "train.cohort=1"]
    return changes, load_dataset(kind, seed=0, path=path)


@pytest.mark.parametrize("name", ["image-folder", "leaf", "npz"])
def test_devices_of_the_data_are_the_devices(name: str, tmp_path: Path) -> None:
    changes, dataset = data_in(tmp_path, name)
    assert dataset.device_of is not None
    ids = np.unique(dataset.device_of)
    for chosen in ([], ["data.partition=natural"], [f"data.devices={len(ids)}"]):
        experiment = parse_experiment("", [*changes, *chosen])
        assert dealt_as(experiment, dataset) == "natural"
        parts = deal_out(experiment, dataset)
        assert [set(dataset.device_of[part]) for part in parts] == [{device} for device in ids]


@pytest.mark.parametrize("name", ["image-folder", "leaf", "npz"])
def test_they_are_dealt_anew_on_demand_only(name: str, tmp_path: Path) -> None:
    changes, dataset = data_in(tmp_path, name)
    experiment = parse_experiment("", [*changes, "data.partition=iid", "data.devices=4"])
    assert dealt_as(experiment, dataset) == "iid"
    assert len(deal_out(experiment, dataset)) == 4


def test_another_number_of_devices_is_refused_with_both_ways_out(tmp_path: Path) -> None:
    changes, dataset = data_in(tmp_path, "npz")
    with pytest.raises(ConfigError, match=r"data\.devices is 4, but the data comes from 6 devices.*data\.partition"):
        deal_out(parse_experiment("", [*changes, "data.devices=4"]), dataset)


def test_data_that_knows_no_devices_is_dealt_out_as_before(tmp_path: Path) -> None:
    changes, dataset = data_in(tmp_path, "npz without devices")
    experiment = parse_experiment("", [*changes, "data.devices=4"])
    named = parse_experiment("", [*changes, "data.devices=4", "data.partition=dirichlet"])
    assert dealt_as(experiment, dataset) == "dirichlet"
    for one, other in zip(deal_out(experiment, dataset), deal_out(named, dataset), strict=True):
        assert np.array_equal(one, other)


def test_more_devices_than_the_data_has_cannot_be_asked_and_what_was_chosen_is_said(tmp_path: Path) -> None:
    changes, dataset = data_in(tmp_path, "npz")

    def opened(cohort: int, *more: str):
        experiment = parse_experiment("", [*changes, f"train.cohort={cohort}", "output.recipes=[]", *more])
        data = data_of(experiment, dataset)
        return assemble(experiment, dataset, data, numpy_engine(), Workload(432, 435, 435), lambda: None)

    with pytest.raises(ConfigError, match=r"train\.cohort \(7\) must not exceed the 6 devices"):
        opened(7)
    assert opened(6).dealt.startswith("natural: as the data came; data.partition")
    assert opened(6, "data.partition=natural").dealt == "natural"
    assert opened(6, "data.partition=iid", "data.devices=9").dealt == "iid"


def test_a_cohort_beyond_the_default_number_fits_data_of_more_devices() -> None:
    parse_experiment("", ["data.dataset=mnist-by-writer", "train.cohort=300"])
    with pytest.raises(ConfigError, match="must not exceed"):
        parse_experiment("", ["data.dataset=digits", "train.cohort=300"])


def test_a_partition_that_is_none_is_told_when_the_file_is_read() -> None:
    with pytest.raises(ConfigError, match="Did you mean 'natural'"):
        parse_experiment("", ["data.partition=natrual"])
