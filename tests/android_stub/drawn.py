"""Updates that Python and Java draw alike: Philox bits, whole powers of two, and IEEE products; no library's sums."""

from __future__ import annotations

import numpy as np

from fl_mobile.seeds import uniform
from fl_mobile.tensors import Spec, Tensors, TensorSpec, cut
from tests.fl_mobile.samples import SPEC, philox

SPECS: dict[str, Spec] = {
    "mixed": SPEC,
    "logistic": {"dense/kernel": TensorSpec((64, 10)), "dense/bias": TensorSpec((10,))},
    "two layers": {
        "first/kernel": TensorSpec((64, 200)),
        "first/bias": TensorSpec((200,)),
        "last/kernel": TensorSpec((200, 10)),
        "last/bias": TensorSpec((10,)),
    },
}
PATTERNS = ("plain", "rows and columns", "sparse", "tiny", "huge")


def drawn(spec: Spec, pattern: str, key: int) -> Tensors:
    """Returns an update of a pattern: a third of exact zeros, busy and silent rows, columns of one sign, …"""
    size = sum(t.size for t in spec.values())
    x = 2.0 * uniform(philox(key), size).astype(np.float64) - 1.0
    x = x * x * x
    at = np.arange(size, dtype=np.uint64)
    if pattern == "sparse":
        x[_mixed(at, key) % 97 != 0] = 0.0
    else:
        x[_mixed(at, key) % 3 == 0] = 0.0
    if pattern == "rows and columns":
        for part, tensor in zip(cut(x, spec).values(), spec.values(), strict=True):
            _shape_rows(part, tensor.shape[-1] if tensor.shape else 1, key)
    x *= {"tiny": 1e-38, "huge": 1e30}.get(pattern, 0.01)
    return cut(x.astype(np.float32), spec)


def _shape_rows(values: np.ndarray, columns: int, key: int) -> None:
    """Scales a tensor's rows and columns by powers of two, in place; every fourth row is silent."""
    if not values.size:
        return
    matrix = values.reshape(-1, columns)
    rows = _mixed(np.arange(len(matrix), dtype=np.uint64), key)
    across = _mixed(np.arange(columns, dtype=np.uint64), key + 1)
    matrix[:, across % 3 == 0] = np.abs(matrix[:, across % 3 == 0])
    matrix *= np.exp2(-((rows >> np.uint64(4)) % 9).astype(np.float64))[:, None]
    matrix *= np.exp2(-((across >> np.uint64(4)) % 5).astype(np.float64))[None, :]
    matrix[rows % 4 == 0] = 0.0


def _mixed(index: np.ndarray, key: int) -> np.ndarray:
    return (index * np.uint64(2654435761) + np.uint64(key * 40503)) % np.uint64(2**32) >> np.uint64(7)
