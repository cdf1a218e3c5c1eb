"""The sections of the side bits, each as a writer and a reader, in the order of the package's docstring."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from fl_mobile.codecs.ecsq import models
from fl_mobile.codecs.ecsq.ans import Decoder, Run
from fl_mobile.codecs.ecsq.bits import BitReader, BitWriter
from fl_mobile.codecs.ecsq.factors import Factors
from fl_mobile.codecs.ecsq.layout import CLASSES, CONTEXTS, SIGN_CLASSES, Layout, TensorPlan, is_matrix
from fl_mobile.codecs.ecsq.lowrank import MAX_COLUMNS
from fl_mobile.codecs.ecsq.rounding import MAX_LEVEL
from fl_mobile.errors import WireError

MAGNITUDE_SYMBOLS = models.bucket_of(MAX_LEVEL - 1) + 1
SIGN_GROUPS = 3


class Head(NamedTuple):
    """What the side bits say of one tensor: its level and which classes it has."""

    level: int
    rows: bool
    columns: bool
    signs: bool


def write_factors(side: BitWriter, factors: Factors, shapes: Sequence[tuple[int, int]]) -> None:
    """Section 1."""
    side.put(int(any(factors.ranks)), 1)
    if any(factors.ranks):
        for number in (factors.ratio, factors.shifts[0] + 128, factors.shifts[1] + 128):
            side.put(number, 8)
        for rank, shape in zip(factors.ranks, shapes, strict=True):
            side.put(rank, 4 if is_matrix(shape) else 0)


def read_factors(side: BitReader, shapes: Sequence[tuple[int, int]]) -> Factors:
    """Section 1; a rank a tensor cannot have is a `WireError`."""
    if not side.take(1):
        return Factors((0,) * len(shapes))
    ratio, first, second = (side.take(8) for _ in range(3))
    ranks = tuple(side.take(4) if is_matrix(shape) else 0 for shape in shapes)
    too_big = (rank > min(shape) or shape[1] > MAX_COLUMNS for rank, shape in zip(ranks, shapes, strict=True) if rank)
    if not ratio or any(too_big):
        raise WireError("value", f"factor step {ratio}/32 or ranks {ranks} cannot be")
    return Factors(ranks, ratio, (first - 128, second - 128))


def write_plans(side: BitWriter, layout: Layout) -> list[Run]:
    """Sections 2 and 3; returns the ANS runs of the classes."""
    classes, signs = [], []
    for plan, shape in zip(layout.plans, layout.shapes, strict=True):
        side.put(plan.level, 5)
        if plan.level and is_matrix(shape):
            for part in (plan.rows, plan.columns, plan.signs):
                side.put(int(part is not None), 1)
            classes += [part for part in (plan.rows, plan.columns) if part is not None]
            signs += [plan.signs] if plan.signs is not None else []
    runs = []
    for parts in (classes, signs):
        if parts:
            symbols = np.concatenate(parts).astype(np.int32)
            runs.append(Run(symbols, write_fitted(side, np.bincount(symbols))))
    return runs


def write_fitted(side: BitWriter, counts: np.ndarray) -> list[int]:
    """Writes a table made for these counts; returns its frequencies."""
    table, bits = models.fit_table(counts)
    models.write_table(side, table, bits)
    return models.scale_table(table, bits)


def read_plans(side: BitReader, shapes: Sequence[tuple[int, int]]) -> tuple[list[Head], list[int], list[int]]:
    """Sections 2 and 3: level and flags of every tensor, class table, sign class table."""
    heads: list[Head] = []
    for shape in shapes:
        level = side.take(5)
        flags = side.take(3) if level and is_matrix(shape) else 0
        heads.append(Head(level, bool(flags & 4), bool(flags & 2), bool(flags & 1)))
    class_table = models.read_table(side, CLASSES) if any(h.rows or h.columns for h in heads) else []
    sign_table = models.read_table(side, SIGN_CLASSES) if any(h.signs for h in heads) else []
    return heads, class_table, sign_table


def take_classes(
    decoder: Decoder,
    heads: list[Head],
    class_table: list[int],
    sign_table: list[int],
    shapes: Sequence[tuple[int, int]],
) -> list[TensorPlan]:
    """Returns the plans, with the classes that the ANS stream begins with."""
    lengths = [
        (r if head.rows else 0, c if head.columns else 0, c if head.signs else 0)
        for head, (r, c) in zip(heads, shapes, strict=True)
    ]
    classes = take(decoder, sum(r + c for r, c, _ in lengths), class_table).astype(np.uint8)
    signs = take(decoder, sum(s for _, _, s in lengths), sign_table).astype(np.uint8)
    plans, at, sign_at = [], 0, 0
    for head, (r, c, s) in zip(heads, lengths, strict=True):
        down, across, sign = classes[at : at + r], classes[at + r : at + r + c], signs[sign_at : sign_at + s]
        at, sign_at = at + r + c, sign_at + s
        plans.append(
            TensorPlan(
                head.level,
                down if head.rows else None,
                across if head.columns else None,
                sign if head.signs else None,
            )
        )
    return plans


def take(decoder: Decoder, count: int, frequencies: list[int]) -> np.ndarray:
    """Returns ``count`` symbols; a model of one symbol takes no bits."""
    return decoder.take(count, frequencies) if len(frequencies) > 1 else np.zeros(count, np.int32)


def write_contexts(side: BitWriter, counts: np.ndarray, symbols: np.ndarray) -> dict[int, list[int]]:
    """Writes how many non-zeros each context has and the magnitude tables; returns the table of each context."""
    busy = np.flatnonzero(counts)
    first, last = int(busy[0]), int(busy[-1])
    top = int(symbols.max()) + 1
    context = np.repeat(np.arange(CONTEXTS), counts)
    histogram = np.bincount(context * top + symbols, minlength=CONTEXTS * top).reshape(CONTEXTS, top)
    groups = _shared(histogram, busy)
    side.put(first, 5)
    side.put(last, 5)
    tables: dict[int, list[int]] = {}
    current: list[int] = []
    for k in range(first, last + 1):
        side.golomb(int(counts[k]), 4)
        if not counts[k]:
            continue
        if k != busy[0]:
            side.put(int(k in groups), 1)
        if k in groups:
            members = groups[k]
            used = int(np.flatnonzero(members)[-1]) + 1
            current = write_fitted(side, members[:used])
        tables[k] = current
    return tables


def _shared(histogram: np.ndarray, busy: np.ndarray) -> dict[int, np.ndarray]:
    """Returns which contexts open a new magnitude table, and the counts it serves: neighbours share if that is less."""
    groups = {int(busy[0]): histogram[busy[0]]}
    opened = int(busy[0])
    for k in map(int, busy[1:]):
        together = groups[opened] + histogram[k]
        apart = _table_cost(groups[opened]) + _table_cost(histogram[k])
        if _table_cost(together) <= apart:
            groups[opened] = together
        else:
            opened, groups[k] = k, histogram[k]
    return groups


def _table_cost(counts: np.ndarray) -> float:
    total = float(counts.sum())
    entropy = total * np.log2(total) - float((counts * np.log2(np.maximum(counts, 1))).sum())
    return entropy + 6 + 4 * int(np.flatnonzero(counts)[-1])


def read_contexts(side: BitReader, limit: int) -> tuple[np.ndarray, dict[int, list[int]]]:
    """Section 4: non-zeros of each context, ``int64[32]``, and the magnitude model of those that have any."""
    counts = np.zeros(CONTEXTS, np.int64)
    first, last = side.take(5), side.take(5)
    tables: dict[int, list[int]] = {}
    current: list[int] = []
    for k in range(first, last + 1):
        counts[k] = side.golomb(4, limit)
        if counts[k]:
            if not current or side.take(1):
                current = models.read_table(side, MAGNITUDE_SYMBOLS)
            tables[k] = current
    if not tables:
        raise WireError("value", "a coded payload without a single non-zero")
    return counts, tables


def read_sign_models(side: BitReader) -> list[list[int]]:
    """Section 5: the models of sign groups 1 to 3; one that is not used has a single symbol."""
    return [models.read_table(side, 2) if side.take(1) else [models.TOTAL] for _ in range(SIGN_GROUPS)]
