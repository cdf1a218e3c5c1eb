"""The literature's baselines against their papers, and defects of peers that they must not share."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest

from fl_mobile.codecs import parse_codec
from fl_mobile.codecs.bits.positions import encode_positions, pack_bits, read_bits
from fl_mobile.codecs.bits.reader import Reader
from fl_mobile.codecs.bits.rotation import block_sizes, hadamard, rotate, splitmix64, unrotate
from fl_mobile.codecs.eden import POSITIVE_CENTROIDS, Eden
from fl_mobile.codecs.signs import Sign
from fl_mobile.tensors import TensorSpec, fp32_bytes
from tests.fl_mobile.samples import laplace, nmse, packed, philox, through

LARGE = 1 << 17


def gaussian(size=LARGE, key=0):
    return {"w": philox(key).normal(size=size).astype(np.float32)}


def spec_of(update):
    return {p: TensorSpec(v.shape) for p, v in update.items()}


def bits_per_value(text, update):
    return 8 * len(packed(parse_codec(text), update, spec_of(update))) / sum(v.size for v in update.values())


def entropy(p):
    return -p * math.log2(p) - (1 - p) * math.log2(1 - p)


# --- rotation -------------------------------------------------------------------------------------------------------


def test_splitmix64_is_the_published_generator():
    assert [hex(v) for v in splitmix64(1234567, 3)] == [
        "0x599ed017fb08fc85",
        "0x2c73f08458540fa5",
        "0x883ebce5a3f27c77",
    ]


@pytest.mark.parametrize("n", [1, 2, 4, 8, 32, 128])
def test_hadamard_equals_its_definition(n):
    slow = np.array([[(-1) ** bin(i & j).count("1") for j in range(n)] for i in range(n)]) / math.sqrt(n)
    assert np.allclose(hadamard(np.eye(n, dtype=np.float32)), slow, atol=1e-6)


@pytest.mark.parametrize("size", [1, 127, 128, 129, 300, 16_383, 16_384, 16_385, 50_826])
def test_rotation_keeps_length_and_is_undone(size):
    x = philox(size).normal(size=size).astype(np.float32)
    rotated = rotate(x, seed=9)
    assert sum(float(np.sum(g**2)) for g in rotated) == pytest.approx(float(np.sum(x**2)), rel=1e-5)
    assert np.allclose(unrotate(rotated, 9, size), x, atol=1e-5)
    assert not np.allclose(unrotate(rotated, 10, size), x, atol=1e-1)
    assert 0 <= sum(n * b for n, b in block_sizes(size)) - size <= 127


def test_a_single_spike_is_spread_evenly_and_looks_gaussian():
    x = np.zeros(1 << 14, np.float32)
    x[5] = 128.0
    (rotated,) = rotate(x, seed=3)
    assert np.abs(rotated).max() < 6
    assert np.mean(rotated**4) == pytest.approx(3, abs=0.3)  # kurtosis; after one round it is 1


# --- EDEN -----------------------------------------------------------------------------------------------------------


def lloyd_max(bits):
    """Returns positive centroids and distortion for N(0, 1), by Lloyd's iteration on the exact Gaussian integrals."""
    c = np.linspace(-3, 3, 2**bits)

    def mass(t):
        return 0.5 * (1 + math.erf(t / math.sqrt(2)))

    def density(t):
        return math.exp(-t * t / 2) / math.sqrt(2 * math.pi)

    for _ in range(4000):
        edges = [-math.inf, *((c[1:] + c[:-1]) / 2), math.inf]
        p = np.array([mass(b) - mass(a) for a, b in itertools.pairwise(edges)])
        moment = np.array([density(a) - density(b) for a, b in itertools.pairwise(edges)])
        c = moment / p
    return c[len(c) // 2 :], 1 - float(np.sum(p * c * c))


@pytest.mark.parametrize("bits", [1, 2, 3, 4])
def test_eden_levels_are_lloyd_max_and_its_error_is_the_papers(bits):
    centroids, distortion = lloyd_max(bits)
    assert np.allclose(POSITIVE_CENTROIDS[bits], centroids, atol=2e-5)
    update = gaussian()
    error = nmse(update, through(parse_codec(f"flat+eden:{bits}"), update, spec_of(update)))
    assert error == pytest.approx(distortion / (1 - distortion), rel=0.02)
    assert bits <= bits_per_value(f"flat+eden:{bits}", update) <= bits + 0.01


@pytest.mark.parametrize("bits", [0.5, 0.1, 0.03])
def test_eden_below_one_bit(bits):
    update = gaussian()
    error = nmse(update, through(parse_codec(f"flat+eden:{bits}"), update, spec_of(update)))
    assert error == pytest.approx(math.pi / 2 / bits - 1, rel=0.06)
    assert bits_per_value(f"flat+eden:{bits}", update) == pytest.approx(bits, abs=0.008)


@pytest.mark.parametrize("size", [257, 384, 385, 511, 512, 513, 1000, 1023, 1025, 16_383, 16_385])
@pytest.mark.parametrize("bits", [1, 3])
def test_eden_at_sizes_around_its_blocks_is_as_good_and_as_small(size, bits):
    """B4 and the padding of the public code: a tensor just past a power of two must not cost twice."""
    update = gaussian(size, key=size)
    codec = parse_codec(f"eden:{bits}")
    errors = [nmse(update, through(codec, update, spec_of(update), key=k)) for k in range(20)]
    assert np.mean(errors) == pytest.approx({1: 0.571, 3: 0.0358}[bits], rel=0.25)
    blocks = sum(b for _, b in block_sizes(size))
    assert len(packed(codec, update, spec_of(update))) <= 48 + 4 * blocks + bits * (size + 127) / 8 + 1


@pytest.mark.parametrize("kind", ["few large", "one row", "sparse"])
def test_eden_is_unbiased_on_vectors_that_are_not_gaussian_at_all(kind):
    """After one Hadamard round a block with two unequal values decodes to the larger alone, always."""
    x = np.zeros(2048, np.float32)
    x[{"few large": slice(0, 3), "one row": slice(64, 128), "sparse": slice(0, None, 37)}[kind]] = 1.0
    x *= 1 + np.arange(2048, dtype=np.float32) % 3
    update, n = {"w": x}, 400
    decoded = [through(parse_codec("eden:1"), update, spec_of(update), key=k)["w"] for k in range(n)]
    single = np.mean([nmse(update, {"w": d}) for d in decoded])
    assert nmse(update, {"w": np.mean(decoded, axis=0, dtype=np.float64)}) < 1.3 * single / n


def test_eden_sends_nothing_for_blocks_of_zeros():
    update = {"w": np.zeros(4 << 14, np.float32)}
    update["w"][:100] = 1
    assert len(packed(parse_codec("eden:4"), update, spec_of(update))) < 44 + 4 + 4 * 4 + (1 << 14) // 2 + 8
    assert not through(parse_codec("eden:4"), update, spec_of(update))["w"][1 << 14 :].any()


def test_eden_levels_of_one_bit_are_signs():
    codec = Eden(1)
    assert codec.max_bytes(1 << 14) == 4 + 4 + (1 << 14) // 8


# --- QSGD, TernGrad, sign -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("levels", [1, 4, 16, 256])
def test_qsgd_variance_is_within_the_papers_bound(levels):
    update = gaussian(512 * 64)
    codec = parse_codec(f"qsgd:{levels}")
    errors = [nmse(update, through(codec, update, spec_of(update), key=k)) for k in range(10)]
    assert np.mean(errors) <= min(512 / levels**2, math.sqrt(512) / levels)


def test_qsgd_stays_below_the_papers_size_for_one_level():
    """Theorem 3.2: (s² + s√n)·O(log) bits; here measured against the entropy of positions and signs."""
    update = gaussian(512 * 200)
    share = np.count_nonzero(through(parse_codec("qsgd:1"), update, spec_of(update))["w"]) / update["w"].size
    assert bits_per_value("qsgd:1", update) <= 1.05 * (entropy(share) + share) + 32 / 512 + 0.01


def test_qsgd_decodes_levels_of_its_grid_only():
    update = gaussian(512)
    norm = float(np.linalg.norm(update["w"].astype(np.float64)))
    steps = through(parse_codec("qsgd:8"), update, spec_of(update))["w"] / (norm / 8)
    assert np.allclose(steps, np.round(steps), atol=1e-4)


def test_terngrad_sends_minus_zero_plus_and_about_its_entropy():
    update = gaussian()
    decoded = through(parse_codec("terngrad"), update, spec_of(update))["w"]
    top = np.abs(update["w"]).max()
    assert set(np.unique(decoded)) == {-top, np.float32(0), top}
    share = np.count_nonzero(decoded) / decoded.size
    assert share == pytest.approx(float(np.mean(np.abs(update["w"]))) / top, rel=0.05)
    assert bits_per_value("terngrad", update) <= 1.04 * (entropy(share) + share)


def test_sign_of_a_gaussian_has_the_known_error():
    update = gaussian()
    assert nmse(update, through(parse_codec("sign"), update, spec_of(update))) == pytest.approx(
        1 - 2 / math.pi, abs=0.005
    )


# --- STC, top-k -----------------------------------------------------------------------------------------------------


def test_stc_magnitude_is_the_mean_of_the_kept_values_only():
    """B3: averaged over all entries the update shrinks by the density, ten times at 10 %."""
    update = gaussian()
    decoded = through(parse_codec("flat+topk:0.1+sign"), update, spec_of(update))["w"]
    kept = decoded != 0
    assert np.count_nonzero(kept) == round(0.1 * LARGE)
    assert np.abs(decoded[kept]) == pytest.approx(float(np.mean(np.abs(update["w"][kept]))), rel=1e-5)
    assert np.array_equal(np.sign(decoded[kept]), np.sign(update["w"][kept]))
    assert float(np.mean(np.abs(decoded[kept]))) == pytest.approx(2.063, abs=0.01)  # E[|x| : |x| > 1.645]


@pytest.mark.parametrize("share", [0.001, 0.0025, 0.01, 0.05, 0.2])
def test_positions_and_signs_are_counted_and_near_their_entropy(share):
    """Indices are on the wire (FetchSGD's table leaves them out) and cost what information theory asks."""
    update = gaussian()
    bits = bits_per_value(f"flat+topk:{share}+sign", update)
    ideal = entropy(share) + share
    assert ideal <= bits <= 1.04 * ideal + 8 * 60 / LARGE


def test_topk_bytes_grow_with_k_and_hold_values_and_positions():
    update = gaussian()
    sizes = [len(packed(parse_codec(f"flat+topk:{f}+q8:nearest"), update, spec_of(update))) for f in (0.001, 0.01, 0.1)]
    for size, share in zip(sizes, (0.001, 0.01, 0.1), strict=True):
        assert size >= 44 + LARGE * (share + entropy(share) / 8)


@pytest.mark.parametrize("fraction", [0.001, 0.01, 0.1])
def test_dgc_selects_about_k_of_the_largest(fraction):
    update = {"w": philox(2).laplace(size=LARGE).astype(np.float32)}
    decoded = through(parse_codec(f"dgc:{fraction}"), update, spec_of(update))["w"]
    kept, magnitude = decoded != 0, np.abs(update["w"])
    assert 0.4 * fraction * LARGE <= np.count_nonzero(kept) <= 2 * fraction * LARGE
    assert magnitude[kept].min() >= magnitude[~kept].max()
    assert np.array_equal(decoded[kept], update["w"][kept])


@pytest.mark.parametrize("width", range(1, 32))
def test_packed_numbers_come_back(width):
    numbers = philox(width).integers(0, 1 << width, 100)
    data = pack_bits(numbers, width)
    assert len(data) == (100 * width + 7) // 8
    assert np.array_equal(read_bits(Reader(data), 100, width), numbers)


def test_rice_parameter_is_the_best_one():
    for density in (0.001, 0.01, 0.1, 0.4):
        keep = np.flatnonzero(philox(3).random(50_000) < density)
        gaps = np.diff(keep, prepend=-1) - 1
        best = min((int((gaps >> r).sum()) + len(gaps) + 7) // 8 + (r * len(gaps) + 7) // 8 for r in range(20))
        assert len(encode_positions(keep, 50_000)) <= best + 5


# --- PowerSGD -------------------------------------------------------------------------------------------------------


def test_powersgd_is_near_the_best_rank_r_approximation():
    rng = philox(1)
    spectrum = 0.7 ** np.arange(40)
    u, _ = np.linalg.qr(rng.normal(size=(200, 40)))
    v, _ = np.linalg.qr(rng.normal(size=(60, 40)))
    update = {"conv/kernel": ((u * spectrum) @ v.T).astype(np.float32).reshape(4, 5, 10, 60)}
    for rank in (1, 2, 4):
        codec = parse_codec(f"powersgd:{rank}")
        best = float(np.sum(spectrum[rank:] ** 2) / np.sum(spectrum**2))
        assert best <= nmse(update, through(codec, update, spec_of(update))) <= 1.03 * best
        assert len(packed(codec, update, spec_of(update))) == 44 + 4 + 2 * rank * (200 + 60)


def test_powersgd_of_a_matrix_of_lower_rank_is_exact_to_float16():
    update = {"w": np.outer(np.arange(50), np.ones(40)).astype(np.float32)}
    assert nmse(update, through(parse_codec("powersgd:3"), update, spec_of(update))) < 1e-6


def test_powersgd_sends_vectors_and_tiny_matrices_as_they_are():
    update = {"bias": laplace()["head/bias"], "thin": philox(0).normal(size=(300, 2)).astype(np.float32)}
    decoded = through(parse_codec("powersgd:2"), update, spec_of(update))
    assert all(np.array_equal(decoded[p], update[p]) for p in update)


# --- peers' other defects -------------------------------------------------------------------------------------------


def test_no_codec_sends_more_than_float32_and_its_head():
    """B2: secure-aggregation masks as int64 made uploads 1.97 times as large as float32."""
    from tests.fl_mobile.samples import ALL

    update = gaussian(4096)
    for text in ALL:
        assert len(packed(parse_codec(text), update, spec_of(update))) <= 1.13 * fp32_bytes(spec_of(update)) + 100, text


def test_every_layer_travels_though_names_repeat():
    """B1: keyed by name, only 51 of the 467 parameters of three dense layers were federated."""
    shapes = {"dense/kernel": (10, 16), "dense/bias": (16,), "dense_1/kernel": (16, 10), "dense_1/bias": (10,)}
    shapes |= {"dense_2/kernel": (10, 11), "dense_2/bias": (11,)}
    spec = {p: TensorSpec(s) for p, s in shapes.items()}
    assert sum(t.size for t in spec.values()) == 467
    update = laplace(spec)
    decoded = through(parse_codec("none"), update, spec)
    assert all(np.array_equal(decoded[p], update[p]) for p in spec)


@pytest.mark.parametrize("size", [255, 256, 257])
def test_the_threshold_of_exact_tensors_is_the_same_on_both_sides(size):
    """B4: one side compared with > and the other with >=, so one size decoded wrongly."""
    update = laplace({"w": TensorSpec((size,))}, key=size)
    packet_bytes = len(packed(parse_codec("q8"), update, spec_of(update)))
    decoded = through(parse_codec("q8"), update, spec_of(update))
    assert np.array_equal(decoded["w"], update["w"]) == (size <= 256)
    assert packet_bytes == 44 + (4 * size if size <= 256 else 8 + size)


def test_a_frozen_base_does_not_travel_but_its_statistics_do_if_listed():
    """B6: read trainable layers, written into all layers."""
    spec = {"norm/moving_mean": TensorSpec((5,), trainable=False), "head/kernel": TensorSpec((20, 30))}
    update = laplace(spec)
    decoded = through(parse_codec("sign"), update, spec)
    assert np.array_equal(decoded["norm/moving_mean"], update["norm/moving_mean"])
    assert decoded["head/kernel"].shape == (20, 30)


def test_signs_of_kept_values_only_and_no_others():
    values = np.array([3.0, -1.0, -2.0], np.float32)
    data = Sign().encode(values, philox(0))
    assert data == np.float32(2.0).tobytes() + bytes([0b01100000])
