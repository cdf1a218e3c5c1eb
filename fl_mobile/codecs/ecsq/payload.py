"""An update to its payload and back: step, low-rank part, rounding, and the smallest of the possible forms."""

from __future__ import annotations

import math
import struct
from collections.abc import Sequence

import numpy as np

from fl_mobile.codecs.bits.reader import Reader
from fl_mobile.codecs.ecsq.factors import extract, may_split, no_factors, scale_of
from fl_mobile.codecs.ecsq.layout import COLUMN_CLASSES, ROW_CLASSES, Shapes, matrix_shape, shapes_of
from fl_mobile.codecs.ecsq.plan import class_plans, flat_plans
from fl_mobile.codecs.ecsq.read import read_levels, with_factors
from fl_mobile.codecs.ecsq.rebuild import rebuild
from fl_mobile.codecs.ecsq.records import MAX_LEVEL, Factors, Levels
from fl_mobile.codecs.ecsq.rounding import (
    Draws,
    draw,
    drawn,
    mean_shifts,
    rate_distortion,
    stochastic,
    to_nearest,
)
from fl_mobile.codecs.ecsq.write import flat_floor, write_levels
from fl_mobile.errors import WireError
from fl_mobile.kernels.compiled import compiled
from fl_mobile.seeds import philox

ZERO, RAW, CODED = 0, 1, 2
_HEAD, _STEPS = struct.Struct("<Bfbb"), struct.Struct("<fbb")
_MAX = float(np.finfo(np.float32).max)
_SMALLEST = float(np.finfo(np.float32).smallest_subnormal)

_AT_ONCE = 64
"""Sums side by side: an addition need not wait for the one before."""

_SURELY, _STATE_BITS = 0.99, 64
"""Far more than the entropy coder's rounding and its last state can take off the bits that its models promise."""


def encode(
    values: np.ndarray,
    matrices: tuple[tuple[int, int], ...],
    wanted: tuple[float, bool],
    rounding: str,
    rank: int,
    rng: np.random.Generator,
) -> bytes:
    """Returns the shortest of: nothing but zeros, coded with or without classes, raw float32.

    Args:
        values: ``float32[n]``: all tensors end to end.
        matrices: Rows and columns of each.
        wanted: The step, and whether that is Δ itself or a multiple of the root mean square.
        rounding: As `Ecsq.rounding`.
        rank: As `Ecsq.rank`.
        rng: The device's generator.
    """
    step = _delta(values, _square(values), *wanted)
    if not step:
        return bytes([ZERO])
    shapes = shapes_of(matrices)
    payload = _coded(values=values, shapes=shapes, step=step, rounding=rounding, rank=rank, rng=rng)
    while not payload and rounding == "rdo" and not wanted[1]:  # nothing sent is nothing learnt, round after round
        step /= 2
        payload = _coded(values=values, shapes=shapes, step=step, rounding=rounding, rank=rank, rng=rng)
    if not payload:
        return bytes([ZERO])
    return _shorter(payload, values)


def _shorter(payload: bytes, values: np.ndarray) -> bytes:
    """Returns the payload, or the values as they are if those are fewer bytes."""
    return payload if len(payload) < 1 + 4 * len(values) else bytes([RAW]) + values.astype("<f4").tobytes()


def encode_each(
    rows: np.ndarray,
    matrices: tuple[tuple[int, int], ...],
    wanted: Sequence[tuple[float, bool]],
    rounding: str,
    rank: int,
    keys: Sequence[int],
) -> list[bytes]:
    """Returns what `encode` returns of each of ``float32[m, n]``, with few calls where updates are small.

    Args:
        wanted: As of `encode`, one a row.
        keys: Of each row's generator, `seeds.philox` of it.
    """
    if rounding != "stochastic" or (rank and any(map(may_split, matrices))):
        each = zip(rows, wanted, map(philox, keys), strict=True)
        return [encode(row, matrices, own, rounding, rank, rng) for row, own, rng in each]
    squares = zip(rows, _squares(rows).tolist(), wanted, strict=True)
    steps = [_delta(row, square, *own) for row, square, own in squares]
    shapes = shapes_of(matrices)
    data, ends = _rounded_each(rows, np.array(steps), np.array(keys, np.uint64), no_factors(shapes), shapes)
    payloads, whole, first = [], data.tobytes(), 0
    for row, step, end in zip(rows, steps, ends.tolist(), strict=True):
        coded = _HEAD.pack(CODED, step, 0, 0) + whole[first:end]
        payloads.append(_shorter(coded, row) if end > first else bytes([ZERO]))
        first = end
    return payloads


