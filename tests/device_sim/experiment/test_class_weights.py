"""``train.class-weights``: what it means for a dataset, and what is refused."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.utils.class_weight import compute_class_weight

from device_sim.datasets import Dataset, load_dataset
from device_sim.datasets.records import Ends, Samples, make_dataset
from device_sim.experiment.class_weights import class_weights_of
from device_sim.experiment.toml import parse_experiment
from fl_mobile.errors import ConfigError
from fl_mobile.tasks import Head, multi_head
from fl_mobile.tasks.heads import joined


def unequal(y: np.ndarray, classes: int, task: str = "classification") -> Dataset:
    part = Samples(np.zeros((len(y), 3), np.float32), y)
    labels = tuple(str(i) for i in range(classes))
    return make_dataset("mine", part, part, labels, source="here", task=task)


def test_balanced_is_what_scikit_learn_calls_so() -> None:
    y = np.repeat(np.arange(4), (50, 3, 20, 7))
    found = class_weights_of("balanced", unequal(y, 4), private=False)
    assert found == pytest.approx(compute_class_weight("balanced", classes=np.arange(4), y=y))
    assert class_weights_of("balanced", unequal(y, 5), private=False)[4] == 1.0, "a class that nobody holds"


def of_heads(*heads: Head, rows: int = 60) -> Dataset:
    rng = np.random.default_rng(3)
    told = {h.name: rng.integers(-1 if h.target else 0, max(h.answer[-1], 2), (rows, *h.target)) for h in heads}
    part = Samples(np.zeros((rows, 3), np.float32), joined(told))
    ends = Ends((), {h.name: tuple(str(k) for k in range(max(h.answer[-1], 2))) for h in heads})
    return make_dataset("ward", part, part, (), source="here", task=multi_head(heads), ends=ends)


MOOD = Head("mood", "classification", (), (3,), "sparse-categorical-crossentropy")
SICK = Head("sick", "classification", (), (1,), "binary-crossentropy")
STEPS = Head("steps", "sequence", (4,), (4, 2), "sparse-categorical-crossentropy")
PAIN = Head("pain", "regression", (1,), (1,), "mse")


def test_each_head_of_classes_is_balanced_by_itself() -> None:
    dataset = of_heads(PAIN, MOOD, SICK, STEPS)
    told = dataset.told(dataset.train.y)
    wanted = [
        compute_class_weight("balanced", classes=np.arange(classes), y=told[name][told[name] >= 0])
        for name, classes in (("mood", 3), ("sick", 2), ("steps", 2))
    ]
    assert class_weights_of("balanced", dataset, private=False) == pytest.approx(np.concatenate(wanted))
    assert class_weights_of("1,2,3,4,5,6,7", dataset, private=False) == (1, 2, 3, 4, 5, 6, 7)
    with pytest.raises(
        ConfigError, match=r"has 2 numbers, ward has 7 classes \(mood 3, sick 2, steps 2, in this order"
    ):
        class_weights_of("1,2", dataset, private=False)
    with pytest.raises(ConfigError, match="targets of task 'multi-head' are numbers, not classes; leave it out"):
        class_weights_of("balanced", of_heads(PAIN), private=False)


def test_padding_is_no_position_of_a_class() -> None:
    y = np.array([[0, 0, 1, -1], [0, -1, -1, -1]])
    found = class_weights_of("balanced", unequal(y, 2, "sequence"), private=False)
    assert found == pytest.approx((4 / (2 * 3), 4 / 2))


@pytest.mark.parametrize(
    ("text", "data", "private", "says"),
    [
        ("1,2", "digits", False, "has 2 numbers, digits has 10 classes"),
        ("balanced", "diabetes", False, "task 'regression' are numbers, not classes; leave it out"),
        ("balanced", "digits", True, r"exact counts of classes, which \[privacy\] does not account for"),
    ],
)
def test_weights_that_do_not_fit_the_data_are_refused(text: str, data: str, private: bool, says: str) -> None:
    with pytest.raises(ConfigError, match=says):
        class_weights_of(text, load_dataset(data, seed=0), private=private)


@pytest.mark.parametrize("text", ["often", "1,", "1;2"])
def test_a_value_that_is_neither_is_told_what_to_write(text: str) -> None:
    with pytest.raises(
        ConfigError, match=r"must be balanced, or a number for each class parted by commas, e\.g\. 1,4\.5"
    ):
        parse_experiment("", [f"train.class-weights={text}"])
