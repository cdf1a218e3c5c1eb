"""Named float32 tensors and the spec that phone and server agree on before any byte travels.

Keys are Keras variable *paths* (``"conv1/kernel"``), never names: names repeat in every layer.
"""

from __future__ import annotations

import functools
import hashlib
import itertools
import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from types import ModuleType

import numpy as np

from fl_mobile.errors import DivergedError, SpecMismatch

Tensors = dict[str, np.ndarray]
"""Variable path → ``float32`` array, in model order."""


@dataclass(frozen=True)
class TensorSpec:
    """Shape of one travelling tensor, and whether an optimizer may touch it.

    ``trainable=False`` marks statistics (batch-norm moving mean and variance): averaged, never optimised.
    """

    shape: tuple[int, ...]
    trainable: bool = True

    def __post_init__(self) -> None:
        if any(int(d) != d or d < 0 for d in self.shape):
            raise SpecMismatch(f"a tensor's shape must be non-negative integers, got {self.shape}")

    @cached_property
    def size(self) -> int:
        """Number of elements; 1 for a scalar."""
        return math.prod(self.shape)


Spec = dict[str, TensorSpec]
"""Variable path → `TensorSpec`, in model order. Only what travels is listed: frozen layers are not."""


def fingerprint(spec: Mapping[str, TensorSpec]) -> int:
    """Returns the 64-bit identity of a spec that every packet carries.

    First 8 bytes, big endian, of SHA-256 over one UTF-8 line per tensor, in order:
    ``path|d0,d1,…|1`` for trainable or ``|0``, each line ended by ``\\n``.

    >>> hex(fingerprint({"dense/kernel": TensorSpec((2, 3)), "dense/bias": TensorSpec((3,))}))
    '0x34d1e6c975285cc8'
    """
    return _fingerprint(tuple((path, t.shape, t.trainable) for path, t in spec.items()))


@functools.lru_cache(maxsize=64)  # every packet asks, and a run has one spec
def _fingerprint(tensors: tuple[tuple[str, tuple[int, ...], bool], ...]) -> int:
    lines = (f"{path}|{','.join(map(str, shape))}|{int(trainable)}\n" for path, shape, trainable in tensors)
    return int.from_bytes(hashlib.sha256("".join(lines).encode()).digest()[:8], "big")


def weights_hash(tensors: Mapping[str, np.ndarray]) -> str:
    """Returns a SHA-256 over paths, shapes and little-endian values: equal if and only if the weights are."""
    digest = hashlib.sha256()
    for path, value in tensors.items():
        digest.update(f"{path}|{value.shape}\n".encode())
        digest.update(np.ascontiguousarray(value, "<f4").tobytes())
    return digest.hexdigest()


def fp32_bytes(spec: Mapping[str, TensorSpec]) -> int:
    """Returns what the tensors weigh as bare float32: the numerator of every compression ratio."""
    return 4 * sum(t.size for t in spec.values())


def check_fits(tensors: Mapping[str, np.ndarray], spec: Mapping[str, TensorSpec], what: str) -> None:
    """Raises `SpecMismatch` unless names, order, shapes and dtype are those of ``spec``."""
    if list(tensors) != list(spec):
        missing, extra = [p for p in spec if p not in tensors], [p for p in tensors if p not in spec]
        raise SpecMismatch(
            f"{what}: expected {len(spec)} tensors in model order, got {len(tensors)};"
            f" missing {missing[:3]}, unexpected {extra[:3]}. Were they read from the same model?"
        )
    for path, value in tensors.items():
        if value.shape != spec[path].shape or value.dtype != np.float32:
            raise SpecMismatch(
                f"{what}: tensor '{path}' must be float32{list(spec[path].shape)}, got {value.dtype}{list(value.shape)}"
            )


AT_ONCE_BYTES = 1 << 20
"""Updates of this size in all stay in a processor's cache while something is done to each of them."""


def at_once(spec: Mapping[str, TensorSpec]) -> int:
    """Returns how many updates of a spec are packed, or folded, with one call; at least 1."""
    return max(1, AT_ONCE_BYTES // max(1, fp32_bytes(spec)))


@functools.cache
def loops() -> ModuleType:
    """Returns the compiled loops over an update's values, for those whom asking for an import each time costs more."""
    from fl_mobile.kernels import loops

    return loops


def cut(flat: np.ndarray, spec: Mapping[str, TensorSpec]) -> Tensors:
    """Returns the tensors that lie end to end in ``flat``, ``float32[n]``, as views of it."""
    ends = itertools.accumulate(t.size for t in spec.values())
    return {path: flat[end - t.size : end].reshape(t.shape) for (path, t), end in zip(spec.items(), ends, strict=True)}


def not_finite(tensors: Mapping[str, np.ndarray]) -> str | None:
    """Returns the path of the first ``float32`` tensor that holds NaN or Inf, None if there is none."""
    for path, value in tensors.items():
        if not math.isfinite(loops().largest_magnitude(value.reshape(-1))):
            return path
    return None


def check_finite(tensors: Mapping[str, np.ndarray], what: str) -> None:
    """Raises `DivergedError` naming the first tensor that holds NaN or Inf."""
    if path := not_finite(tensors):
        value = tensors[path]
        raise DivergedError(
            f"tensor '{path}': {np.count_nonzero(~np.isfinite(value))} of {value.size} values are not finite ({what})."
            " Local training diverged; lower train.learning-rate."
        )


def global_norm(tensors: Mapping[str, np.ndarray]) -> float:
    """Returns the L2 norm over all tensors, accumulated in float64.

    >>> global_norm({"a": np.array([3.0], np.float32), "b": np.array([4.0], np.float32)})
    5.0
    """
    return math.sqrt(sum(float(np.sum(np.square(v, dtype=np.float64))) for v in tensors.values()))


def clip_by_norm(tensors: Tensors, clip_norm: float) -> Tensors:
    """Returns the tensors scaled down so that their global L2 norm is at most ``clip_norm``."""
    norm = global_norm(tensors)
    if norm <= clip_norm:
        return tensors
    scale = np.float32(clip_norm / norm * (1 - 1e-6))  # float32 rounding must not land above the bound
    return {path: value * scale for path, value in tensors.items()}
