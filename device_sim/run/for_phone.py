"""What an app has to know of a dataset's task: names, vocabulary, channels, and a recording of the test part to replay.

Nothing is asked of devices: names and vocabularies are the dataset's public ones, scaling is what its federated sums
gave, and the recording is put together from held-out windows.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from device_sim.datasets import Dataset
from device_sim.datasets.har import CHANNELS
from export.bundles.phone_task import Moments, PhoneTask, Recording, Replay

REPLAYED_SECONDS, USUAL_HERTZ = 90, 50.0
LEAST_WINDOWS = 3
"""Of each class that is replayed, where there are so many."""


class Sensors(NamedTuple):
    """What recordings of a dataset are of: name and unit of every channel, samples a second."""

    channels: tuple[tuple[str, str], ...]
    hertz: float


SENSORS = {
    "har": Sensors(tuple((name, "g" if name.startswith("acc") else "rad/s") for name in CHANNELS), 50.0),
}


def phone_task(dataset: Dataset, hop: int | None = None) -> PhoneTask:
    """Returns what ``task.json`` says of a model of one input and one output that learns ``dataset``.

    Args:
        hop: Samples between windows of recordings; by default half a window, as where they are cut.
    """
    x, scaling = dataset.test.x, dataset.scaling
    recorded = x.dtype == np.float32 and x.ndim == 3
    following = tells_what_follows(dataset)
    numbers = scaling is not None and len(scaling.target_mean)
    return PhoneTask(
        task=dataset.task,
        names=() if following else dataset.labels,
        vocabulary=dataset.labels if following else (),
        answers_next=following,
        recording=_recording(dataset, hop or max(1, x.shape[1] // 2)) if recorded else None,
        inputs=None if scaling is None else _moments(scaling.mean, scaling.spread),
        columns=dataset.columns,
        outputs=_moments(scaling.target_mean, scaling.target_spread) if scaling is not None and numbers else None,
    )


def tells_what_follows(dataset: Dataset) -> bool:
    """Returns whether targets are the tokens one step on, so that the names of classes are the vocabulary too."""
    x, y = dataset.test.x, dataset.test.y
    if x.dtype != np.int32 or x.shape != y.shape or x.ndim != 2 or not dataset.labels:
        return False
    real = (y[:, :-1] >= 0) & (y[:, 1:] >= 0)  # behind the last real target is padding, which follows nothing
    return bool(real.any() and (y[:, :-1] == x[:, 1:])[real].all() and x.max() < len(dataset.labels))


def _moments(mean: np.ndarray, spread: np.ndarray) -> Moments:
    return Moments(tuple(map(float, mean)), tuple(map(float, spread)))


def _recording(dataset: Dataset, hop: int) -> Recording:
    known = SENSORS.get(dataset.name)
    hertz = None if known is None else known.hertz
    shown = None
    if dataset.test.y.ndim == 1 and dataset.test.y.dtype == np.int64:
        shown = replay_of(dataset.test.x, dataset.test.y, hop, round(REPLAYED_SECONDS * (hertz or USUAL_HERTZ)))
    return Recording(hop=hop, hertz=hertz, channels=() if known is None else known.channels, replay=shown)


def replay_of(x: np.ndarray, y: np.ndarray, hop: int, samples: int) -> Replay:
    """Returns a recording of every class by turns, put together from windows.

    Windows that go on where the one before them ends are laid end to end; of each class the longest such stretches are
    taken until it has its share.

    Args:
        x: Windows ``float32[n, window, channels]``.
        y: Their classes.
        hop: Samples between windows of a stretch.
        samples: At most about so many.
    """
    window = x.shape[1]
    follows = np.zeros(len(x), bool)  # where windows do not overlap, nothing says that one follows the other
    if hop < window:
        follows[1:] = (y[1:] == y[:-1]) & (x[1:, : window - hop] == x[:-1, hop:]).all(axis=(1, 2))
    starts = np.flatnonzero(~follows)
    lengths = np.diff(starts, append=len(x))
    classes = np.unique(y)
    most = max(LEAST_WINDOWS, (samples // len(classes) - window) // hop + 1)
    chosen = []
    for number in classes:
        own = np.flatnonzero(y[starts] == number)
        left = most
        for stretch in own[np.argsort(-lengths[own], kind="stable")]:
            first = starts[stretch]
            part = x[first : first + min(lengths[stretch], left)]
            chosen.append((number, np.concatenate([*part[:-1, :hop], part[-1]])))
            left -= len(part)
            if left <= 0:
                break
    ends = np.cumsum([len(signal) for _, signal in chosen])
    return Replay(
        signal=np.concatenate([signal for _, signal in chosen]).astype(np.float32),
        truth=np.concatenate([np.full(len(signal), number, np.int32) for number, signal in chosen]),
        cuts=ends[:-1].astype(np.int32),
    )
