"""Classes that no device holds are told before round 1."""

from __future__ import annotations

import numpy as np

from device_sim.datasets.records import Ends, Samples, make_dataset
from device_sim.federation.unheld import unheld_classes
from fl_mobile.tasks import Head, multi_head
from fl_mobile.tasks.heads import joined


def test_classes_that_no_device_holds_are_told_by_name() -> None:
    x, y = np.zeros((4, 3), np.float32), np.array([0, 2, 0, 2])
    part = Samples(x, y)
    told = unheld_classes(make_dataset("d", part, part, ("cat", "dog", "owl", "elk"), source=""))
    assert told == "no device holds class dog, elk: nothing can learn it"
    many = unheld_classes(make_dataset("d", part, part, tuple("abcdefghij"), source=""))
    assert many == "no device holds class b, d, e, f, g and 3 more: nothing can learn it"
    only_tested = make_dataset("d", part, Samples(x, y + 1), tuple("abcd"), source="")
    assert unheld_classes(only_tested) == "no device holds class b, d: nothing can learn it"
    tokens = Samples(x, y[:, None])
    dataset = make_dataset("d", tokens, tokens, ("a", "b", "c"), source="", task="sequence")
    assert unheld_classes(dataset) == "", "a vocabulary has words that nobody says"


def test_classes_of_heads_that_no_device_holds_are_told_by_name() -> None:
    heads = [Head("mood", "classification", (), (2,), "mse"), Head("pain", "regression", (1,), (1,), "mse")]
    part = Samples(np.zeros((4, 3), np.float32), joined({"mood": np.ones(4), "pain": np.zeros(4)}))
    ends = Ends(labels={"mood": ("sad", "glad"), "pain": ()})
    dataset = make_dataset("d", part, part, (), source="", task=multi_head(heads), ends=ends)
    assert unheld_classes(dataset) == "no device holds class mood: sad: nothing can learn it"
