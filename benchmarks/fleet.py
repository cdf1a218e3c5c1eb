"""A whole round against a hand-written TensorFlow loop: ``python benchmarks/fleet.py --format json``.

A round of ours is training, encoding, checksummed packets, decoding and exact aggregation, as `simulate` plays it, with
evaluation and checkpoints left out because the loop has neither. The loop is one ``tf.function`` call a device, the
model compiled once, TensorFlow's own choice of threads, in a process of its own; the two take turns. A ratio is the
median of our rounds over the median of the loop's, so below 1 is faster than the loop.

``none`` sends raw float32 in both directions, ``default`` what `fl-mobile simulate` sends, ``private`` the same under
central differential privacy (clip, exact sum of whole numbers, noise on every coordinate); ``-2`` is two workers, in
the pool that suits the cell (`IN_PROCESSES`) unless ``--pool`` says otherwise.
"""

from __future__ import annotations

import os

os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")  # before NumPy: as the command line sets it for every worker

import argparse
import json
import multiprocessing
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import numpy as np

SHAPE, CLASSES = (28, 28, 1), 10


@dataclass(frozen=True)
class Workload:
    """Devices × examples, how many a round, batch; layers as `build` reads them."""

    layers: tuple[str | int, ...]
    devices: int
    examples: int
    cohort: int
    batch: int


WORKLOADS = {
    "W1": Workload(("conv32", "pool", "conv64", "pool", "flatten", 128), 100, 600, 10, 32),
    "W2": Workload(("flatten", 200, 200), 1_000, 20, 100, 10),
    "W3": Workload(("flatten",), 10_000, 10, 1_000, 10),
}
CODECS = {
    "none": ("upload.codec=none", "download.mode=full", "download.codec=none"),
    "default": (),
    "private": (
        *("privacy.mode=central", "privacy.noise-multiplier=1.2", "privacy.delta=1e-5", "privacy.clip-norm=0.001"),
        *("privacy.sampling=none-assumed", "privacy.reproducible=true"),
    ),
}
CELLS = {
    "none": ("none", 1),
    "none-2": ("none", 2),
    "default": ("default", 1),
    "default-2": ("default", 2),
    "private": ("private", 1),
    "private-2": ("private", 2),
}
IN_PROCESSES = {("default-2", "W2"), ("default-2", "W3"), ("none-2", "W3"), ("private-2", "W2"), ("private-2", "W3")}
"""Where two threads would wait for Python's lock: many small updates. Large raw packets stay in their process."""

RATE = 0.1


def build(layers: tuple[str | int, ...]) -> Any:
    """Returns the workload's Keras model."""
    import keras

    made: dict[str, Callable[[], Any]] = {
        "conv32": lambda: keras.layers.Conv2D(32, 3, activation="relu"),
        "conv64": lambda: keras.layers.Conv2D(64, 3, activation="relu"),
        "pool": keras.layers.MaxPooling2D,
        "flatten": keras.layers.Flatten,
    }
    keras.utils.set_random_seed(0)
    body = [made[x]() if isinstance(x, str) else keras.layers.Dense(x, activation="relu") for x in layers]
    return keras.Sequential([keras.Input(SHAPE), keras.layers.Rescaling(1 / 255), *body, keras.layers.Dense(CLASSES)])


def examples(work: Workload) -> tuple[np.ndarray, np.ndarray]:
    """Returns made-up pictures and labels of all devices, one device after the other."""
    rng, count = np.random.default_rng(0), work.devices * work.examples
    return rng.integers(0, 256, (count, *SHAPE), np.uint8), rng.integers(0, CLASSES, count)


def loop(work: Workload, pipe: Connection) -> None:
    """Serves the reference: a round's seconds for every message, until None comes."""
    import tensorflow as tf

    x, y = examples(work)
    model = build(work.layers)
    variables, optimizer = model.trainable_variables, __import__("keras").optimizers.SGD(RATE)
    loss_of = tf.keras.losses.SparseCategoricalCrossentropy(from_logits=True)

    @tf.function(input_signature=[tf.TensorSpec((None, *SHAPE), tf.uint8), tf.TensorSpec((None,), tf.int64)])
    def fit(x: Any, y: Any) -> None:
        at = tf.constant(0)
        while at < tf.shape(x)[0]:
            with tf.GradientTape() as tape:
                out = model(tf.cast(x[at : at + work.batch], tf.float32), training=True)
                loss = loss_of(y[at : at + work.batch], out)
            optimizer.apply_gradients(zip(tape.gradient(loss, variables), variables, strict=True))
            at += work.batch

    weights = [v.numpy() for v in variables]
    rng = np.random.default_rng(1)
    while pipe.recv() is not None:
        started = time.perf_counter()
        mean = [np.zeros_like(w) for w in weights]
        for device in rng.choice(work.devices, work.cohort, replace=False):
            for variable, value in zip(variables, weights, strict=True):
                variable.assign(value)
            own = device * work.examples + rng.permutation(work.examples)
            fit(tf.constant(x[own]), tf.constant(y[own]))
            for total, variable in zip(mean, variables, strict=True):
                total += variable.numpy() / work.cohort
        weights = mean
        pipe.send(time.perf_counter() - started)


