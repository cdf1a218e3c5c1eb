"""CAFe: how much of the last mean update is predicted of the next."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fl_mobile.client.feedback import LEAST_PREDICTED, minus, predicted
from fl_mobile.tensors import Tensors, TensorSpec, global_norm

SPEC = {"kernel": TensorSpec((40,)), "mean": TensorSpec((3,), trainable=False)}


def drawn(seed: int) -> Tensors:
    rng = np.random.default_rng(seed)
    return {path: rng.standard_normal(one.shape).astype(np.float32) for path, one in SPEC.items()}


def share(mean: Tensors, before: Tensors | None) -> float:
    found = predicted(mean, before, SPEC)
    shares = [float(np.linalg.norm(found[path]) / np.linalg.norm(mean[path])) for path in mean]
    assert shares == pytest.approx(shares[:1] * len(shares), rel=1e-5), "every tensor by the same share"
    return shares[0]


@given(seed=st.integers(0, 999), scale=st.floats(1e-3, 1e3), noise=st.floats(0, 5))
def test_it_is_the_cosine_whatever_the_lengths_and_the_statistics(seed: int, scale: float, noise: float) -> None:
    before, other = drawn(seed), drawn(seed + 1000)
    mean = {path: value + np.float32(noise) * other[path] for path, value in before.items()}
    a, b = mean["kernel"].astype(np.float64), before["kernel"].astype(np.float64)
    cosine = a @ b / np.sqrt((a @ a) * (b @ b))
    shrunk = {path: np.float32(scale) * value for path, value in before.items()} | {"mean": other["mean"]}
    assert share(mean, shrunk) == pytest.approx(max(LEAST_PREDICTED, cosine), abs=1e-4)


def test_what_turned_round_or_is_the_first_is_predicted_least() -> None:
    mean = drawn(0)
    assert share(mean, None) == share(mean, {path: -value for path, value in mean.items()}) == LEAST_PREDICTED
    zero = {path: value * 0 for path, value in mean.items()}
    assert all(np.isfinite(value).all() for value in predicted(zero, mean, SPEC).values())
    assert share(mean, zero) == LEAST_PREDICTED


@pytest.mark.parametrize("noise", [0.1, 0.3, 1.0, 3.0])
def test_what_is_left_to_encode_is_shorter_than_without_and_than_with_the_whole_mean(noise: float) -> None:
    """Clients around one direction; both means hold noise of their own, as a lossy codec leaves it there."""
    spec, rng = {"kernel": TensorSpec((20_000,))}, np.random.default_rng(3)

    def draw() -> np.ndarray:
        return rng.standard_normal(20_000).astype(np.float32)

    step = draw()
    before, mean, update = ({"kernel": step + np.float32(noise) * draw()} for _ in range(3))
    left = global_norm(minus(update, predicted(mean, before, spec)))
    assert left <= 1.01 * min(global_norm(update), global_norm(minus(update, mean)))
