"""A user's own table: what columns become, what is refused."""

from __future__ import annotations

import contextlib
import csv
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.datasets import load_breast_cancer, load_diabetes

from device_sim.datasets import DataOptions, Dataset, load_dataset
from fl_mobile.errors import ConfigError, DataError

ROWS = 40


def table(path: Path, **columns: list[object]) -> Path:
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(columns)
        writer.writerows(zip(*columns.values(), strict=True))
    return path


def opened(path: Path, task: str = "auto", **options: object) -> Dataset:
    return load_dataset("csv", seed=0, path=path, task=task, options=DataOptions(**options))  # type: ignore[arg-type]


FEATURES = {"age": [20 + n for n in range(ROWS)], "weight": [60.5 + n for n in range(ROWS)]}


@pytest.mark.parametrize(
    ("target", "task", "labels"),
    [
        (["no", "yes"] * 20, "classification", ("no", "yes")),
        ([3, 1, 10, 1] * 10, "classification", ("1", "3", "10")),
        ([0.5 + n for n in range(ROWS)], "regression", ("told",)),
        (list(range(ROWS)), "regression", ("told",)),
    ],
)
def test_the_last_column_says_its_task(tmp_path, target, task, labels):
    found = opened(table(tmp_path / "a.csv", **FEATURES, told=target))
    assert (found.task, found.labels) == (task, labels)
    assert found.train.x.dtype == np.float32
    assert found.train.x.shape == (len(found.train), 2)
    assert found.device_of is None
    age = np.concatenate([found.train.x, found.test.x])[:, 0].astype(int) - 20
    wanted = np.array(target)[age] if task == "regression" else [labels.index(str(target[n])) for n in age]
    assert np.array_equal(np.concatenate([found.train.y, found.test.y]).ravel(), wanted)


@pytest.mark.parametrize("missing", ["", "NA", "nan", "?"])
def test_missing_cells_are_filled_by_what_the_key_says_and_else_refused(tmp_path, missing):
    told = ["no", "yes"] * 20
    path = table(tmp_path / "a.csv", age=[missing, *FEATURES["age"][1:]], weight=FEATURES["weight"], told=told)
    found = opened(path, fill=("age=38.5",))
    ages = np.concatenate([found.train.x, found.test.x])[:, 0]
    assert sorted(ages) == sorted([38.5, *FEATURES["age"][1:]])
    with pytest.raises(DataError, match=r"line 2, column 'age': the cell is empty.*data\.fill"):
        opened(path, fill=("weight=70",))
    text = table(tmp_path / "b.csv", age=["old", *FEATURES["age"][1:]], told=told)
    with pytest.raises(DataError, match="line 2, column 'age': expected a number, got 'old'"):
        opened(text, fill=("age=38.5",))


@pytest.mark.parametrize(
    ("fill", "told"),
    [("agee=3", "no feature 'agee'"), ("told=3", "no feature 'told'"), ("age=x", "expected column=number"),
     ("age=nan", "expected column=number"), ("age", "no feature ''")],
)  # fmt: skip
def test_a_fill_that_cannot_be_is_refused(tmp_path, fill, told):
    with pytest.raises(ConfigError, match=told):
        opened(table(tmp_path / "a.csv", **FEATURES, told=["no", "yes"] * 20), fill=(fill,))


def test_columns_are_named_by_keys(tmp_path):
    path = table(tmp_path / "a.csv", clinic=["a", "b"] * 20, **FEATURES, x=[0, 1, 1, 0] * 10, y=[1, 1, 0, 0] * 10)
    found = opened(path, target=("x", "y"), device_column="clinic")
    assert (found.task, found.labels, found.input_shape) == ("multi-label", ("x", "y"), (2,))
    assert np.unique(found.device_of).tolist() == [0, 1]
    assert opened(path, target=("age",), device_column="clinic").task == "regression"
    assert opened(path, task="reconstruction", device_column="clinic").train.y.shape[1] == 4


@pytest.mark.parametrize(
    ("text", "task", "says"),
    [
        ("age,ill\n3,yes\nold,no\n", "auto", r"line 3, column 'age': expected a number, got 'old'"),
        ("age,ill\n3,yes\n,no\n", "auto", r"line 3, column 'age': the cell is empty"),
        ("age,ill\n3,yes\nnan,no\n", "auto", r"line 3, column 'age': the cell is empty"),
        ("age,ill\n3,yes\n1e99,no\n", "auto", r"line 3, column 'age'"),
        ("age,ill\n3,1.5\n4,\n", "auto", r"line 3, column 'ill': the cell is empty"),
        ("age,ill\n3\n", "auto", r"line 2: expected 2 cells"),
        ("age,age\n3,4\n", "auto", r"names column 'age' twice"),
        ("age\n3\n", "auto", r"no column is left for features"),
        ("", "auto", r"a line of names and at least one row"),
        ("age,ill\n", "auto", r"a line of names and at least one row"),
        ("age,ill\n3,yes\n4,no\n", "regression", r"line 2, column 'ill': expected a number, got 'yes'"),
        ("age,ill\n3,1\n4,0\n", "sequence", r"task 'sequence' cannot be told from a table"),
    ],
)
def test_bad_tables_are_refused_by_line_and_column(tmp_path, text, task, says):
    path = tmp_path / "bad.csv"
    path.write_text(text)
    with pytest.raises(DataError, match=says):
        opened(path, task)


