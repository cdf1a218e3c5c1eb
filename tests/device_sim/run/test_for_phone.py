"""What is told of a dataset's task is seen in its public parts, and a recording is put together from windows."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from device_sim.datasets import Dataset, load_dataset
from device_sim.datasets.recordings import windows_of
from device_sim.datasets.records import DataOptions, Samples, Scaling, make_dataset
from device_sim.run.for_phone import phone_task, replay_of, tells_what_follows

TOKENS = ("<other>", "a", "b", "c")


def dataset_of(x: np.ndarray, y: np.ndarray, labels: tuple[str, ...], task: str, name: str = "own") -> Dataset:
    return make_dataset(name, Samples(x, y), Samples(x, y), labels, source="here", task=task)


def text() -> Dataset:
    x = np.int32([[1, 2, 3, 1], [2, 2, 0, 0]])
    y = np.int64([[2, 3, 1, 2], [2, 3, -1, -1]])
    return dataset_of(x, y, TOKENS, "sequence")


def test_next_tokens_are_seen() -> None:
    told = phone_task(text())
    assert (told.vocabulary, told.answers_next, told.names) == (TOKENS, True, ())


def test_tags_of_tokens_are_no_vocabulary() -> None:
    tagged = dataset_of(np.int32([[1, 2, 3, 1]]), np.int64([[2, 3, 1, 1]])[:, ::-1].copy(), TOKENS, "sequence")
    assert not tells_what_follows(tagged)
    told = phone_task(tagged)
    assert (told.vocabulary, told.answers_next, told.names) == ((), False, TOKENS)


def test_scaling_is_told_of_features_and_numbers() -> None:
    x, y = np.ones((4, 2), np.float32), np.ones((4, 1), np.float32)
    scaling = Scaling(np.array([1.0, 2.0]), np.array([3.0, 4.0]), np.array([5.0]), np.array([6.0]), "sums")
    told = phone_task(replace(dataset_of(x, y, ("progression",), "regression"), scaling=scaling))
    assert told.inputs is not None
    assert told.outputs is not None
    assert (told.inputs.mean, told.inputs.spread) == ((1.0, 2.0), (3.0, 4.0))
    assert (told.outputs.mean, told.outputs.spread) == ((5.0,), (6.0,))
    assert told.names == ("progression",)


@pytest.mark.parametrize(("name", "hertz", "channels"), [("har", 50.0, 6), ("own", None, 0)])
def test_channels_are_told_where_they_are_known(name: str, hertz: float | None, channels: int) -> None:
    x = np.random.default_rng(0).normal(size=(8, 16, 6)).astype(np.float32)
    recording = phone_task(dataset_of(x, np.arange(8) % 2, ("a", "b"), "classification", name), hop=4).recording
    assert recording is not None
    assert (recording.hop, recording.hertz, len(recording.channels)) == (4, hertz, channels)
    assert recording.replay is not None
    halved = phone_task(dataset_of(x, np.arange(8) % 2, ("a", "b"), "classification", name)).recording
    assert halved is not None
    assert halved.hop == 8


@settings(deadline=None, max_examples=60)
@given(
    st.lists(st.tuples(st.integers(0, 3), st.integers(8, 60)), min_size=1, max_size=6),
    st.integers(1, 8),
    st.integers(1, 200),
)
def test_a_replay_is_of_stretches_as_they_were_recorded(
    stretches: list[tuple[int, int]], hop: int, samples: int
) -> None:
    """Law: what is shown of a class are runs of samples of recordings of it; classes follow each other."""
    window, rng = 8, np.random.default_rng(len(stretches))
    recorded = [(label, rng.normal(size=(length, 2)).astype(np.float32)) for label, length in stretches]
    parts = [(label, windows_of(signal, window, hop)) for label, signal in recorded]
    x = np.concatenate([part for _, part in parts])
    y = np.concatenate([np.full(len(part), label) for label, part in parts])
    shown = replay_of(x, y, hop, samples)
    ends = [*shown.cuts.tolist(), len(shown.signal)]
    runs = [(start, end) for start, end in zip([0, *shown.cuts.tolist()], ends, strict=True)]
    told = [int(shown.truth[start]) for start, _ in runs]
    assert told == sorted(told)
    assert set(told) == set(y.tolist())
    for start, end in runs:
        assert end - start >= window
        label = int(shown.truth[start])
        assert (shown.truth[start:end] == label).all()
        assert any(
            (signal[at : at + end - start] == shown.signal[start:end]).all()
            for own, signal in recorded
            if own == label
            for at in range(len(signal) - (end - start) + 1)
        )


def test_windows_that_do_not_overlap_stand_alone() -> None:
    x = np.arange(24, dtype=np.float32).reshape(3, 4, 2)
    shown = replay_of(x, np.array([1, 1, 0]), hop=4, samples=100)
    assert shown.truth.tolist() == [0] * 4 + [1] * 8
    assert shown.cuts.tolist() == [4, 8]


def test_columns_of_a_table_are_told_in_order(tmp_path: Path) -> None:
    """An app that does not know which of two numbers comes first cannot ask the model anything."""
    file = tmp_path / "clinic.csv"
    file.write_text("device,pulse,ill,weight\n" + "".join(f"{i % 2},{60 + i},{i % 2},{70.5 + i}\n" for i in range(12)))
    dataset = load_dataset("csv", seed=0, path=file, options=DataOptions(target=("ill",)))
    assert phone_task(dataset).columns == ("pulse", "weight")
