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

All sums are float64 in a stated order (`kernels.ordered`), so that every machine and language makes the same bytes:
from ``Q = U − ½`` with uniform U (24 bits, rank numbers a column), ``P ← MQ``, Gram–Schmidt, ``Q ← MᵀP``, four times.
A product is read as ``ΣPQ`` in float64, rising column of the factors by column, times the scale, rounded to float32.
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
            if not self._pays(rows, columns):
                parts.append(tensor.astype("<f4", copy=False).tobytes())
                continue
            p, q = _factors(tensor.reshape(rows, columns).astype(np.float64), self.rank, rng)
            scale = np.float32(min(np.max(np.abs(q)), _MAX))
            unit = np.clip(q / scale, -1, 1) if scale else np.zeros_like(q)
            parts += [p.T.astype("<f2").tobytes(), scale.astype("<f4").tobytes(), unit.T.astype("<f2").tobytes()]
        return b"".join(parts)

    def decode(self, payload: memoryview, spec: Spec) -> Tensors:
        """Returns the products of the factors."""
        reader = Reader(payload)
        out = {path: self._decode_tensor(reader, tensor) for path, tensor in spec.items()}
        reader.end()
        return out

    def _decode_tensor(self, reader: Reader, tensor: TensorSpec) -> np.ndarray:
        rows, columns = _matrix_shape(tensor.shape)
        if not self._pays(rows, columns):
            return reader.finite("<f4", tensor.size).reshape(tensor.shape)
        p = reader.finite("<f2", rows * self.rank).reshape(rows, self.rank)
        scale = float(reader.finite("<f4", 1)[0])
        q = reader.finite("<f2", columns * self.rank).reshape(columns, self.rank)
        if max(float(np.abs(p).max()), float(np.abs(q).max())) > 1:
            raise WireError("value", "a PowerSGD factor is above 1, its columns must be normalised")
        left, right = p.astype(np.float64), q.astype(np.float64)
        product = np.outer(left[:, 0], right[:, 0])
        for k in range(1, self.rank):
            product += np.outer(left[:, k], right[:, k])
        product *= scale
        return np.clip(product, -_MAX, _MAX).astype(np.float32).reshape(tensor.shape)

    def _pays(self, rows: int, columns: int) -> bool:
        return self.rank * (rows + columns) < rows * columns


def _matrix_shape(shape: tuple[int, ...]) -> tuple[int, int]:
    return math.prod(shape[:-1]), shape[-1] if shape else 1


def _factors(matrix: np.ndarray, rank: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Returns P and Q by vector: ``float64[rank, rows]``, orthonormal, and ``float64[rank, columns]``."""
    from fl_mobile.kernels.ordered import make_orthonormal, times, transposed_times

    start = uniform(rng, matrix.shape[1] * rank).reshape(-1, rank) - 0.5
    q = np.ascontiguousarray(start.T, np.float64)
    for _ in range(_ITERATIONS):
        p = times(matrix, q)
        make_orthonormal(p)
        q = transposed_times(matrix, p)
    return p, q
