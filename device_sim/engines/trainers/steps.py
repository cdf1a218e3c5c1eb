"""The parts of a training step that every Keras trainer shares: gradients, clipping, TensorFlow's set-up."""

from __future__ import annotations

import contextlib
import os
import sys
import warnings
from collections.abc import Collection, Iterator, Sequence
from typing import Any

from export.model.recurrent import recurrent_layers, steps_of
from fl_mobile.models import private_api
from fl_mobile.models.keras_start import import_keras
from fl_mobile.records import FitPlan


def start_with_one_thread() -> None:
    """Gives TensorFlow's ops one thread each, if it has not started yet; to be called before a model is built."""
    import_keras()
    import tensorflow as tf

    with contextlib.suppress(RuntimeError):
        tf.config.threading.set_intra_op_parallelism_threads(1)


def one_thread_per_op() -> str:
    """Makes TensorFlow reproducible, one thread inside each op and kernels that do not race; returns what is not so.

    Where TensorFlow has started already, as in a notebook, its threads stay as they are, with a warning: results are
    then reproducible for that number of threads, and may differ in the last bits from those of another.
    """
    start_with_one_thread()
    import tensorflow as tf

    tf.config.experimental.enable_op_determinism()
    threads = _threads_of_ops()
    if threads == 1:
        return ""
    warnings.warn(
        f"TensorFlow had started in this process, with {threads} threads an op: results are reproducible for {threads}"
        " threads, and may differ in the last bits from those of one, which is what the command line takes. For the"
        " same bytes call device_sim.simulate before TensorFlow is used, or set TF_NUM_INTRAOP_THREADS=1.",
        stacklevel=2,
    )
    return f"; {threads} threads an op, as TensorFlow had started"


def _threads_of_ops() -> int:
    import tensorflow as tf

    told = tf.config.threading.get_intra_op_parallelism_threads() or int(os.environ.get("TF_NUM_INTRAOP_THREADS") or 0)
    return told or os.cpu_count() or 1


def time_steps_of(model: Any) -> int:
    """Returns the number of time steps of a model's longest recurrent layer, 1 without any."""
    return max((steps_of(layer) for layer in recurrent_layers(model)), default=1) or 1


@contextlib.contextmanager
def as_it_was() -> Iterator[None]:
    """Ops are deterministic inside once TensorFlow is there; afterwards everything is again as whoever asked had it.

    That is whether ops may race, with which draws without a seed are refused, and how Keras numbers unnamed layers:
    from where it was, or further.
    """
    there = "tensorflow" in sys.modules
    raced = not there or not private_api.ops_are_deterministic()
    counts = private_api.automatic_names() if there else {}
    if there:
        import tensorflow as tf

        tf.config.experimental.enable_op_determinism()
    try:
        yield
    finally:
        if "tensorflow" in sys.modules:
            private_api.count_automatic_names_from(counts)
            if raced:
                private_api.let_ops_race()


def as_input(x: Any) -> Any:
    """Returns examples as the model takes them."""
    import tensorflow as tf

    return tf.cast(x, tf.float32) if x.dtype == tf.uint8 else x


def shape_of(plan: FitPlan) -> tuple[object, ...]:
    """Returns what of a plan changes the graph of a round; rates are its inputs."""
    parts = plan.proximal_mu > 0, plan.clip_gradient_norm > 0, plan.keep_zeros, plan.fake_quant
    loss = plan.loss, plan.task, plan.from_logits, plan.label_smoothing, plan.class_weights
    return (plan.optimizer, plan.momentum, *loss, *parts)


def adjusted(
    gradients: Sequence[Any],
    weights: Sequence[Any],
    plan: FitPlan,
    ranks: Sequence[int],
    *,
    centre: Sequence[Any],
    mu: Any,
    pull: Sequence[Any],
    still: Collection[int],
) -> list[Any]:
    """Returns gradients as algorithm and plan want them, before they are clipped; all sequences are in one order.

    Args:
        weights: Values of now, shaped as the gradients.
        plan: Says whether there is a proximal term, and whether kernel weights that are zero, as pruned ones, stay so.
        ranks: Of the variables; below 2 they are no kernels.
        centre: What the proximal term pulls to.
        mu: How strongly.
        pull: Is added; empty for nothing.
        still: Positions of variables that do not move.
    """
    import tensorflow as tf

    found = list(gradients)
    if plan.proximal_mu > 0:
        found = [g + mu * (w - c) for g, w, c in zip(found, weights, centre, strict=True)]
    if pull:
        found = [g + p for g, p in zip(found, pull, strict=True)]
    found = [tf.zeros_like(g) if i in still else g for i, g in enumerate(found)]
    if plan.keep_zeros:
        found = [
            g * tf.cast(tf.not_equal(w, 0.0), g.dtype) if rank >= 2 else g
            for g, w, rank in zip(found, weights, ranks, strict=True)
        ]
    return found


def clip(gradients: list[Any], limit: Any) -> list[Any]:
    """Returns gradients whose global norm is at most ``limit``, above 0."""
    import tensorflow as tf

    norm = tf.linalg.global_norm(gradients)
    scale = tf.where(norm > limit, limit / norm, 1.0)
    return [g * scale for g in gradients]


def dense(gradients: Sequence[Any], like: Sequence[Any]) -> list[Any]:
    """Returns gradients as arrays: an embedding's come as rows, those of a variable that no loss reaches not at all."""
    import tensorflow as tf

    found = zip(gradients, like, strict=True)
    return [tf.zeros_like(v) if g is None else tf.convert_to_tensor(g) for g, v in found]


def answers(out: Any) -> Any:
    """Returns a model's only output as losses take it: ``float32``, out of the list or mapping it may be in."""
    import tensorflow as tf

    (out,) = tf.nest.flatten(out)
    return tf.cast(out, tf.float32) if out.dtype != tf.float32 else out


def examples_signature(x: Any, y: Any) -> list[Any]:
    """Returns the signature of examples, their number left open.

    Open even in the first trace: a trace with a known number divides by a folded constant and differs in the last bit.
    """
    import tensorflow as tf

    return [tf.TensorSpec((None, *a.shape[1:]), a.dtype) for a in (x, y)]
