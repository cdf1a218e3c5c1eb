"""Laws that every row of STAGES, CODECS and PRESETS obeys, through real packets."""

from __future__ import annotations

import zlib

import numpy as np
import pytest

from fl_mobile import wire
from fl_mobile.codecs import CODECS, PRESETS, STAGES, chain, codec_id, coded_tensors, parse_codec
from fl_mobile.codecs.entropy import Deflate
from fl_mobile.codecs.prune import TopK
from fl_mobile.codecs.quantize import Float16, Uniform
from fl_mobile.errors import ConfigError, DivergedError
from fl_mobile.tensors import TensorSpec
from tests.fl_mobile.samples import ALL, ROWS, SPEC, laplace, nmse, packed, philox, through

pytestmark = pytest.mark.filterwarnings("error")
every_codec = pytest.mark.parametrize("text", ALL)


@every_codec
def test_round_trip_keeps_paths_shapes_dtype_and_exact_tensors(text):
    codec, update = parse_codec(text), laplace()
    before = {path: value.copy() for path, value in update.items()}
    decoded = through(codec, update)
    assert list(decoded) == list(SPEC)
    assert all(decoded[p].shape == t.shape and decoded[p].dtype == np.float32 for p, t in SPEC.items())
    coded = coded_tensors(SPEC, codec)
    for path in SPEC:
        assert np.array_equal(update[path], before[path]), "encode changed its input"
        assert path in coded or np.array_equal(decoded[path], update[path])
    assert not {"norm/moving_variance", "none"} & set(coded)


@every_codec
def test_bytes_depend_on_the_seed_and_nothing_else(text):
    codec, update = parse_codec(text), laplace()
    assert packed(codec, update, key=1) == packed(codec, update, key=1)
    strided = {p: np.repeat(v[..., None], 2, axis=-1)[..., 0] for p, v in update.items()}
    assert packed(codec, strided, key=1) == packed(codec, update, key=1)


@every_codec
@pytest.mark.parametrize("size", [257, 511, 512, 513, 1000, 1024, 1025])
def test_any_size_round_trips(text, size):
    for shape in ((size,), (size, 1), (1, size)):
        spec = {"w": TensorSpec(shape)}
        decoded = through(parse_codec(text), laplace(spec, key=size), spec)
        assert decoded["w"].shape == shape
        assert np.isfinite(decoded["w"]).all()


@every_codec
@pytest.mark.parametrize("size", [1, 2, 3, 7, 8, 9, 127, 128, 129, 130])
def test_codecs_take_sizes_below_the_exact_threshold_too(text, size):
    codec, spec = parse_codec(text), {"w": TensorSpec((size,))}
    payload = codec.encode(laplace(spec, key=size), philox(0))
    assert codec.decode(memoryview(payload), spec)["w"].shape == (size,)


@every_codec
def test_nothing_to_code_is_a_packet_too(text):
    spec = {"head/bias": TensorSpec((10,), trainable=False)}
    update = laplace(spec)
    assert np.array_equal(through(parse_codec(text), update, spec)["head/bias"], update["head/bias"])


SPECIAL = {
    "zeros": np.zeros(600),
    "minus zero": np.full(600, -0.0),
    "one value": np.eye(1, 600, 300).ravel() * 5,
    "constant": np.full(600, -0.25),
    "denormal": np.linspace(-1e-44, 3e-44, 600),
    "smallest": np.full(600, 1e-45),
    "huge": np.linspace(-3.4e38, 3.4e38, 600),
    "huge constant": np.full(600, 3.4e38),
    "mixed scales": np.geomspace(1e-40, 1e38, 600),
}


@every_codec
@pytest.mark.parametrize("case", SPECIAL)
def test_special_values_survive(text, case):
    codec, spec = parse_codec(text), {"w": TensorSpec((600,))}
    decoded = through(codec, {"w": SPECIAL[case].astype(np.float32)}, spec)["w"]
    assert np.isfinite(decoded).all()
    if "zero" in case:
        assert not decoded.any(), "zeros must decode to zeros"


@every_codec
@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("path", ["conv/bias", "dense/kernel"])
def test_values_that_are_not_finite_are_refused_by_name(text, bad, path):
    update = laplace()
    update[path] = update[path].copy()
    update[path].flat[3] = bad
    with pytest.raises(DivergedError, match=f"'{path}': 1 of .* not finite .*learning-rate"):
        packed(parse_codec(text), update)


