"""From values to levels: unbiased stochastic rounding, and the biased rounding with the best rate for its error."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from fl_mobile.codecs.ecsq.layout import CONTEXTS, Layout, Plans, Shapes, find_blocks, lay_out
from fl_mobile.codecs.ecsq.plan import class_plans, flat_plans
from fl_mobile.codecs.ecsq.records import LAMBDA, Levels
from fl_mobile.kernels.compiled import compiled
from fl_mobile.kernels.philox import words

_PASSES = 2
_TABLE = 16
_FINE = 1e-30
"""A 256th of a step above it is a float32 number with all its digits."""


class Draws(NamedTuple):
    """The random bits of stochastic rounding: 32 a value, of which most never need to be drawn.

    Attributes:
        coarse: ``uint8[n]``: the first eight of every value.
        positions: ``int64[m]``, rising: where those do not make sure of a zero.
        fine: ``uint32[m]``: the others there; the upper 24 count.
    """

    coarse: np.ndarray
    positions: np.ndarray
    fine: np.ndarray


def draw(values: np.ndarray, step: float, rng: np.random.Generator) -> Draws:
    """Returns what `stochastic` decides by.

    Args:
        values: ``float32[n]``.
        step: Δ.
        rng: The device's generator; only its raw bits are used.
    """
    random_raw = rng.bit_generator.random_raw  # type: ignore[attr-defined]
    coarse = random_raw((len(values) + 7) // 8).astype("<u8", copy=False).view(np.uint8)[: len(values)]
    positions = _open(values, step, coarse)
    fine = random_raw((len(positions) + 1) // 2).astype("<u8", copy=False).view("<u4")
    return Draws(coarse, positions, fine[: len(positions)])


@compiled
def drawn(values: np.ndarray, step: float, key: np.ndarray) -> Draws:
    """Returns what `draw` does of the generator ``Philox(key=key)``, ``uint64[1]``."""
    count = (len(values) + 7) // 8
    coarse = words(key, 0, count).view(np.uint8)[: len(values)]
    positions = _open(values, step, coarse)
    fine = words(key, count, (len(positions) + 1) // 2).view(np.uint32)
    return Draws(coarse, positions, fine[: len(positions)])


@compiled
def _open(values: np.ndarray, step: float, coarse: np.ndarray) -> np.ndarray:
    """Returns where eight bits of ``U`` do not make sure of a zero: ``256·|x|/Δ > coarse``.

    In float32, a trifle lower, and eight at once first: few are left to be looked at in full.
    """
    count = len(values)
    unit = np.float32(step * (1 - 2.0**-20) / 256) if step > _FINE else np.float32(0.0)
    near = np.zeros((count + 7) // 8 * 8, np.uint8)
    for i in range(count):
        near[i] = abs(values[i]) >= np.float32(coarse[i]) * unit
    eights, some = near.view(np.uint64), 0
    busy = np.empty(len(eights), np.int64)
    for i in range(len(eights)):
        busy[some] = i
        some += np.int64(eights[i] != 0)
    positions, few = np.empty(8 * some, np.int64), 0
    for k in range(some):
        for i in range(8 * busy[k], 8 * busy[k] + 8):
            positions[few] = i
            few += np.int64(near[i])
    found, scale = 0, 256.0 / step
    for k in range(few):
        i = positions[k]
        positions[found] = i
        found += np.int64(abs(np.float64(values[i])) * scale > coarse[i])
    return positions[:found].copy()


@compiled
def stochastic(values: np.ndarray, step: float, draws: Draws) -> Levels:
    """Returns levels whose expectation is ``values / step``: ``⌊|x|/Δ + U⌋`` with the sign of ``x``.

    Args:
        values: ``float32[n]``.
        step: Δ.
        draws: ``U``, 32 bits a value.
    """
    most, found = len(draws.positions), 0
    positions, magnitudes, negative = np.empty(most, np.int64), np.empty(most, np.int64), np.empty(most, np.bool_)
    for i in range(most):
        at = draws.positions[i]
        exact = abs(np.float64(values[at])) / step
        whole = np.floor(exact)
        chance = (np.float64(draws.coarse[at]) + np.float64(draws.fine[i] >> 8) * 2.0**-24) / 256
        magnitude = np.int64(whole) + np.int64(chance < exact - whole)
        positions[found], magnitudes[found], negative[found] = at, magnitude, values[at] < 0
        found += np.int64(magnitude > 0)
    return Levels(positions[:found], magnitudes[:found], negative[:found])


def to_nearest(values: np.ndarray, step: float) -> Levels:
    """Returns ``rint(|x|/Δ)`` with the sign of ``x``: plain rounding, exact for values that are multiples of Δ."""
    positions = np.flatnonzero(np.abs(values) >= np.float32(0.499) * np.float32(step))
    magnitudes = np.rint(np.abs(values[positions], dtype=np.float64) / step)
    return _levels(values, positions, magnitudes.astype(np.int64))


@compiled
def rate_distortion(values: np.ndarray, step: float, shapes: Shapes) -> Levels:
    """Returns levels that minimise squared error + λ·bits, one value at a time given everyone's statistics.

    Each value tries 0, ``⌊t⌋`` and ``⌊t⌋ + 1`` with ``t = |x|/Δ``; bits come from the contexts of the pass before
    (Sullivan & Wiegand, IEEE SPM 1998; iterated as in entropy-constrained quantization, Chou et al. 1989).
    """
    exact = np.abs(values).astype(np.float64) / step
    positions = np.flatnonzero(exact > 0.5)
    exact = exact[positions]
    negative = values[positions] < 0
    chosen = np.floor(exact + 0.35).astype(np.int64)
    for last in range(_PASSES):
        kept = np.flatnonzero(chosen)
        if not len(kept):
            break
        if last:
            plans = class_plans(positions[kept], chosen[kept], negative[kept], shapes)
        else:
            plans = flat_plans(positions[kept], chosen[kept], shapes)
        _reconsider(exact, positions, chosen, shapes, plans, lay_out(shapes, plans))
    return _levels(values, positions, chosen)


@compiled
def _reconsider(
    exact: np.ndarray, positions: np.ndarray, chosen: np.ndarray, shapes: Shapes, plans: Plans, layout: Layout
) -> None:
    """Chooses anew, by the statistics of the choice so far."""
    block, _ = find_blocks(positions, shapes, plans, layout)
    edges, context = np.cumsum(layout.slots), np.zeros(len(positions), np.int64)
    counts = np.full((CONTEXTS, _TABLE), 0.02)  # what never happened is dear, not impossible
    for i in range(len(positions)):
        if block[i] >= 0:
            context[i] = np.searchsorted(edges, layout.start[block[i]], "right")
        if chosen[i]:
            counts[context[i], min(chosen[i], _TABLE - 1)] += 1
    bits, dearest = np.empty((CONTEXTS, _TABLE)), 0.0
    for k in range(CONTEXTS):
        counts[k, 0] = max(layout.slots[k] - (counts[k, 1:].sum() - 0.02 * (_TABLE - 1)), 0) + 0.02
        bits[k] = np.log2(counts[k].sum()) - np.log2(counts[k])
        bits[k, 1:] += 1  # the sign
        dearest = max(dearest, bits[k].max())
    bits[0, 0], bits[0, 1:] = 0, dearest  # where a whole row is silent it stays so
    for i in range(len(positions)):
        low, best = np.int64(np.floor(exact[i])), np.inf
        for option in (0, low, low + 1):
            cost = (option - exact[i]) ** 2 + LAMBDA * bits[context[i], min(option, _TABLE - 1)]
            if cost < best:
                best, chosen[i] = cost, option


@compiled
def _levels(values: np.ndarray, positions: np.ndarray, magnitudes: np.ndarray) -> Levels:
    count = np.count_nonzero(magnitudes)
    out = Levels(np.empty(count, np.int64), np.empty(count, np.int64), np.empty(count, np.bool_))
    at = 0
    for i in range(len(positions)):
        if magnitudes[i]:
            out.positions[at], out.magnitudes[at] = positions[i], magnitudes[i]
            out.negative[at] = values[positions[i]] < 0
            at += 1
    return out


@compiled
def dead_zone(values: np.ndarray, step: float) -> Levels:
    """Returns ``⌊|x|/Δ + 0.35⌋`` with the sign of ``x``: rate–distortion rounding for those in a hurry."""
    positions, magnitudes = np.empty(len(values), np.int64), np.empty(len(values), np.int64)
    for i in range(len(values)):
        positions[i], magnitudes[i] = i, np.int64(np.floor(abs(np.float64(values[i])) / step + 0.35))
    return _levels(values, positions, magnitudes)


@compiled
def mean_shifts(values: np.ndarray, levels: Levels, step: float) -> tuple[int, int]:
    """Returns where the values of level 1, and of all above, lie on average, in 256ths of a step from the level."""
    sums, counts = np.zeros(2), np.zeros(2, np.int64)
    for i in range(len(levels.positions)):
        which, magnitude = int(levels.magnitudes[i] > 1), levels.magnitudes[i]
        sums[which] += abs(np.float64(values[levels.positions[i]])) / step - magnitude
        counts[which] += 1
    means = np.rint(256 * sums / np.maximum(counts, 1))
    return int(min(max(means[0], -127), 127)), int(min(max(means[1], -127), 127))
