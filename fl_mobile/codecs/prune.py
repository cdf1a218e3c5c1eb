"""Keep some values, send where they stand (layout: `positions`). All are biased: what is dropped is lost."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import numpy as np

from fl_mobile.codecs.bits.positions import decode_positions, encode_positions, position_bytes
from fl_mobile.codecs.bits.reader import Reader
from fl_mobile.errors import ConfigError


@dataclass(frozen=True)
class TopK:
    """The ``fraction`` of largest magnitude of each tensor, at least one; ties go to the lower index.

    ``‖x − x̂‖² ≤ (1 − k/n)·‖x‖²``, k = round(fraction·n). Sparsification as in Aji & Heafield, EMNLP 2017.
    """

    fraction: float
    kind: Literal["prune"] = "prune"

    def __post_init__(self) -> None:
        if not 0 < self.fraction <= 1:
            raise ConfigError(f"topk keeps a fraction in (0, 1] of the values, got {self.fraction}, e.g. topk:0.01")

    @property
    def name(self) -> str:
        """``topk:0.01``."""
        return f"topk:{self.fraction!r}"

    def encode(self, values: np.ndarray) -> tuple[bytes, np.ndarray]:
        """Returns positions and kept values."""
        k = min(values.size, max(1, round(self.fraction * values.size)))
        keep = _largest(np.abs(values), k)
        return encode_positions(keep, values.size), values[keep]

    def decode(self, reader: Reader, count: int) -> np.ndarray:
        """Returns the kept positions."""
        return decode_positions(reader, count)

    def max_bytes(self, count: int) -> int:
        """Bytes that the positions take at most."""
        return position_bytes(count)


@dataclass(frozen=True)
class Threshold:
    """Every value with ``|x| > value``; may keep none. ``|x − x̂| ≤ value``."""

    value: float
    kind: Literal["prune"] = "prune"

    def __post_init__(self) -> None:
        if not (self.value >= 0 and math.isfinite(self.value)):
            raise ConfigError(f"threshold must be a magnitude ≥ 0, got {self.value}, e.g. threshold:0.001")

    @property
    def name(self) -> str:
        """``threshold:0.001``."""
        return f"threshold:{self.value!r}"

    def encode(self, values: np.ndarray) -> tuple[bytes, np.ndarray]:
        """Returns positions and kept values."""
        keep = np.flatnonzero(np.abs(values) > self.value)
        return encode_positions(keep, values.size), values[keep]

    def decode(self, reader: Reader, count: int) -> np.ndarray:
        """Returns the kept positions."""
        return decode_positions(reader, count)

    def max_bytes(self, count: int) -> int:
        """Bytes that the positions take at most."""
        return position_bytes(count)


@dataclass(frozen=True)
class SampledTopK:
    """About the ``fraction`` of largest magnitude, by a threshold read off an even sample of the tensor.

    The selection of Deep Gradient Compression (Lin et al., ICLR 2018, section 5): a sample of 1 % (at least 256 values)
    gives the threshold; if it lets more than twice the wanted number through, an exact top-k follows. Every kept value
    is at least as large as every dropped one, and between 1 and ``2·k`` are kept. What DGC does beside it lives on the
    device and over rounds: momentum correction, factor masking and local clipping belong to training, accumulation of
    what was dropped to error feedback.
    """

    fraction: float
    kind: Literal["prune"] = "prune"

    def __post_init__(self) -> None:
        if not 0 < self.fraction <= 1:
            raise ConfigError(f"dgc keeps a fraction in (0, 1] of the values, got {self.fraction}, e.g. dgc:0.001")

    @property
    def name(self) -> str:
        """``dgc:0.001``."""
        return f"dgc:{self.fraction!r}"

    def encode(self, values: np.ndarray) -> tuple[bytes, np.ndarray]:
        """Returns positions and kept values."""
        magnitude, k = np.abs(values), min(values.size, max(1, round(self.fraction * values.size)))
        sample = magnitude[:: max(1, values.size // max(256, values.size // 100))]
        if not sample.size:
            return encode_positions(np.arange(0), 0), values
        rank = min(sample.size, max(1, round(self.fraction * sample.size)))
        bar = np.partition(sample, sample.size - rank)[sample.size - rank]
        keep = np.flatnonzero(magnitude >= bar)
        if len(keep) > 2 * k:
            keep = _largest(magnitude, k)
        return encode_positions(keep, values.size), values[keep]

    def decode(self, reader: Reader, count: int) -> np.ndarray:
        """Returns the kept positions."""
        return decode_positions(reader, count)

    def max_bytes(self, count: int) -> int:
        """Bytes that the positions take at most."""
        return position_bytes(count)


def _largest(magnitude: np.ndarray, k: int) -> np.ndarray:
    """Returns the rising positions of the ``k`` largest; ties by index, because partition order is not promised."""
    if k == magnitude.size:
        return np.arange(k)
    bar = np.partition(magnitude, magnitude.size - k)[magnitude.size - k]
    above = np.flatnonzero(magnitude > bar)
    ties = np.flatnonzero(magnitude == bar)[: k - len(above)]
    return np.sort(np.concatenate([above, ties]))
