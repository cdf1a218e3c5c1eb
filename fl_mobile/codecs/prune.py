"""Keep some values, send where they stand.

Position layout: ``form u8`` (0 bitmap, 1 gaps), ``k`` as LEB128, then either ``ceil(n/8)`` bytes of bitmap, most
significant bit first, or ``k`` gaps to the previous kept position (minus one) as LEB128. The shorter form is sent.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import numpy as np

from fl_mobile.codecs.base import Reader, varint
from fl_mobile.errors import ConfigError, WireError


@dataclass(frozen=True)
class TopK:
    """The ``fraction`` of largest magnitude of each tensor, at least one; ties go to the lower index.

    Biased; plain sparsification as in Aji & Heafield, EMNLP 2017. The kept values are not rescaled.
    """

    fraction: float
    kind: Literal["prune"] = "prune"

    def __post_init__(self) -> None:
        if not 0 < self.fraction <= 1:
            raise ConfigError(f"topk keeps a fraction in (0, 1] of the values, got {self.fraction}, e.g. topk:0.01")

    @property
    def name(self) -> str:
        """``topk:0.01``."""
        return f"topk:{self.fraction:g}"

    def encode(self, values: np.ndarray) -> tuple[bytes, np.ndarray]:
        """Returns positions and kept values."""
        k = min(values.size, max(1, round(self.fraction * values.size)))
        keep = _largest(np.abs(values), k)
        return _encode_positions(keep, values.size), values[keep]

    def decode(self, reader: Reader, count: int) -> np.ndarray:
        """Returns the kept positions."""
        return _decode_positions(reader, count)

    def max_bytes(self, count: int) -> int:
        """Bytes that the positions take at most."""
        return 6 + (count + 7) // 8


@dataclass(frozen=True)
class Threshold:
    """Every value with ``|x| > value``; may keep none."""

    value: float
    kind: Literal["prune"] = "prune"

    def __post_init__(self) -> None:
        if not (self.value >= 0 and math.isfinite(self.value)):
            raise ConfigError(f"threshold must be a magnitude ≥ 0, got {self.value}, e.g. threshold:0.001")

    @property
    def name(self) -> str:
        """``threshold:0.001``."""
        return f"threshold:{self.value:g}"

    def encode(self, values: np.ndarray) -> tuple[bytes, np.ndarray]:
        """Returns positions and kept values."""
        keep = np.flatnonzero(np.abs(values) > self.value)
        return _encode_positions(keep, values.size), values[keep]

    def decode(self, reader: Reader, count: int) -> np.ndarray:
        """Returns the kept positions."""
        return _decode_positions(reader, count)

    def max_bytes(self, count: int) -> int:
        """Bytes that the positions take at most."""
        return 6 + (count + 7) // 8


def _largest(magnitude: np.ndarray, k: int) -> np.ndarray:
    """Returns the rising positions of the ``k`` largest; ties by index, because partition order is not promised."""
    if k == magnitude.size:
        return np.arange(k)
    bar = np.partition(magnitude, magnitude.size - k)[magnitude.size - k]
    above = np.flatnonzero(magnitude > bar)
    ties = np.flatnonzero(magnitude == bar)[: k - len(above)]
    return np.sort(np.concatenate([above, ties]))


def _encode_positions(keep: np.ndarray, count: int) -> bytes:
    gaps = _encode_varints(np.diff(keep, prepend=-1) - 1)
    if len(gaps) < (count + 7) // 8:
        return b"\x01" + varint(len(keep)) + gaps
    mask = np.zeros(count, np.uint8)
    mask[keep] = 1
    return b"\x00" + varint(len(keep)) + np.packbits(mask).tobytes()


def _decode_positions(reader: Reader, count: int) -> np.ndarray:
    form, kept = reader.take(1)[0], reader.varint(limit=count)
    if form == 0:
        positions = np.flatnonzero(np.unpackbits(reader.array("u1", (count + 7) // 8), count=count))
        if len(positions) != kept:
            raise WireError("value", f"bitmap marks {len(positions)} of {count} values, its header says {kept}")
        return positions
    if form != 1:
        raise WireError("value", f"unknown position form {form}, expected 0 (bitmap) or 1 (gaps)")
    # A gap is below `count`, so the sum of `kept ≤ count` of them stays far inside int64.
    gaps = np.array(
        [reader.varint(limit=count) for _ in range(kept)] if kept < 32 else _decode_varints(reader, kept, count)
    )
    positions = np.cumsum(gaps.astype(np.int64) + 1) - 1
    if kept and positions[-1] >= count:
        raise WireError("value", f"position {positions[-1]} is outside the tensor's {count} values")
    return positions


def _encode_varints(numbers: np.ndarray) -> bytes:
    """LEB128 of many numbers at once: row i of a byte matrix holds number i, unused bytes are masked away."""
    groups = (numbers[:, None] >> np.arange(0, 35, 7)).astype(np.int64)
    used = groups > 0
    used[:, 0] = True
    more = np.zeros_like(used)
    more[:, :-1] = used[:, 1:]
    return ((groups & 0x7F) | (more << 7)).astype(np.uint8)[used].tobytes()


def _decode_varints(reader: Reader, kept: int, limit: int) -> np.ndarray:
    """Reads ``kept`` LEB128 numbers at once."""
    ahead = np.frombuffer(reader.peek(min(reader.left, 5 * kept)), np.uint8)
    ends = np.flatnonzero(ahead < 0x80)[:kept]
    if len(ends) < kept:
        raise WireError("truncated", f"{kept} positions expected, {len(ends)} found")
    data = np.frombuffer(reader.take(int(ends[-1]) + 1), np.uint8).astype(np.int64)
    starts = np.concatenate([[0], ends[:-1] + 1])
    if int((ends - starts).max()) > 4:
        raise WireError("value", "a position gap is longer than 5 bytes")
    shift = 7 * (np.arange(len(data)) - np.repeat(starts, ends - starts + 1))
    gaps = np.add.reduceat((data & 0x7F) << shift, starts)
    if int(gaps.max()) > limit:
        raise WireError("value", f"position gap {gaps.max()} is above {limit}")
    return gaps
