"""Levels to bytes; the layout is in the package's docstring."""

from __future__ import annotations

import math

import numpy as np

from fl_mobile.codecs.ecsq import ans
from fl_mobile.codecs.ecsq.bits import golomb, put
from fl_mobile.codecs.ecsq.layout import (
    COLUMN_CLASSES,
    CONTEXTS,
    ROW_CLASSES,
    SIGNS,
    Layout,
    Plans,
    Shapes,
    find_blocks,
    is_matrix,
    lay_out,
    quotient,
)
from fl_mobile.codecs.ecsq.models import (
    STARTS,
    bucket_bits,
    bucket_of,
    geometric,
    write_fitted,
)
from fl_mobile.codecs.ecsq.records import Factors, Levels
from fl_mobile.kernels.compiled import compiled

MAX_PER_BYTE = 256
"""Non-zeros a payload may hold per byte of its own length: what keeps a tiny packet from making a server sweat."""

SIGN_GROUPS = 3
_SIDE_BYTES = 1 << 15
"""Room for the longest tables of all contexts; the heads of the tensors come on top."""


@compiled
def write_levels(levels: Levels, factors: Factors, shapes: Shapes, plans: Plans) -> np.ndarray:
    """Returns side bits, ANS stream and raw bits of at least one non-zero, ``uint8[n]``.

    Args:
        levels: With rising positions.
        factors: Of the first tensors.
        shapes: Of the tensors, then of their factors.
        plans: Of all of them.
    """
    total, layout = len(levels.positions), lay_out(shapes, plans)
    numbers, kinds, counts = _in_order(levels, shapes, plans, layout)
    symbols, bits = np.empty((2, total), np.int64), 0
    for which in range(2):
        for i in range(total):
            symbols[which, i] = bucket_of(numbers[which, i])
            bits += bucket_bits(symbols[which, i])

    side, at = np.zeros(_SIDE_BYTES + 4 * len(shapes.rows), np.uint8), 0
    at = _write_factors(side, at, factors, shapes)
    classes, signs = _classes_of(shapes, plans)
    at = _write_heads(side, at, shapes, plans)
    class_model = sign_model = np.zeros(0, np.int64)
    if len(classes):
        at, class_model = write_fitted(side, at, np.bincount(classes))
    if len(signs):
        at, sign_model = write_fitted(side, at, np.bincount(signs))
    at, opened, tables = _write_contexts(side, at, counts, symbols[1])
    groups, odd, raw = np.zeros((SIGN_GROUPS + 1, 2), np.int64), np.zeros(0, np.int64), kinds
    group_models = np.zeros((SIGN_GROUPS + 1, 2), np.int64)
    if len(signs):
        groups, odd = _by_group(kinds)
        raw = odd[: groups[0].sum()].astype(np.uint8)
        for sureness in range(1, SIGN_GROUPS + 1):
            used = groups[sureness].any()
            at = put(side, at, int(used), 1)
            if used:
                at, group_models[sureness] = write_fitted(side, at, groups[sureness])

    stack = ans.new_stack(len(classes) + len(signs) + 3 * total)
    end = len(odd)
    for sureness in range(SIGN_GROUPS, 0, -1):
        first = end - groups[sureness].sum()
        if first < end:
            ans.push(stack, odd[first:end], group_models[sureness])
        end = first
    end = total
    for context in range(CONTEXTS - 1, -1, -1):
        if counts[context]:
            first = end - counts[context]
            ans.push(stack, symbols[1, first:end], tables[opened[context]])
            ans.push(stack, symbols[0, first:end], geometric(counts[context], layout.slots[context]))
            end = first
    ans.push(stack, signs, sign_model)
    ans.push(stack, classes, class_model)
    stream = ans.to_bytes(stack)
    at = golomb(side, at, len(stream), 8)

    extras, tossed = _pack_extras(numbers, symbols, bits), _packed(raw)
    length = (at + 7) // 8 + len(stream) + len(extras) + len(tossed)
    out, at = np.zeros(max(length, -(-total // MAX_PER_BYTE)), np.uint8), (at + 7) // 8
    out[:at] = side[:at]
    for part in (stream, extras, tossed):
        out[at : at + len(part)] = part
        at += len(part)
    return out


@compiled
def flat_floor(levels: Levels, shapes: Shapes, plans: Plans) -> float:
    """Returns bits that `write_levels` needs at least with plans that have no classes, for a hundredth of its time.

    Gaps by their models, magnitudes by their own frequencies in each context, signs; no head and no table.
    """
    tensors, total, first = len(shapes.rows), len(levels.positions), np.searchsorted(levels.positions, shapes.offset)
    bits, counts = float(total), np.zeros((2, len(STARTS)), np.int64)
    for context in range(1, CONTEXTS):
        slots, marked, following = np.int64(0), 0, np.int64(0)
        counts[:] = 0
        for t in range(tensors):
            if plans.level[t] == context:
                for i in range(first[t], first[t + 1]):
                    place = slots + levels.positions[i] - shapes.offset[t]
                    counts[0, bucket_of(place - following)] += 1
                    counts[1, bucket_of(levels.magnitudes[i] - 1)] += 1
                    following = place + 1
                slots += shapes.rows[t] * shapes.columns[t]
                marked += first[t + 1] - first[t]
        if marked:
            borders = ans.borders_of(geometric(marked, slots))
            for symbol in range(len(STARTS)):
                gaps, same = counts[0, symbol], counts[1, symbol]
                if gaps:
                    bits += gaps * (24 - math.log2(borders[symbol + 1] - borders[symbol]) + bucket_bits(symbol))
                if same:
                    bits += same * (math.log2(marked / same) + bucket_bits(symbol))
    return bits


@compiled
def _in_order(
    levels: Levels, shapes: Shapes, plans: Plans, layout: Layout
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Returns the non-zeros in coding order: gaps before them and magnitudes − 1, ``int64[2, n]``, and `_sign_kinds`.

    Beside them how many each context has. Within a block positions and places rise together, so counting into blocks
    sorts. A tensor without classes is one block and needs no counting.
    """
    total, firsts = len(levels.positions), np.searchsorted(levels.positions, shapes.offset)
    block, inside = find_blocks(levels.positions, shapes, plans, layout)
    kinds = _sign_kinds(levels, shapes, plans, firsts)
    members = np.zeros(len(layout.start), np.int64)
    for t in range(len(shapes.rows)):
        first, last = firsts[t], firsts[t + 1]
        if first < last and layout.table[t] < 0:
            members[block[first]] = last - first
            continue
        for where in block[first:last]:
            members[where] += 1
    begin = np.cumsum(members) - members
    numbers, sorted_kinds = np.empty((2, total), np.int64), np.empty(total, np.uint8)
    for t in range(len(shapes.rows)):
        first, last = firsts[t], firsts[t + 1]
        if first < last and layout.table[t] < 0:
            at, end = begin[block[first]], begin[block[first]] + last - first
            numbers[0, at:end] = inside[first:last] + layout.start[block[first]]
            numbers[1, at:end] = levels.magnitudes[first:last] - 1
            sorted_kinds[at:end] = kinds[first:last]
            continue
        for i in range(first, last):
            where = block[i]
            at = begin[where]
            begin[where] = at + 1
            numbers[0, at] = layout.start[where] + inside[i]
            numbers[1, at] = levels.magnitudes[i] - 1
            sorted_kinds[at] = kinds[i]
    counts, context = np.zeros(CONTEXTS, np.int64), 0
    first, end = np.int64(0), layout.slots[0]  # places of the context
    following = np.int64(0)  # the place after the last non-zero of this context, or its first
    begun = 0
    for i in range(total):
        place = numbers[0, i]
        while place >= end:
            counts[context], begun = i - begun, i
            context += 1
            first, end = end, end + layout.slots[context]
            following = first
        numbers[0, i] = place - following
        following = place + 1
    counts[context] = total - begun
    return numbers, sorted_kinds, counts


@compiled
def _sign_kinds(levels: Levels, shapes: Shapes, plans: Plans, firsts: np.ndarray) -> np.ndarray:
    """Returns ``uint8[n]``: twice the sign group, and one more for the unlikely sign, which in group 0 is minus."""
    negative = levels.negative.view(np.uint8)
    if not (plans.flags & SIGNS).any():
        return negative
    kinds = negative.copy()
    for t in range(len(shapes.rows)):
        if plans.flags[t] & SIGNS:
            signs, begin, columns = plans.signs[shapes.column_at[t] :], shapes.offset[t], shapes.columns[t]
            for i in range(firsts[t], firsts[t + 1]):
                local = levels.positions[i] - begin
                which = np.int64(signs[local - quotient(local, columns) * columns])
                mostly_minus = np.int64(which > SIGN_GROUPS)
                kinds[i] = 2 * (which - SIGN_GROUPS * mostly_minus) + (np.int64(negative[i]) ^ mostly_minus)
    return kinds


@compiled
def _by_group(kinds: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Returns likely and unlikely signs of each group, ``int64[4, 2]``, and the signs of one group after another.

    Those are ``int64[n]``: 1 for an unlikely sign, in group 0 for minus.
    """
    groups = np.zeros((SIGN_GROUPS + 1, 2), np.int64)
    for kind in kinds:
        groups[kind >> 1, kind & 1] += 1
    ordered, at = np.empty(len(kinds), np.int64), np.cumsum(groups.sum(1)) - groups.sum(1)
    for kind in kinds:
        ordered[at[kind >> 1]] = kind & 1
        at[kind >> 1] += 1
    return groups, ordered


@compiled
def _packed(bits: np.ndarray) -> np.ndarray:
    """Returns ``uint8[⌈n/8⌉]``: eight of ``n`` zeros and ones to a byte, the first one highest."""
    whole, out = len(bits) >> 3, np.zeros((len(bits) + 7) >> 3, np.uint8)
    for i in range(whole):
        byte = 0
        for j in range(8):
            byte = byte << 1 | np.int64(bits[8 * i + j])
        out[i] = byte
    for i in range(8 * whole, len(bits)):
        out[whole] |= np.int64(bits[i]) << (7 - (i & 7))
    return out


@compiled
def _write_factors(side: np.ndarray, at: int, factors: Factors, shapes: Shapes) -> int:
    """Section 1."""
    used = factors.ranks.any()
    at = put(side, at, int(used), 1)
    if used:
        at = put(side, at, factors.ratio, 8)
        at = put(side, at, factors.first_shift + 128, 8)
        at = put(side, at, factors.second_shift + 128, 8)
        for t in range(len(factors.ranks)):
            if is_matrix(shapes, t):
                at = put(side, at, factors.ranks[t], 4)
    return at


@compiled
def _write_heads(side: np.ndarray, at: int, shapes: Shapes, plans: Plans) -> int:
    """Section 2."""
    for t in range(len(shapes.rows)):
        at = put(side, at, plans.level[t], 5)
        if plans.level[t] and is_matrix(shapes, t):
            at = put(side, at, plans.flags[t], 3)
    return at


@compiled
def _classes_of(shapes: Shapes, plans: Plans) -> tuple[np.ndarray, np.ndarray]:
    """Returns row and column classes of every tensor in order, and sign classes, ``int64[…]`` each."""
    classes, signs = (
        np.empty(shapes.row_at[-1] + shapes.column_at[-1], np.int64),
        np.empty(shapes.column_at[-1], np.int64),
    )
    count = marked = 0
    for t in range(len(shapes.rows)):
        if plans.flags[t] & ROW_CLASSES:
            classes[count : count + shapes.rows[t]] = plans.rows[shapes.row_at[t] : shapes.row_at[t + 1]]
            count += shapes.rows[t]
        if plans.flags[t] & COLUMN_CLASSES:
            classes[count : count + shapes.columns[t]] = plans.columns[shapes.column_at[t] : shapes.column_at[t + 1]]
            count += shapes.columns[t]
        if plans.flags[t] & SIGNS:
            signs[marked : marked + shapes.columns[t]] = plans.signs[shapes.column_at[t] : shapes.column_at[t + 1]]
            marked += shapes.columns[t]
    return classes[:count], signs[:marked]


@compiled
def _write_contexts(
    side: np.ndarray, at: int, counts: np.ndarray, symbols: np.ndarray
) -> tuple[int, np.ndarray, list[np.ndarray]]:
    """Writes section 4: how many non-zeros each context has, and the magnitude tables.

    Returns:
        The bit after; for each context which table it uses, ``int64[32]``; the tables.
    """
    top = symbols.max() + 1
    histogram, i, first, last = np.zeros((CONTEXTS, top), np.int64), 0, -1, 0
    for context in range(CONTEXTS):
        for _ in range(counts[context]):
            histogram[context, symbols[i]] += 1
            i += 1
        if counts[context]:
            first, last = context if first < 0 else first, context
    opened = _share(histogram, counts, first)
    at = put(side, at, first, 5)
    at = put(side, at, last, 5)
    tables = []
    for context in range(first, last + 1):
        at = golomb(side, at, counts[context], 4)
        if not counts[context]:
            continue
        is_new = opened[context] == context
        if context != first:
            at = put(side, at, int(is_new), 1)
        if is_new:
            members = histogram[context]
            at, table = write_fitted(side, at, members[: np.flatnonzero(members)[-1] + 1])
            tables.append(table)
        opened[context] = len(tables) - 1
    return at, opened, tables


@compiled
def _share(histogram: np.ndarray, counts: np.ndarray, first: int) -> np.ndarray:
    """Returns for each context the one whose magnitude table it uses, and adds its counts to that one's.

    Neighbours share a table if that is less.
    """
    opened, current = np.full(CONTEXTS, -1, np.int64), first
    for context in range(first, CONTEXTS):
        if not counts[context]:
            continue
        if context > first:
            together = histogram[current] + histogram[context]
            if _table_cost(together) <= _table_cost(histogram[current]) + _table_cost(histogram[context]):
                histogram[current] = together
            else:
                current = context
        opened[context] = current
    return opened


@compiled
def _table_cost(counts: np.ndarray) -> float:
    total, bits, last = 0, 6.0, 0
    for symbol in range(len(counts)):
        if counts[symbol]:
            total += counts[symbol]
            bits -= counts[symbol] * math.log2(counts[symbol])
            last = symbol
    return bits + total * math.log2(total) + 4 * last


@compiled
def _pack_extras(numbers: np.ndarray, symbols: np.ndarray, bits: int) -> np.ndarray:
    """Returns the offsets of gaps, then of magnitudes − 1, in their buckets, ``uint8[n]``: so many bits."""
    out, at, waiting, held = np.zeros((bits + 7) // 8, np.uint8), 0, 0, np.int64(0)
    for which in range(2):
        for i in range(symbols.shape[1]):
            symbol = symbols[which, i]
            width = bucket_bits(symbol)  # mostly 0; to go round those would cost more than to add nothing
            held = held << width | (numbers[which, i] - STARTS[symbol])
            waiting += width
            while waiting >= 16:
                waiting -= 16
                out[at], out[at + 1] = held >> (waiting + 8) & 255, held >> waiting & 255
                at += 2
                held &= (1 << waiting) - 1
    while waiting > 0:
        out[at] = held << 8 >> waiting & 255
        waiting -= 8
        at += 1
    return out
