"""The signatures that change weights: ``train``, and ``accumulate`` with ``apply``."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from export.training.autodiff import Tape, cells_for, replay
from export.training.clipping import clipped
from export.training.options import Options, batch_specs, rate_specs
from fl_mobile.errors import ExportError
from fl_mobile.local.optimizers import local_optimizer
from fl_mobile.models.telling import reason_of


def train_signature(module: Any, model: Any, travelling: Sequence[Any], graph: Any, options: Options) -> Any:
    """One step from one batch."""
    import tensorflow as tf

    def train(x: Any, y: Any, mask: Any, seed: Any, **rates: Any) -> dict[str, Any]:
        mean, right, gradients, sources, done = _step_of(
            module=module, model=model, travelling=travelling, graph=graph, feeds=[x, y, mask, seed]
        )
        if options.accumulate:
            done = module.updates.read_value()
            module.updates.assign(done + 1.0)
        _update(
            module=module,
            options=options,
            gradients=gradients,
            sources=sources,
            rates=[rates[name] for name in rate_specs(options)],
            done=done,
        )
        return {"loss": tf.reshape(mean, [1]), "correct": tf.reshape(right, [1])}

    seed = {"seed": tf.TensorSpec([1], tf.int32, "seed")}
    specs = batch_specs(options) | seed | rate_specs(options)
    return tf.function(train, autograph=False).get_concrete_function(**specs)


def accumulate_signature(module: Any, model: Any, travelling: Sequence[Any], graph: Any, options: Options) -> Any:
    """Adds a batch's gradient to the sums, each example with the same weight; weights stay."""
    import tensorflow as tf

    def accumulate(x: Any, y: Any, mask: Any, seed: Any) -> dict[str, Any]:
        mean, right, gradients, _, _ = _step_of(
            module=module, model=model, travelling=travelling, graph=graph, feeds=[x, y, mask, seed]
        )
        count = tf.reduce_sum(mask)
        for total, g in zip(module.sums, gradients, strict=True):
            total.assign(total.read_value() + g * count)
        module.summed.assign(module.summed.read_value() + count)
        return {"loss": tf.reshape(mean, [1]), "correct": tf.reshape(right, [1])}

    specs = batch_specs(options) | {"seed": tf.TensorSpec([1], tf.int32, "seed")}
    return tf.function(accumulate, autograph=False).get_concrete_function(**specs)


def apply_signature(module: Any, options: Options) -> Any:
    """Makes one step from the sums and empties them."""
    import tensorflow as tf

    def apply(**rates: Any) -> dict[str, Any]:
        count, done = module.summed.read_value(), module.updates.read_value()
        share = 1.0 / tf.maximum(count, 1.0)
        gradients = [total.read_value() * share for total in module.sums]
        sources = [module.weights[i].read_value() for i in module.trainable]
        _update(
            module=module,
            options=options,
            gradients=gradients,
            sources=sources,
            rates=[rates[name] for name in rate_specs(options)],
            done=done,
        )
        module.updates.assign(done + 1.0)
        empty(module)
        return {"examples": tf.reshape(count, [1])}

    return tf.function(apply, autograph=False).get_concrete_function(**rate_specs(options))


def _step_of(module: Any, model: Any, travelling: Sequence[Any], graph: Any, feeds: Sequence[Any]) -> Any:
    """Returns mean loss, right answers and gradients of one batch; writes moving statistics and counts the batch.

    ``feeds`` are x, y, mask and seed.
    """
    import tensorflow as tf

    tape, values = Tape(), [v.read_value() for v in module.weights]
    sources = [values[i] for i in module.trainable]
    for source in sources:
        tape.watch(source)
    done = module.steps.read_value()
    cells, captured = cells_for(graph=graph, model=model, travelling=travelling, values=values, tape=tape)
    x, y, mask, seed = feeds
    keys = tf.reshape(seed, []), tf.cast(done, tf.int32)
    mean, _, right, _ = replay(graph, [x, y, mask, *keys, *captured], cells, tape)
    gradients = tape.gradients(mean, sources)
    written = {c.path: c.value for c in cells.values() if c.written and not c.frozen}
    for i, variable in enumerate(travelling):
        if i not in module.trainable and variable.path in written:
            module.weights[i].assign(written[variable.path])
    module.steps.assign(done + 1.0)
    return mean, right, gradients, sources, done


def _update(
    module: Any, options: Options, gradients: Sequence[Any], sources: Sequence[Any], rates: Sequence[Any], done: Any
) -> None:
    """Adds proximal term and correction, clips, and writes the optimizer's step, held to the weights' constraints.

    Args:
        module: Owns the variables.
        options: Which of these there are.
        gradients: Of the mean loss.
        sources: Present trainable weights.
        rates: Learning rate and, in a proximal program, μ.
        done: ``float32``: updates before this one.
    """
    row, (rate, *mu) = local_optimizer(options.optimizer), rates
    if options.proximal:
        anchors = [a.read_value() for a in module.anchors]
        gradients = [g + mu[0] * (w - a) for g, w, a in zip(gradients, sources, anchors, strict=True)]
    if options.correction:
        gradients = [g + c.read_value() for g, c in zip(gradients, module.corrections, strict=True)]
    gradients = clipped(gradients, options.clip_norm)
    for i, w, g, slots in zip(module.trainable, sources, gradients, module.slots, strict=True):
        before = [s.read_value() for s in slots]
        new, after = row.step(w, g, before, rate, done, options.momentum)
        module.weights[i].assign(_constrained(_shaped(new, w), *module.constraints[i]))
        for slot, value in zip(slots, after, strict=True):
            slot.assign(value)


def _shaped(value: Any, weight: Any) -> Any:
    """Returns what a step made of a weight in its shape: rates are ``float32[1]``, which makes ``[1]`` of a scalar."""
    import tensorflow as tf

    return value if value.shape == weight.shape else tf.reshape(value, weight.shape)


def _constrained(weight: Any, constraint: Any, path: str) -> Any:
    """Returns what a weight's own constraint leaves of it, or the weight."""
    import tensorflow as tf

    if constraint is None:
        return weight
    layer = path.rpartition("/")[0]
    try:
        with tf.name_scope(layer):  # so that a refusal of the converter names the layer
            return constraint(weight)
    except Exception as error:  # an author's own code
        raise ExportError(
            f"layer '{layer.rpartition('/')[2]}': its constraint {type(constraint).__name__} cannot be traced for"
            f" phones: {reason_of(error)}"
        ) from error


def empty(module: Any) -> None:
    """Forgets accumulated gradients."""
    import tensorflow as tf

    for total in module.sums:
        total.assign(tf.zeros(total.shape))
    if module.sums:
        module.summed.assign(0.0)
