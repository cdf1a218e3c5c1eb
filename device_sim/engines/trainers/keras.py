"""Local training on Keras: a chunk of devices, their epochs and steps are one loop *inside* one compiled graph.

```
fit(examples, order, …):  for device:  variables ← weights;  for step: gradient, optimizer;  deltas[device] ← variables
```
Nothing is dispatched per step or per device, and a device's result does not depend on who shares its chunk.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from device_sim.engines.batches import lay_out
from device_sim.engines.records import Evaluation, Task, evaluation_of
from device_sim.engines.trainers.blame import blamed
from device_sim.engines.trainers.draws import keyed_draws
from device_sim.engines.trainers.steps import (
    adjusted,
    answers,
    as_input,
    clip,
    dense,
    examples_signature,
    one_thread_per_op,
    shape_of,
    time_steps_of,
)
from export.convert.scratch import check_scratch
from export.model.recurrent import loops_unrolled
from export.tuning.on_device import with_fake_quant
from fl_mobile.local.losses import evaluation_loss, training_loss
from fl_mobile.local.optimizers import local_optimizer
from fl_mobile.models import keras_bridge
from fl_mobile.models.heads import head_of
from fl_mobile.records import FitPlan, Update
from fl_mobile.seeds import seed_for
from fl_mobile.tensors import Tensors

EVALUATE_BATCH = 250

UNROLLED_STEPS = 64
"""Recurrent layers of at most so many time steps together train step by step: in a loop, TensorFlow hands every
operation from thread to thread. On two workers a step of ``char-gru``, 40 long, takes 0.43 to 0.46 of the time; tracing
takes 6 s more."""


class KerasTrainer:
    """`Trainer` over one Keras model.

    Args:
        build: Returns a new, built model.
        probe: A few examples, whose shape and type the model is traced with.
    """

    def __init__(self, build: Callable[[], Any], probe: np.ndarray) -> None:
        self.threads = one_thread_per_op()
        check_scratch()  # AutoGraph writes the code it makes to a temporary file; if it cannot, it blames the loops
        self.model = build()
        self.spec, self.initial = keras_bridge.spec_of(self.model), keras_bridge.read(self.model)
        self.about = "keras: devices and steps looped in one compiled graph" + self.threads
        self.from_logits = head_of(self.model, probe) == "logits"
        self.time_steps = time_steps_of(self.model)
        self._variables = keras_bridge.travelling_variables(self.model)
        self._fits: dict[tuple[object, ...], Any] = {}
        self._scores: dict[tuple[object, ...], Any] = {}

    def prepare(self, plan: FitPlan) -> None:
        """Refuses nothing: Keras trains what Keras builds."""

    def train(self, weights: Tensors, tasks: Sequence[Task], plan: FitPlan) -> list[Update]:
        """Returns each task's update."""
        return list(blamed(self.model, lambda some: self._train(weights, some, plan), tasks))

    def _train(self, weights: Tensors, tasks: Sequence[Task], plan: FitPlan) -> list[Update]:
        import tensorflow as tf

        own, pulled = any(t.start for t in tasks), any(t.pull for t in tasks)
        still = held_still(weights, plan)
        key = (*shape_of(plan), own, pulled, still)
        if key not in self._fits:
            model = with_fake_quant(self.model) if plan.fake_quant else self.model
            self._fits[key] = _compile_fit(model, plan, tasks[0], own=own, pulled=pulled, still=still)
        batches = lay_out(tasks, plan)
        deltas, losses = self._fits[key](
            examples_of(tasks),
            tuple(tf.constant(a) for a in (batches.order, batches.starts, batches.first, batches.share)),
            *round_inputs(weights, tasks, plan, own=own, pulled=pulled),
        )
        return updates_of(weights, tasks, deltas, losses)

    def score(self, weights: Tensors, tasks: Sequence[Task], plan: FitPlan) -> list[Evaluation]:
        """Returns accuracy and mean loss on each task's examples."""
        if any(t.start for t in tasks):
            return [self.score({**weights, **(t.start or {})}, [replace(t, start=None)], plan)[0] for t in tasks]
        return list(blamed(self.model, lambda some: self._score(weights, some, plan), tasks, doing="evaluation"))

    def _score(self, weights: Tensors, tasks: Sequence[Task], plan: FitPlan) -> list[Evaluation]:
        import tensorflow as tf

        x, y = (np.concatenate([getattr(t, k) for t in tasks]) for k in "xy")
        key = (plan.loss, plan.task, plan.from_logits)
        if key not in self._scores:
            self._scores[key] = _compile_score(self.model, plan, examples_signature(x, y))
        for variable, value in zip(self._variables, weights.values(), strict=True):
            variable.assign(value)
        cuts = [slice(at, at + EVALUATE_BATCH) for at in range(0, len(y), EVALUATE_BATCH)]
        parts = [self._scores[key](tf.constant(x[cut]), tf.constant(y[cut])) for cut in cuts]
        out, loss = (np.concatenate([part[i].numpy() for part in parts]) for i in (0, 1))
        ends = np.cumsum([len(t.y) for t in tasks])[:-1]
        each = zip(tasks, np.split(out, ends), np.split(loss, ends), strict=True)
        return [evaluation_of(plan, t.y, o, float(v.mean(dtype=np.float64))) for t, o, v in each]