def rounds(work: Workload, codec: str, workers: int, pool: str) -> Iterator[float]:
    """Yields the seconds of one round of ours after another."""
    from device_sim.client_data.data import DealtData
    from device_sim.datasets.records import Samples, make_dataset
    from device_sim.engines import open_engine
    from device_sim.experiment.toml import parse_experiment
    from device_sim.federation.federation import assemble
    from device_sim.fleet.devices.cost import workload_of
    from device_sim.rounds import SERVERS
    from device_sim.rounds.memory import FleetMemory
    from fl_mobile.storage.shelf import Shelf

    x, y = examples(work)
    shards = tuple(np.split(np.arange(len(y)), work.devices))
    experiment = parse_experiment(
        "",
        [
            *(f"data.devices={work.devices}", f"train.cohort={work.cohort}", f"train.batch-size={work.batch}"),
            *("train.epochs=1", f"train.learning-rate={RATE}", "fleet.dropout-rate=0", "output.keep-updates=0"),
            *("fleet.link=ideal", "fleet.profile=ideal", *CODECS[codec]),
        ],
    )
    make = partial(build, work.layers)
    engine = open_engine("auto", make, x[:8], workers=workers, pool=pool)
    samples = Samples(x, y)
    dataset = make_dataset("made-up", samples, Samples(x[:10], y[:10]), tuple("0123456789"), source="benchmark")
    federation = assemble(experiment, dataset, DealtData(samples, shards), engine, workload_of(make(), SHAPE), make)
    state = federation.algorithm.init(federation.initial, federation.spec)
    with tempfile.TemporaryDirectory() as folder:
        memory = FleetMemory(Shelf(Path(folder)))
        try:
            while True:
                started = time.perf_counter()
                state, report, _ = SERVERS["synchronous"](federation, memory, state, Path(folder))
                seconds = time.perf_counter() - started
                if report.accepted != work.cohort:
                    raise RuntimeError(f"{report.accepted} of {work.cohort} updates were accepted: {report.dropped}")
                yield seconds
        finally:
            engine.close()


def measure(name: str, cell: str, repeats: int, pool: str) -> dict[str, Any]:
    """Returns the ratio of one cell and what it is made of; both sides warm up for two rounds and then take turns."""
    work, (codec, workers) = WORKLOADS[name], CELLS[cell]
    parent, child = multiprocessing.get_context("spawn").Pipe()
    process = multiprocessing.get_context("spawn").Process(target=loop, args=(work, child), daemon=True)
    process.start()
    ours, mine, theirs = rounds(work, codec, workers, pool), [], []
    for turn in range(repeats + 2):
        parent.send("round")
        reference = parent.recv()
        own = next(ours)
        if turn >= 2:
            theirs.append(reference)
            mine.append(own)
    parent.send(None)
    process.join()
    ours.close()  # type: ignore[attr-defined]
    middle = statistics.median(mine), statistics.median(theirs)
    return {"ratio": middle[0] / middle[1], "seconds": middle[0], "loop_seconds": middle[1], "pool": pool}


def main() -> None:
    """Prints ratios, and what they are made of."""
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--format", choices=("text", "json"), default="text")
    options.add_argument("--workloads", nargs="*", choices=WORKLOADS, default=list(WORKLOADS))
    options.add_argument("--cells", nargs="*", choices=CELLS, default=list(CELLS))
    options.add_argument("--pool", choices=("threads", "processes"), help="for all cells")
    options.add_argument("--rounds", type=int, default=7, help="of each side, after two to warm up")
    chosen = options.parse_args()
    cells: dict[str, dict[str, Any]] = {}
    for cell in chosen.cells:
        for name in chosen.workloads:
            pool = chosen.pool or ("processes" if (cell, name) in IN_PROCESSES else "threads")
            found = cells.setdefault(cell, {})[name] = measure(name, cell, chosen.rounds, pool)
            if chosen.format == "text":
                print(
                    f"{cell:10} {name}  {found['ratio']:.2f}×  {found['seconds']:.3f} s / {found['loop_seconds']:.3f} s"
                    f"  {pool}"
                )
    if chosen.format == "json":
        ratios = {cell: {name: found["ratio"] for name, found in row.items()} for cell, row in cells.items()}
        print(json.dumps({"ratios": ratios, "cells": cells}, indent=2))


if __name__ == "__main__":
    main()
