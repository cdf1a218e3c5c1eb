"""Bytes to levels: whatever arrives, only a `WireError` comes out; the layout is in the package's docstring."""

from __future__ import annotations

import numpy as np

from fl_mobile.codecs.ecsq import ans
from fl_mobile.codecs.ecsq.bits import take, take_golomb
from fl_mobile.codecs.ecsq.layout import (
    CLASSES,
    COLUMN_CLASSES,
    CONTEXTS,
    ROW_CLASSES,
    SIGN_CLASSES,
    SIGNS,
    Plans,
    Shapes,
    is_matrix,
    lay_out,
    lined_up,
    quotient,
    to_positions,
)
from fl_mobile.codecs.ecsq.lowrank import MAX_COLUMNS
from fl_mobile.codecs.ecsq.models import STARTS, bucket_bits, bucket_of, geometric, read_table
from fl_mobile.codecs.ecsq.records import MAX_LEVEL, Factors, Levels
from fl_mobile.codecs.ecsq.write import MAX_PER_BYTE, SIGN_GROUPS
from fl_mobile.errors import WireError
from fl_mobile.kernels.compiled import compiled

MAGNITUDE_SYMBOLS = int(bucket_of(MAX_LEVEL - 1)) + 1


@compiled
def read_levels(data: np.ndarray, shapes: Shapes) -> tuple[Levels, Factors]:
    """Returns the non-zeros of the tensors and then of their factors, in coding order.

    Args:
        data: ``uint8[n]``, all of it.
        shapes: Of the tensors.

    Raises:
        WireError: For anything `write_levels` cannot have written.
    """
    cursor = np.zeros(1, np.int64)
    factors = _read_factors(data, cursor, shapes)
    shapes = with_factors(shapes, factors.ranks)
    plans = _read_heads(data, cursor, shapes)
    class_model = sign_model = np.zeros(0, np.int64)
    if _any(plans, ROW_CLASSES | COLUMN_CLASSES):
        class_model = read_table(data, cursor, CLASSES)
    has_signs = _any(plans, SIGNS)
    if has_signs:
        sign_model = read_table(data, cursor, SIGN_CLASSES)
    counts, of_context, tables = _read_contexts(data, cursor, shapes.offset[-1])
    total = counts.sum()
    if total > MAX_PER_BYTE * len(data):
        raise WireError("size", "a payload claims more than 256 non-zeros for each of its bytes")
    group_models = np.zeros((SIGN_GROUPS + 1, 2), np.int64)
    coded = np.zeros(SIGN_GROUPS + 1, np.int64)
    if has_signs:
        for group in range(1, SIGN_GROUPS + 1):
            if take(data, cursor, 1):
                model = read_table(data, cursor, 2)
                coded[group] = len(model)
                group_models[group, : len(model)] = model
    length = take_golomb(data, cursor, 8, len(data))
    at = (cursor[0] + 7) // 8
    if at + length > len(data):
        raise WireError("truncated", "the ANS stream is longer than the payload")
    if length and not data[at + length - 1]:
        raise WireError("value", "the ANS stream ends in a zero byte")
    stack = ans.from_bytes(data[at : at + length])
    cursor[0] = 8 * (at + length)

    _pop_classes(stack, shapes, plans, class_model, sign_model)
    layout = lay_out(shapes, plans)
    if (counts > layout.slots).any():
        raise WireError("value", "a context has more non-zeros than places")
    symbols = np.empty((2, total), np.int64)
    first = 0
    for context in range(CONTEXTS):
        if counts[context]:
            end = first + counts[context]
            ans.pop(stack, symbols[0, first:end], geometric(counts[context], layout.slots[context]))
            ans.pop(stack, symbols[1, first:end], tables[of_context[context]])
            first = end
    numbers = _take_numbers(data, cursor, symbols)
    positions, tensor = to_positions(_places(numbers[0], counts, layout.slots), shapes, layout)
    negative = _pop_signs(data, cursor, stack, (positions, tensor), (group_models, coded), (shapes, plans))
    if not ans.is_empty(stack):
        raise WireError("stream", "the ANS stream does not end where its symbols do")
    _check_end(data, cursor, total)
    return Levels(positions, numbers[1] + 1, negative), factors