_NONE = np.zeros((0, 0), np.float32)


def examples_of(tasks: Sequence[Task]) -> tuple[Any, Any]:
    """Returns tensors of all tasks' examples and labels, laid end to end."""
    import tensorflow as tf

    x, y = (tf.constant(np.concatenate([getattr(t, k) for t in tasks])) for k in "xy")
    return x, y


def round_inputs(
    weights: Tensors, tasks: Sequence[Task], plan: FitPlan, *, own: bool, pulled: bool
) -> tuple[Any, Any, Any, Any, Any]:
    """Returns what a chunk's graph takes after its steps: seeds, weights, own weights, pulls and rates, as tensors.

    Args:
        own: Whether a device starts at weights of its own; without, that input is empty.
        pulled: Whether a device's gradients are pulled; without, that input is empty.
    """
    import tensorflow as tf

    return (
        tf.constant([seed_for(t.seed, "dropout") & 0x7FFFFFFF for t in tasks], tf.int32),
        tf.constant(flat(weights)),
        tf.constant(np.stack([flat({**weights, **(t.start or {})}) for t in tasks]) if own else _NONE),
        tf.constant(np.stack([flat(t.pull or {}, weights) for t in tasks]) if pulled else _NONE),
        tuple(tf.constant(v, tf.float32) for v in (plan.learning_rate, plan.proximal_mu, plan.clip_gradient_norm)),
    )


def updates_of(weights: Tensors, tasks: Sequence[Task], deltas: Sequence[Any], losses: Any) -> list[Update]:
    """Returns the updates in ``deltas``, tensors ``float32[devices, …]``; theirs are views of them."""
    rows = {path: np.asarray(memoryview(delta)) for path, delta in zip(weights, deltas, strict=True)}
    return [
        Update({path: row[i, ...] for path, row in rows.items()}, len(task.y), {"loss": float(loss)})
        for i, (task, loss) in enumerate(zip(tasks, losses.numpy(), strict=True))
    ]


def held_still(weights: Tensors, plan: FitPlan) -> frozenset[int]:
    """Returns the positions of tensors that must not change; positions, because a twin's paths may differ."""
    return frozenset(i for i, path in enumerate(weights) if plan.trained and path not in plan.trained)


def flat(tensors: Tensors, like: Tensors | None = None) -> np.ndarray:
    """Returns the tensors end to end, in the order of ``like``; those that are missing are zeros."""
    values = [tensors.get(p, np.zeros_like(v)) for p, v in like.items()] if like else list(tensors.values())
    return np.concatenate([np.ravel(value) for value in values]).astype(np.float32, copy=False)


