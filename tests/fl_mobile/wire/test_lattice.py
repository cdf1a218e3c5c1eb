"""The lattice of delta downloads: where a device lands, whatever it held; pruned weights are zero, and cost nothing."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fl_mobile import wire
from fl_mobile.errors import WireError
from fl_mobile.tensors import Spec, Tensors, TensorSpec
from fl_mobile.wire.lattice import DEAD, Lattice, prune_point
from fl_mobile.wire.pruning_mask import Masks, PruningPlan, apply_masks, masks_for, zero_runs

SPEC: Spec = {
    "conv/kernel": TensorSpec((3, 3, 16, 32)),
    "conv/bias": TensorSpec((32,)),
    "norm/moving_mean": TensorSpec((12,), trainable=False),
    "dense/kernel": TensorSpec((128, 32)),
    "odd/kernel": TensorSpec((131, 33)),
    "small/kernel": TensorSpec((8, 8)),
}
PLAN = PruningPlan(0.6)
RUNS = zero_runs(PLAN, SPEC)


def weights(seed: int) -> Tensors:
    rng = np.random.default_rng(seed)
    return {path: rng.normal(0, 0.1, t.shape).astype(np.float32) for path, t in SPEC.items()}


def pruned(seed: int, share: float) -> tuple[Tensors, Masks]:
    state = weights(seed)
    masks = masks_for(PruningPlan(share), state, SPEC, 0)
    return apply_masks(state, masks), masks


def lattice(fineness: float = 0.1) -> Lattice:
    return Lattice.around(weights(0), SPEC, fineness, RUNS)


shares = st.sampled_from([0.0, 0.3, 0.6, 0.95, 0.999])


@given(seed=st.integers(1, 20), fineness=st.sampled_from([0.01, 0.1, 1.0]), share=shares, before=shares)
def test_a_device_lands_where_all_others_do_whatever_it_held(
    seed: int, fineness: float, share: float, before: float
) -> None:
    """From version 0 or another with fewer, more or other zeros: zeros are exact, the rest is within half a step."""
    grid = lattice(fineness)
    state, _ = pruned(seed, share)
    earlier, masks = pruned(seed + 1, before)
    point = grid.point(state)
    for held in (grid.start, prune_point(grid.point(earlier), masks), grid.point(earlier), point):
        packet = grid.pack(state, point, held, version=2, held_version=1)
        reached, decoded = grid.unpack(packet, held)
        assert all(np.array_equal(reached[path], point[path]) for path in point)
        for path, tensor in SPEC.items():
            if path in RUNS:
                np.testing.assert_array_equal(decoded[path] == 0, state[path] == 0)
            if tensor.trainable:
                alive = decoded[path] != 0
                assert np.abs(decoded[path] - state[path])[alive].max(initial=0) / grid.step <= 0.5 + 1e-3
            else:
                np.testing.assert_array_equal(decoded[path], state[path])
    again = masks_for(PruningPlan(share), decoded, SPEC, 1)
    assert all((state[path][~again[path]] == 0).all() for path in again), "devices find the server's masks"


def test_what_came_back_is_as_exact_as_what_never_died() -> None:
    grid = lattice()
    held = prune_point(grid.start, pruned(3, 0.9)[1])
    state = weights(4)
    reached, decoded = grid.unpack(grid.pack(state, grid.point(state), held, version=2, held_version=1), held)
    for path in RUNS:
        assert not (reached[path] == DEAD).any()
        np.testing.assert_array_equal(decoded[path], grid.weights(grid.point(state), state)[path])


def test_dead_weights_cost_nothing() -> None:
    """Once both ends know what is dead, a packet is no longer than one that moves only what lives."""
    grid, plain = lattice(), Lattice.around(weights(0), SPEC, 0.1)
    (state, masks), noise = pruned(1, 0.95), weights(2)
    held = grid.point(state)
    moved = apply_masks({path: state[path] + noise[path] for path in SPEC}, masks)
    sparse = grid.pack(moved, grid.point(moved), held, version=2, held_version=1)
    whole = {path: state[path] + noise[path] for path in SPEC}
    dense = plain.pack(whole, plain.point(whole), plain.point(state), version=2, held_version=1)
    alive = sum(np.count_nonzero(moved[path]) for path in RUNS) / sum(SPEC[path].size for path in RUNS)
    others = sum(t.size for path, t in SPEC.items() if path not in RUNS)
    assert alive == pytest.approx(0.05, abs=0.01)
    assert len(sparse) < (alive + 0.05) * len(dense) + 4 * others + 200


def test_without_zeros_nothing_travels_beside_the_difference() -> None:
    plain, state = Lattice.around(weights(0), SPEC, 0.1), weights(1)
    packet = plain.pack(state, plain.point(state), plain.start, version=1, held_version=0)
    assert list(wire.unpack(packet, SPEC, plain.codec).tensors) == list(SPEC)


@given(cut=st.integers(0, 3000), flip=st.integers(0, 10**9), many=st.booleans())
def test_damaged_bytes_give_a_wire_error(cut: int, flip: int, many: bool) -> None:
    grid = lattice()
    state, _ = pruned(1, 0.8)
    packet = bytearray(grid.pack(state, grid.point(state), grid.start, version=1, held_version=0))
    if many:
        packet = packet[: min(cut, len(packet) - 1)]
    else:
        packet[flip % len(packet)] ^= 1 + flip % 255
    with pytest.raises(WireError):
        grid.unpack(bytes(packet), grid.start)


def test_a_packet_for_another_version_is_refused() -> None:
    """What it says died is dead there already."""
    grid = lattice()
    state, masks = pruned(1, 0.8)
    packet = grid.pack(state, grid.point(state), grid.start, version=1, held_version=0)
    with pytest.raises(WireError, match="cannot"):
        grid.unpack(packet, prune_point(grid.start, masks))