@compiled
def with_factors(shapes: Shapes, ranks: np.ndarray) -> Shapes:
    """Returns the shapes that are coded: those of the tensors, then ``U`` and ``V`` of each that has a rank."""
    tensors, split = len(shapes.rows), np.flatnonzero(ranks)
    rows, columns = np.empty(tensors + 2 * len(split), np.int64), np.empty(tensors + 2 * len(split), np.int64)
    rows[:tensors], columns[:tensors] = shapes.rows, shapes.columns
    for i in range(len(split)):
        t, at = split[i], tensors + 2 * i
        rows[at], rows[at + 1] = shapes.rows[t], shapes.columns[t]
        columns[at] = columns[at + 1] = ranks[t]
    return lined_up(rows, columns)


@compiled
def _any(plans: Plans, flags: int) -> bool:
    return bool((plans.flags & flags).any())


@compiled
def _read_factors(data: np.ndarray, cursor: np.ndarray, shapes: Shapes) -> Factors:
    """Section 1; a rank a tensor cannot have is a `WireError`."""
    ranks = np.zeros(len(shapes.rows), np.int64)
    if not take(data, cursor, 1):
        return Factors(ranks, 1, 0, 0)
    ratio, first, second = take(data, cursor, 8), take(data, cursor, 8), take(data, cursor, 8)
    for t in range(len(ranks)):
        if is_matrix(shapes, t):
            ranks[t] = take(data, cursor, 4)
            if ranks[t] and (ranks[t] > min(shapes.rows[t], shapes.columns[t]) or shapes.columns[t] > MAX_COLUMNS):
                raise WireError("value", "a tensor cannot have factors of that rank")
    if not ratio:
        raise WireError("value", "the step of the factors must be above 0")
    return Factors(ranks, ratio, first - 128, second - 128)


@compiled
def _read_heads(data: np.ndarray, cursor: np.ndarray, shapes: Shapes) -> Plans:
    """Section 2: plans whose classes are still to come."""
    tensors = len(shapes.rows)
    level, flags = np.zeros(tensors, np.int64), np.zeros(tensors, np.int64)
    for t in range(tensors):
        level[t] = take(data, cursor, 5)
        if level[t] and is_matrix(shapes, t):
            flags[t] = take(data, cursor, 3)
    rows, columns = shapes.row_at[-1], shapes.column_at[-1]
    return Plans(level, flags, np.zeros(rows, np.uint8), np.zeros(columns, np.uint8), np.zeros(columns, np.uint8))


@compiled
def _read_contexts(data: np.ndarray, cursor: np.ndarray, limit: int) -> tuple[np.ndarray, np.ndarray, list[np.ndarray]]:
    """Section 4: non-zeros of each context, which table each uses, and the tables."""
    counts, of_context = np.zeros(CONTEXTS, np.int64), np.zeros(CONTEXTS, np.int64)
    tables = [np.zeros(0, np.int64) for _ in range(0)]
    first, last = take(data, cursor, 5), take(data, cursor, 5)
    for context in range(first, last + 1):
        counts[context] = take_golomb(data, cursor, 4, limit)
        if counts[context]:
            if not len(tables) or take(data, cursor, 1):
                tables.append(read_table(data, cursor, MAGNITUDE_SYMBOLS))
            of_context[context] = len(tables) - 1
    if not len(tables):
        raise WireError("value", "a coded payload without a single non-zero")
    return counts, of_context, tables


@compiled
def _pop_classes(
    stack: np.ndarray, shapes: Shapes, plans: Plans, class_model: np.ndarray, sign_model: np.ndarray
) -> None:
    """Fills in the classes that the ANS stream begins with: of rows and columns, then of signs."""
    length = 0
    for t in range(len(shapes.rows)):
        length = max(length, shapes.rows[t], shapes.columns[t])
    symbols = np.empty(length, np.int64)
    for t in range(len(shapes.rows)):
        if plans.flags[t] & ROW_CLASSES:
            ans.pop(stack, symbols[: shapes.rows[t]], class_model)
            plans.rows[shapes.row_at[t] : shapes.row_at[t + 1]] = symbols[: shapes.rows[t]]
        if plans.flags[t] & COLUMN_CLASSES:
            ans.pop(stack, symbols[: shapes.columns[t]], class_model)
            plans.columns[shapes.column_at[t] : shapes.column_at[t + 1]] = symbols[: shapes.columns[t]]
    for t in range(len(shapes.rows)):
        if plans.flags[t] & SIGNS:
            ans.pop(stack, symbols[: shapes.columns[t]], sign_model)
            plans.signs[shapes.column_at[t] : shapes.column_at[t + 1]] = symbols[: shapes.columns[t]]


