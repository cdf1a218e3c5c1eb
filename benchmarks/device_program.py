"""The device program against TensorFlow: issue 4's table, ratios from alternating runs on one core.

    python benchmarks/device_program.py [--format json] [--rounds 10] [--model NAME ...] [--no-drift]

Step times alternate TensorFlow, LiteRT, TensorFlow, … so that a busy machine slows both; quote the ratio. Memory and
start are measured in a process that holds no TensorFlow.
"""

from __future__ import annotations

import argparse
import json
import os
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import numpy as np

from export.training.apart import write_program
from export.training.program import TrainingProgram, build_training_program
from export.training.report import report_on
from export.training.session import TrainingSession, open_session
from fl_mobile.models import MODELS, build_model, keras_bridge
from fl_mobile.models.heads import head_of
from fl_mobile.tasks.table import CLASSES, task_row

BATCHES = {"smart-camera-cnn": 32, "mobilenet-v2-0.35": 16}
TABLE = ("smart-camera-cnn", "mobilenet-v2-0.35")
TARGETS = {
    "smart-camera-cnn": 1.5,
    "mobilenet-v2-0.35": 1.2,
    **dict.fromkeys(("char-gru", "har-cnn", "tabular-mlp"), 1.5),
}
DRIFT_STEPS, DRIFT_SEEDS, CORNER = 100, 3, 2e-6
CROSS_ENTROPY = "sparse-categorical-crossentropy"


def build(name: str) -> Any:
    """Returns a row of the model table with seeded weights."""
    row = MODELS[name]
    return build_model(
        name,
        input_shape=row.input_shape,
        num_classes=row.num_classes,
        input_scale=row.input_scale,
        seed=0,
        weights="none",
    )


def batch_of(name: str, model: Any, size: int) -> tuple[np.ndarray, np.ndarray]:
    """Returns random examples in the model's range, and targets of its task."""
    row, rng = MODELS[name], np.random.default_rng(0)
    shape, answer = (size, *model.inputs[0].shape[1:]), (size, *model.outputs[0].shape[1:])
    if row.input_dtype == "int32":
        x = rng.integers(0, 1000 if row.task == "classification" else row.num_classes, shape).astype(np.float32)
    elif row.input_scale == 1:
        x = rng.normal(size=shape).astype(np.float32)
    else:
        x = rng.integers(0, 256, shape).astype(np.float32)
    if task_row(row.task).kind == CLASSES:
        return x, rng.integers(0, answer[-1], answer[:-1])
    return x, rng.normal(size=answer).astype(np.float32)


def loss_of_task(name: str) -> str:
    """Returns the loss that both sides train with."""
    return task_row(MODELS[name].task).losses[0] if MODELS[name].task != "classification" else CROSS_ENTROPY


def tensorflow_step(name: str, model: Any, x: np.ndarray, y: np.ndarray, rate: float) -> Callable[[], float]:
    """Returns Keras' own compiled training step over one batch."""
    import keras
    import tensorflow as tf

    optimizer = keras.optimizers.SGD(rate)
    optimizer.build(model.trainable_variables)
    probabilities = head_of(model, x[:2]) != "logits"
    losses = {
        CROSS_ENTROPY: keras.losses.SparseCategoricalCrossentropy(from_logits=not probabilities),
        "binary-crossentropy": keras.losses.BinaryCrossentropy(from_logits=not probabilities),
        "mse": keras.losses.MeanSquaredError(),
    }
    loss_of = losses[loss_of_task(name)]

    @tf.function
    def step(examples: Any, labels: Any) -> Any:
        with tf.GradientTape() as tape:
            loss = loss_of(labels, model(examples, training=True))
        gradients = tape.gradient(loss, [v.value for v in model.trainable_variables])
        optimizer.apply(gradients, model.trainable_variables)
        return loss

    fixed = tf.constant(x), tf.constant(y)
    return lambda: float(step(*fixed))


def started(model: Any, made: TrainingProgram) -> TrainingSession:
    """Returns a session that holds the model's weights."""
    session = open_session(made.tflite, made.contract, threads=1)
    session.set_weights(keras_bridge.read(model))
    return session


def alternate(runs: dict[str, Callable[[], Any]], rounds: int, repeat: int) -> dict[str, dict[str, float]]:
    """Returns milliseconds a call, best and median over ``rounds`` turns."""
    for run in runs.values():
        run(), run()
    times: dict[str, list[float]] = {name: [] for name in runs}
    for _ in range(rounds):
        for name, run in runs.items():
            start = time.perf_counter()
            for _ in range(repeat):
                run()
            times[name].append((time.perf_counter() - start) / repeat * 1e3)
    return {name: {"best": min(t), "median": float(np.median(t))} for name, t in times.items()}


