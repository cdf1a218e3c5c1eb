"""Chunks and batches: every example once an epoch, whatever the company."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from device_sim.engines import Task, batches, visits
from device_sim.engines.batches import in_chunks, lay_out
from fl_mobile.records import FitPlan

PLAN = FitPlan(epochs=2, batch_size=4)
COUNTS = st.lists(st.integers(1, 23), min_size=1, max_size=7)


def task(device: int, count: int) -> Task:
    x = np.full((count, 1), device, np.float32)
    return Task(device, x, np.zeros(count, np.int64), seed=(device * 7919 + 1) * 2**40)


@given(COUNTS, st.integers(1, 3), st.integers(0, 9), st.booleans())
def test_every_epoch_visits_every_example_once(counts: list[int], epochs: int, batch: int, shuffle: bool) -> None:
    plan = FitPlan(epochs=epochs, batch_size=batch, shuffle=shuffle)
    tasks = [task(device, count) for device, count in enumerate(counts)]
    found, at = lay_out(tasks, plan), 0
    for device, count in enumerate(counts):
        size, steps = batch or count, found.first[device + 1] - found.first[device]
        assert steps == epochs * -(-count // size)
        own = found.order[found.starts[found.first[device]] : found.starts[found.first[device + 1]]]
        for epoch in np.split(own, epochs):
            assert sorted(epoch) == list(range(at, at + count))
        lengths = np.diff(found.starts[found.first[device] : found.first[device + 1] + 1])
        assert lengths.max() <= size
        assert found.share[found.first[device] : found.first[device + 1]].sum() == pytest.approx(1)
        at += count


@given(COUNTS)
def test_a_device_is_shuffled_the_same_alone_and_in_company(counts: list[int]) -> None:
    tasks = [task(device, count) for device, count in enumerate(counts)]
    found, begin = lay_out(tasks, PLAN), np.cumsum([0, *counts])
    for device, one in enumerate(tasks):
        own = found.order[found.starts[found.first[device]] : found.starts[found.first[device + 1]]]
        assert (own - begin[device]).tolist() == np.concatenate(visits(one, PLAN)).tolist()


def test_shuffles_differ_by_epoch_and_seed_and_are_fair() -> None:
    plan = replace(PLAN, epochs=400, batch_size=0)
    orders = np.stack(visits(task(3, 6), plan))
    assert len({tuple(order) for order in orders}) > 200
    firsts = np.bincount(orders[:, 0], minlength=6)
    assert ((firsts - 400 / 6) ** 2 / (400 / 6)).sum() < 20.5  # χ² with 5 degrees of freedom, p = 0.001
    assert [v.tolist() for v in visits(task(4, 6), plan)] != orders.tolist()


def test_a_chunk_ends_by_work_by_devices_or_by_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    tasks = [task(device, 10) for device in range(9)]

    def sizes(parameters: int) -> list[int]:
        chunks = list(in_chunks(tasks, PLAN, parameters))
        assert [t for chunk in chunks for t in chunk] == tasks
        return [len(chunk) for chunk in chunks]

    assert sizes(1) == [8, 1]
    monkeypatch.setattr(batches, "CHUNK_SIZES", (1, 2, 3, 4))
    assert sizes(1) == [4, 4, 1]
    monkeypatch.setattr(batches, "CHUNK_WORK", 10 * 2 * 100 * 3)
    assert sizes(100) == [3, 3, 3]
    assert [len(chunk) for chunk in in_chunks(tasks, PLAN, 10, 10)] == [3, 3, 3]
    monkeypatch.setattr(batches, "CHUNK_BYTES", 800)
    assert sizes(100) == [2, 2, 2, 2, 1]
    assert sizes(10**9) == [1] * 9, "a model that fills a chunk by itself still trains"


@given(st.lists(st.integers(1, 400), max_size=600), st.integers(1, 100_000))
def test_cohorts_of_any_size_are_cut_into_few_sizes_of_chunks(counts: list[int], parameters: int) -> None:
    tasks = [task(device, count) for device, count in enumerate(counts)]
    chunks = list(in_chunks(tasks, PLAN, parameters))
    assert [t.device for chunk in chunks for t in chunk] == list(range(len(tasks)))
    assert {len(chunk) for chunk in chunks} <= set(batches.CHUNK_SIZES)
    for chunk in chunks:
        work = sum(len(t.y) for t in chunk) * PLAN.epochs * parameters
        assert work <= batches.CHUNK_WORK or len(chunk) == 1


def test_equal_devices_fill_every_chunk_but_the_last_ones() -> None:
    chunks = [len(chunk) for chunk in in_chunks([task(d, 20) for d in range(965)], PLAN, 10**8 // (20 * 2 * 53))]
    assert chunks == [50] * 19 + [12, 3]
