"""Federated pruning masks: schedule, choice of weights, and what it must catch."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fl_mobile.errors import ConfigError
from fl_mobile.tensors import Spec, Tensors, TensorSpec
from fl_mobile.wire.pruning_mask import (
    PruningPlan,
    apply_masks,
    live_runs,
    masks_for,
    pruned_paths,
    sparsity_at,
    spread_runs,
    zero_runs,
)

SPEC: Spec = {
    "conv/kernel": TensorSpec((3, 3, 16, 32)),
    "conv/bias": TensorSpec((32,)),
    "norm/moving_mean": TensorSpec((64, 64), trainable=False),
    "dense/kernel": TensorSpec((128, 32)),
    "odd/kernel": TensorSpec((129, 32)),
    "small/kernel": TensorSpec((8, 8)),
}


def weights(seed: int = 0) -> Tensors:
    rng = np.random.default_rng(seed)
    return {path: rng.standard_normal(t.shape).astype(np.float32) for path, t in SPEC.items()}


@given(
    sparsity=st.floats(0.01, 0.99),
    begin=st.integers(0, 30),
    length=st.integers(0, 30),
    schedule=st.sampled_from(["polynomial", "constant"]),
)
def test_sparsity_rises_to_the_goal_and_stays(sparsity: float, begin: int, length: int, schedule: str) -> None:
    plan = PruningPlan(sparsity, begin, begin + length, schedule)
    shares = [sparsity_at(plan, r) for r in range(begin + length + 3)]
    assert shares == sorted(shares)
    assert shares[:begin] == [0.0] * begin
    assert shares[begin + length :] == [sparsity] * 3


@given(share=st.floats(0.01, 0.99), run=st.sampled_from([1, 4]), seed=st.integers(0, 5))
def test_mask_takes_the_smallest(share: float, run: int, seed: int) -> None:
    plan, tensors = PruningPlan(share, zero_run=run), weights(seed)
    masks = masks_for(plan, tensors, SPEC, 0)
    assert list(masks) == pruned_paths(plan, SPEC) == ["conv/kernel", "dense/kernel", "odd/kernel"]
    for path, mask in masks.items():
        kernel, groups = tensors[path], run if path == "dense/kernel" else 1
        assert mask.shape == kernel.shape
        assert (~mask).sum() == groups * round(share * kernel.size / groups)
        size = np.abs(kernel).reshape(-1, groups, kernel.shape[-1]).sum(axis=1) if groups > 1 else np.abs(kernel)
        alive = mask.reshape(-1, groups, kernel.shape[-1])[:, 0] if groups > 1 else mask
        if alive.any() and (~alive).any():
            assert size[alive].min() >= size[~alive].max() - 1e-5


def test_runs_lie_along_the_inputs() -> None:
    mask = masks_for(PruningPlan(0.8), weights(), SPEC, 0)["dense/kernel"]
    runs = mask.reshape(32, 4, 32)
    assert (runs.all(axis=1) | ~runs.any(axis=1)).all()


def test_masks_are_made_of_whole_runs() -> None:
    plan = PruningPlan(0.8)
    masks, runs = masks_for(plan, weights(), SPEC, 0), zero_runs(plan, SPEC)
    assert runs == {"conv/kernel": 1, "dense/kernel": 4, "odd/kernel": 1}
    for path, run in runs.items():
        np.testing.assert_array_equal(spread_runs(live_runs(masks[path], run), run), masks[path])


def test_equal_weights_give_equal_masks_even_when_all_tie() -> None:
    tied: Tensors = {path: np.ones(t.shape, np.float32) for path, t in SPEC.items()}
    first, again = (masks_for(PruningPlan(0.5, zero_run=1), tied, SPEC, 0) for _ in range(2))
    for path, mask in first.items():
        np.testing.assert_array_equal(mask, again[path])
        assert mask.mean() == pytest.approx(0.5, abs=1e-3)


def zero_share(tensors: Tensors, paths: list[str]) -> float:
    """Returns the share of exact zeros among the tensors called ``paths``."""
    return float(np.mean(np.concatenate([np.ravel(tensors[path] == 0) for path in paths])))


def test_zeros_stay_zero_over_rounds() -> None:
    plan, state, rng = PruningPlan(0.8, 2, 6), weights(), np.random.default_rng(1)
    paths = pruned_paths(plan, SPEC)
    for round_num in range(10):
        masks = masks_for(plan, state, SPEC, round_num)
        delta = {p: 0.01 * rng.standard_normal(v.shape).astype(np.float32) for p, v in state.items()}
        before = apply_masks(state, masks)
        state = apply_masks({p: before[p] + apply_masks(delta, masks)[p] for p in state}, masks)
        wanted = sparsity_at(plan, round_num)
        assert zero_share(state, paths) == pytest.approx(wanted, abs=2e-3)
        if round_num > plan.end_round:
            again = masks_for(plan, state, SPEC, round_num + 1)
            assert all(np.array_equal(again[p], masks[p]) for p in masks), "masks settle once the share is reached"


def test_it_catches_a_mask_that_is_not_applied() -> None:
    plan, tensors = PruningPlan(0.8), weights()
    masks = masks_for(plan, tensors, SPEC, 0)
    paths = pruned_paths(plan, SPEC)
    assert zero_share(apply_masks(tensors, masks), paths) == pytest.approx(0.8, abs=2e-3)
    forgotten = apply_masks(tensors, {path: masks[path] for path in paths[:-1]})
    assert zero_share(forgotten, paths) < 0.7


def test_what_has_no_mask_is_untouched() -> None:
    tensors = weights()
    masked = apply_masks(tensors, masks_for(PruningPlan(0.9), tensors, SPEC, 0))
    assert list(masked) == list(tensors)
    assert all(masked[p] is tensors[p] for p in ("conv/bias", "norm/moving_mean", "small/kernel"))
    assert all(value.dtype == np.float32 for value in masked.values())


def test_off_and_before_the_first_round_there_are_no_masks() -> None:
    assert masks_for(PruningPlan(), weights(), SPEC, 5) == {}
    assert masks_for(PruningPlan(0.8, 3, 9), weights(), SPEC, 2) == {}


@pytest.mark.parametrize(
    ("keys", "says"),
    [
        ({"sparsity": 1.0}, "sparsity"),
        ({"sparsity": float("nan")}, "sparsity"),
        ({"sparsity": 0.5, "begin_round": 9, "end_round": 3}, "begin-round"),
        ({"sparsity": 0.5, "schedule": "cubic"}, "schedule"),
        ({"sparsity": 0.5, "zero_run": 0}, "zero-run"),
    ],
)
def test_impossible_plans_are_refused(keys: dict[str, object], says: str) -> None:
    with pytest.raises(ConfigError, match=says):
        PruningPlan(**keys)  # type: ignore[arg-type]
