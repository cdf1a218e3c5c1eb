"""From values to levels: unbiased stochastic rounding, and the biased rounding with the best rate for its error."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from fl_mobile.codecs.ecsq.layout import CONTEXTS, Layout
from fl_mobile.codecs.ecsq.plan import class_plans, flat_plans
from fl_mobile.seeds import uniform

LAMBDA = 0.1
"""What a bit is worth in squared error, in units of step²; a fine entropy-coded uniform quantizer has ln 2 / 6."""

MAX_LEVEL = 1 << 20
"""Largest magnitude; a step so fine that a value would need more is made coarser."""

_PASSES = 2
_TABLE = 16
_TINY, _HUGE = 2.0**-90, 2.0**90


@dataclass(frozen=True)
class Levels:
    """The non-zeros of a quantized update.

    Attributes:
        positions: ``int64[n]``, rising, in all tensors laid end to end.
        magnitudes: ``int64[n]``, 1 … `MAX_LEVEL`.
        negative: ``bool[n]``.
    """

    positions: np.ndarray
    magnitudes: np.ndarray
    negative: np.ndarray


def stochastic(values: np.ndarray, step: float, rng: np.random.Generator) -> Levels:
    """Returns levels whose expectation is ``values / step``: ``⌊|x|/Δ + U⌋`` with the sign of ``x``.

    ``U`` has 32 bits: eight for every value decide most of them at once, 24 more only where those leave it open.

    Args:
        values: ``float32[n]``.
        step: Δ.
        rng: The device's generator; only its raw bits are used.
    """
    raw = rng.bit_generator.random_raw((len(values) + 7) // 8)  # type: ignore[attr-defined]
    coarse = raw.astype("<u8", copy=False).view(np.uint8)[: len(values)]
    scaled = np.abs(values if _TINY < step < _HUGE else values.astype(np.float64))
    scaled *= scaled.dtype.type(256.0 / step)
    positions = np.flatnonzero(scaled > coarse)
    exact = np.abs(values[positions], dtype=np.float64) / step
    whole = np.floor(exact)
    chance = (coarse[positions] + uniform(rng, len(positions)).astype(np.float64)) / 256
    return _levels(values, positions, whole + (chance < exact - whole))


def to_nearest(values: np.ndarray, step: float) -> Levels:
    """Returns ``rint(|x|/Δ)`` with the sign of ``x``: plain rounding, exact for values that are multiples of Δ."""
    positions = np.flatnonzero(np.abs(values) >= np.float32(0.499) * np.float32(step))
    return _levels(values, positions, np.rint(np.abs(values[positions], dtype=np.float64) / step))


def rate_distortion(values: np.ndarray, step: float, shapes: Sequence[tuple[int, int]], offsets: np.ndarray) -> Levels:
    """Returns levels that minimise squared error + λ·bits, one value at a time given everyone's statistics.

    Each value tries 0, ``⌊t⌋`` and ``⌊t⌋ + 1`` with ``t = |x|/Δ``; bits come from the contexts of the pass before
    (Sullivan & Wiegand, IEEE SPM 1998; iterated as in entropy-constrained quantization, Chou et al. 1989).
    """
    scaled = np.abs(values if _TINY < step < _HUGE else values.astype(np.float64))
    positions = np.flatnonzero(scaled > scaled.dtype.type(0.5 * step))
    exact = np.abs(values[positions], dtype=np.float64) / step
    negative = values[positions] < 0
    chosen = np.floor(exact + 0.35).astype(np.int64)
    for last in range(_PASSES):
        kept = np.flatnonzero(chosen)
        if not len(kept):
            break
        at, size = positions[kept], chosen[kept]
        plans = (
            class_plans(at, size, negative[kept], shapes, offsets) if last else flat_plans(at, size, shapes, offsets)
        )
        chosen = _reconsider(exact, positions, chosen, Layout(shapes, plans))
    return _levels(values, positions, chosen)


def _reconsider(exact: np.ndarray, positions: np.ndarray, chosen: np.ndarray, layout: Layout) -> np.ndarray:
    places = layout.to_places(positions)
    edges = np.cumsum(layout.slots)
    context = np.where(places < 0, 0, np.searchsorted(edges, places, "right"))
    size = np.minimum(chosen, _TABLE - 1)
    counts = np.bincount(context * _TABLE + size, minlength=CONTEXTS * _TABLE).reshape(CONTEXTS, _TABLE).astype(float)
    counts[:, 0] = np.maximum(layout.slots - counts[:, 1:].sum(axis=1), 0)
    counts += 0.02  # what never happened is dear, not impossible
    bits = np.log2(counts.sum(axis=1, keepdims=True)) - np.log2(counts)
    bits[:, 1:] += 1  # the sign
    bits[0] = bits.max() * (np.arange(_TABLE) > 0)  # where a whole row is silent it stays so
    low = np.floor(exact)
    options = np.stack([np.zeros_like(low), low, low + 1])
    price = bits[context, np.minimum(options, _TABLE - 1).astype(np.int64)]
    cost = np.square(options - exact) + LAMBDA * price
    return np.take_along_axis(options, np.argmin(cost, axis=0)[None], axis=0)[0].astype(np.int64)


def _levels(values: np.ndarray, positions: np.ndarray, magnitudes: np.ndarray) -> Levels:
    kept = np.flatnonzero(magnitudes)
    positions = positions[kept]
    return Levels(positions, magnitudes[kept].astype(np.int64), values[positions] < 0)


def dead_zone(values: np.ndarray, step: float) -> Levels:
    """Returns ``⌊|x|/Δ + 0.35⌋`` with the sign of ``x``: rate–distortion rounding for those in a hurry."""
    scaled = np.floor(np.abs(values, dtype=np.float64) / step + 0.35)
    positions = np.flatnonzero(scaled)
    return _levels(values, positions, scaled[positions])


def mean_shifts(values: np.ndarray, levels: Levels, step: float) -> tuple[int, int]:
    """Returns where the values of level 1, and of all above, lie on average, in 256ths of a step from the level."""
    excess = np.abs(values[levels.positions], dtype=np.float64) / step - levels.magnitudes
    ones = levels.magnitudes == 1
    means = (excess[part].mean() if part.any() else 0.0 for part in (ones, ~ones))
    first, second = (int(np.clip(np.rint(256 * mean), -127, 127)) for mean in means)
    return first, second
