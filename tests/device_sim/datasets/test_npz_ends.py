"""Several inputs and targets in an .npz: what is kept, what is refused in one line."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from device_sim.datasets import load_dataset
from fl_mobile.errors import ConfigError, DataError

N = 40


def arrays() -> dict[str, Any]:
    rng = np.random.default_rng(0)
    return {
        "x.photo": rng.integers(0, 256, (N, 4, 4), np.uint8),
        "x.age": rng.integers(0, 90, N),
        "x.vitals": rng.standard_normal((N, 2)),
        "y.mood": np.arange(N) % 3,
        "y.pain": rng.standard_normal(N),
        "labels.mood": np.array(["sad", "so", "glad"]),
        "device": np.arange(N) % 4,
    }


def load(tmp_path: Path, change: dict[str, Any] | None = None, **options: Any) -> Any:
    held = {**arrays(), **(change or {})}
    path = tmp_path / "a.npz"
    np.savez(path, **{name: part for name, part in held.items() if part is not None})
    return load_dataset("npz", seed=0, path=path, **options)


def test_inputs_and_targets_are_kept_by_name(tmp_path: Path) -> None:
    data, held = load(tmp_path, heads=("pain=regression:huber*0.5",)), arrays()
    assert [port.text for port in data.ports] == ["photo:uint8:4x4x1", "age:int32:1", "vitals:float32:2"]
    assert [head.text for head in data.heads] == [
        "mood=classification:-:3:sparse-categorical-crossentropy*1",
        "pain=regression:1:1:huber*0.5",
    ]
    assert data.ends.labels == {"mood": ("sad", "so", "glad"), "pain": ()}
    assert data.num_classes == 4
    both = [np.concatenate([part, other]) for part, other in zip(
        (data.inputs(data.train.x)["age"], data.told(data.train.y)["mood"], data.inputs(data.train.x)["photo"]),
        (data.inputs(data.test.x)["age"], data.told(data.test.y)["mood"], data.inputs(data.test.x)["photo"]),
        strict=True)]  # fmt: skip
    assert sorted(both[0][:, 0].tolist()) == sorted(held["x.age"].tolist())
    assert sorted(both[1].tolist()) == sorted(held["y.mood"].tolist())
    row = next(i for i in range(N) if held["x.photo"][i].tobytes() == both[2][0].tobytes())
    assert (both[0][0, 0], both[1][0]) == (held["x.age"][row], held["y.mood"][row]), "rows stay together"


def test_several_inputs_of_one_target_and_one_input_of_several(tmp_path: Path) -> None:
    data = load(tmp_path, {"y.mood": None, "y.pain": None, "labels.mood": None, "y": np.arange(N) % 2})
    assert (data.task, data.heads, len(data.ports)) == ("classification", (), 3)
    data = load(tmp_path, {"x.photo": None, "x.age": None, "x.vitals": None, "x": arrays()["x.photo"]})
    assert (data.input_shape, data.train.x.dtype, data.ports) == ((4, 4, 1), np.uint8, ())


def test_a_test_part_of_the_file_is_kept(tmp_path: Path) -> None:
    held = {name.replace(".", "_test."): part[:7] for name, part in arrays().items() if name[0] in "xy"}
    data = load(tmp_path, held)
    assert (len(data.train), len(data.test)) == (N, 7)
    assert data.fingerprint != load(tmp_path, {**held, "y_test.mood": np.zeros(7, int)}).fingerprint


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"y": np.zeros(N, int)}, "holds 'y' and 'y.mood': one or the other"),
        ({"y.mood": None, "y.pain": None}, "no array 'y'; x, y come together"),
        ({"y.mood": np.zeros(N - 1, int)}, "as many examples in each are expected, got y.mood 39, y.pain 40"),
        ({"x.age": np.zeros(N - 1, int)}, "got x.photo 40, x.age 39"),
        ({"x.age": np.full(N, np.nan)}, "'x.age' holds NaN"),
        ({"x.age": np.full(N, 2**30)}, "'x.age' holds integers beyond 2"),
        ({"x.age": np.array(["a"] * N)}, "'x.age' is <U1"),
        ({"y.pain": np.arange(N, dtype=float)}, "task.heads = pain=\"regression\"|'y.pain' is float64"),
        ({"labels.mood": np.array(["sad"])}, "classes run from 0 to 2, expected 0 to 0"),
        ({"y_test.mood": np.zeros(3, int)}, "no array 'x_test'"),
        ({"device.x": np.zeros(N)}, "unknown array 'device.x'"),
    ],
)
def test_what_does_not_fit_is_refused_in_one_line(tmp_path: Path, change: dict[str, Any], told: str) -> None:
    with pytest.raises(DataError, match=told) as error:
        load(tmp_path, change)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"task": "regression"}, "'regression' has one target.*holds y.mood, y.pain"),
        ({"heads": ("paine=regression",)}, "has no 'y.paine'. Did you mean 'pain'|has no 'y.paine'"),
        ({"heads": ("pain=regresion",)}, "unknown task 'regresion' of 'pain'"),
        ({"heads": ("pain=regression:binary-crossentropy",)}, "cannot train 'pain'"),
        ({"heads": ("mood=:binary-crossentropy",)}, "tells two classes apart, 'mood' has 3"),
        ({"heads": ("pain=regression*0",)}, "weight of 'pain' must be above 0"),
        ({"heads": ("pain",)}, "expected name=task:loss"),
    ],
)
def test_heads_that_cannot_be_are_refused_in_one_line(tmp_path: Path, options: dict[str, Any], told: str) -> None:
    with pytest.raises(ConfigError, match=told):
        load(tmp_path, **options)


def test_other_datasets_have_one_target(tmp_path: Path) -> None:
    for options in ({"task": "multi-head"}, {"heads": ("a=regression",)}):
        with pytest.raises(ConfigError, match="has one target"):
            load_dataset("digits", seed=0, **options)
    path = tmp_path / "b.npz"
    np.savez(path, x=np.zeros((9, 2)), y=np.arange(9) % 2)
    with pytest.raises(ConfigError, match="one target 'y' has no heads"):
        load_dataset("npz", seed=0, path=path, task="multi-head")
