"""Local training of many small devices at once: every array has a leading device axis.

```
step s:  gradients of all devices' batches in one `tf.vectorized_map`, then one update over [devices, …]
```
Devices of unequal size are padded, and a mask keeps padding out of every mean. Dense models gain most, because
a hundred small matrix products become one batched one; convolutions become grouped ones, which are slow on CPUs.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from device_sim.engines.batches import Batches, lay_out
from device_sim.engines.records import VECTORIZED, Evaluation, Task
from device_sim.engines.trainers.blame import blamed
from device_sim.engines.trainers.draws import keyed_draws
from device_sim.engines.trainers.keras import KerasTrainer, examples_of, held_still, round_inputs, updates_of
from device_sim.engines.trainers.steps import adjusted, answers, as_input, dense, examples_signature, shape_of
from fl_mobile.errors import ConfigError
from fl_mobile.local.losses import training_loss
from fl_mobile.local.optimizers import local_optimizer
from fl_mobile.models import keras_bridge
from fl_mobile.models.private_api import flatten_layers
from fl_mobile.records import FitPlan, Update
from fl_mobile.tensors import Tensors

BATCHABLE = frozenset(
    {"InputLayer", "Rescaling", "Flatten", "Reshape", "Dense", "Activation", "ReLU", "LeakyReLU", "ELU", "Softmax"}
    | {"Dropout", "Add", "Multiply", "Concatenate", "Sequential", "Functional"}
)
"""Keras layers whose arithmetic gains from a device axis, and which keep no statistics."""


def why_not(model: Any) -> str:
    """Returns what keeps a model from being vectorised, an empty string if nothing does."""
    for layer in flatten_layers(model):
        if type(layer).__name__ not in BATCHABLE:
            return f"layer '{layer.name}' ({type(layer).__name__}) does not gain from a device axis"
        if getattr(layer, "activity_regularizer", None) is not None:
            return f"the activity regulariser of layer '{layer.name}' would see the padding of short batches"
    return ""


class VectorizedTrainer:
    """`Trainer` whose devices of a chunk train side by side.

    Args:
        build: Returns a new, built model.
        probe: A few examples, to find out whether the model gives logits or probabilities.
        keras: Lends its model, instead of building another one.

    Raises:
        ConfigError: The model has a layer that cannot be vectorised.
    """

    def __init__(self, build: Callable[[], Any], probe: np.ndarray, keras: KerasTrainer | None = None) -> None:
        self._keras = keras or KerasTrainer(build, probe)
        self._model, self.from_logits = self._keras.model, self._keras.from_logits
        self.about = "vectorized: the devices of a chunk train side by side on a device axis" + self._keras.threads
        self.spec, self.initial, self.time_steps = self._keras.spec, self._keras.initial, self._keras.time_steps
        if reason := why_not(self._model):
            raise ConfigError(f'engine vectorized: {reason}; use engine.name = "keras" or "auto"')
        self._fits: dict[tuple[object, ...], Any] = {}

    def prepare(self, plan: FitPlan) -> None:
        """Refuses a plan that rounds."""
        VECTORIZED.refuse(plan, "vectorized")

    def train(self, weights: Tensors, tasks: Sequence[Task], plan: FitPlan) -> list[Update]:
        """Returns each task's update."""
        VECTORIZED.refuse(plan, "vectorized")
        return list(blamed(self._model, lambda some: self._train(weights, some, plan), tasks))

    def _train(self, weights: Tensors, tasks: Sequence[Task], plan: FitPlan) -> list[Update]:
        import tensorflow as tf

        own, pulled = any(t.start for t in tasks), any(t.pull for t in tasks)
        still = held_still(weights, plan)
        key = (*shape_of(plan), own, pulled, still)
        if key not in self._fits:
            self._fits[key] = _compile_fit(self._model, plan, tasks[0], own=own, pulled=pulled, still=still)
        rows, real, share = _padded(lay_out(tasks, plan))
        deltas, losses = self._fits[key](
            examples_of(tasks),
            (tf.constant(rows), tf.constant(real), tf.constant(share)),
            *round_inputs(weights, tasks, plan, own=own, pulled=pulled),
        )
        return updates_of(weights, tasks, deltas, losses)

    def score(self, weights: Tensors, tasks: Sequence[Task], plan: FitPlan) -> list[Evaluation]:
        """Returns accuracy and mean loss on each task's examples."""
        return self._keras.score(weights, tasks, plan)


