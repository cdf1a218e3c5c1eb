"""A case played by Keras itself: its layers, its GradientTape, its optimizers; a short batch is simply a short batch.

Only what is drawn is given, from the NumPy formulas of `dropout.py` and `draws.py`: no two generators draw alike.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, TypeVar

import numpy as np

from export.model.swapping import swap
from export.training.draws import drawn_array, numbered_draws
from export.training.dropout import dropout_mask
from export.training.layers import dropout_layers, dropouts_of, swap_cells
from export.training.options import Options
from export.training.proof.answers import FAINT, Answers, norm, shortest
from export.training.proof.cases import Case, Material
from fl_mobile.errors import ExportError
from fl_mobile.local.losses import loss_row, right_answers
from fl_mobile.local.optimizers import local_optimizer
from fl_mobile.models import keras_bridge
from fl_mobile.models.draws import Draw, answered_draws
from fl_mobile.models.private_api import flatten_layers
from fl_mobile.models.telling import reason_of, where
from fl_mobile.tasks.heads import answers_of, targets_of
from fl_mobile.tasks.table import BITS, CLASSES, CLASSIFICATION, NUMBERS, bare, task_row, weights_by_head
from fl_mobile.tasks.tally import DISTANCES, whole_classes
from fl_mobile.tasks.weighted import parted
from fl_mobile.tensors import Tensors

T = TypeVar("T")
ROUNDING = 2.0**-23


@dataclass(frozen=True)
class _First:
    """The first step of a case as far as no learning rate matters, and what else of the model it changed."""

    case_seed: int
    material: Material
    loss: Any
    outputs: Any
    gradients: list[Any]
    changed: list[tuple[Any, np.ndarray]]

    def of(self, case: Case, material: Material) -> bool:
        """Returns whether a case begins with the same."""
        mine = self.material
        same = mine.weights is material.weights and mine.batches is material.batches
        return same and self.case_seed == case.dropout_seed


class Reference:
    """One model and what its program was built with; every variable is put back after a case.

    Args:
        model: The Keras model.
        options: Of the program.
    """

    def __init__(self, model: Any, options: Options) -> None:
        self._model, self._options = model, options
        self._travelling = keras_bridge.travelling_variables(model)
        self._trained = [v for v in self._travelling if v.trainable]
        self._traced = False
        self._first: _First | None = None

    def play(self, case: Case, material: Material, *, mute: bool = False) -> Answers:
        """Returns what Keras answers.

        Args:
            case: What to play.
            material: What with.
            mute: Whether gradients that are `FAINT` count as none, under Adam.

        Raises:
            ExportError: Keras cannot train the model either.
        """
        return self._played(lambda: self._play(case, material, mute=mute))

    def _played(self, work: Callable[[], T]) -> T:
        """Runs Keras eagerly, and where a layer cannot be run so, in traced functions as ``fit`` does."""
        with unchanged(self._model):
            try:
                return work()
            except Exception as error:  # an author's own code
                if self._traced:
                    raise ExportError(
                        f"model '{self._model.name}'{where(self._model, str(error))}: Keras cannot train it on the"
                        f" random examples of the proof: {reason_of(error)}"
                    ) from error
        self._traced = True
        return self._played(work)

    def _run(self, work: Callable[..., Any]) -> Any:
        import tensorflow as tf

        return tf.function(work, autograph=False)() if self._traced else work()

    def nudged(self, case: Case, material: Material, roundings: int) -> Answers:
        """Returns what Keras answers from weights that are so many roundings apart, each weight up or down by chance.

        A negative number goes the opposite way.
        """
        coin = np.random.default_rng(0)
        moved = {
            path: (value * (1 + roundings * ROUNDING * coin.choice([-1.0, 1.0], value.shape))).astype(np.float32)
            for path, value in material.weights.items()
        }
        return self.play(case, replace(material, weights=moved))

    def gradient(self, case: Case, material: Material) -> Tensors:
        """Returns the gradient of the first batch's loss by path; `play` goes on from it."""

        def work() -> _First:
            self._write(material.weights)
            loss, out, gradients = self._backward(*material.batches[0], case, 0)
            trained = {id(v) for v in self._trained}
            changed = [(v, v.numpy()) for v in self._model.variables if id(v) not in trained]
            return _First(case.dropout_seed, material, loss, out, gradients, changed)

        self._first = self._played(work)
        return {v.path: np.asarray(g) for v, g in zip(self._trained, self._first.gradients, strict=True)}

    def _play(self, case: Case, material: Material, *, mute: bool) -> Answers:
        import tensorflow as tf

        self._write(material.weights)
        before = keras_bridge.read(self._model)
        anchors = [tf.constant(before[v.path]) for v in self._trained]
        pull = None if material.correction is None else [material.correction[v.path] for v in self._trained]
        optimizer = local_optimizer(self._options.optimizer).keras(case.learning_rate, self._options.momentum)
        optimizer.build(self._trained)
        out = self._run(lambda: self._model(self._as_input(material.batches[0][0]), training=False))
        outputs = np.asarray(out)
        x, y = shortest(material)
        if x is not material.batches[0][0]:  # else as it is: Keras' losses ask a tensor for the logits it came from
            out = self._run(lambda: self._model(self._as_input(x), training=False))
        evaluated = float(np.sum(keras_losses(replace(self._options, label_smoothing=0.0, class_weights=()), y, out)))
        told, losses, sums, count, faint = [self._right(y, out)], [], None, 0, False
        for number, (x, y) in enumerate(material.batches):
            loss, out, gradients = self._stepped(x, y, case, number, material)
            losses.append(float(loss))
            told.append(self._right(y, out))
            if case.accumulate:
                weighted = [g * float(len(y)) for g in gradients]
                sums = weighted if sums is None else [a + b for a, b in zip(sums, weighted, strict=True)]
                count += len(y)
                if number + 1 < len(material.batches):
                    continue
                gradients = [s / float(count) for s in sums]
            if self._options.optimizer == "adam":
                small = _faint(gradients)
                faint = faint or any(small)
                if mute:
                    gradients = [tf.zeros_like(g) if f else g for g, f in zip(gradients, small, strict=True)]
            self._step(optimizer=optimizer, gradients=gradients, anchors=anchors, mu=case.prox_mu, pull=pull)
        after = keras_bridge.read(self._model)
        correct, unsure = (np.array([pair[i] for pair in told], np.float32) for i in (0, 1))
        moved = {path: after[path] - value for path, value in before.items()}
        return Answers(
            outputs=outputs,
            evaluated=np.array([evaluated], np.float32),
            losses=np.array(losses, np.float32),
            correct=correct,
            unsure=unsure,
            moved=moved,
            start=before,
            faint=faint,
        )

    def _write(self, weights: Tensors) -> None:
        for variable in self._travelling:
            variable.assign(weights[variable.path])

    def _as_input(self, x: np.ndarray) -> Any:
        import tensorflow as tf

        return tf.constant(x.astype(np.float32) if x.dtype == np.uint8 else x)

    def _stepped(self, x: np.ndarray, y: np.ndarray, case: Case, number: int, material: Material) -> Any:
        """Returns as `_backward`, at the first step what `gradient` found if it was asked."""
        first = self._first
        if number or first is None or not first.of(case, material):
            return self._backward(x, y, case, number)
        for variable, value in first.changed:
            variable.assign(value)
        return first.loss, first.outputs, first.gradients

    def _backward(self, x: np.ndarray, y: np.ndarray, case: Case, number: int) -> tuple[Any, Any, list[Any]]:
        import tensorflow as tf

        def work() -> tuple[Any, Any, list[Any]]:
            values = [v.value for v in self._trained]
            with draws_given(self._model, case.dropout_seed, number), tf.GradientTape() as tape:
                out = self._model(self._as_input(x), training=True)
                loss = tf.reduce_mean(keras_losses(self._options, y, out))
                for extra in self._model.losses:
                    loss = loss + tf.cast(extra, tf.float32)
            pairs = zip(tape.gradient(loss, values), values, strict=True)
            return loss, out, [tf.zeros(v.shape) if g is None else tf.convert_to_tensor(g) for g, v in pairs]

        made: tuple[Any, Any, list[Any]] = self._run(work)
        return made

    def _step(self, optimizer: Any, gradients: Sequence[Any], anchors: Sequence[Any], mu: float, pull: Any) -> None:
        import tensorflow as tf

        if mu:
            values = [v.value for v in self._trained]
            gradients = [g + mu * (w - a) for g, w, a in zip(gradients, values, anchors, strict=True)]
        if pull is not None:
            gradients = [g + c for g, c in zip(gradients, pull, strict=True)]
        if self._options.clip_norm:
            gradients, _ = tf.clip_by_global_norm(gradients, self._options.clip_norm)
        optimizer.apply(list(gradients), self._trained)

    def _right(self, y: np.ndarray, out: Any) -> tuple[float, float]:
        """Returns the number of right answers, and of those that rounding may turn."""
        logits, task = self._options.from_logits, self._options.task
        right = float(np.sum(right_answers(self._options.loss, y, out, from_logits=logits, task=task)))
        if (task := bare(task)) != CLASSIFICATION:
            return right, _unsure(task, np.asarray(out, np.float64), logits)
        rows = np.asarray(out, np.float64).reshape(len(y), -1)
        if rows.shape[1] == 1:
            gap = np.abs(rows[:, 0] - (0.0 if logits and loss_row(self._options.loss).reads_logits else 0.5))
        else:
            top = np.sort(rows, axis=1)
            gap = top[:, -1] - top[:, -2]
        return right, float(np.sum(gap <= 1e-4 * np.abs(rows).max(initial=1e-30)))


