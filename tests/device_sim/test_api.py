"""The Python door without TensorFlow: keywords, and what is refused before anything is trained."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import device_sim
from device_sim.client_data.given import AskedData
from device_sim.experiment.keywords import key_of
from device_sim.experiment.toml import all_keys
from fl_mobile.errors import ConfigError, DataError, RunError

X, Y = np.zeros((4, 3, 3, 1), np.uint8), np.array([0, 1, 0, 1])


class Unhashable(Mapping[Any, Any]):
    """Clients by what cannot be a key of a dictionary."""

    def __iter__(self) -> Iterator[Any]:
        return iter([["anna"]])

    def __len__(self) -> int:
        return 1

    def __getitem__(self, name: Any) -> Any:
        return X, Y


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
        (Unhashable(), None, "expected a mapping of names, or a sequence, of .*: unhashable type: 'list'"),
        ([(["a"], (X, Y))], None, "client '0': expected arrays .*, got rows of several shapes"),
        ({"a": X}, None, r"client 'a': expected \(x, y\), got ndarray"),
        ({"a": (X, Y[:3])}, None, r"x\(4, 3, 3, 1\) and y\(3,\)"),
        ({"a": (X[:0], Y[:0])}, None, "client 'a': holds no example"),
        ({"a": (X, np.eye(2)[Y])}, None, "integer classes"),
        ({"a": (X, Y.astype(float))}, None, "if they are measures, task.name"),
        ([(X, Y), (X[:, :2], Y)], None, "client '1': inputs are .* those of client '0'"),
        ({"a": (X, Y)}, (X,), "test: expected"),
        ({"a": (X, Y), "b": (X, Y / 3)}, None, "client 'b': targets are float64"),
        ({"a": (X, Y)}, (X[:, :2], Y), "test: inputs are"),
        ({"a": (X.astype(str), Y)}, None, "expected numbers"),
        (lambda client: (X, Y), (X, Y), "say how many clients there are"),
        (lambda client: X, (X, Y), r"say how many"),
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


@pytest.mark.parametrize(
    ("answer", "test", "told"),
    [
        (lambda i: (X, Y), None, r"give test=\(x, y\)"),
        (lambda i: X, (X, Y), r"<lambda>\(0\) of .*test_api.py, line \d+: expected \(x, y\), got ndarray"),
        (lambda i: (X[:0], Y[:0]), (X, Y), "holds no example"),
        (lambda i: (X[:, :2], Y), (X, Y), "inputs are"),
        (lambda i: 1 // i, (X, Y), r"<lambda>\(0\) raised ZeroDivisionError: .*test_api.py, line \d+"),
    ],
)
def test_functions_of_clients_that_do_not_fit(answer: Any, test: Any, told: str, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=told) as caught:
        device_sim.simulate("mlp", answer, test, devices=3, out=tmp_path / "run")
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "run").exists()


def test_a_function_is_not_asked_twice_for_what_is_known() -> None:
    asked: list[int] = []

    def ask(client: int) -> Any:
        asked.append(client)
        return X[: client + 1], Y[: client + 1]

    data = AskedData(ask, 4)
    assert data.counts(np.array([2, 0, 2])).tolist() == [3, 1, 3]
    assert len(data.examples(2)[1]) == 3
    assert data.majority_labels(np.array([0])).tolist() == [0]
    assert asked == [2, 0]