def step_ratio(name: str, rounds: int) -> dict[str, Any]:
    """Returns step times of both and the program's report."""
    model, size = build(name), BATCHES.get(name, 32)
    x, y = batch_of(name, model, size)
    probabilities = head_of(model, x[:2]) != "logits"
    made = build_training_program(
        model,
        batch_size=size,
        loss=loss_of_task(name),
        task=MODELS[name].task,
        from_logits=not probabilities,
        input_dtype=MODELS[name].input_dtype,
    )
    session = started(model, made)
    repeat = 1 if name.startswith("mobilenet") else 5
    runs = {
        "tensorflow": tensorflow_step(name, model, x, y, 1e-3),
        "litert": lambda: session.train(x, y, learning_rate=1e-3),
    }
    times = alternate(runs, rounds, repeat)
    with tempfile.TemporaryDirectory() as folder:
        write_program(Path(folder), made.tflite, made.contract)
        report = report_on(Path(folder), made.tflite, made.contract, steps=10)
    return {
        "model": name,
        "batch": size,
        "ms": times,
        "ratio_best": times["litert"]["best"] / times["tensorflow"]["best"],
        "ratio_median": times["litert"]["median"] / times["tensorflow"]["median"],
        "ratio_target": TARGETS.get(name),
        "program": report.to_json(),
    }


def drift() -> dict[str, Any]:
    """Returns the weight difference after 100 steps of the CNN on the same batches; dropout off in both.

    Of several seeds: in some an activation lies within rounding of ReLU's zero, or two in a pool are equal but for
    rounding, and one gradient goes another way.
    """
    runs = [drift_of(seed) for seed in range(DRIFT_SEEDS)]
    steps = [value for _, singles in runs for value in singles]
    return {
        "steps": DRIFT_STEPS,
        "max_abs_weight_difference": [worst for worst, _ in runs],
        "one_step_from_equal_weights": {
            "median": float(np.median(steps)),
            "largest_but_for_corners": max(value for value in steps if value < CORNER),
            "share_of_corners": float(np.mean([value >= CORNER for value in steps])),
        },
        "target": 1e-4,
    }


def drift_of(seed: int) -> tuple[float, list[float]]:
    """Returns the largest weight difference after all steps of one seed, and after each from equal weights."""
    import keras
    import tensorflow as tf

    model = build("smart-camera-cnn")
    for layer in model._flatten_layers():
        if type(layer).__name__ == "Dropout":
            layer.rate = 0.0
    made = build_training_program(model, batch_size=32)
    session, fresh, rng = started(model, made), started(model, made), np.random.default_rng(seed)

    def apart(other: TrainingSession) -> float:
        here, there = keras_bridge.read(model), other.get_weights()
        return max(float(np.abs(here[p] - there[p]).max()) for p in here)

    singles = []
    optimizer = keras.optimizers.SGD(0.05)
    optimizer.build(model.trainable_variables)

    @tf.function
    def step(x: Any, y: Any) -> None:
        with tf.GradientTape() as tape:
            loss = tf.reduce_mean(keras.losses.sparse_categorical_crossentropy(y, model(x, training=True), True))
        gradients = tape.gradient(loss, [v.value for v in model.trainable_variables])
        optimizer.apply(gradients, model.trainable_variables)

    # Ten noisy prototypes: learnable, so that weights really move.
    prototypes = rng.integers(0, 256, (10, *model.inputs[0].shape[1:]))
    for _ in range(DRIFT_STEPS):
        y = rng.integers(0, 10, 32)
        x = np.clip(prototypes[y] + rng.normal(0, 40, (32, *prototypes.shape[1:])), 0, 255).astype(np.float32)
        fresh.set_weights(keras_bridge.read(model))
        step(tf.constant(x), tf.constant(y))
        for one in (session, fresh):
            one.train(x, y, learning_rate=0.05)
        singles.append(apart(fresh))
    return apart(session), singles


def main() -> None:
    """Prints the table or JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--format", choices=("text", "json"), default="text")
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument("--model", action="append", choices=sorted(MODELS), help="default: the two of the table")
    parser.add_argument("--no-drift", action="store_true", help="only steps")
    options = parser.parse_args()

    import tensorflow as tf

    tf.config.threading.set_intra_op_parallelism_threads(1)
    tf.config.threading.set_inter_op_parallelism_threads(1)
    result = {"steps": [step_ratio(name, options.rounds) for name in options.model or TABLE]}
    if not options.no_drift:
        result["drift"] = drift()
    if options.format == "json":
        print(json.dumps(result, indent=2))
        return
    for row in result["steps"]:
        measured = row["program"]["measured"]
        target = f" (reach ≤ {row['ratio_target']})" if row["ratio_target"] else ""
        print(f"{row['model']}, batch {row['batch']}: LiteRT / TensorFlow = {row['ratio_median']:.2f}{target}")
        print(f"  extra worker {measured['extra_worker_bytes'] / 1e6:.1f} MB (reach ≤ 40 for the CNN)")
        print(f"  start to first step {measured['first_step_seconds']:.3f} s (reach ≤ 0.3 for the CNN)")
        print(
            f"  {row['program']['mflops_per_example']:.1f} MFLOP an example, file {row['program']['file_bytes']} bytes"
        )
    if options.no_drift:
        return
    drifted = result["drift"]
    single = drifted["one_step_from_equal_weights"]
    worst = ", ".join(f"{value:.1g}" for value in drifted["max_abs_weight_difference"])
    print(f"drift after {drifted['steps']} steps: {worst} (reach ≤ 1e-4)")
    print(
        f"  one step from equal weights: median {single['median']:.1g}, at most {single['largest_but_for_corners']:.1g}"
        f" but for {single['share_of_corners']:.1%} of the steps, where an activation is on a corner"
    )


if __name__ == "__main__":
    main()
