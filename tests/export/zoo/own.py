"""Layers that people write themselves: operations of ``keras.ops``."""

from __future__ import annotations

from typing import Any

from keras import layers as L
from keras import ops

from tests.export.zoo.build import CAMERA, ROWS, Own, stack


def own_arithmetic() -> Any:
    """Sums, roots, powers, logarithms."""

    def answer(x: Any) -> Any:
        y = (
            ops.sqrt(ops.abs(x) + 1.0)
            + ops.exp(-ops.square(x))
            - ops.log1p(ops.abs(x))
            + ops.power(ops.abs(x) + 1.0, 1.5)
        )
        return ops.clip(y / (ops.abs(x) + 2.0), -3.0, 3.0) + ops.sin(x) * ops.cos(x)

    return stack((12,), L.Dense(8), Own(answer), L.Dense(3))


def own_choices() -> Any:
    """Where, comparisons, logic."""
    return stack(
        (12,),
        L.Dense(8),
        Own(lambda x: ops.where(ops.logical_and(x > 0, x < 1), x * 2.0, ops.minimum(x, 0.1))),
        L.Dense(3),
    )


def own_reductions() -> Any:
    """Mean, sum, largest, spread, norm, product of matrices."""

    def answer(x: Any) -> Any:
        parts = [ops.mean(x, 1), ops.sum(x, 1), ops.max(x, 1), ops.min(x, 1), ops.std(x, 1), ops.norm(x, axis=1)]
        return ops.concatenate([*parts, ops.reshape(ops.matmul(x, ops.transpose(x, (0, 2, 1))), (-1, 64))], 1)

    return stack(ROWS, Own(answer), L.Dense(3))


def own_slices() -> Any:
    """Slices, stacks, splits, rolls, flips, tiles, padding."""

    def answer(x: Any) -> Any:
        left, right = ops.split(x, 2, axis=2)
        rows = ops.concatenate([ops.flip(left, 1), ops.roll(right, 1, 1), ops.tile(x[:, :, :1], (1, 1, 2))], 2)
        return ops.stack([ops.pad(rows[:, 1:], ((0, 0), (1, 0), (0, 0))), ops.repeat(rows[:, :4], 2, 1)], 1)

    return stack(ROWS, Own(answer), L.Flatten(), L.Dense(3))


def own_einsum() -> Any:
    """Bilinear pooling."""
    return stack(ROWS, Own(lambda x: ops.einsum("bij,bik->bjk", x, x)), L.Flatten(), L.Dense(3))


def own_order() -> Any:
    """The largest, and where they stand: a little, because 8 bits turn the order of what is nearly equal."""

    def answer(x: Any) -> Any:
        values, places = ops.top_k(x, 3)
        where = ops.concatenate([ops.cast(places, "float32"), ops.one_hot(places[:, 0], 8)], -1)
        return ops.concatenate([values, where / 8], -1)

    return stack((12,), L.Dense(8), Own(answer), L.Dense(3))


def own_argmax() -> Any:
    """Keras looks at the sign bit of floats, which no phone can."""
    return stack((12,), L.Dense(8), Own(lambda x: ops.one_hot(ops.argmax(x, -1), 8)), L.Dense(3))


def own_resize() -> Any:
    """Pictures of another size."""
    return stack(
        CAMERA, L.Rescaling(1 / 255), L.Resizing(8, 8), L.Conv2D(4, 3), L.CenterCrop(4, 4), L.Flatten(), L.Dense(3)
    )


def own_cumulative() -> Any:
    """Running sums."""
    return stack(ROWS, Own(lambda x: ops.cumsum(x, 1) + ops.maximum(x, 0)), L.Flatten(), L.Dense(3))