@every_codec
def test_names_parse_to_the_same_codec(text):
    codec = parse_codec(text)
    assert parse_codec(codec.name) == codec


def test_codec_ids_tell_every_codec_apart():
    names = {parse_codec(text).wire_name for text in ALL}
    assert len({zlib.crc32(name.encode()) for name in names}) == len(names)
    assert codec_id(parse_codec("q8")) == zlib.crc32(b"q8")


@every_codec
def test_unbiased_is_what_the_n_fold_mean_says(text):
    """NMSE of the mean of n encodings, one a round, falls as 1/n for unbiased codecs and stays for biased ones."""
    codec, spec, n = parse_codec(text), {"w": TensorSpec((40, 25))}, 150
    update = laplace(spec, key=11)
    decoded = [through(codec, update, spec, key=i, round_num=i)["w"] for i in range(n)]
    single = np.mean([nmse(update, {"w": d}) for d in decoded])
    mean = nmse(update, {"w": np.mean(decoded, axis=0, dtype=np.float64)})
    if codec.unbiased:
        assert mean <= 1.3 * single / n + 1e-14
    elif single > 1e-9:
        assert mean > 5 * single / n


# What each docstring promises: (x, x̂) → left side, right side of "≤", elementwise or total. Random codecs whose promise
# is about an expectation are in test_baselines.
def _grid(bits: int, halves: int):
    return lambda x, y: (np.abs(x - y), (max(x.max(), 0) - min(x.min(), 0)) / max(2**bits - 2, 1) / halves)


def _squares(x: np.ndarray, y: np.ndarray) -> float:
    return float(np.sum((x - y) ** 2))


BOUNDS = {
    "none": lambda x, y: (np.abs(x - y), 0.0),
    "deflate": lambda x, y: (np.abs(x - y), 0.0),
    "flat": lambda x, y: (np.abs(x - y), 0.0),
    "float16": lambda x, y: (np.abs(x - y), np.maximum(np.abs(x) * 2.0**-11, 2.0**-25)),
    **{f"q{b}": _grid(b, 1) for b in range(1, 9)},
    **{f"q{b}:nearest": _grid(b, 2) for b in range(1, 9)},
    "topk:0.1": lambda x, y: (_squares(x, y), (1 - round(0.1 * x.size) / x.size) * np.sum(x**2)),
    "threshold:1": lambda x, y: (np.abs(x - y), 1.0),
    "sign": lambda x, y: (_squares(x, y), np.sum(x**2) - np.sum(np.abs(x)) ** 2 / x.size),
    "terngrad": lambda x, y: (np.abs(x - y), np.abs(x).max()),
    "qsgd:16": lambda x, y: (np.abs(x - y), np.linalg.norm(x) / 16),
    "powersgd:2": lambda x, y: (np.sqrt(_squares(x, y)), (1 + 2.0**-10) * np.linalg.norm(x)),
}


@pytest.mark.parametrize("text", BOUNDS)
@pytest.mark.parametrize("key", range(3))
def test_error_stays_below_the_promised_bound(text, key):
    codec, update = parse_codec(text), laplace(key=key)
    decoded = through(codec, update, key=key)
    for path in coded_tensors(SPEC, codec):
        x, y = update[path].astype(np.float64).ravel(), decoded[path].astype(np.float64).ravel()
        left, right = BOUNDS[text](x, y)
        assert np.all(left <= right * (1 + 1e-6) + 1e-30), path


def test_float16_saturates_instead_of_turning_into_infinity():
    decoded = through(parse_codec("float16"), {"w": np.full(300, -1e6, np.float32)}, {"w": TensorSpec((300,))})
    assert set(decoded["w"]) == {-65504.0}


@pytest.mark.parametrize("bits", range(2, 9))
def test_zero_stays_zero_on_every_grid_that_holds_it(bits):
    update = laplace()
    for rounding in ("", ":nearest"):
        decoded = through(parse_codec(f"q{bits}{rounding}"), update)
        assert not decoded["dense/kernel"][update["dense/kernel"] == 0].any()


