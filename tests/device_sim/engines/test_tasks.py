"""Every task trains alike on every engine that takes its model, and is scored alike, whole or in parts."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import pytest

from device_sim.engines import Task, open_engine, train_each
from device_sim.engines.records import evaluation_of_all
from fl_mobile.models.ends import Port, with_joined_ends
from fl_mobile.records import FitPlan
from fl_mobile.tasks import TASKS, Head, measured, multi_head, task_row
from fl_mobile.tasks.heads import joined

pytestmark = pytest.mark.tf
TOKENS, STEPS, PIXELS = 11, 7, 4


def dense(outputs: int) -> Any:
    import keras

    keras.utils.set_random_seed(0)
    inputs = keras.Input((6,))
    return keras.Model(inputs, keras.layers.Dense(outputs)(keras.layers.Dense(8, "relu")(inputs)))


def recurrent() -> Any:
    import keras

    keras.utils.set_random_seed(0)
    inputs = keras.Input((STEPS,), dtype="int32")
    x = keras.layers.GRU(6, return_sequences=True)(keras.layers.Embedding(TOKENS, 4)(inputs))
    return keras.Model(inputs, keras.layers.Dense(TOKENS)(x))


def pixelwise() -> Any:
    import keras

    keras.utils.set_random_seed(0)
    inputs = keras.Input((PIXELS, PIXELS, 1))
    x = keras.layers.Conv2D(4, 3, padding="same", activation="relu")(keras.layers.Rescaling(1 / 255)(inputs))
    return keras.Model(inputs, keras.layers.Conv2D(3, 1)(x))


def narrow() -> Any:
    import keras

    keras.utils.set_random_seed(0)
    inputs = keras.Input((PIXELS, PIXELS, 1))
    x = keras.layers.Dense(3, "relu")(keras.layers.Flatten()(keras.layers.Rescaling(1 / 255)(inputs)))
    return keras.Model(inputs, keras.layers.Reshape((PIXELS, PIXELS, 1))(keras.layers.Dense(PIXELS**2)(x)))


def examples(task: str, count: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    if task == SEVERAL:
        return of_several(count, seed)
    rng = np.random.default_rng(seed)
    if task == "sequence":
        return rng.integers(0, TOKENS, (count, STEPS), np.int32), rng.integers(-1, TOKENS, (count, STEPS))
    if task in ("segmentation", "reconstruction"):
        x = rng.integers(0, 256, (count, PIXELS, PIXELS, 1)).astype(np.uint8)
        return x, rng.integers(-1, 3, x.shape[:3]) if task == "segmentation" else x.astype(np.float32) / 255
    x = rng.standard_normal((count, 6)).astype(np.float32)
    if task == "classification":
        return x, rng.integers(0, 3, count)
    y = rng.integers(0, 2, (count, 3)) if task == "multi-label" else rng.standard_normal((count, 2))
    return x, y.astype(np.float32)


SEVERAL = multi_head([
    Head("mood", "classification", (), (3,), "sparse-categorical-crossentropy"),
    Head("sick", "classification", (), (1,), "binary-crossentropy", 0.5),
    Head("tags", "multi-label", (2,), (2,), "binary-crossentropy"),
    Head("next", "sequence", (2,), (2, 3), "sparse-categorical-crossentropy", 2.0),
    Head("pain", "regression", (1,), (1,), "mse"),
])  # fmt: skip
PORTS = (Port("vitals", (4,), "float32"), Port("words", (2,), "int32"))


def several() -> Any:
    """Two inputs and five heads, some of which end in probabilities."""
    import keras

    layers = keras.layers

    def author() -> Any:
        vitals, words = keras.Input((4,), name="vitals"), keras.Input((2,), dtype="int32", name="words")
        x = layers.Dense(8, "relu")(layers.Concatenate()([vitals, words]))
        steps = layers.Reshape((2, 3))(layers.Dense(6)(x))
        heads = {"mood": layers.Dense(3, "softmax")(x), "sick": layers.Dense(1, "sigmoid")(x), "next": steps}
        return keras.Model([vitals, words], {**heads, "tags": layers.Dense(2)(x), "pain": layers.Dense(1)(x)})

    keras.utils.set_random_seed(0)
    return with_joined_ends(author, PORTS, SEVERAL)


def of_several(count: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    x = {"vitals": rng.standard_normal((count, 4)), "words": rng.integers(0, 2, (count, 2))}
    drawn = {"mood": (3, ()), "sick": (2, ()), "tags": (2, (2,))}
    y: dict[str, np.ndarray] = {name: rng.integers(0, k, (count, *shape)) for name, (k, shape) in drawn.items()}
    y |= {"next": rng.integers(-1, 3, (count, 2)), "pain": rng.standard_normal((count, 1))}
    return joined(x), joined(y)


BUILDS: dict[str, Callable[[], Any]] = {
    "multi-label": partial(dense, 3),
    "sequence": recurrent,
    "segmentation": pixelwise,
    "regression": partial(dense, 2),
    "reconstruction": narrow,
    SEVERAL: several,
}
VECTORIZED = ("multi-label", "regression", "reconstruction")
PROGRAM = [
    pytest.param(task, "litert", marks=[pytest.mark.slow] if task in ("sequence", "reconstruction", SEVERAL) else [])
    for task in BUILDS
]  # conversion and proof of a recurrent program take 20 s
SLOW = [pytest.param(SEVERAL, "vectorized", marks=pytest.mark.slow)]  # five heads compile for 10 s


def played(task: str, engine: str, **change: Any) -> tuple[list[np.ndarray], list[Any], list[float]]:
    """Returns updates, evaluations and training losses of three devices of different sizes."""
    devices = [Task(d, *examples(task, 5 + d, d), d) for d in range(3)]
    plan = FitPlan(epochs=2, batch_size=4, learning_rate=0.1, task=task, loss=task_row(task).losses[0], **change)
    opened = open_engine(engine, BUILDS.get(task, partial(dense, 3)), devices[0].x[:2], plan=plan, workers=1)
    try:
        plan = FitPlan(**{**vars(plan), "from_logits": opened.from_logits})
        made = [update for _, update in train_each(opened, opened.initial, devices, plan)]
        scores = list(opened.evaluate_each(opened.initial, devices, plan))
        whole = [np.concatenate([getattr(d, key) for d in devices]) for key in "xy"]
        together = opened.evaluate(opened.initial, *whole, plan)
        added = measured(task, evaluation_of_all(plan, scores).tally)
        assert measured(task, together.tally) == pytest.approx(added, rel=1e-6)
        deltas = [np.concatenate([np.ravel(v) for v in update.delta.values()]) for update in made]
        return deltas, scores, [update.loss for update in made]
    finally:
        opened.close()


def test_every_task_is_tried() -> None:
    assert {*BUILDS, "classification"} == {*TASKS, SEVERAL}


@pytest.mark.parametrize(("task", "engine"), [*((task, "vectorized") for task in VECTORIZED), *PROGRAM, *SLOW])
def test_engines_agree_on_every_task(task: str, engine: str) -> None:
    check_alike(played(task, "keras"), played(task, engine))


@pytest.mark.parametrize("engine", ["vectorized", "litert"])
def test_engines_weigh_and_smooth_alike(engine: str) -> None:
    change: dict[str, Any] = {"class_weights": (0.5, 1.0, 4.0), "label_smoothing": 0.1}
    want = played("classification", "keras", **change)
    check_alike(want, played("classification", engine, **change))
    assert want[2] != pytest.approx(played("classification", "keras")[2], rel=1e-2), "it makes a difference"


@pytest.mark.slow
@pytest.mark.parametrize("engine", ["vectorized", "litert"])
def test_engines_weigh_classes_of_heads_alike(engine: str) -> None:
    change: dict[str, Any] = {"class_weights": (0.5, 1.0, 4.0, 3.0, 0.2, 1.0, 2.0, 0.0)}
    want = played(SEVERAL, "keras", **change)
    check_alike(want, played(SEVERAL, engine, **change))
    assert want[2] != pytest.approx(played(SEVERAL, "keras")[2], rel=1e-2), "it makes a difference"


def check_alike(want: tuple[Any, ...], got: tuple[Any, ...]) -> None:
    for mine, theirs in zip(got[0], want[0], strict=True):
        np.testing.assert_allclose(mine, theirs, atol=2e-5)
    assert got[2] == pytest.approx(want[2], rel=1e-4)
    for mine, theirs in zip(got[1], want[1], strict=True):
        assert (mine.accuracy, mine.loss) == pytest.approx((theirs.accuracy, theirs.loss), rel=1e-4)
        assert mine.tally.keys() == theirs.tally.keys()
        for name, counted in mine.tally.items():
            np.testing.assert_allclose(counted, theirs.tally[name], rtol=1e-4, atol=1e-5)
