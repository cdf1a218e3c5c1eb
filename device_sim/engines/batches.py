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
"""Example visits × parameters after which a chunk is full: about 30 ms of one core, far above a call's own cost."""

CHUNK_DEVICES = 250
CHUNK_BYTES = 64 * 2**20
"""Bounds of a chunk's updates, so that memory grows with neither the cohort nor the model."""


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


def in_chunks(tasks: Iterable[Task], plan: FitPlan, parameters: int) -> Iterator[list[Task]]:
    """Yields the tasks in order, several to a chunk where they are small."""
    most = max(1, min(CHUNK_DEVICES, CHUNK_BYTES // (4 * parameters)))
    chunk: list[Task] = []
    work = 0
    for task in tasks:
        own = len(task.y) * plan.epochs * parameters
        if chunk and (len(chunk) == most or work + own > CHUNK_WORK):
            yield chunk
            chunk, work = [], 0
        chunk.append(task)
        work += own
    if chunk:
        yield chunk


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