@pytest.mark.parametrize("size", [100, 1000, 4099])
def test_topk_keeps_exactly_the_k_largest_unchanged(size):
    values = philox(size).integers(-5, 6, size).astype(np.float32)  # many ties
    spec = {"w": TensorSpec((size,))}
    codec = parse_codec("topk:0.1")
    decoded = codec.decode(memoryview(codec.encode({"w": values}, philox(0))), spec)["w"]
    k = round(0.1 * size)
    order = sorted(range(size), key=lambda i: (-abs(values[i]), i))[:k]  # the slow version: ties by index
    expected = np.zeros(size, np.float32)
    expected[order] = values[order]
    assert np.array_equal(decoded, expected)


def test_flat_picks_over_the_whole_update():
    spec = {"large": TensorSpec((300,)), "small": TensorSpec((300,))}
    update = {"large": np.arange(1, 301, dtype=np.float32) + 1000, "small": np.arange(1, 301, dtype=np.float32)}
    joined = through(parse_codec("flat+topk:0.1"), update, spec)
    apart = through(parse_codec("topk:0.1"), update, spec)
    assert (np.count_nonzero(joined["large"]), np.count_nonzero(joined["small"])) == (60, 0)
    assert (np.count_nonzero(apart["large"]), np.count_nonzero(apart["small"])) == (30, 30)


@pytest.mark.parametrize(
    ("stages", "message"),
    [
        ((Uniform(8), TopK(0.1)), "a prune stage cannot follow a quantize stage"),
        ((Deflate(), TopK(0.1)), "a prune stage cannot follow a pack stage"),
        ((Deflate(), Uniform(8)), "a quantize stage cannot follow a pack stage"),
        ((Uniform(8), Float16()), "there can be one quantize stage, got 2"),
    ],
)
def test_stages_that_do_not_fit_are_refused_when_the_codec_is_built(stages, message):
    with pytest.raises(ConfigError, match=message):
        chain(*stages)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("q9", "unknown codec stage 'q9'.*Did you mean 'q8'"),
        ("", "unknown codec stage ''"),
        ("safee", "Did you mean 'safe'"),
        ("q8+flat", "a flat stage cannot follow"),
        ("flat+flat", "one flat stage, got 2"),
        ("topk", "topk needs a number.*topk:0.01"),
        ("topk:nan", r"fraction in \(0, 1\]"),
        ("topk:0", r"fraction in \(0, 1\]"),
        ("topk:1.5", r"fraction in \(0, 1\]"),
        ("dgc:2", r"fraction in \(0, 1\]"),
        ("threshold:-1", "magnitude ≥ 0"),
        ("threshold:inf", "magnitude ≥ 0"),
        ("q8:up", "':stochastic' .default. or ':nearest'"),
        ("none:3", "takes no argument"),
        ("deflate:0", "1 .fast. to 9"),
        ("deflate:2.5", "whole number"),
        ("deflate:nan", "whole number"),
        ("eden:5", "eden sends 1, 2, 3, 4"),
        ("eden:0", "eden sends"),
        ("eden:nan", "eden sends"),
        ("qsgd:0", "1 to 32768 levels"),
        ("qsgd:x", "whole number"),
        ("powersgd:0", "rank of at least 1"),
        ("powersgd:2+q8", "takes no further stages"),
    ],
)
def test_texts_that_name_no_codec_say_why(text, message):
    with pytest.raises(ConfigError, match=message):
        parse_codec(text)


def test_every_row_of_the_tables_is_under_these_laws():
    assert len(ROWS) >= len({*STAGES, *CODECS, *PRESETS}) - 1
    assert {parse_codec(p).name for p in PRESETS} <= {parse_codec(text).name for text in ALL}


@pytest.mark.parametrize("depth", [1, 2, 4])
def test_incompressible_payloads_pass_their_own_bound(depth):
    noise = {"w": philox(1).integers(0, 2**31 - 2**24, 200_000).astype("<i4").view("<f4").copy()}
    noise["w"][~np.isfinite(noise["w"])] = 0
    codec = chain(*(Deflate() for _ in range(depth)))
    spec = {"w": TensorSpec((200_000,))}
    packet = wire.pack(wire.Header(0, 0, 0), noise, spec, codec, philox(0))
    assert len(packet) > 780_000
    assert np.array_equal(wire.unpack(packet, spec, codec).tensors["w"], noise["w"])
