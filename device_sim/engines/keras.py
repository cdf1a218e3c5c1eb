"""Local training on Keras: one model and one compiled graph per worker, reused for every device.

A device's whole round — epochs, batches, optimizer — is a loop *inside* one ``tf.function`` call, so nothing is
dispatched per step. Every worker computes on one thread: results do not depend on how many workers there are.
"""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from queue import SimpleQueue
from typing import Any

import numpy as np

from device_sim.engines import Evaluation, Task, in_task_order
from fl_mobile import keras_bridge
from fl_mobile.errors import ModelError
from fl_mobile.records import FitPlan, Update
from fl_mobile.seeds import rng_for, seed_for
from fl_mobile.tensors import Tensors

EVALUATE_BATCH = 250


class KerasEngine:
    """`Engine` over ``workers`` threads; 0 means one per core.

    Args:
        build: Returns a new, built model; called once per worker.
        workers: Number of threads.
        probe: A few examples, to find out whether the model gives logits or probabilities.
    """

    def __init__(self, build: Callable[[], Any], workers: int = 0, *, probe: np.ndarray) -> None:
        count = workers or os.cpu_count() or 1
        _one_thread_per_op()
        # Models are built one after another: Keras' naming is global, and only the first one's paths are used.
        built = [_Worker(build()) for _ in range(count)]
        self.spec, self.initial = keras_bridge.spec_of(built[0].model), keras_bridge.read(built[0].model)
        self.from_logits = not keras_bridge.gives_probabilities(built[0].model, probe)
        self._workers: SimpleQueue[_Worker] = SimpleQueue()
        for worker in built:
            worker.check_like(built[0])
            self._workers.put(worker)
        self._threads = ThreadPoolExecutor(count, thread_name_prefix="keras-engine")
        self._ahead = 2 * count

    def train(self, weights: Tensors, tasks: Iterable[Task], plan: FitPlan) -> Iterator[tuple[Task, Update]]:
        """Yields every task with its update, in task order."""
        yield from in_task_order(lambda task: self._threads.submit(self._fit, weights, task, plan), tasks, self._ahead)

    def evaluate(self, weights: Tensors, x: np.ndarray, y: np.ndarray, plan: FitPlan) -> Evaluation:
        """Returns accuracy and mean loss."""
        cuts = range(0, len(y), EVALUATE_BATCH)
        parts = [(x[at : at + EVALUATE_BATCH], y[at : at + EVALUATE_BATCH]) for at in cuts]
        futures = [self._threads.submit(self._score, weights, *part, plan) for part in parts]
        scores = [future.result() for future in futures]
        right, loss = sum(s[0] for s in scores), math.fsum(s[1] for s in scores)
        return Evaluation(right / len(y), loss / len(y), len(y))

    def close(self) -> None:
        """Ends the threads."""
        self._threads.shutdown(cancel_futures=True)

    def _fit(self, weights: Tensors, task: Task, plan: FitPlan) -> Update:
        worker = self._workers.get()
        try:
            return worker.fit(weights, task, plan)
        finally:
            self._workers.put(worker)

    def _score(self, weights: Tensors, x: np.ndarray, y: np.ndarray, plan: FitPlan) -> tuple[int, float]:
        worker = self._workers.get()
        try:
            return worker.score(weights, x, y, plan)
        finally:
            self._workers.put(worker)


def _one_thread_per_op() -> None:
    """Makes TensorFlow reproducible: one thread inside each op, kernels that do not race."""
    import tensorflow as tf

    try:
        tf.config.threading.set_intra_op_parallelism_threads(1)
    except RuntimeError:  # TensorFlow has started already, e.g. in a notebook
        chosen = tf.config.threading.get_intra_op_parallelism_threads() or os.environ.get("TF_NUM_INTRAOP_THREADS")
        if str(chosen) != "1":
            raise ModelError(
                "TensorFlow was used in this process before the keras engine was made, with several threads per op, so"
                " results would depend on the machine. Make the engine first, or set TF_NUM_INTRAOP_THREADS=1 in the"
                " environment of your program."
            ) from None
    tf.config.experimental.enable_op_determinism()


