"""Levels to bytes and back; the layout is in the package's docstring."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from fl_mobile.codecs.base import Reader
from fl_mobile.codecs.ecsq import models
from fl_mobile.codecs.ecsq.ans import Coder, Decoder, Run
from fl_mobile.codecs.ecsq.bits import BitReader, BitWriter, pack_fields, unpack_fields
from fl_mobile.codecs.ecsq.factors import Factors
from fl_mobile.codecs.ecsq.layout import Layout
from fl_mobile.codecs.ecsq.rounding import MAX_LEVEL, Levels
from fl_mobile.codecs.ecsq.sections import (
    SIGN_GROUPS,
    read_contexts,
    read_factors,
    read_plans,
    read_sign_models,
    take,
    take_classes,
    write_contexts,
    write_factors,
    write_fitted,
    write_plans,
)
from fl_mobile.errors import WireError

MAX_PER_BYTE = 256
"""Non-zeros a payload may hold per byte of its own length: what keeps a tiny packet from making a server sweat."""


def write_levels(levels: Levels, factors: Factors, layout: Layout, coder: Coder) -> bytes:
    """Returns side bits, ANS stream and raw bits of at least one non-zero."""
    places, magnitudes, group, odd = _in_order(levels, layout)
    cuts = layout.context_cuts(places)
    counts = np.diff(cuts)
    gaps = np.diff(places, prepend=-1) - 1
    starts = np.cumsum(layout.slots) - layout.slots
    busy = np.flatnonzero(counts)
    gaps[cuts[busy]] = places[cuts[busy]] - starts[busy]
    gap_symbols, magnitude_symbols = models.bucket(gaps), models.bucket(magnitudes - 1)

    side = BitWriter()
    write_factors(side, factors, layout.shapes[: len(factors.ranks)])
    runs = write_plans(side, layout)
    tables = write_contexts(side, counts, magnitude_symbols)
    for context in busy.tolist():
        part = slice(cuts[context], cuts[context + 1])
        gap_model = models.geometric(int(counts[context]), int(layout.slots[context]))
        runs += [Run(gap_symbols[part], gap_model), Run(magnitude_symbols[part], tables[context])]
    if any(plan.signs is not None for plan in layout.plans):
        runs += _write_signs(side, group, odd)
    stream = coder.encode(run for run in runs if len(run.frequencies) > 1)
    side.golomb(len(stream), 8)
    extras = _pack_extras((gaps, gap_symbols), (magnitudes - 1, magnitude_symbols))
    body = b"".join((side.to_bytes(), stream, extras, np.packbits(odd[group == 0]).tobytes()))
    return body.ljust(-(-len(places) // MAX_PER_BYTE), b"\0")


def read_levels(reader: Reader, shapes: Sequence[tuple[int, int]], coder: Coder) -> tuple[Levels, Factors]:
    """Returns the non-zeros, in any order, of the tensors and their factors; the reader is at its end afterwards.

    Raises:
        WireError: For anything `write_levels` cannot have written.
    """
    data = reader.peek(reader.left)
    side = BitReader(data)
    factors = read_factors(side, shapes)
    shapes = factors.shapes(shapes)
    heads, class_table, sign_table = read_plans(side, shapes)
    counts, tables = read_contexts(side, sum(r * c for r, c in shapes))
    total = int(counts.sum())
    if total > MAX_PER_BYTE * len(data):
        raise WireError("size", f"{len(data)} bytes claim {total} non-zeros, at most {MAX_PER_BYTE} a byte are allowed")
    sign_models = read_sign_models(side) if sign_table else []
    stream_bytes = side.golomb(8, len(data))
    reader.take(side.bytes_touched())
    stream = bytes(reader.take(stream_bytes))
    if stream.endswith(b"\0"):
        raise WireError("value", "the ANS stream ends in a zero byte")
    decoder = coder.decoder(stream)
    layout = Layout(shapes, take_classes(decoder, heads, class_table, sign_table, shapes))
    if (counts > layout.slots).any():
        raise WireError("value", "a context has more non-zeros than places")
    gaps, magnitudes = _take_numbers(decoder, reader, counts, tables, layout.slots)
    places = _places(gaps, counts, layout.slots)
    positions, tensor = layout.to_positions(places)
    negative = _take_signs(decoder, reader, sign_models, positions, tensor, layout)
    if not decoder.is_empty():
        raise WireError("stream", "the ANS stream does not end where its symbols do")
    rest = reader.take(reader.left)
    if len(rest) and (any(rest) or len(data) != -(-total // MAX_PER_BYTE)):
        raise WireError("trailing", f"{len(rest)} bytes after the signs")
    return Levels(positions, magnitudes, negative), factors


def _in_order(levels: Levels, layout: Layout) -> tuple[np.ndarray, ...]:
    """Returns places (rising), magnitudes, sign group and whether the sign is the unlikely one, all in coding order."""
    sign_class = _sign_class(levels.positions, layout)
    group = (sign_class + 2) % SIGN_GROUPS + 1 if sign_class is not None else 0
    odd = levels.negative
    if sign_class is not None:
        group = np.where(sign_class == 0, 0, group)
        odd = odd ^ (sign_class > SIGN_GROUPS)
    # One 64-bit key per non-zero, place on top: sorting keys carries everything along.
    key = (layout.to_places(levels.positions) << 23) | ((levels.magnitudes - 1) << 3) | (odd | (group * 2))
    key = np.sort(key)
    return key >> 23, ((key >> 3) & (MAX_LEVEL - 1)) + 1, (key >> 1) & 3, (key & 1).astype(bool)


def _sign_class(positions: np.ndarray, layout: Layout) -> np.ndarray | None:
    """Returns the sign class of each position, ``int64[n]``, or None if no tensor has any."""
    if all(plan.signs is None for plan in layout.plans):
        return None
    classes = np.zeros(len(positions), np.int64)
    cuts = np.searchsorted(positions, layout.offsets)
    for index, plan in enumerate(layout.plans):
        if plan.signs is not None:
            part = slice(cuts[index], cuts[index + 1])
            classes[part] = plan.signs[(positions[part] - layout.offsets[index]) % layout.shapes[index][1]]
    return classes


def _write_signs(side: BitWriter, group: np.ndarray, odd: np.ndarray) -> list[Run]:
    runs = []
    for sureness in range(1, SIGN_GROUPS + 1):
        symbols = odd[group == sureness].astype(np.int32)
        side.put(int(len(symbols) > 0), 1)
        if len(symbols):
            runs.append(Run(symbols, write_fitted(side, np.bincount(symbols, minlength=2))))
    return runs


def _take_signs(
    decoder: Decoder,
    reader: Reader,
    sign_models: list[list[int]],
    positions: np.ndarray,
    tensor: np.ndarray,
    layout: Layout,
) -> np.ndarray:
    group, flip = _sign_groups(positions, tensor, layout) if sign_models else (None, False)
    if group is None:
        return _raw_signs(reader, len(positions))
    odd = np.zeros(len(positions), bool)
    for sureness, frequencies in enumerate(sign_models, start=1):
        mine = np.flatnonzero(group == sureness)
        odd[mine] = take(decoder, len(mine), frequencies)
    mine = np.flatnonzero(group == 0)
    odd[mine] = _raw_signs(reader, len(mine))
    return odd ^ flip


def _sign_groups(positions: np.ndarray, tensor: np.ndarray, layout: Layout) -> tuple[np.ndarray, np.ndarray]:
    """Returns for positions in coding order their sign group 0 … 3, and whether the likely sign is minus."""
    none = np.zeros(1, np.uint8)
    tables = [none if plan.signs is None else plan.signs for plan in layout.plans]
    starts = np.cumsum([0, *map(len, tables)])[:-1]
    lengths = np.array([len(table) for table in tables], np.int64)
    column = (positions - layout.offsets[tensor]) % lengths[tensor]
    classes = np.concatenate(tables)[starts[tensor] + column]
    return np.where(classes > SIGN_GROUPS, classes - SIGN_GROUPS, classes), classes > SIGN_GROUPS


def _raw_signs(reader: Reader, count: int) -> np.ndarray:
    data = reader.array("u1", (count + 7) // 8)
    if count % 8 and int(data[-1]) & ((1 << (-count % 8)) - 1):
        raise WireError("value", "the padding of the signs is not zero")
    return np.unpackbits(data, count=count).astype(bool)


def _pack_extras(*parts: tuple[np.ndarray, np.ndarray]) -> bytes:
    values, widths = [], []
    for numbers, symbols in parts:
        wide = np.flatnonzero(symbols >= models.LINEAR)
        which = symbols[wide]
        values.append(numbers[wide] - models.STARTS[which])
        widths.append(models.WIDTHS[which])
    return pack_fields(np.concatenate(values), np.concatenate(widths))


def _take_numbers(
    decoder: Decoder, reader: Reader, counts: np.ndarray, tables: dict[int, list[int]], slots: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Returns gaps and magnitudes, ``int64[n]`` each, in coding order."""
    gap_symbols, magnitude_symbols = [], []
    for k, table in tables.items():
        count = int(counts[k])
        gap_symbols.append(take(decoder, count, models.geometric(count, int(slots[k]))))
        magnitude_symbols.append(take(decoder, count, table))
    symbols = np.concatenate([*gap_symbols, *magnitude_symbols])
    numbers = models.STARTS[symbols]
    wide = np.flatnonzero(symbols >= models.LINEAR)
    widths = models.WIDTHS[symbols[wide]]
    numbers[wide] += unpack_fields(reader.take((int(widths.sum()) + 7) // 8), widths)
    gaps, magnitudes = np.split(numbers, 2)
    return gaps, magnitudes + 1


def _places(gaps: np.ndarray, counts: np.ndarray, slots: np.ndarray) -> np.ndarray:
    """Returns rising places from gaps; each context must end within its own places."""
    ends = np.cumsum(counts)
    run = np.cumsum(gaps + 1) - 1
    starts = np.cumsum(slots) - slots
    places = np.empty_like(run)
    for k in np.flatnonzero(counts):
        part = slice(ends[k] - counts[k], ends[k])
        before = run[part.start - 1] + 1 if part.start else 0
        places[part] = run[part] + (starts[k] - before)
        if run[part.stop - 1] - before >= slots[k]:
            raise WireError("value", f"a non-zero of context {k} lies outside its {slots[k]} places")
    return places
