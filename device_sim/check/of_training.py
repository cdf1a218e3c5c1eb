"""What local optimizers, losses and models promise."""

from __future__ import annotations

from typing import Any

import numpy as np

from device_sim.check.law import SEED, ask


def optimizer_is_keras(row: Any, name: str) -> None:
    import keras
    import tensorflow as tf

    rng = np.random.default_rng(SEED)
    variable = keras.Variable(rng.standard_normal((4, 3)), dtype="float32")
    theirs, w = row.keras(0.05, 0.8), tf.convert_to_tensor(variable)
    slots = [tf.zeros_like(w) for _ in row.slots]
    for done in range(5):
        g = tf.constant(rng.standard_normal((4, 3)), tf.float32)
        theirs.apply([g], [variable])
        w, slots = row.step(w, g, slots, tf.constant(0.05), tf.constant(float(done)), 0.8)
        ask(len(slots) == len(row.slots), f"step gives {len(slots)} slots, the row names {len(row.slots)}")
    far = float(np.abs(w.numpy() - variable.numpy()).max())
    ask(far < 1e-5, f"after five steps it is {far:.3g} from {type(theirs).__name__} of its row")


def optimizer_counts(row: Any, name: str) -> None:
    ask(row.sgd_steps(1, 0.9) == 1, f"one step carries {row.sgd_steps(1, 0.9)} steps of SGD, expected 1")


def _examples(row: Any) -> tuple[Any, Any]:
    rng = np.random.default_rng(SEED)
    classes = rng.integers(0, 3, 8)
    if row.sparse:
        return classes, rng.standard_normal((8, 3)).astype(np.float32)
    width = 3 if row.one_per_class else 1
    truth = np.eye(3, dtype=np.float32)[classes] if width == 3 else (classes[:, None] > 0).astype(np.float32)
    return truth, rng.standard_normal((8, width)).astype(np.float32)


def loss_each(row: Any, name: str) -> None:
    import tensorflow as tf

    y, out = _examples(row)
    found = np.asarray(row.per_example(tf.constant(y), tf.constant(out), True, 0.0))
    ask(found.shape == (8,), f"expected a loss for each of 8 examples, got shape {found.shape}")
    ask(np.isfinite(found).all(), "the loss is not finite")


def loss_falls(row: Any, name: str) -> None:
    import tensorflow as tf

    y, out = _examples(row)
    variable = tf.Variable(out)
    losses = []
    for _ in range(50):
        with tf.GradientTape() as tape:
            loss = tf.reduce_mean(row.per_example(tf.constant(y), variable, True, 0.0))
        gradient = tape.gradient(loss, variable)
        ask(gradient is not None, "no gradient reaches the outputs")
        variable.assign_sub(0.1 * tf.convert_to_tensor(gradient))
        losses.append(float(loss))
    ask(losses[-1] < losses[0], f"50 steps down its gradient took it from {losses[0]:g} to {losses[-1]:g}")


def model_repeats(row: Any, name: str) -> None:
    from fl_mobile.models.build import build_model

    given: dict[str, Any] = {"input_shape": (28, 28, 1), "num_classes": 10, "input_scale": 1 / 255, "seed": 0}
    one, other = (build_model(name, **given).get_weights() for _ in range(2))
    ask(all(np.array_equal(a, b) for a, b in zip(one, other, strict=True)), "built twice, it has other weights")
