"""The Python door without TensorFlow: keywords, and what is refused before anything is trained."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

import device_sim
from device_sim.api import key_of
from device_sim.experiment.toml import all_keys
from fl_mobile.errors import ConfigError, DataError, RunError

X, Y = np.zeros((4, 3, 3, 1), np.uint8), np.array([0, 1, 0, 1])


@pytest.mark.parametrize("key", all_keys())
def test_every_key_is_a_keyword(key: str) -> None:
    assert key_of(key.replace(".", "_").replace("-", "_")) == key


@pytest.mark.parametrize(
    ("name", "key"),
    [
        ("rounds", "train.rounds"),
        ("learning_rate", "train.learning-rate"),
        ("algorithm", "server.algorithm"),
        ("upload", "upload.codec"),
        ("codec", None),
        ("roundz", None),
    ],
)
def test_short_names_mean_one_key_or_are_refused(name: str, key: str | None) -> None:
    if key:
        assert key_of(name) == key
    else:
        with pytest.raises(ConfigError, match=r"upload_codec or download_codec|Did you mean"):
            key_of(name)


@pytest.mark.parametrize(
    ("clients", "test", "told"),
    [
        ({}, None, "at least one client"),
        ({"a": X}, None, r"client 'a': expected \(x, y\), got ndarray"),
        ({"a": (X, Y[:3])}, None, r"x\(4, 3, 3, 1\) and y\(3,\)"),
        ({"a": (X[:0], Y[:0])}, None, "client 'a': holds no example"),
        ({"a": (X, np.eye(2)[Y])}, None, "integer classes"),
        ({"a": (X, Y.astype(float))}, None, "argmax"),
        ([(X, Y), (X[:, :2], Y)], None, "client '1': inputs are .* those of client '0'"),
        ({"a": (X, Y)}, (X,), "test: expected"),
    ],
)
def test_arrays_that_do_not_fit_are_refused_in_one_line_and_leave_nothing(
    clients: Any, test: Any, told: str, tmp_path: Path
) -> None:
    with pytest.raises(DataError, match=told) as caught:
        device_sim.simulate("mlp", clients, test, out=tmp_path / "run")
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "run").exists()


def test_wrong_keys_and_folders_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"rounds must be a whole number"):
        device_sim.simulate("mlp", {"a": (X, Y)}, rounds="many", out=tmp_path / "run")
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "mine").write_text("")
    with pytest.raises(RunError, match="not empty"):
        device_sim.simulate("mlp", {"a": (X, Y)}, out=tmp_path / "run")
    assert sorted(p.name for p in (tmp_path / "run").iterdir()) == ["mine"]