def _padded(batches: Batches) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Returns ``[steps, devices, batch]`` rows and 1 where a row is real, and ``[steps, devices]`` shares of the loss.

    Device ``d``'s ``s``-th step is at ``[s, d]``; a device with fewer steps than others does nothing in the last ones.
    """
    counts, sizes = np.diff(batches.first), np.diff(batches.starts)
    device = np.repeat(np.arange(len(counts)), counts)
    step = np.arange(len(sizes)) - batches.first[device]
    rows = np.zeros((counts.max(), len(counts), sizes.max()), np.int32)
    real, share = np.zeros(rows.shape, np.float32), np.zeros(rows.shape[:2], np.float32)
    share[step, device] = batches.share
    of = np.repeat(np.arange(len(sizes)), sizes)
    place = np.arange(len(batches.order)) - batches.starts[of]
    rows[step[of], device[of], place] = batches.order
    real[step[of], device[of], place] = 1
    return rows, real, share


def _compile_fit(model: Any, plan: FitPlan, example: Task, *, own: bool, pulled: bool, still: frozenset[int]) -> Any:
    """Returns the compiled round of a chunk of devices."""
    import tensorflow as tf

    variables, rule = keras_bridge.travelling_variables(model), local_optimizer(plan.optimizer)
    place = {id(v): i for i, v in enumerate(variables)}
    trainable = [place[id(v)] for v in model.trainable_variables]
    frozen = [v.value for v in model.non_trainable_variables]
    shapes = [tuple(v.shape) for v in variables]
    sizes = [int(np.prod(shape)) for shape in shapes]

    def cut(rows: Any) -> list[Any]:
        return [tf.reshape(p, (-1, *s)) for p, s in zip(tf.split(rows, sizes, axis=1), shapes, strict=True)]

    def gradients_of(inputs: Any) -> Any:
        weights, x, y, real, seed, step = inputs
        with tf.GradientTape() as tape, keyed_draws(model, seed, step):
            tape.watch(weights)
            values = [weights[i] for i in trainable]
            out, _, extra = model.stateless_call(values, frozen, as_input(x), training=True, return_losses=True)
            each = training_loss(plan, y, answers(out))
            value = tf.reduce_sum(real * each) / tf.maximum(tf.reduce_sum(real), 1.0) + sum(extra)
        return dense(tape.gradient(value, weights), weights), value

    def limited(number: int, values: Any) -> Any:
        constraint = variables[number].constraint
        return values if constraint is None or number in still else tf.vectorized_map(constraint, values)

    def per_device(number: Any, like: Any) -> Any:
        return tf.reshape(number, [-1] + [1] * (len(like.shape) - 1))

    def clipped(gradients: list[Any], limit: Any) -> list[Any]:
        squares = [tf.reduce_sum(tf.square(g), axis=list(range(1, len(g.shape)))) for g in gradients]
        norm = tf.sqrt(tf.add_n(squares))
        scale = tf.where(norm > limit, limit / norm, 1.0)
        return [g * per_device(scale, g) for g in gradients]

    def where(active: Any, new: list[Any], old: list[Any]) -> list[Any]:
        def by_row() -> list[Any]:  # SelectV2 broadcasts by element
            return [tf.raw_ops.Select(condition=active, x=n, y=o) for n, o in zip(new, old, strict=True)]

        chosen: list[Any] = tf.cond(tf.reduce_all(active), lambda: new, by_row)  # a pass over memory that few need
        return chosen

    integers, numbers = tf.TensorSpec((None, None, None), tf.int32), tf.TensorSpec((None, None, None))
    row, rows = tf.TensorSpec((None,)), tf.TensorSpec((None, None))
    inputs = [tuple(examples_signature(example.x, example.y)), (integers, numbers, rows)]
    inputs += [tf.TensorSpec((None,), tf.int32), row, rows, rows, (tf.TensorSpec(()),) * 3]

    @tf.function(input_signature=inputs)  # type: ignore[untyped-decorator]
    def fit(examples: Any, steps: Any, seeds: Any, weights: Any, own_weights: Any, pulls: Any, rates: Any) -> Any:
        (x, y), (order, real, share), (rate, mu, limit) = examples, steps, rates
        devices = tf.size(seeds)
        centre = cut(weights[None])
        shared = [tf.broadcast_to(v, (devices, *v.shape[1:])) for v in centre]
        values = cut(own_weights) if own else shared
        pull = cut(pulls) if pulled else []
        slots = [[tf.zeros_like(v) for _ in rule.slots] for v in values]
        losses = tf.zeros([devices])
        for step in tf.range(tf.shape(order)[0]):
            at = order[step]
            inputs = (values, tf.gather(x, at), tf.gather(y, at), real[step], seeds, tf.fill([devices], step))
            gradients, value = tf.vectorized_map(gradients_of, inputs, fallback_to_while_loop=False)
            ranks = [len(shape) for shape in shapes]
            gradients = adjusted(gradients, values, plan, ranks, centre=centre, mu=mu, pull=pull, still=still)
            gradients = clipped(gradients, limit) if plan.clip_gradient_norm else gradients
            active, done = tf.reduce_max(real[step], axis=1) > 0, tf.cast(step, tf.float32)
            moved = [
                rule.step(v, g, kept, rate, done, plan.momentum)
                for v, g, kept in zip(values, gradients, slots, strict=True)
            ]
            values = where(active, [limited(i, new) for i, (new, _) in enumerate(moved)], values)
            slots = [after for _, after in moved]
            losses += share[step] * value
        return [v - c for v, c in zip(values, centre, strict=True)], losses

    return fit