class _Worker:
    """One model with its optimizer and compiled graphs; used by one thread at a time."""

    def __init__(self, model: Any) -> None:
        self.model = model
        self._variables = keras_bridge.travelling_variables(model)
        self._local = [(v, v.numpy()) for v in keras_bridge.local_variables(model)]
        self._fits: dict[tuple[object, ...], tuple[Any, Any]] = {}
        self._scores: dict[tuple[object, ...], Any] = {}

    def check_like(self, first: _Worker) -> None:
        """Raises `ModelError` if this replica was not built like the first one."""
        mine, other = ([tuple(v.shape) for v in w._variables] for w in (self, first))
        if mine != other:
            raise ModelError("the model function built two different models; it must build the same one every time")

    def fit(self, weights: Tensors, task: Task, plan: FitPlan) -> Update:
        """Returns the update of one device: global weights in, local training, the difference out."""
        import tensorflow as tf

        key = (plan.optimizer, plan.momentum, plan.loss, plan.from_logits, plan.proximal_mu > 0)
        if key not in self._fits:
            self._fits[key] = _compile_fit(self.model, plan, _examples(task.x, task.y))
        run, optimizer = self._fits[key]
        self._start(weights, task.seed, optimizer)
        batch = plan.batch_size or len(task.y)
        order, seed = _orders(task, plan), seed_for(task.seed, "dropout") & 0x7FFFFFFF
        loss = run(
            *(tf.constant(task.x), tf.constant(task.y), tf.constant(order)),
            *(tf.constant(batch, tf.int32), tf.constant(seed, tf.int32)),
            *(tf.constant(v, tf.float32) for v in (plan.learning_rate, plan.proximal_mu, plan.clip_gradient_norm)),
        )
        delta = {p: v.numpy() - w for (p, w), v in zip(weights.items(), self._variables, strict=True)}
        return Update(delta, len(task.y), {"loss": float(loss)})

    def score(self, weights: Tensors, x: np.ndarray, y: np.ndarray, plan: FitPlan) -> tuple[int, float]:
        """Returns the number of right answers and the summed loss."""
        import tensorflow as tf

        key = (plan.loss, plan.from_logits)
        if key not in self._scores:
            self._scores[key] = _compile_score(self.model, plan, _examples(x, y))
        self._write(weights)
        right, loss = self._scores[key](tf.constant(x), tf.constant(y))
        return int(right), float(loss)

    def _write(self, weights: Tensors) -> None:
        for variable, value in zip(self._variables, weights.values(), strict=True):
            variable.assign(value)

    def _start(self, weights: Tensors, seed: int, optimizer: Any) -> None:
        self._write(weights)
        for index, (variable, value) in enumerate(self._local):
            if "seed_generator_state" in variable.path:
                value = np.array([seed_for(seed, "dropout", index) & 0x7FFFFFFF, 0], value.dtype)
            variable.assign(value)
        for variable in optimizer.variables:
            if "learning_rate" not in variable.path:
                variable.assign(np.zeros(variable.shape, variable.dtype))


def _orders(task: Task, plan: FitPlan) -> np.ndarray:
    """Returns ``int32[epochs, n]``: the order in which each epoch visits the examples."""
    count = len(task.y)
    if not plan.shuffle:
        return np.tile(np.arange(count, dtype=np.int32), (plan.epochs, 1))
    rng = rng_for(task.seed, "shuffle")
    return np.stack([rng.permutation(count) for _ in range(plan.epochs)]).astype(np.int32)


def _examples(x: np.ndarray, y: np.ndarray) -> list[Any]:
    """Returns the signature of examples, their number left open.

    Open even in the first trace: a trace with a known number divides by a folded constant and differs in the last bit.
    """
    import tensorflow as tf

    return [tf.TensorSpec((None, *a.shape[1:]), a.dtype) for a in (x, y)]


def _as_input(x: Any) -> Any:
    import tensorflow as tf

    return tf.cast(x, tf.float32) if x.dtype == tf.uint8 else x


