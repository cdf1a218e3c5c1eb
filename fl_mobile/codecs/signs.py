"""One scale and a sign: signSGD with scale, STC's ternary values, TernGrad."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np

from fl_mobile.codecs.bits.positions import decode_positions, encode_positions, position_bytes
from fl_mobile.codecs.bits.reader import Reader
from fl_mobile.seeds import uniform


@dataclass(frozen=True)
class Sign:
    """``mean(|x|)·sign(x)``: 1 bit a value. Biased; ``‖x − x̂‖² = ‖x‖² − ‖x‖₁²/n``.

    signSGD with the ℓ1 scale of EF-signSGD (Karimireddy et al., ICML 2019). After top-k the mean runs over the kept
    values only, which makes ``flat+topk:0.01+sign`` Sparse Ternary Compression (Sattler et al., TNNLS 2020).

    Layout: ``scale f32``, then a bit a value, most significant first, set for negative; nothing at all for no values.
    """

    name: str = "sign"
    kind: Literal["quantize"] = "quantize"
    unbiased: bool = False
    contracts: bool = True

    def encode(self, values: np.ndarray, rng: np.random.Generator) -> bytes:
        """Returns scale and signs."""
        if not values.size:
            return b""
        scale = np.float32(np.mean(np.abs(values), dtype=np.float64))
        return scale.astype("<f4").tobytes() + np.packbits(values < 0).tobytes()

    def decode(self, reader: Reader, count: int) -> np.ndarray:
        """Returns ``float32[count]``."""
        if not count:
            return np.zeros(0, np.float32)
        scale = reader.finite("<f4", 1)[0]
        return _signed(np.full(count, scale, np.float32), reader)

    def max_bytes(self, count: int) -> int:
        """Bytes that ``count`` values take at most."""
        return 4 + (count + 7) // 8


@dataclass(frozen=True)
class TernGrad:
    """``max|x|·sign(x)`` with probability ``|x|/max|x|``, else 0 (Wen et al., NeurIPS 2017). Unbiased.

    ``|x − x̂| ≤ max|x|``. The scale is the tensor's own; the paper's gradient clipping is the client's ``clip_norm``.

    Layout: ``scale f32``, the non-zeros' positions (see `positions`), then a bit for each, set for negative.
    """

    name: str = "terngrad"
    kind: Literal["quantize"] = "quantize"
    unbiased: bool = True
    contracts: bool = False

    def encode(self, values: np.ndarray, rng: np.random.Generator) -> bytes:
        """Returns scale, positions and signs."""
        if not values.size:
            return b""
        scale = np.max(np.abs(values))
        keep = np.flatnonzero(uniform(rng, values.size) * np.float64(scale) < np.abs(values))
        return (
            scale.astype("<f4").tobytes()
            + encode_positions(keep, values.size)
            + np.packbits(values[keep] < 0).tobytes()
        )

    def decode(self, reader: Reader, count: int) -> np.ndarray:
        """Returns ``float32[count]``."""
        out = np.zeros(count, np.float32)
        if count:
            scale, keep = reader.finite("<f4", 1)[0], decode_positions(reader, count)
            out[keep] = _signed(np.full(len(keep), scale, np.float32), reader)
        return out

    def max_bytes(self, count: int) -> int:
        """Bytes that ``count`` values take at most."""
        return 4 + position_bytes(count) + (count + 7) // 8


def _signed(magnitudes: np.ndarray, reader: Reader) -> np.ndarray:
    """Returns the magnitudes with the signs that stand next in ``reader``."""
    bits = np.unpackbits(reader.array("u1", (magnitudes.size + 7) // 8), count=magnitudes.size)
    return np.where(bits, -magnitudes, magnitudes)
