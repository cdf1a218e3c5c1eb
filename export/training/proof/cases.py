"""What a training program is tried on. A case is a few numbers; weights and batches are drawn from them anywhere."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from math import prod, sqrt
from typing import Any

import numpy as np

from export.training.contract import Contract, Weight
from fl_mobile.seeds import rng_for
from fl_mobile.tasks.heads import joined
from fl_mobile.tasks.table import BITS, CLASSES, TaskRow, task_row
from fl_mobile.tasks.weighted import with_weights
from fl_mobile.tensors import Tensors

Batch = tuple[np.ndarray, np.ndarray]


@dataclass(frozen=True)
class Case:
    """One start and a few steps from it.

    Attributes:
        name: What it shows.
        seed: Of weights, examples, correction and dropout.
        rows: Examples of every step's batch; fewer than the program's batch are padded and masked.
        learning_rate: Of every step.
        prox_mu: FedProx's μ, 0 in a program without it.
        correction: Standard deviation of what is added to every gradient, 0 for nothing.
        accumulate: Whether the batches are added up and applied as one step.
        tokens: Examples are whole numbers below this; 0 draws by the input's dtype.
        padding: Value of time steps that are masked: the last few of most examples; None for a model without masks.
        weight_scale: What drawn kernels are multiplied with.
        signed: Whether trained vectors have either sign, so that both sides of every relu are met.
        calm: Whether normalised numbers are small and far from a relu's corners at 0 and 6, so that a deep net is
            nearly linear and its steps follow each other without amplifying what rounding changes.
    """

    name: str
    seed: int
    rows: tuple[int, ...]
    learning_rate: float
    prox_mu: float = 0.0
    correction: float = 0.0
    accumulate: bool = False
    tokens: int = 0
    padding: float | None = None
    weight_scale: float = 1.0
    signed: bool = True
    calm: bool = False

    @property
    def dropout_seed(self) -> int:
        """The program's ``seed`` input; large, so that all digits of the masks' formula are used."""
        return 23159 * 23159 + 7919 * (self.seed + 1)

    def to_json(self) -> dict[str, Any]:
        """Returns a JSON value."""
        return asdict(self)


def case_from_json(value: Mapping[str, Any]) -> Case:
    """Reads what `Case.to_json` wrote; `TypeError` or `KeyError` if it is none."""
    return Case(**{**value, "rows": tuple(value["rows"])})


@dataclass(frozen=True)
class Material:
    """What a case is played with.

    Attributes:
        weights: To start from.
        batches: One a step.
        correction: Added to every gradient, or None.
    """

    weights: Tensors
    batches: tuple[Batch, ...]
    correction: Tensors | None = None


def drawn(case: Case, contract: Contract) -> Material:
    """Returns weights, batches and correction of a case, the same on every computer."""
    weights = {w.path: _weight(w, rng_for(case.seed, "weights", i), case) for i, w in enumerate(contract.weights)}
    batches = tuple(_batch(case, contract, number) for number in range(len(case.rows)))
    return Material(weights, batches, correction_of(case, contract))


def correction_of(case: Case, contract: Contract) -> Tensors | None:
    """Returns what a case adds to every gradient, or None."""
    if not case.correction:
        return None
    trained = [(i, w) for i, w in enumerate(contract.weights) if w.trainable]
    return {
        w.path: (rng_for(case.seed, "correction", i).standard_normal(w.shape) * case.correction).astype(np.float32)
        for i, w in trained
    }


def _weight(weight: Weight, rng: np.random.Generator, case: Case) -> np.ndarray:
    """Returns kernels as He et al. (2015) start them, and vectors away from zero: a variance is positive."""
    if len(weight.shape) < 2:
        size = rng.uniform(0.5, 1.0, weight.shape)
        if case.calm and weight.trainable:
            return np.asarray(0.4 * size if weight.path.endswith("/gamma") else 2.25 + size, np.float32)
        sign = rng.choice([-1.0, 1.0], weight.shape) if weight.trainable and case.signed else 1.0
        return np.asarray(size * sign, np.float32)
    spread = case.weight_scale * sqrt(2 / prod(weight.shape[:-1]))
    return (rng.standard_normal(weight.shape) * spread).astype(np.float32)


def _batch(case: Case, contract: Contract, number: int) -> Batch:
    rng = rng_for(case.seed, "batch", number)
    port = next(p for p in contract.signature("train").inputs if p.name == "x")
    shape = (case.rows[number], *port.shape[1:])
    x: np.ndarray
    if case.tokens:
        x = rng.integers(0 if case.padding is None else min(1, case.tokens - 1), case.tokens, shape)
    elif port.dtype == "float32":
        x = rng.standard_normal(shape)
    else:
        x = rng.integers(0, 256 if port.dtype == "uint8" else 2, shape)
    if case.padding is not None and len(shape) > 2 - (case.tokens > 0):
        steps = shape[1]
        length = rng.integers(1, steps + 1, shape[0])
        x[np.arange(steps)[None, :] >= length[:, None]] = case.padding
    return x.astype(port.dtype), _targets(contract, shape[0], rng)


def _targets(contract: Contract, rows: int, rng: np.random.Generator) -> np.ndarray:
    """Returns targets of the program's task; a tenth of the positions that may be padding are."""
    port = next(p for p in contract.signature("train").inputs if p.name == "y")
    classes = max(contract.signature("infer").outputs[0].shape[-1], 2)
    if of := task_row(contract.task).weighted:
        y = _of_task(of.task, (rows, *of.target), classes, rng)
        return with_weights(y, np.maximum(rng.uniform(-0.5, 2.0, rows), 0).astype(np.float32))
    return _of_task(contract.task, (rows, *port.shape[1:]), classes, rng)


def _of_task(task: str, shape: tuple[int, ...], classes: int, rng: np.random.Generator) -> np.ndarray:
    row = task_row(task)
    if row.heads:
        return joined(
            {h.name: _drawn(task_row(h.task), (shape[0], *h.target), max(h.answer[-1], 2), rng) for h in row.heads}
        )
    return _drawn(row, shape, classes, rng)


def _drawn(row: TaskRow, shape: tuple[int, ...], classes: int, rng: np.random.Generator) -> np.ndarray:
    if row.kind == BITS:
        return rng.integers(0, 2, shape).astype(np.float32)
    if row.kind != CLASSES:
        return rng.standard_normal(shape).astype(np.float32)
    drawn = rng.integers(0, classes, shape).astype(np.int32)
    return np.where(rng.uniform(size=shape) < 0.1, np.int32(-1), drawn) if row.padded else drawn
