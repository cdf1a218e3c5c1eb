"""Values into bytes: raw float32, float16, and uniform 1–8 bit quantization.

Uniform layout per tensor: ``lo f32``, ``hi f32`` (both include 0), then ``ceil(k·bits/8)`` bytes of levels, each
``bits`` wide, most significant bit first. An empty tensor is no bytes at all.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np

from fl_mobile.codecs.bits.reader import Reader
from fl_mobile.errors import WireError
from fl_mobile.seeds import uniform

_MAX = np.finfo(np.float32).max


@dataclass(frozen=True)
class Raw:
    """Little-endian float32, bit for bit."""

    name: str = "none"
    kind: Literal["quantize"] = "quantize"
    unbiased: bool = True
    contracts: bool = True

    def encode(self, values: np.ndarray, rng: np.random.Generator) -> memoryview:
        """Returns 4 bytes a value, a view of them where they are stored so."""
        return np.ascontiguousarray(values, "<f4").view(np.uint8).data

    def decode(self, reader: Reader, count: int) -> np.ndarray:
        """Returns ``float32[count]``, a view of the payload where it is stored so."""
        return reader.array("<f4", count).astype(np.float32, copy=False)

    def max_bytes(self, count: int) -> int:
        """Bytes that ``count`` values take at most."""
        return 4 * count


RAW = Raw()


@dataclass(frozen=True)
class Float16:
    """IEEE half precision, round to nearest even: ``|x − x̂| ≤ max(|x|·2⁻¹¹, 2⁻²⁵)``; saturates at ±65,504."""

    name: str = "float16"
    kind: Literal["quantize"] = "quantize"
    unbiased: bool = False
    contracts: bool = True

    def encode(self, values: np.ndarray, rng: np.random.Generator) -> bytes:
        """Returns 2 bytes a value."""
        return np.clip(values, -65504, 65504).astype("<f2").tobytes()

    def decode(self, reader: Reader, count: int) -> np.ndarray:
        """Returns ``float32[count]``."""
        return reader.finite("<f2", count)

    def max_bytes(self, count: int) -> int:
        """Bytes that ``count`` values take at most."""
        return 2 * count


@dataclass(frozen=True)
class Uniform:
    """A uniform grid of ``2^bits`` levels over ``[min, max]`` of the tensor, on which 0 is a point (from 2 bits on).

    ``stochastic`` rounding is unbiased with ``|x − x̂| ≤ step``; ``nearest`` has ``|x − x̂| ≤ step/2`` (QSGD's idea with
    a min–max grid: Alistarh et al., NeurIPS 2017). All arithmetic is IEEE float64, so both ends agree to the bit.
    """

    bits: int
    rounding: Literal["stochastic", "nearest"] = "stochastic"
    kind: Literal["quantize"] = "quantize"

    @property
    def name(self) -> str:
        """``q8``, or ``q8:nearest``."""
        return f"q{self.bits}" + (":nearest" if self.rounding == "nearest" else "")

    @property
    def unbiased(self) -> bool:
        """True for stochastic rounding."""
        return self.rounding == "stochastic"

    @property
    def contracts(self) -> bool:
        """True for nearest rounding where 0 is a point, and for stochastic rounding where steps are small enough."""
        return self.bits >= (2 if self.rounding == "nearest" else 4)

    def encode(self, values: np.ndarray, rng: np.random.Generator) -> bytes:
        """Returns range and packed levels."""
        if not values.size:
            return b""
        lo, hi = min(float(values.min()), 0.0), max(float(values.max()), 0.0)
        step, zero = self._grid(lo, hi)
        up = 0.5 if self.rounding == "nearest" else uniform(rng, values.size).astype(np.float64)
        # With step 0 all values are 0; the level is then irrelevant. A rounding error at the range's ends is clipped.
        # float64, because in float32 the step of denormal values would underflow to 0.
        levels = np.floor(values.astype(np.float64) / step + (up - zero)) if step else np.zeros(values.size)
        levels = np.clip(levels, 0, 2**self.bits - 1).astype(np.uint8)
        return np.array([lo, hi], "<f4").tobytes() + self._pack(levels)

    def decode(self, reader: Reader, count: int) -> np.ndarray:
        """Returns ``float32[count]``."""
        if not count:
            return np.zeros(0, np.float32)
        lo, hi = map(float, reader.finite("<f4", 2))
        if not lo <= 0.0 <= hi:
            raise WireError("value", f"the grid's range [{lo}, {hi}] must hold 0")
        step, zero = self._grid(lo, hi)
        levels = self._unpack(reader.array("u1", (count * self.bits + 7) // 8), count)
        # At most 256 different values: look them up instead of computing each.
        table = np.clip((np.arange(2**self.bits) + zero) * step, -_MAX, _MAX).astype(np.float32)
        return table[levels]

    def max_bytes(self, count: int) -> int:
        """Bytes that ``count`` values take at most."""
        return 8 + (count * self.bits + 7) // 8

    def _grid(self, lo: float, hi: float) -> tuple[float, float]:
        """Returns the step, and the number of steps from 0 down to level 0 (a whole number from 2 bits on)."""
        if self.bits == 1:
            step = hi - lo
            return step, lo / step if step else 0.0
        step = (hi - lo) / (2**self.bits - 2)  # one level to spare, so that rounding the ends outward still fits
        return step, float(np.floor(lo / step)) if step else 0.0

    def _pack(self, levels: np.ndarray) -> bytes:
        if self.bits == 8:
            return levels.tobytes()
        return np.packbits(np.unpackbits(levels[:, None], axis=1)[:, 8 - self.bits :]).tobytes()

    def _unpack(self, packed: np.ndarray, count: int) -> np.ndarray:
        if self.bits == 8:
            return packed
        bits = np.unpackbits(packed, count=count * self.bits).reshape(count, self.bits)
        return np.packbits(np.pad(bits, ((0, 0), (8 - self.bits, 0))), axis=1)[:, 0]
