"""Running statistics average as statistics: means as means, variances as second moments, with weights that sum to 1.

A packet holds differences to the version its client started from. For weights that is all there is to say. A statistic
is a value: a late difference of one, added to a value that has moved on, can take a variance below zero. So a late
packet's statistics are measured from the current version first. With client i's mean ``mᵢ`` and variance ``vᵢ``, the
current ``m`` and ``v``, ``dᵢ = mᵢ − m`` and the weights ``pᵢ`` of the step, which sum to s ≤ 1 (late updates lose some
of theirs, and the current values keep it),

    m⁺ = m + Σ pᵢdᵢ            v⁺ = Σ pᵢ(vᵢ + dᵢ²) + (1 − s)v − (Σ pᵢdᵢ)²  ≥  Σ pᵢvᵢ + (1 − s)v  ≥  0,

the variance of the mixture (law of total variance; the first ≥ is Jensen's). Moments are taken about the current mean:
about zero, float32 would lose a variance that is small beside the square of its mean.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from fl_mobile.tensors import Spec, Tensors

_MEAN, _VARIANCE = "moving_mean", "moving_variance"


def moments(spec: Spec) -> dict[str, str]:
    """Returns variance → mean, for every layer that keeps both under the names Keras gives them.

    >>> from fl_mobile.tensors import TensorSpec
    >>> moments({f"norm/{name}": TensorSpec((3,), trainable=False) for name in ("moving_mean", "moving_variance")})
    {'norm/moving_variance': 'norm/moving_mean'}
    """
    found = {}
    for path, tensor in spec.items():
        layer, _, name = path.rpartition("/")
        mean = f"{layer}/{_MEAN}" if layer else _MEAN
        if name == _VARIANCE and spec.get(mean) == tensor and not tensor.trainable:
            found[path] = mean
    return found


def statistics_of(weights: Tensors, spec: Spec) -> Tensors:
    """Returns the tensors of a model that are statistics."""
    return {path: weights[path] for path, tensor in spec.items() if not tensor.trainable}


def as_moments(delta: Tensors, pairs: Mapping[str, str], moved: Tensors | None = None) -> Tensors:
    """Returns an update whose statistics can be averaged: measured from the current version, variances as moments.

    Args:
        delta: As decoded.
        pairs: As `moments` returns.
        moved: The statistics of the version the client started from, less the current ones; None: it is current.
    """
    if not pairs and not moved:
        return delta
    out = delta | {path: delta[path] + value for path, value in (moved or {}).items()}
    return out | {variance: out[variance] + np.square(out[mean]) for variance, mean in pairs.items()}


def from_moments(mean: Tensors, pairs: Mapping[str, str], current: Tensors) -> Tensors:
    """Returns the aggregate of such updates as an update again; variances end at or above zero.

    Args:
        mean: ``Σ pᵢ·`` of what `as_moments` returned.
        pairs: As there.
        current: The server's weights.
    """
    spread = {variance: mean[variance] - np.square(mean[path]) for variance, path in pairs.items()}
    return no_less_than_zero(mean | spread, pairs, current)  # of honest updates rounding alone can be


def no_less_than_zero(mean: Tensors, pairs: Mapping[str, str], current: Tensors) -> Tensors:
    """Returns an update that takes no variance below zero, whatever clients said; arguments as in `from_moments`."""
    return mean | {path: np.maximum(mean[path], -current[path]) for path in pairs}