def _faint(gradients: Sequence[Any]) -> list[bool]:
    sizes = np.array([norm(np.asarray(g)) for g in gradients])
    return [bool(0 < size <= FAINT * norm(sizes)) for size in sizes]


def _unsure(task: str, out: np.ndarray, logits: bool) -> float:
    """Returns how many right answers rounding may turn, each position or tag counting as its share of an example."""
    if heads := task_row(task).heads:
        parts = ((head, part) for head, part in zip(heads, answers_of(heads, out).values(), strict=True))
        return sum(_unsure(head.task, part, head.loss not in DISTANCES) for head, part in parts)
    kind, near = task_row(task).kind, 1e-4 * np.abs(out).max(initial=1e-30)
    if kind == NUMBERS:
        return 0.0
    if kind == BITS or out.shape[-1] == 1:
        gap = np.abs(out - (0.0 if logits else 0.5))
    else:
        top = np.sort(out, axis=-1)
        gap = top[..., -1] - top[..., -2]
    # Padding makes the share of a position larger than one in all; rounding of the sums themselves is no answer.
    return float(np.sum(gap <= near)) + 1e-3


def keras_losses(options: Options, y: np.ndarray, out: Any) -> Any:
    """Returns the loss of every example by Keras' own functions, labels as a Keras user would give them.

    One output is told the label itself, several outputs a one-hot row; class weights are looked up, as by ``fit``.
    """
    if of := task_row(options.task).weighted:
        y, weight = parted(of, y, partial(whole_classes, of.task))
        return weight * keras_losses(replace(options, task=of.task), y, out)
    if options.task != CLASSIFICATION:
        return _keras_losses_of_task(options, y, out)
    each = _keras_losses_of_labels(options, y, out)
    return each * np.array(options.class_weights, np.float32)[y] if options.class_weights else each