def _compile_fit(model: Any, plan: FitPlan, example: Task, *, own: bool, pulled: bool, still: frozenset[int]) -> Any:
    """Returns the compiled round of a chunk of devices."""
    import tensorflow as tf

    row = local_optimizer(plan.optimizer)
    travelling, trainable = keras_bridge.travelling_variables(model), model.trainable_variables
    sizes, held = [int(np.prod(v.shape)) for v in travelling], {id(travelling[i]) for i in still}
    fixed = {i for i, v in enumerate(trainable) if id(v) in held}
    local = [(v, v.numpy()) for v in keras_bridge.local_variables(model)]
    slots = [[tf.Variable(tf.zeros(v.shape), trainable=False) for _ in row.slots] for v in trainable]

    def cut(flat: Any) -> dict[int, Any]:
        parts = zip(travelling, tf.split(flat, sizes), strict=True)
        return {id(v): tf.reshape(part, v.shape) for v, part in parts}

    def begin(values: dict[int, Any]) -> None:
        for variable in travelling:
            variable.assign(values[id(variable)])
        for variable, value in local:
            variable.assign(value)
        for slot in (slot for own_slots in slots for slot in own_slots):
            slot.assign(tf.zeros(slot.shape))

    @tf.autograph.experimental.do_not_convert  # type: ignore[untyped-decorator]
    def step(x: Any, y: Any, seed: Any, number: Any, pull: dict[int, Any], centre: Any, rates: Any) -> Any:
        rate, mu, limit = rates
        unrolled = loops_unrolled(model, most=UNROLLED_STEPS)
        with unrolled, tf.GradientTape() as tape, keyed_draws(model, seed, number):
            out = answers(model(as_input(x), training=True))
            each = training_loss(plan, y, out)
            value = tf.reduce_mean(each) + sum(model.losses)
        values = [v.value for v in trainable]
        gradients = adjusted(
            *(dense(tape.gradient(value, values), values), values, plan, [len(v.shape) for v in trainable]),
            centre=[centre[id(v)] for v in trainable],
            mu=mu,
            pull=[pull[id(v)] for v in trainable] if pulled else [],
            still=fixed,
        )
        gradients = clip(gradients, limit) if plan.clip_gradient_norm else gradients
        done = tf.cast(number, tf.float32)
        for i, (variable, w, g, kept) in enumerate(zip(trainable, values, gradients, slots, strict=True)):
            new, after = row.step(w, g, [slot.read_value() for slot in kept], rate, done, plan.momentum)
            limited = variable.constraint is not None and i not in fixed
            variable.assign(variable.constraint(new) if limited else new)
            for slot, now in zip(kept, after, strict=True):
                slot.assign(now)
        return value

    @tf.function(input_signature=_fit_signature(example))  # type: ignore[untyped-decorator]
    def fit(examples: Any, steps: Any, seeds: Any, weights: Any, own_weights: Any, pulls: Any, rates: Any) -> Any:
        (x, y), (order, starts, first, share) = examples, steps
        centre = cut(weights)
        deltas = [tf.TensorArray(tf.float32, tf.size(seeds), element_shape=v.shape) for v in travelling]
        losses = tf.TensorArray(tf.float32, tf.size(seeds), element_shape=())
        for device in tf.range(tf.size(seeds)):
            begin(cut(own_weights[device]) if own else centre)
            pull = cut(pulls[device]) if pulled else {}
            total = tf.constant(0.0)
            for at in tf.range(first[device], first[device + 1]):
                rows = order[starts[at] : starts[at + 1]]
                number = at - first[device]
                value = step(tf.gather(x, rows), tf.gather(y, rows), seeds[device], number, pull, centre, rates)
                total += share[at] * value
            written = zip(deltas, travelling, strict=True)
            deltas = [array.write(device, v.value - centre[id(v)]) for array, v in written]
            losses = losses.write(device, total)
        return [array.stack() for array in deltas], losses.stack()

    return fit


def _fit_signature(example: Task) -> list[Any]:
    """Returns the shapes of (examples), (order, starts, first, share), seeds, weights, own weights, pulls, (rates)."""
    import tensorflow as tf

    integers, row, rows = tf.TensorSpec((None,), tf.int32), tf.TensorSpec((None,)), tf.TensorSpec((None, None))
    steps, rates = (integers, integers, integers, row), (tf.TensorSpec(()),) * 3
    return [tuple(examples_signature(example.x, example.y)), steps, integers, row, rows, rows, rates]


def _compile_score(model: Any, plan: FitPlan, examples: list[Any]) -> Any:
    import tensorflow as tf

    @tf.function(input_signature=examples)  # type: ignore[untyped-decorator]
    def score(x: Any, y: Any) -> Any:
        out = answers(model(as_input(x), training=False))
        return out, evaluation_loss(plan, y, out)

    return score