def _coded(
    values: np.ndarray, shapes: Shapes, step: float, rounding: str, rank: int, rng: np.random.Generator
) -> bytes:
    """Returns the payload with step Δ, empty if every level is 0."""
    residual, factors, numbers, shifts = values, no_factors(shapes), np.zeros(0, np.int64), (0, 0)
    if rank and rounding != "nearest":
        residual, factors, numbers = extract(values=values, shapes=shapes, step=step, rounding=rounding, max_rank=rank)
    if rounding == "stochastic":
        coded = _rounded(residual, step, draw(residual, step, rng), numbers, factors, shapes)
    else:
        if rounding == "nearest":
            levels = to_nearest(values, step)
        else:
            levels = rate_distortion(residual, step, shapes)
            shifts = mean_shifts(residual, levels, step)
        coded = _smallest(levels, numbers, factors, shapes)
    return _HEAD.pack(CODED, step, *shifts) + coded.tobytes() if len(coded) else b""


def decode(payload: memoryview, shapes: Sequence[tuple[int, ...]]) -> np.ndarray:
    """Returns ``float32[n]``, the values of tensors of these shapes end to end.

    Raises:
        WireError: For anything `encode` cannot have written.
    """
    rows, faults = decode_each([payload], shapes)
    if faults:
        raise faults[0]
    return rows[0]


def decode_each(
    payloads: Sequence[memoryview], shapes: Sequence[tuple[int, ...]]
) -> tuple[np.ndarray, dict[int, WireError]]:
    """Returns what `decode` returns of each, ``float32[m, n]``, and what it raises instead, by number; with few calls.

    A row that was refused may hold anything.
    """
    rows, faults = np.zeros((len(payloads), sum(map(math.prod, shapes))), np.float32), dict[int, WireError]()
    who, heads = [], []
    for row, payload in enumerate(payloads):
        try:
            head = _read_head(payload, rows[row])
        except WireError as error:
            faults[row] = error
        else:
            if head:
                who.append(row)
                heads.append(head)
    bodies = [payloads[row][_HEAD.size :] for row in who]
    data, ends = np.frombuffer(b"".join(bodies), np.uint8), np.cumsum([len(body) for body in bodies])
    matrices = shapes_of(tuple(matrix_shape(shape) for shape in shapes))
    told, begun = (np.array(heads), np.array(who)), np.zeros(1, np.int64)
    while begun[0] < len(who):
        try:
            _rebuild_each(data, ends, *told, matrices, rows, begun)
        except WireError as error:  # the others are as good as before
            faults[who[begun[0] - 1]] = error
    return rows, faults


def _read_head(payload: memoryview, values: np.ndarray) -> tuple[float, int, int] | None:
    """Returns Δ and shifts of a payload that goes on with levels; the values of any other are set, ``float32[n]``."""
    reader = Reader(payload)
    form = reader.take(1)[0]
    if form == CODED:
        step, first_shift, second_shift = _STEPS.unpack(reader.take(_STEPS.size))
        if not 0 < step <= _MAX:
            raise WireError("value", f"ecsq: the step must be a finite number above 0, got {step}")
        return step, first_shift, second_shift
    if form == RAW:
        values[:] = reader.finite("<f4", len(values))
    elif form != ZERO:
        raise WireError("value", f"ecsq: unknown form {form}, expected 0 (zeros), 1 (float32) or 2 (coded)")
    reader.end()
    return None


def _delta(values: np.ndarray, square: float, wanted: float, absolute: bool) -> float:
    """Returns Δ as a float32 number, 0 if all values are; no level exceeds `MAX_LEVEL` with it.

    Args:
        square: `_square` of the values.
    """
    if not square:
        return 0.0
    step = wanted if absolute else _round(wanted * math.sqrt(square / len(values)))
    # No value exceeds the norm, so only a fine step needs a look at the largest value itself.
    if step * (MAX_LEVEL - 1) < math.sqrt(square):
        step = max(step, float(np.abs(values).max()) / (MAX_LEVEL - 1))
    return float(np.float32(min(max(step, _SMALLEST), _MAX)))


@compiled
def _square(values: np.ndarray) -> float:
    """Returns Σx²; not by BLAS or NumPy, which sum in an order that depends on threads and processors."""
    sums, whole = np.zeros(_AT_ONCE), len(values) - len(values) % _AT_ONCE
    for first in range(0, whole, _AT_ONCE):
        part = values[first : first + _AT_ONCE]
        for j in range(_AT_ONCE):
            sums[j] += np.float64(part[j]) * np.float64(part[j])
    square = 0.0
    for j in range(_AT_ONCE):
        square += sums[j]
    for i in range(whole, len(values)):
        square += np.float64(values[i]) * np.float64(values[i])
    return square


