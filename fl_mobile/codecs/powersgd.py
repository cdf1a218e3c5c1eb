"""PowerSGD: a low-rank factorisation of every matrix (Vogels et al., NeurIPS 2019).

A kernel of shape (…, out) is the matrix [rest, out]. Per tensor, in order:
```
P f16[rest, rank]    orthonormal columns
scale f32            largest |Q|
Q f16[out, rank]     Mᵀ·P / scale
```
Vectors, and matrices whose factors would hold as many numbers as they do, travel as float32.
The paper keeps Q from round to round so that one power iteration is enough, sums P and Q over workers, and sends
float32. A phone that takes part once has no earlier Q, so here four iterations run on the phone, which costs no
bytes; factors of different phones cannot be summed, so the server decodes each; float16 halves the bytes.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from fl_mobile.codecs.bits.reader import Reader
from fl_mobile.errors import ConfigError, WireError
from fl_mobile.seeds import uniform
from fl_mobile.tensors import Spec, Tensors, TensorSpec

_ITERATIONS, _MAX = 4, float(np.finfo(np.float32).max)


@dataclass(frozen=True)
class PowerSgd:
    """Rank-``rank`` approximation. Biased; ``‖M − M̂‖ ≤ ‖M‖`` but for float16 rounding, 2⁻¹⁰ of ‖M‖ at most."""

    rank: int
    exact_up_to: int = 256
    unbiased: bool = False
    contracts: bool = True

    def __post_init__(self) -> None:
        if self.rank < 1:
            raise ConfigError(f"powersgd needs a rank of at least 1, got {self.rank}, e.g. powersgd:2")

    @property
    def name(self) -> str:
        """``powersgd:2``."""
        return f"powersgd:{self.rank}"

    @property
    def wire_name(self) -> str:
        """The decoder must know the rank."""
        return self.name

    def encode(self, delta: Tensors, rng: np.random.Generator) -> bytes:
        """Returns the factors of every matrix."""
        parts = []
        for tensor in delta.values():
            rows, columns = _matrix_shape(tensor.shape)
            if not self._factors(rows, columns):
                parts.append(tensor.astype("<f4", copy=False).tobytes())
                continue
            matrix = tensor.reshape(rows, columns).astype(np.float64)
            q = uniform(rng, columns * self.rank).reshape(columns, self.rank) - 0.5
            for _ in range(_ITERATIONS):
                p = _orthonormal(matrix @ q)
                q = matrix.T @ p
            scale = np.float32(min(np.max(np.abs(q)), _MAX))
            unit = np.clip(q / scale, -1, 1) if scale else np.zeros_like(q)
            parts += [p.astype("<f2").tobytes(), scale.astype("<f4").tobytes(), unit.astype("<f2").tobytes()]
        return b"".join(parts)

    def decode(self, payload: memoryview, spec: Spec) -> Tensors:
        """Returns the products of the factors."""
        reader = Reader(payload)
        out = {path: self._decode_tensor(reader, tensor) for path, tensor in spec.items()}
        reader.end()
        return out

    def _decode_tensor(self, reader: Reader, tensor: TensorSpec) -> np.ndarray:
        rows, columns = _matrix_shape(tensor.shape)
        if not self._factors(rows, columns):
            return reader.finite("<f4", tensor.size).reshape(tensor.shape)
        p = reader.finite("<f2", rows * self.rank).reshape(rows, self.rank)
        scale = float(reader.finite("<f4", 1)[0])
        q = reader.finite("<f2", columns * self.rank).reshape(columns, self.rank)
        if max(float(np.abs(p).max()), float(np.abs(q).max())) > 1:
            raise WireError("value", "a PowerSGD factor is above 1, its columns must be normalised")
        product = (p @ q.T).astype(np.float64) * scale
        return np.clip(product, -_MAX, _MAX).astype(np.float32).reshape(tensor.shape)

    def _factors(self, rows: int, columns: int) -> bool:
        return self.rank * (rows + columns) < rows * columns


def _matrix_shape(shape: tuple[int, ...]) -> tuple[int, int]:
    return math.prod(shape[:-1]), shape[-1] if shape else 1


def _orthonormal(columns: np.ndarray) -> np.ndarray:
    """Gram–Schmidt, twice for accuracy; a column that depends on earlier ones becomes 0."""
    out = columns.copy()
    for i in range(out.shape[1]):
        before = float(np.linalg.norm(out[:, i]))
        for _ in range(2):
            out[:, i] -= out[:, :i] @ (out[:, :i].T @ out[:, i])
        norm = float(np.linalg.norm(out[:, i]))
        out[:, i] = out[:, i] / norm if norm > 1e-12 * before else 0.0
    return out
