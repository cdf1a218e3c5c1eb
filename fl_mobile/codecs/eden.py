"""EDEN: random rotation, Lloyd–Max quantization, unbiased scale (Vargaftik et al., ICML 2022).

```
seed u32              of the rotation and, below 1 bit, of the coordinates that are sent
scales f32[blocks]    one per block of `rotation.block_sizes`; 0: the block is all zeros and sends nothing more
levels                ``bits`` each for every coordinate sent, over all blocks that are not zero, padded to a byte
```
The same bytes on every machine and in every language. In float32: the values over the largest magnitude, signs,
butterflies and one product with ``n^−½`` (`hadamard`). In float64: sums over a block in the order of its coordinates,
a level as the number of midpoints between centroids that are below ``z/√mean z²``, ``Σz²/Σzc`` and what follows.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np

from fl_mobile.codecs.bits.positions import pack_bits, read_bits
from fl_mobile.codecs.bits.reader import Reader
from fl_mobile.codecs.bits.rotation import block_sizes, rotate, splitmix64, unrotate
from fl_mobile.errors import ConfigError

_MAX = float(np.finfo(np.float32).max)
POSITIVE_CENTROIDS = {  # of `sketch` too. Lloyd–Max for N(0, 1): Max, IRE Trans. IT 1960
    1: (0.7978845608,),
    2: (0.4527800398, 1.5104176087),
    3: (0.2450941791, 0.7560052812, 1.3439092613, 2.1519457045),
    4: (0.1283950299, 0.3880482996, 0.6567591186, 0.9423404419, 1.2562311512, 1.6180464059, 2.0690172265, 2.7325896111),
}


@dataclass(frozen=True)
class Eden:
    """1 to 4 bits a coordinate, or a fraction of the coordinates at 1 bit each (``bits`` < 1).

    Unbiased up to how far two rounds of signs and Hadamard are from a uniform rotation. Expected
    ``‖x − x̂‖²/‖x‖²`` = D/(1 − D) for the Lloyd–Max distortion D: 0.571, 0.133, 0.0358, 0.0096 at 1–4 bits;
    1.571/bits − 1 below 1 bit. Best on the joined vector: ``flat+eden:1``.
    """

    bits: float
    kind: Literal["quantize"] = "quantize"
    unbiased: bool = True

    def __post_init__(self) -> None:
        if not (self.bits in POSITIVE_CENTROIDS or 0 < self.bits < 1):
            raise ConfigError(f"eden sends 1, 2, 3, 4 or a fraction of a bit per value, got {self.bits}, e.g. eden:0.1")

    @property
    def name(self) -> str:
        """``eden:1``, ``eden:0.1``."""
        return f"eden:{int(self.bits) if self.bits >= 1 else self.bits!r}"

    @property
    def contracts(self) -> bool:
        """True from 1 bit on; below, the error is above 1."""
        return self.bits >= 1

    def encode(self, values: np.ndarray, rng: np.random.Generator) -> bytes:
        """Returns seed, scales and levels."""
        if not values.size:
            return b""
        seed = int(rng.bit_generator.random_raw()) >> 32  # type: ignore[attr-defined]
        largest = float(np.max(np.abs(values)))
        unit = (values / np.float64(largest or 1.0)).astype(np.float32)  # squares of huge or tiny values leave float32
        centroids, scales, levels = self._centroids(), [], []
        for z, sent in zip(rotate(unit, seed), self._sent(values.size, seed), strict=True):
            energy = _ordered_sums(np.square(z, dtype=np.float64))
            rms = np.sqrt(energy / z.shape[1])[:, None]
            level = np.searchsorted((centroids[1:] + centroids[:-1]) / 2, z / np.where(rms, rms, 1.0))
            # ⟨Rx, c⟩ over all coordinates, sent or not: unbiased for any sample, and never near 0.
            inner = _ordered_sums(z * centroids[level])
            gain = energy / np.where(inner, inner, 1.0)
            scale = np.minimum(gain * largest * (z.shape[1] / sent.shape[1]), _MAX).astype("<f4")
            scales.append(scale)
            levels.append(np.take_along_axis(level, sent, axis=1)[scale != 0].ravel())
        return seed.to_bytes(4, "little") + np.concatenate(scales).tobytes() + self._pack(np.concatenate(levels))

    def decode(self, reader: Reader, count: int) -> np.ndarray:
        """Returns ``float32[count]``."""
        if not count:
            return np.zeros(0, np.float32)
        seed, sizes = int(reader.array("<u4", 1)[0]), block_sizes(count)
        scales = np.split(reader.finite("<f4", sum(b for _, b in sizes)), np.cumsum([b for _, b in sizes])[:-1])
        sent = self._sent(count, seed)
        per_group = [int(np.count_nonzero(s)) * at.shape[1] for s, at in zip(scales, sent, strict=True)]
        levels = np.split(read_bits(reader, sum(per_group), self._width), np.cumsum(per_group)[:-1])
        # A scale for unit length, so that the rotation back cannot overflow on the way to a value that fits.
        largest = max(float(np.max(np.abs(s))) for s in scales) or 1.0
        groups = []
        for (n, blocks), scale, at, level in zip(sizes, scales, sent, levels, strict=True):
            z, live = np.zeros((blocks, n), np.float32), np.flatnonzero(scale)
            values = self._centroids()[level].reshape(len(live), at.shape[1]) * (scale[live, None] / largest)
            z[live[:, None], at[live]] = values
            groups.append(z)
        back = unrotate(groups, seed, count).astype(np.float64) * largest
        return np.clip(back, -_MAX, _MAX).astype(np.float32)

    def max_bytes(self, count: int) -> int:
        """Bytes that ``count`` values take at most."""
        blocks = block_sizes(count)
        sent = sum(b * self._share(n) for n, b in blocks)
        return 4 + 4 * sum(b for _, b in blocks) + (sent * self._width + 7) // 8

    @property
    def _width(self) -> int:
        return max(1, int(self.bits))

    def _share(self, length: int) -> int:
        return length if self.bits >= 1 else max(1, round(self.bits * length))

    def _centroids(self) -> np.ndarray:
        half = np.array(POSITIVE_CENTROIDS[self._width])
        return np.concatenate([-half[::-1], half])

    def _sent(self, count: int, seed: int) -> list[np.ndarray]:
        """Returns which coordinates of each block travel: ``int64[blocks, share]``, those with the smallest draws."""
        sizes = block_sizes(count)
        if self.bits >= 1:
            return [np.broadcast_to(np.arange(n), (blocks, n)) for n, blocks in sizes]
        draws = splitmix64(seed ^ 0xC0FFEE << 32, sum(n * blocks for n, blocks in sizes))
        groups = np.split(draws, np.cumsum([n * blocks for n, blocks in sizes])[:-1])
        share = [self._share(n) for n, _ in sizes]
        return [
            np.sort(np.argpartition(g.reshape(-1, n), k - 1, axis=1)[:, :k], axis=1)
            for g, (n, _), k in zip(groups, sizes, share, strict=True)
        ]

    def _pack(self, levels: np.ndarray) -> bytes:
        return pack_bits(levels, self._width)


def _ordered_sums(numbers: np.ndarray) -> np.ndarray:
    """Returns the sum of each row of ``float64[rows, n]``, added from left to right."""
    sums: np.ndarray = np.cumsum(numbers, axis=1)[:, -1]
    return sums
