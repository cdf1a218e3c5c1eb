"""What rules over single updates have in common: they are kept until the end, and the order they came in is forgotten.

A rule that listens to whole updates decides by their trainable tensors, laid end to end. Batch-norm statistics are on
a scale of their own, and a lie about them would pass any test of the rest: of them the coordinate-wise median over the
clients that were listened to counts.
"""

from __future__ import annotations

import abc
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np

from fl_mobile.tensors import Spec, Tensors, cut

Values = np.ndarray
"""``float64[n, d]``: one update a row, in an order that depends on what they hold alone."""


@dataclass
class SingleUpdates(abc.ABC):
    """Keeps updates; every one has the same say, whatever it weighs: a claim about examples is the cheapest lie.

    Attributes:
        spec: Shapes of the updates.
    """

    spec: Spec
    _updates: list[Tensors] = field(default_factory=list, init=False)

    def add(self, delta: Tensors, weight: int) -> None:
        """Keeps an update; nothing can be taken out again.

        Raises:
            ValueError: A weight below 0; a fault of ours.
        """
        if weight < 0:
            raise ValueError("a rule over single updates cannot take one out again")
        self._updates.append({path: delta[path] for path in self.spec})

    def merge(self, other: SingleUpdates) -> None:
        """Adds the updates of another."""
        self._updates += other._updates

    def result(self) -> Tensors | None:
        """Returns the aggregate, or None if nothing was added."""
        return self._combined(self._updates) if self._updates else None

    @property
    def weight(self) -> int:
        """Updates so far."""
        return len(self._updates)

    @abc.abstractmethod
    def _combined(self, updates: list[Tensors]) -> Tensors:
        """Returns the aggregate of one or more updates."""


class Verdict(NamedTuple):
    """What a rule makes of whole updates.

    Attributes:
        value: ``float64[d]``, the aggregate of the trainable tensors.
        heard: ``bool[n]``: whose statistics count.
    """

    value: np.ndarray
    heard: np.ndarray


@dataclass
class WholeUpdates(SingleUpdates):
    """Combines updates as vectors.

    Attributes:
        judge: Trainable values of one or more updates → what becomes of them.
    """

    judge: Callable[[Values], Verdict]

    def _combined(self, updates: list[Tensors]) -> Tensors:
        trained = {path: t for path, t in self.spec.items() if t.trainable}
        others = {path: t for path, t in self.spec.items() if not t.trainable}
        # Sums of float64 hang on their order: sorted by what they hold, updates have but one.
        rows = sorted((laid_out(update, self.spec) for update in updates), key=lambda row: row.tobytes())
        values = np.stack([laid_out(cut(row, self.spec), trained) for row in rows])
        verdict = self.judge(values.astype(np.float64))
        merged = cut(verdict.value.astype(np.float32), trained)
        heard = [row for row, counts in zip(rows, verdict.heard, strict=True) if counts]
        if others and heard:
            kept = np.stack([laid_out(cut(row, self.spec), others) for row in heard])
            merged |= cut(middle(np.sort(kept, axis=0)).astype(np.float32), others)
        zeros = {path: np.zeros(t.shape, np.float32) for path, t in others.items()}
        return {path: merged[path] if path in merged else zeros[path] for path in self.spec}


def laid_out(tensors: Tensors, spec: Spec) -> np.ndarray:
    """Returns the tensors of ``spec`` end to end, ``float32[d]``, every zero a positive one."""
    parts = [np.asarray(tensors[path], np.float32).reshape(-1) for path in spec]
    return np.concatenate(parts or [np.zeros(0, np.float32)]) + np.float32(0.0)


def norms_of(rows: Values) -> np.ndarray:
    """Returns ``float64[n]``, the L2 norm of every row."""
    return np.sqrt(np.einsum("ij,ij->i", rows, rows))


def summed(weights: np.ndarray, rows: Values) -> np.ndarray:
    """Returns ``float64[d]``, ``Σ weightsᵢ·rowsᵢ``; not by BLAS, whose bits hang on how many threads it has."""
    found: np.ndarray = np.einsum("i,ij->j", weights, rows)
    return found


def shortened(norms: np.ndarray, bound: float) -> np.ndarray:
    """Returns ``float64[n]``: the factors that leave no row longer than ``bound``."""
    long = norms > bound
    return np.where(long, bound / np.where(long, norms, 1.0), 1.0)


def middle(values: np.ndarray) -> np.ndarray:
    """Returns the median of rising values ``float[n, m]``: of an even number the mean of the two in the middle.

    >>> middle(np.array([[1.0], [2.0], [30.0]])).tolist()
    [2.0]
    """
    n = len(values)
    found: np.ndarray = (values[(n - 1) // 2].astype(np.float64) + values[n // 2]) / 2
    return found


def no_majority(updates: int, **parameters: float) -> str:
    """Returns why so few updates have no honest majority once one of them lies."""
    return "" if updates > 2 else f"it needs at least 3 updates, of which one may lie, and gets {updates}"


def assumed_liars(updates: int, share: float) -> int:
    """Returns how many of the updates are taken to lie: a share of them, rounded up, and never nobody.

    >>> assumed_liars(30, 0.1), assumed_liars(31, 0.1), assumed_liars(5, 0.1)
    (3, 4, 1)
    """
    return max(1, int(np.ceil(round(share * updates, 9))))  # 0.1 · 30 is above 3 in float64