def _compile_fit(model: Any, plan: FitPlan, examples: list[Any]) -> tuple[Any, Any]:
    """Returns the compiled round of one device and its optimizer.

    The graph is specialised on what changes its shape (optimizer, loss, proximal term or not); rates are inputs.
    """
    import tensorflow as tf

    from export.training.layers import keyed_call

    optimizer, loss_of, forward = _optimizer(plan), _loss(plan), keyed_call(model)
    trainable = model.trainable_variables
    optimizer.build(trainable)

    numbers = [tf.TensorSpec((None, None), tf.int32), *[tf.TensorSpec((), tf.int32)] * 2]
    numbers += [tf.TensorSpec((), tf.float32)] * 3

    @tf.function(input_signature=[*examples, *numbers])  # type: ignore[untyped-decorator]
    def fit(x: Any, y: Any, order: Any, batch: Any, seed: Any, rate: Any, mu: Any, clip: Any) -> Any:
        optimizer.learning_rate.assign(rate)
        start = [tf.identity(v.value) for v in trainable] if plan.proximal_mu > 0 else []
        count = tf.shape(order)[1]
        total, step = tf.constant(0.0), tf.constant(0)
        for epoch in tf.range(tf.shape(order)[0]):
            total = tf.constant(0.0)
            at = tf.constant(0)
            while at < count:
                rows = order[epoch, at : at + batch]
                with tf.GradientTape() as tape:
                    out = forward(_as_input(tf.gather(x, rows)), seed, step)
                    loss = tf.reduce_mean(loss_of(tf.gather(y, rows), out)) + sum(model.losses)
                gradients = tape.gradient(loss, [v.value for v in trainable])
                if start:
                    gradients = [g + mu * (v.value - w) for g, v, w in zip(gradients, trainable, start, strict=True)]
                gradients = _clip(gradients, clip)
                optimizer.apply(gradients, trainable)
                total += loss * tf.cast(tf.size(rows), tf.float32)
                at += batch
                step += 1
        return total / tf.cast(count, tf.float32)

    return fit, optimizer


def _compile_score(model: Any, plan: FitPlan, examples: list[Any]) -> Any:
    import tensorflow as tf

    loss_of = _loss(plan)

    @tf.function(input_signature=examples)  # type: ignore[untyped-decorator]
    def score(x: Any, y: Any) -> Any:
        out = model(_as_input(x), training=False)
        if out.shape[-1] == 1:  # one logit or probability: class 1 above the middle
            guess = tf.cast(out[..., 0] > (0.0 if plan.from_logits else 0.5), y.dtype)
        else:
            guess = tf.argmax(out, axis=-1, output_type=y.dtype)
        return tf.reduce_sum(tf.cast(guess == y, tf.int32)), tf.reduce_sum(loss_of(y, out))

    return score


def _clip(gradients: list[Any], clip: Any) -> list[Any]:
    import tensorflow as tf

    norm = tf.linalg.global_norm(gradients)
    scale = tf.where((clip > 0) & (norm > clip), clip / norm, 1.0)
    return [g * scale for g in gradients]


def _optimizer(plan: FitPlan) -> Any:
    import keras

    if plan.optimizer == "adam":
        return keras.optimizers.Adam(plan.learning_rate)
    return keras.optimizers.SGD(plan.learning_rate, momentum=plan.momentum if plan.optimizer == "momentum" else 0.0)


def _loss(plan: FitPlan) -> Callable[[Any, Any], Any]:
    """Returns labels, outputs → ``float32[batch]``."""
    import keras

    losses = keras.losses
    table: dict[str, Callable[[Any, Any], Any]] = {
        "sparse-categorical-crossentropy": lambda y, out: losses.sparse_categorical_crossentropy(
            y, out, from_logits=plan.from_logits
        ),
        "categorical-crossentropy": lambda y, out: losses.categorical_crossentropy(
            keras.ops.one_hot(y, out.shape[-1]), out, from_logits=plan.from_logits
        ),
        "binary-crossentropy": lambda y, out: losses.binary_crossentropy(
            keras.ops.cast(y, "float32")[:, None], out, from_logits=plan.from_logits
        ),
        "mse": lambda y, out: losses.mean_squared_error(keras.ops.one_hot(y, out.shape[-1]), out),
        "mae": lambda y, out: losses.mean_absolute_error(keras.ops.one_hot(y, out.shape[-1]), out),
        "huber": lambda y, out: losses.huber(keras.ops.one_hot(y, out.shape[-1]), out),
    }
    return table[plan.loss]