_SQUASHING = {
    "binary-crossentropy": lambda losses: losses.binary_crossentropy,
    "binary-focal-crossentropy": lambda losses: losses.binary_focal_crossentropy,
    "categorical-focal-crossentropy": lambda losses: losses.categorical_focal_crossentropy,
}
"""Row of `LOSSES` → the function of ``keras.losses``."""


def _keras_losses_of_labels(options: Options, y: np.ndarray, out: Any) -> Any:
    import keras

    losses, logits, smoothing = keras.losses, options.from_logits, options.label_smoothing
    lone = out.shape[-1] == 1
    told = y.astype(np.float32)[:, None] if lone else np.eye(out.shape[-1], dtype=np.float32)[y]
    if options.loss == "sparse-categorical-crossentropy" and not smoothing:
        return losses.sparse_categorical_crossentropy(y, out, from_logits=logits)
    if options.loss in ("sparse-categorical-crossentropy", "categorical-crossentropy"):
        return losses.categorical_crossentropy(told, out, from_logits=logits, label_smoothing=smoothing)
    if options.loss.endswith("crossentropy"):
        return _SQUASHING[options.loss](losses)(told, out, from_logits=logits, label_smoothing=smoothing)
    return {"mse": losses.mean_squared_error, "mae": losses.mean_absolute_error, "huber": losses.huber}[options.loss](
        told, out
    )