@compiled
def _take_numbers(data: np.ndarray, cursor: np.ndarray, symbols: np.ndarray) -> np.ndarray:
    """Returns gaps and magnitudes − 1, ``int64[2, n]``."""
    bits = 0
    for which in range(2):
        for i in range(symbols.shape[1]):
            bits += bucket_bits(symbols[which, i])
    first = cursor[0]
    if first + bits > 8 * len(data):
        raise WireError("truncated", "the raw bits of numbers go on behind the end of the payload")
    numbers, at, waiting, held = np.empty(symbols.shape, np.int64), first >> 3, 0, np.int64(0)
    if bits:
        waiting, held = 8 - (first & 7), np.int64(data[at]) & ((1 << 8 - (first & 7)) - 1)
        at += 1
    for which in range(2):
        for i in range(symbols.shape[1]):
            symbol = symbols[which, i]
            width = bucket_bits(symbol)  # mostly 0; to go round those would cost more than to add nothing
            while waiting < width:
                held = held << 8 | np.int64(data[at])
                waiting += 8
                at += 1
            waiting -= width
            numbers[which, i] = STARTS[symbol] + (held >> waiting)
            held &= (1 << waiting) - 1
    cursor[0] = first + bits
    _take_padding(data, cursor)
    return numbers


@compiled
def _take_padding(data: np.ndarray, cursor: np.ndarray) -> None:
    if take(data, cursor, -cursor[0] % 8):
        raise WireError("value", "the padding of the raw bits is not zero")


@compiled
def _places(gaps: np.ndarray, counts: np.ndarray, slots: np.ndarray) -> np.ndarray:
    """Returns rising places from gaps; each context must end within its own places."""
    places, i, begin = np.empty(len(gaps), np.int64), 0, 0
    for context in range(CONTEXTS):
        place = begin - 1
        for _ in range(counts[context]):
            place += gaps[i] + 1
            places[i] = place
            i += 1
            if place >= begin + slots[context]:
                raise WireError("value", "a non-zero lies outside of the places of its context")
        begin += slots[context]
    return places


@compiled
def _pop_signs(
    data: np.ndarray,
    cursor: np.ndarray,
    stack: np.ndarray,
    where: tuple[np.ndarray, np.ndarray],
    models: tuple[np.ndarray, np.ndarray],
    form: tuple[Shapes, Plans],
) -> np.ndarray:
    """Returns ``bool[n]`` from the coded signs of groups 1 to 3 and the raw ones of group 0.

    Args:
        where: Positions and tensors of the non-zeros in coding order.
        models: Models of the groups ``int64[4, 2]``, and how many symbols each has, 0 for none.
        form: Shapes and plans.
    """
    positions, tensor = where
    group_models, coded = models
    shapes, plans = form
    total = len(positions)
    kinds = np.zeros(total, np.uint8)  # twice the group, and one more for mostly minus
    members = np.zeros(SIGN_GROUPS + 1, np.int64)
    if (plans.flags & SIGNS).any():
        # Taken out of their records first: to hand a record to a function counts references at every turn.
        flags, signs = plans.flags, plans.signs
        offset, column_at, columns = shapes.offset, shapes.column_at, shapes.columns
        for i in range(total):
            t = tensor[i]
            if flags[t] & SIGNS:
                inside = positions[i] - offset[t]
                which = np.int64(signs[column_at[t] + inside - quotient(inside, columns[t]) * columns[t]])
                mostly_minus = np.int64(which > SIGN_GROUPS)
                kinds[i] = 2 * (which - SIGN_GROUPS * mostly_minus) + mostly_minus
            members[kinds[i] >> 1] += 1
    else:
        members[0] = total
    at = np.cumsum(members) - members
    odd = np.zeros(total, np.int64)  # one group after another
    for group in range(1, SIGN_GROUPS + 1):
        if coded[group]:
            ans.pop(stack, odd[at[group] : at[group] + members[group]], group_models[group, : coded[group]])
    bit = cursor[0]
    if bit + members[0] > 8 * len(data):
        raise WireError("truncated", "the raw bits of signs go on behind the end of the payload")
    cursor[0] = bit + members[0]
    for i in range(members[0]):
        odd[i] = (data[(bit + i) >> 3] >> (7 - ((bit + i) & 7))) & 1
    negative = np.empty(total, np.bool_)
    for i in range(total):
        group = kinds[i] >> 1
        negative[i] = (odd[at[group]] ^ np.int64(kinds[i] & 1)) != 0
        at[group] += 1
    _take_padding(data, cursor)
    return negative


@compiled
def _check_end(data: np.ndarray, cursor: np.ndarray, total: int) -> None:
    rest = data[cursor[0] // 8 :]
    if len(rest) and (rest.any() or len(data) != -(-total // MAX_PER_BYTE)):
        raise WireError("trailing", "there are bytes after the signs")
