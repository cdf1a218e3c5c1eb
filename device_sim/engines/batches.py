"""Which devices train together in one call, and which examples each of their steps visits.

Both depend on the tasks alone, never on the number of workers: that is why results do not either.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from device_sim.engines.records import Task
from fl_mobile.records import FitPlan
from fl_mobile.seeds import stream

CHUNK_WORK = 10**8
"""Example visits × parameters × time steps after which a chunk is full: about 30 ms of one core, far above a call's own
cost."""

CHUNK_BYTES = 64 * 2**20
"""Bound of a chunk's updates, so that memory grows with neither the cohort nor the model."""

CHUNK_SIZES = (1, 2, 3, 4, 5, 6, 8, 10, 12, 16, 20, 25, 32, 40, 50, 63, 80, 100, 125, 160, 200, 250)
"""Devices of a chunk, Renard's series R10. TensorFlow keeps what oneDNN makes for every shape of a matrix product, some
2 MB for a small model, so a process that met a new number of devices every round would grow for as long as it runs."""


@dataclass(frozen=True)
class Batches:
    """The steps of a chunk of devices, one device after the other.

    Attributes:
        order: ``int32[visits]``, rows of the chunk's examples laid end to end.
        starts: ``int32[steps + 1]``; step ``s`` visits ``order[starts[s]:starts[s + 1]]``.
        first: ``int32[devices + 1]``; device ``d`` makes steps ``first[d]`` to ``first[d + 1] - 1``.
        share: ``float32[steps]``: each step's part in its device's mean loss over the last epoch, 0 in epochs before.
    """

    order: np.ndarray
    starts: np.ndarray
    first: np.ndarray
    share: np.ndarray


def in_chunks(tasks: Iterable[Task], plan: FitPlan, parameters: int, time_steps: int = 1) -> Iterator[list[Task]]:
    """Yields the tasks in order, several to a chunk where they are small.

    Args:
        tasks: Taken as chunks are asked for.
        plan: How often a device visits its examples.
        parameters: Of the model.
        time_steps: In how many a recurrent model uses them all, see `Model`.
    """
    most = max(1, min(CHUNK_SIZES[-1], CHUNK_BYTES // (4 * parameters)))
    most_examples = CHUNK_WORK // (plan.epochs * parameters * time_steps)
    waiting: list[Task] = []
    examples = 0
    for task in tasks:
        own = len(task.y)
        while waiting and (examples + own > most_examples or len(waiting) == most):
            chunk, waiting = _cut(waiting)
            examples = sum(len(kept.y) for kept in waiting)
            yield chunk
        waiting.append(task)
        examples += own
    while waiting:
        chunk, waiting = _cut(waiting)
        yield chunk


def _cut(tasks: list[Task]) -> tuple[list[Task], list[Task]]:
    """Returns the first tasks, as many as a chunk can have, and the others."""
    size = max(size for size in CHUNK_SIZES if size <= len(tasks))
    return tasks[:size], tasks[size:]


def lay_out(tasks: Sequence[Task], plan: FitPlan) -> Batches:
    """Returns the steps of a chunk; every device must have at least one example."""
    counts = np.array([len(task.y) for task in tasks])
    epochs, devices = plan.epochs, len(tasks)
    length = np.repeat(counts, epochs)  # one segment is one epoch of one device
    begin = np.cumsum(length) - length
    segment = np.repeat(np.arange(devices * epochs), length)
    place = np.arange(length.sum()) - begin[segment]
    if plan.shuffle:
        seeds = np.repeat(np.array([task.seed for task in tasks], np.uint64), epochs)
        place = place[np.lexsort((_keys(seeds[segment], segment % epochs, place), segment))]
    order = (np.cumsum(counts) - counts)[segment // epochs] + place
    batch = np.repeat(counts, epochs) if plan.batch_size == 0 else np.full(len(length), plan.batch_size)
    steps = -(-length // batch)
    of = np.repeat(np.arange(len(length)), steps)
    starts = begin[of] + (np.arange(len(of)) - (np.cumsum(steps) - steps)[of]) * batch[of]
    starts = np.append(starts, length.sum())
    share = np.diff(starts) / length[of] * (of % epochs == epochs - 1)
    first = np.append(0, np.cumsum(steps.reshape(devices, epochs).sum(axis=1)))
    return Batches(order.astype(np.int32), starts.astype(np.int32), first.astype(np.int32), share.astype(np.float32))


def visits(task: Task, plan: FitPlan) -> list[np.ndarray]:
    """Returns the rows of each step of one device in turn: `lay_out` for engines that train one at a time."""
    batches = lay_out([task], plan)
    return np.split(batches.order, batches.starts[1:-1])


def _keys(seeds: np.ndarray, epoch: np.ndarray, place: np.ndarray) -> np.ndarray:
    """Returns one hash an example and epoch; sorting by it shuffles, each device and epoch by itself."""
    return stream(seeds, (epoch.astype(np.uint64) << np.uint64(32)) + place.astype(np.uint64))
