"""QSGD: stochastic levels of the ℓ2 norm, most of them 0 (Alistarh et al., NeurIPS 2017).

Buckets of 512 values have a norm each, as in the paper's experiments. Layout per tensor:
```
rms f32[buckets]   bucket norm / √(bucket length), rounded up
positions          of the non-zero levels, see `positions`
signs              a bit each, set for negative
widths             for each level l: floor(log2 l) as that many 0 bits and a 1       } Elias gamma code,
low bits           the levels below their leading 1: first those of width 1, then 2 … } kept as two streams
```
Each line is padded to a byte; the last two are missing for ``levels = 1``. The paper codes gaps and levels with
recursive Elias codes.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np

from fl_mobile.codecs.bits.positions import (
    decode_positions,
    encode_positions,
    pack_bits,
    position_bytes,
    read_bits,
    read_unary,
    unary,
)
from fl_mobile.codecs.bits.reader import Reader
from fl_mobile.errors import ConfigError, WireError
from fl_mobile.seeds import uniform

_BUCKET, _MOST_LEVELS, _MAX = 512, 1 << 15, float(np.finfo(np.float32).max)


@dataclass(frozen=True)
class Qsgd:
    """``norm·sign(x)·l/levels`` with l rounded stochastically. Unbiased; ``|x − x̂| ≤ norm/levels``.

    Expected ``‖x − x̂‖² ≤ min(n/levels², √n/levels)·‖x‖²`` in a bucket of n values.
    """

    levels: int
    kind: Literal["quantize"] = "quantize"
    unbiased: bool = True

    def __post_init__(self) -> None:
        if not 1 <= self.levels <= _MOST_LEVELS:
            raise ConfigError(f"qsgd takes 1 to {_MOST_LEVELS} levels, got {self.levels}, e.g. qsgd:16")

    @property
    def name(self) -> str:
        """``qsgd:16``."""
        return f"qsgd:{self.levels}"

    @property
    def contracts(self) -> bool:
        """True for many levels; of few, most of a bucket is noise."""
        return self.levels >= 16

    def encode(self, values: np.ndarray, rng: np.random.Generator) -> bytes:
        """Returns norms, positions, signs and levels."""
        if not values.size:
            return b""
        starts = np.arange(0, values.size, _BUCKET)
        lengths = np.diff(starts, append=values.size)
        rms = _round_up(np.sqrt(np.add.reduceat(np.square(values, dtype=np.float64), starts) / lengths))
        unit = self._units(rms, lengths)
        drawn = np.floor(np.abs(values) / np.where(unit, unit, 1.0) + uniform(rng, values.size))
        levels = np.minimum(drawn, self.levels).astype(np.int64)
        keep = np.flatnonzero(levels)
        parts = [rms.tobytes(), encode_positions(keep, values.size), np.packbits(values[keep] < 0).tobytes()]
        if self.levels > 1:
            parts += _encode_gamma(levels[keep])
        return b"".join(parts)

    def decode(self, reader: Reader, count: int) -> np.ndarray:
        """Returns ``float32[count]``."""
        out = np.zeros(count, np.float32)
        if not count:
            return out
        lengths = np.diff(np.arange(0, count, _BUCKET), append=count)
        unit = self._units(reader.finite("<f4", len(lengths)), lengths)
        keep = decode_positions(reader, count)
        negative = np.unpackbits(reader.array("u1", (len(keep) + 7) // 8), count=len(keep))
        levels = self._read_gamma(reader, len(keep)) if self.levels > 1 else np.ones(len(keep), np.int64)
        out[keep] = np.clip(np.where(negative, -levels, levels) * unit[keep], -_MAX, _MAX)
        return out

    def max_bytes(self, count: int) -> int:
        """Bytes that ``count`` values take at most."""
        gamma = (2 * count * self.levels.bit_length() + 7) // 8 + self.levels.bit_length()
        return 4 * (count // _BUCKET + 1) + position_bytes(count) + (count + 7) // 8 + gamma

    def _units(self, rms: np.ndarray, lengths: np.ndarray) -> np.ndarray:
        """Returns what one level is worth, for every value: ``float64[count]``."""
        return np.repeat(rms.astype(np.float64) * np.sqrt(lengths) / self.levels, lengths)

    def _read_gamma(self, reader: Reader, count: int) -> np.ndarray:
        most = self.levels.bit_length() - 1
        widths = read_unary(reader, count, (most + 1) * count)
        if count and int(widths.max()) > most:
            raise WireError("value", f"a level has {widths.max() + 1} bits, {self.levels} is the highest")
        levels = np.left_shift(1, widths)
        for width in range(1, most + 1):
            chosen = np.flatnonzero(widths == width)
            levels[chosen] += read_bits(reader, len(chosen), width)
        if count and int(levels.max()) > self.levels:
            raise WireError("value", f"level {levels.max()} is above the highest, {self.levels}")
        return levels


def _encode_gamma(levels: np.ndarray) -> list[bytes]:
    widths = np.frexp(levels.astype(np.float64))[1].astype(np.int64) - 1  # floor(log2), exact below 2^53
    low = levels - np.left_shift(1, widths)
    return [unary(widths)] + [pack_bits(low[widths == w], w) for w in range(1, int(widths.max(initial=0)) + 1)]


def _round_up(values: np.ndarray) -> np.ndarray:
    """Returns float32 not below ``values``: a norm that is too small would cut off the largest value."""
    near = np.minimum(values, _MAX).astype("<f4")
    return np.where(near < values, np.nextafter(near, np.float32(_MAX)), near).astype("<f4")