@compiled
def _squares(rows: np.ndarray) -> np.ndarray:
    """Returns `_square` of each row of ``float32[m, n]``."""
    squares = np.empty(len(rows))
    for k in range(len(rows)):
        squares[k] = _square(rows[k])
    return squares


def _round(step: float) -> float:
    """Returns 12 leading bits, in which sums of any order agree: it must not make other packets."""
    mantissa, exponent = math.frexp(step)
    return math.ldexp(round(mantissa * 4096) / 4096, exponent)


@compiled
def _rounded(
    values: np.ndarray, step: float, draws: Draws, numbers: np.ndarray, factors: Factors, shapes: Shapes
) -> np.ndarray:
    """Returns what `_smallest` does of values rounded by chance: one call, no levels that would pass through Python."""
    return _smallest(stochastic(values, step, draws), numbers, factors, shapes)


@compiled
def _rounded_each(
    rows: np.ndarray, steps: np.ndarray, keys: np.ndarray, factors: Factors, shapes: Shapes
) -> tuple[np.ndarray, np.ndarray]:
    """Returns what `_rounded` does of each of ``float32[m, n]``, end to end, and where it ends; nothing at step 0."""
    ends, at, numbers = np.zeros(len(rows), np.int64), 0, np.zeros(0, np.int64)
    out = np.empty(1 << 12, np.uint8)
    for k in range(len(rows)):
        ends[k] = at
        if not steps[k]:
            continue
        draws = drawn(rows[k], steps[k], keys[k : k + 1])
        payload = _rounded(rows[k], steps[k], draws, numbers, factors, shapes)
        if at + len(payload) > len(out):
            longer = np.empty(2 * (at + len(payload)), np.uint8)
            longer[:at] = out[:at]
            out = longer
        out[at : at + len(payload)] = payload
        at += len(payload)
        ends[k] = at
    return out[:at], ends


@compiled
def _smallest(levels: Levels, numbers: np.ndarray, factors: Factors, shapes: Shapes) -> np.ndarray:
    """Returns the levels and those of the factors ``int64[m]`` as `write_levels` does; nothing if all are 0."""
    if len(numbers):
        levels = _with_factors(levels, numbers, shapes.offset[-1])
    if not len(levels.positions):
        return np.empty(0, np.uint8)
    shapes = with_factors(shapes, factors.ranks)
    plans = class_plans(levels.positions, levels.magnitudes, levels.negative, shapes)
    payload = write_levels(levels, factors, shapes, plans)
    if not (plans.flags & (ROW_CLASSES | COLUMN_CLASSES)).any():
        return payload
    plans = flat_plans(levels.positions, levels.magnitudes, shapes)
    if 8 * len(payload) < _SURELY * flat_floor(levels, shapes, plans) - _STATE_BITS:
        return payload
    flat = write_levels(levels, factors, shapes, plans)
    return flat if len(flat) < len(payload) else payload


@compiled
def _with_factors(levels: Levels, numbers: np.ndarray, total: int) -> Levels:
    """Returns the levels followed by those of the factors, whose positions come after all tensors'."""
    at, count = len(levels.positions), len(levels.positions) + np.count_nonzero(numbers)
    out = Levels(np.empty(count, np.int64), np.empty(count, np.int64), np.empty(count, np.bool_))
    out.positions[:at], out.magnitudes[:at], out.negative[:at] = levels.positions, levels.magnitudes, levels.negative
    for i in range(len(numbers)):
        if numbers[i]:
            out.positions[at], out.magnitudes[at], out.negative[at] = total + i, abs(numbers[i]), numbers[i] < 0
            at += 1
    return out


@compiled
def _rebuild_each(
    data: np.ndarray,
    ends: np.ndarray,
    heads: np.ndarray,
    who: np.ndarray,
    shapes: Shapes,
    rows: np.ndarray,
    begun: np.ndarray,
) -> None:
    """Sets rows, zeros, to what levels stand for that lie end to end, each as a payload holds them.

    Args:
        ends: ``int64[k]``, where each ends.
        heads: ``float64[k, 3]``: Δ and two shifts.
        who: ``int64[k]``: its row.
        rows: ``float32[m, n]``.
        begun: ``int64[1]``: how many have been begun.
    """
    while begun[0] < len(who):
        k = begun[0]
        begun[0] += 1
        steps = (heads[k, 0], np.int64(heads[k, 1]), np.int64(heads[k, 2]))
        levels, factors = read_levels(data[ends[k - 1] if k else 0 : ends[k]], shapes)
        rebuild(levels, factors, shapes, steps, scale_of(factors.ratio, steps[0]), rows[who[k]])
