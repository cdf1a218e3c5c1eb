"""Bundles of other tasks than pictures, from models whose weights are set by hand."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from export.bundles.phone_task import Moments, PhoneTask, Recording, Replay

TOKENS = ("<other>", "\\n", " ", *"abcdefgh")
WORDS = ("<other>", "the", "sea", "wind", "ship", "don't", ".", "café", "7", "sailor", "home")
STEPS = 8
ACTIVITIES = ("rest", "shake")
WINDOW, HOP = 16, 8
CHANNELS = (("acc-x", "g"), ("gyro-x", "rad/s"))


def keyboard_task(**changes: Any) -> PhoneTask:
    """Returns what is told of the alphabet's model."""
    return PhoneTask(**{"task": "sequence", "vocabulary": TOKENS, "answers_next": True, **changes})


def alphabet_bundle(out: Path, recipes: tuple[str, ...] = ("float32",), *, tokens: tuple[str, ...] = TOKENS) -> Path:
    """Every token is followed by the next of the list, less surely by those after that; the last by the third."""
    import keras

    from export import export_model
    from export.verify.by_task import TaskTargets

    layers, count = keras.layers, len(tokens)
    following = sum(weight * np.roll(np.eye(count), step, axis=1) for step, weight in ((1, 8.0), (2, 5.0), (3, 3.0)))
    following[-1] = 8.0 * np.eye(count)[2] + 3.0 * np.eye(count)[3]
    model = keras.Sequential(
        [layers.Input((STEPS,), dtype="int32", name="tokens"), layers.Embedding(count, count), layers.Softmax()],
        name="alphabet",
    )
    model.layers[0].set_weights([following.astype(np.float32)])
    x = np.random.default_rng(0).integers(1, count, (40, STEPS)).astype(np.int32)
    y = np.where(x == count - 1, 2, x + 1).astype(np.int64)
    y[:, -1] = -1
    export_model(
        model,
        out,
        recipes=recipes,
        labels=None,
        representative=x[:10],
        x_test=x[10:],
        y_test=None,
        told=TaskTargets("sequence", y[10:]),
        phone=keyboard_task(vocabulary=tokens),
    )
    return out


def shaken(count: int) -> tuple[np.ndarray, np.ndarray]:
    """Returns ``float32[count, WINDOW, 2]`` windows that rest or are shaken by turns, and which of the two."""
    rng = np.random.default_rng(1)
    classes = np.arange(count) % 2
    windows = rng.normal(0, 0.1, (count, WINDOW, 2)).astype(np.float32)
    windows[:, :, 0] += classes[:, None]
    return windows, classes.astype(np.int64)


def sensor_task(**changes: Any) -> PhoneTask:
    """Returns what is told of `sensor_bundle`, with a recording of both classes."""
    windows, classes = shaken(8)
    shown = Replay(
        windows.reshape(-1, 2), classes.repeat(WINDOW).astype(np.int32), WINDOW * np.arange(1, 8, dtype=np.int32)
    )
    recording = Recording(HOP, 20.0, CHANNELS, shown)
    return PhoneTask(**{"task": "classification", "names": ACTIVITIES, "recording": recording, **changes})


COLUMNS, NUMBERS = ("pulse", "weight"), ("progression", "dose")


def clinic_bundle(out: Path, recipes: tuple[str, ...] = ("float32",)) -> Path:
    """Two numbers from two features of a table: pulse + 2 weight, and half the pulse."""
    import keras

    from export import export_model
    from export.verify.by_task import TaskTargets

    layers, rng = keras.layers, np.random.default_rng(2)
    model = keras.Sequential([layers.Input((2,), name="features"), layers.Dense(2)], name="clinic")
    kernel = np.float32([[1, 0.5], [2, 0]])
    model.layers[-1].set_weights([kernel, np.zeros(2, np.float32)])
    x = (rng.normal(size=(60, 2)) * (5, 8) + (60, 70)).astype(np.float32)
    y = x @ kernel
    export_model(
        model,
        out,
        recipes=recipes,
        labels=None,
        representative=x[:20],
        x_test=x[20:],
        y_test=None,
        told=TaskTargets("regression", y[20:]),
        phone=PhoneTask(
            "regression",
            names=NUMBERS,
            columns=COLUMNS,
            inputs=Moments((60.0, 70.0), (5.0, 8.0)),
            outputs=Moments((200.0, 30.0), (17.0, 2.5)),
        ),
    )
    return out


def sensor_bundle(out: Path, recipes: tuple[str, ...] = ("float32",)) -> Path:
    """The class is whether the mean of the first channel is above a half."""
    import keras

    from export import export_model

    layers = keras.layers
    model = keras.Sequential(
        [layers.Input((WINDOW, 2), name="window"), layers.GlobalAveragePooling1D(), layers.Dense(2)], name="shaking"
    )
    model.layers[-1].set_weights([np.float32([[-6, 6], [0, 0]]), np.float32([3, -3])])
    x, y = shaken(60)
    export_model(
        model,
        out,
        recipes=recipes,
        labels=ACTIVITIES,
        representative=x[:20],
        x_test=x[20:],
        y_test=y[20:],
        phone=sensor_task(),
    )
    return out
