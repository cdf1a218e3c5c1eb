"""Which chunk a free worker takes, and how much is known ahead."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from threading import Event

import numpy as np
import pytest

from device_sim.engines.pools import pooled
from device_sim.engines.pools.pooled import LocalWorker, PooledEngine
from device_sim.engines.records import Task
from fl_mobile.records import FitPlan, Update
from fl_mobile.tensors import Tensors
from tests.crossings.numpy_mlp import NumpyMlp

PLAN = FitPlan(epochs=1, batch_size=32, learning_rate=0.1, shuffle=False)
SIZES = (500, 700, 600, 900, 800, 700)


class Waiting(NumpyMlp):
    """Trains nothing: tells the sizes of tasks in the order in which they begin, once it may begin."""

    def __init__(self, may_begin: Event) -> None:
        super().__init__(100, [1000], 10)  # so large that a task of 500 examples is a chunk
        self.begun: list[int] = []
        self.may_begin = may_begin

    def train(self, weights: Tensors, tasks: Sequence[Task], plan: FitPlan) -> list[Update]:
        assert self.may_begin.wait(20)
        self.begun += [len(task.y) for task in tasks]
        if self.begun[-1] == 13:
            raise ValueError("thirteen")
        return []


def sizes_of(tasks: Sequence[Task], updates: Sequence[Update]) -> list[int]:
    return [len(task.y) for task in tasks]


def tasks_of(sizes: Sequence[int], taken: list[int], at_end: Event) -> Iterator[Task]:
    for size in sizes:
        taken.append(size)
        yield Task(0, np.zeros((size, 100), np.float32), np.zeros(size, np.int64), 0)
    at_end.set()


def test_the_longest_that_is_known_begins_first_and_results_come_in_order() -> None:
    event = Event()
    trainer = Waiting(event)
    engine = PooledEngine([LocalWorker(trainer)])
    got = list(engine.train(trainer.initial, tasks_of(SIZES, [], event), PLAN, sizes_of))
    engine.close()
    assert got == [[size] for size in SIZES]
    assert trainer.begun[0] == SIZES[0]
    assert trainer.begun[1:] == sorted(SIZES[1:], reverse=True)


def test_large_chunks_are_not_taken_far_ahead(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pooled, "AHEAD_BYTES", 2**20)  # two updates and a half
    event, taken = Event(), list[int]()
    event.set()
    trainer = Waiting(event)
    engine = PooledEngine([LocalWorker(trainer)])
    results = engine.train(trainer.initial, tasks_of(SIZES * 10, taken, event), PLAN, sizes_of)
    assert next(results) == [SIZES[0]]
    assert len(taken) <= 4
    assert len(list(results)) == len(SIZES) * 10 - 1
    engine.close()


def test_an_error_is_raised_where_the_result_is_taken() -> None:
    event = Event()
    trainer = Waiting(event)
    engine = PooledEngine([LocalWorker(trainer)])
    results = engine.train(trainer.initial, tasks_of((*SIZES, 13), [], event), PLAN, sizes_of)
    assert [next(results) for _ in SIZES[:-1]] == [[size] for size in SIZES[:-1]]
    with pytest.raises(ValueError, match="thirteen"):
        next(results)  # 700 and 13 are one chunk
    engine.close()