def _keras_losses_of_task(options: Options, y: np.ndarray, out: Any) -> Any:
    """Returns the loss of every example of another task than classification, example by example as Keras has it."""
    import keras
    import tensorflow as tf

    if heads := task_row(options.task).heads:
        truths, answers = targets_of(heads, y), answers_of(heads, out)
        total, weights = 0.0, weights_by_head(heads, options.class_weights)
        for head in heads:
            of_head: dict[str, Any] = {"task": head.task, "loss": head.loss, "class_weights": weights[head.name]}
            own = replace(options, from_logits=True, **of_head)
            truth = whole_classes(head.task, truths[head.name])
            total = total + head.weight * keras_losses(own, truth, answers[head.name])
        return total
    rows = []
    for target, answer in zip(y, tf.unstack(out), strict=True):
        if task_row(options.task).kind == CLASSES:
            real = np.flatnonzero(target.reshape(-1) >= 0)
            scores = tf.gather(tf.reshape(answer, (-1, answer.shape[-1])), real)
            each = keras_losses(replace(options, task=CLASSIFICATION), target.reshape(-1)[real], scores)
            rows.append(tf.reduce_mean(each) if len(real) else tf.constant(0.0))
            continue
        flat, told = tf.reshape(answer, (1, -1)), target.reshape(1, -1).astype(np.float32)
        if options.loss.endswith("crossentropy"):
            keys = {"from_logits": options.from_logits, "label_smoothing": options.label_smoothing}
            rows.append(_SQUASHING[options.loss](keras.losses)(told, flat, **keys)[0])
            continue
        names = {"mse": "mean_squared_error", "mae": "mean_absolute_error", "huber": "huber"}
        rows.append(getattr(keras.losses, names[options.loss])(told, flat)[0])
    return tf.stack(rows)


def inputs_of(model: Any) -> dict[str, Any]:
    """Returns what a case must know of the model's inputs: the smallest vocabulary, and what masks a time step."""
    found: dict[str, Any] = {}
    for layer in flatten_layers(model):
        kind = type(layer).__name__
        if kind == "Embedding":
            found["tokens"] = min(layer.input_dim, found.get("tokens", layer.input_dim))
            if layer.mask_zero:
                found["padding"] = 0.0
        elif kind == "Masking":
            found["padding"] = float(layer.mask_value)
    return found


@contextlib.contextmanager
def unchanged(model: Any) -> Iterator[None]:
    """Puts every variable of the model back at the end of the block."""
    before = [(v, v.numpy()) for v in model.variables]
    try:
        yield
    finally:
        for variable, value in before:
            variable.assign(value)


@contextlib.contextmanager
def draws_given(model: Any, seed: int, step: int) -> Iterator[None]:
    """Lets Dropout layers and cells use the masks, and other layers the numbers, that NumPy computes."""
    import tensorflow as tf

    def keep(number: int, shape: Sequence[Any], rate: float) -> Any:
        return tf.constant(
            dropout_mask(seed=seed, step=step, layer_index=number, shape=[int(n) for n in shape], rate=rate), tf.float32
        )

    def make(draw: Draw, numbers: Sequence[int]) -> Any:
        return tf.constant(drawn_array(draw, numbers, seed, step))

    found = dropouts_of(model)
    undo = [swap(layer, "call", _given(layer, index, seed, step)) for index, layer in enumerate(found)]
    undo += swap_cells(model, len(found), keep)
    try:
        with answered_draws(lambda dtype: tf.zeros([2], dtype), numbered_draws(dropout_layers(model), make)):
            yield
    finally:
        for put_back in reversed(undo):
            put_back()


def _given(layer: Any, index: int, seed: int, step: int) -> Callable[..., Any]:
    def call(inputs: Any, training: bool = False) -> Any:
        if not training:
            return inputs
        shape = tuple(inputs.shape)
        noise = shape
        if type(layer).__name__.startswith("Spatial"):
            noise = (shape[0], *[1] * (len(shape) - 2), shape[-1])
        elif getattr(layer, "noise_shape", None) is not None:
            noise = tuple(s if n is None else n for s, n in zip(shape, layer.noise_shape, strict=True))
        keep = dropout_mask(seed=seed, step=step, layer_index=index, shape=noise, rate=layer.rate).astype(np.float32)
        return inputs * (keep * np.float32(1.0 / (1.0 - layer.rate)))

    return call