def test_columns_that_are_not_there_are_refused_with_the_nearest(tmp_path):
    path = table(tmp_path / "a.csv", **FEATURES, ill=["no", "yes"] * 20)
    with pytest.raises(DataError, match=r"no column 'wieght'.*Did you mean 'weight'"):
        opened(path, target=("wieght",))
    with pytest.raises(DataError, match="no column 'clinic'"):
        opened(path, device_column="clinic")


@settings(max_examples=30, deadline=None)
@given(st.binary(max_size=200))
def test_any_bytes_are_a_table_or_refused(tmp_path_factory, data):
    path = tmp_path_factory.mktemp("csv") / "any.csv"
    path.write_bytes(data)
    with contextlib.suppress(DataError):
        opened(path)


def test_the_tables_of_scikit_learn_are_those_it_loads():
    x, y = load_breast_cancer(return_X_y=True)
    found = load_dataset("breast-cancer", seed=0)
    mine = np.concatenate([found.train.x, found.test.x]), np.concatenate([found.train.y, found.test.y])
    order, theirs = np.lexsort(mine[0].T), np.lexsort(x.astype(np.float32).T)
    assert np.array_equal(mine[0][order], x.astype(np.float32)[theirs])
    assert np.array_equal(mine[1][order], y[theirs])
    x, y = load_diabetes(return_X_y=True, scaled=False)
    found = load_dataset("diabetes", seed=0)
    assert found.task == "regression"
    assert np.sort(np.concatenate([found.train.y, found.test.y]).ravel()).tolist() == np.sort(y).tolist()


def test_a_column_may_say_what_a_row_weighs(tmp_path):
    path = table(tmp_path / "a.csv", **FEATURES, counts=[n / 4 for n in range(ROWS)], told=["no", "yes"] * 20)
    found = opened(path, weight_column="counts")
    assert found.columns == ("age", "weight")
    assert np.array_equal(found.train.weight, (found.train.x[:, 0] - 20) / 4)
    assert opened(path).columns == ("age", "weight", "counts")
    assert opened(path).train.weight is None


@pytest.mark.parametrize(
    ("counts", "says"),
    [
        ([1] * 7 + [-2] + [1] * 32, "line 9, column 'counts': expected at least 0, got -2"),
        ([1] * 7 + [""] + [1] * 32, "line 9, column 'counts': the cell is empty"),
        ([0] * ROWS, "column 'counts' is 0 for all 40 examples"),
    ],
)
def test_weights_of_rows_that_mean_nothing_are_refused(tmp_path, counts, says):
    path = table(tmp_path / "a.csv", **FEATURES, counts=counts, told=["no", "yes"] * 20)
    with pytest.raises(DataError, match=says):
        opened(path, weight_column="counts")
    with pytest.raises(DataError, match=r"no column 'count'.*Did you mean 'counts'"):
        opened(path, weight_column="count")


def test_columns_may_be_heads_each_a_task_of_its_own(tmp_path):
    told = {"mood": ["bad", "good"] * 20, "pain": [n / 4 for n in range(ROWS)], "days": list(range(ROWS))}
    path = table(tmp_path / "a.csv", **FEATURES, **told)
    found = load_dataset("csv", seed=0, path=path, heads=("pain=:huber*0.5",), options=DataOptions(target=tuple(told)))
    assert [(h.name, h.task, h.loss, h.weight) for h in found.heads] == [
        ("mood", "classification", "sparse-categorical-crossentropy", 1.0),
        ("pain", "regression", "huber", 0.5),
        ("days", "regression", "mse", 1.0),
    ]
    assert found.columns == ("age", "weight")
    assert found.ends is not None
    assert found.ends.labels["mood"] == ("bad", "good")
    parts, age = found.told(found.train.y), found.train.x[:, 0] - 20
    assert np.array_equal(parts["mood"], age % 2)
    assert np.array_equal(parts["pain"][:, 0], age / 4)
    assert np.array_equal(parts["days"][:, 0], age)
    asked = load_dataset(
        "csv", seed=0, path=path, heads=("mood=classification",), options=DataOptions(target=("mood", "days"))
    )
    assert [head.task for head in asked.heads] == ["classification", "regression"]


@pytest.mark.parametrize(
    ("target", "heads", "says"),
    [
        (("told",), ("told=classification",), "task.heads need several columns: name them with data.target"),
        (("told", "blood pressure"), ("told=classification",), "'blood pressure' cannot be a head: rename it"),
        (("told", "age"), ("tolt=classification",), "has no 'y.tolt'. Did you mean 'told'"),
        (("told", "age"), ("told=regression",), "line 2, column 'told': expected a number, got 'no'"),
    ],
)
def test_heads_that_a_table_does_not_have_are_refused(tmp_path, target, heads, says):
    path = table(tmp_path / "a.csv", **FEATURES, **{"blood pressure": [1.5] * ROWS}, told=["no", "yes"] * 20)
    with pytest.raises((ConfigError, DataError), match=says):
        load_dataset("csv", seed=0, path=path, heads=heads, options=DataOptions(target=target))
