"""The ruler: real lengths, known errors on known distributions, a bias test that catches, files nobody can lie with."""

from __future__ import annotations

import io
import json
import math
import struct
import subprocess
import sys
import zipfile
from dataclasses import dataclass, replace

import numpy as np
import pytest

from fl_mobile.codecs import parse_codec
from fl_mobile.errors import ConfigError, DataError, DivergedError, SpecMismatch
from fl_mobile.measurements.measurement import (
    Measurement,
    excess_bits,
    measure_codec,
    nmse,
    pareto_plot,
    shannon_nmse,
    shannon_nmse_unbiased,
)
from fl_mobile.measurements.sources import SOURCES, read_update, read_updates, spec_of, synthetic, write_update
from fl_mobile.tensors import Tensors, fp32_bytes
from tests.fl_mobile.samples import ALL, SPEC, laplace, packed

GAUSSIAN = synthetic("gaussian", 1 << 14, 2, seed=0)


def measured(text: str, updates=GAUSSIAN, **options) -> Measurement:
    return measure_codec(parse_codec(text), updates, spec_of(updates[0]), **options)


def test_sizes_are_lengths_of_packets():
    updates = [laplace(key=k) for k in range(5)]
    m = measure_codec(parse_codec("q4+deflate"), updates, SPEC)
    sizes = [len(packed(parse_codec("q4+deflate"), u)) for u in updates]
    values = sum(t.size for t in SPEC.values())
    assert (m.updates, m.parameters) == (5, values)
    assert min(sizes) - 40 <= m.packet_bytes_median <= m.packet_bytes_p95 <= max(sizes) + 40
    assert m.ratio == pytest.approx(32 / m.bits_per_parameter)
    exact = measure_codec(parse_codec("none"), updates, SPEC)
    assert exact.packet_bytes_median == exact.packet_bytes_p95 == fp32_bytes(SPEC) + 44
    assert exact.ratio == fp32_bytes(SPEC) / (fp32_bytes(SPEC) + 44) < 1
    assert (exact.nmse, exact.nmse_of_mean, exact.bias, exact.unbiased) == (0, 0, 1, True)


@pytest.mark.parametrize(
    ("text", "error", "bits"),
    [("sign", 1 - 2 / math.pi, 1), ("flat+eden:1", math.pi / 2 - 1, 1), ("flat+eden:2", 0.1331, 2), ("none", 0, 32)],
)
def test_known_errors_are_found(text, error, bits):
    m = measured(text)
    assert m.nmse == pytest.approx(error, rel=0.03, abs=1e-9)
    assert m.bits_per_parameter == pytest.approx(bits, abs=0.03)


def test_sparsity_is_the_share_of_zeros():
    assert measured("topk:0.25").sparsity == pytest.approx(0.75, abs=1e-3)
    assert measured("none").sparsity == 0


def test_error_of_the_mean_falls_with_the_number_of_devices_only_without_bias():
    same = [GAUSSIAN[0]] * 8
    unbiased, biased = measured("q2", same), measured("topk:0.1", same)
    assert unbiased.nmse_of_mean == pytest.approx(unbiased.nmse / 8, rel=0.15)
    assert biased.nmse_of_mean == pytest.approx(biased.nmse, rel=1e-6)


@pytest.mark.parametrize("text", ALL)
def test_the_bias_test_agrees_with_what_codecs_claim(text):
    m = measure_codec(parse_codec(text), [laplace()], SPEC)
    assert m.unbiased or not m.claims_unbiased
    if m.nmse > 1e-9:
        assert m.unbiased == m.claims_unbiased


@dataclass(frozen=True)
class Shrunk:
    """A codec that claims to be unbiased and shrinks what it sends by a tenth."""

    name: str = "shrunk"
    wire_name: str = "shrunk"
    exact_up_to: int = 0
    unbiased: bool = True

    def encode(self, delta: Tensors, rng: np.random.Generator) -> bytes:
        return parse_codec("q4").encode({p: v * np.float32(0.9) for p, v in delta.items()}, rng)

    def decode(self, payload: memoryview, spec) -> Tensors:
        return parse_codec("q4").decode(payload, spec)


def test_the_bias_test_catches_a_codec_that_lies():
    m = measure_codec(Shrunk(), GAUSSIAN, spec_of(GAUSSIAN[0]))
    assert m.claims_unbiased
    assert not m.unbiased
    assert 1.5 < m.bias < 16


def test_same_seed_same_measurement_but_for_the_clock():
    a, b, c = (measured("terngrad", seed=s) for s in (1, 1, 2))
    still = {"encode_mb_s": 0.0, "decode_mb_s": 0.0}
    assert replace(a, **still) == replace(b, **still) != replace(c, **still)


def test_measurements_become_json():
    line = replace(measured("sign"), nmse=math.inf).to_json()
    assert json.loads(json.dumps(line, allow_nan=False))["nmse"] is None
    assert set(line) == set(Measurement.__dataclass_fields__)


def test_an_update_of_zeros_has_an_error_too():
    zeros = [{"w": np.zeros(300, np.float32)}]
    assert measured("q8", zeros).nmse == 0
    assert nmse(zeros[0], {"w": np.ones(300, np.float32)}) == math.inf


def test_what_cannot_be_measured_is_said():
    spec = spec_of(GAUSSIAN[0])
    with pytest.raises(DataError, match="nothing to measure: 0 updates"):
        measure_codec(parse_codec("q8"), [], spec)
    with pytest.raises(DataError, match="nothing to measure"):
        measure_codec(parse_codec("q8"), [{}], {})
    with pytest.raises(SpecMismatch):
        measure_codec(parse_codec("q8"), [laplace()], spec)
    with pytest.raises(DivergedError, match="'gaussian'"):
        measure_codec(parse_codec("q8"), [{"gaussian": np.full(1 << 14, np.nan, np.float32)}], spec)
    with pytest.raises(ConfigError, match="at least 2 repeats"):
        measured("q8", repeats=1)


# --- bounds and fronts ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("bits", [0.05, 0.25, 1, 2, 4, 8])
def test_the_two_bounds_are_one_bound(bits):
    """Shrinking an unbiased estimate with error ε by 1/(1+ε) gives error ε/(1+ε), which 4^−b bounds."""
    e = shannon_nmse_unbiased(bits)
    assert e / (1 + e) == pytest.approx(shannon_nmse(bits))
    assert excess_bits(bits, e, unbiased=True) == pytest.approx(0, abs=1e-12)
    assert excess_bits(bits, shannon_nmse(bits), unbiased=False) == pytest.approx(0, abs=1e-12)


def test_eden_is_as_far_from_shannon_as_published():
    for bits, excess in ((1, 0.27), (2, 0.46), (3, 0.57), (4, 0.64)):
        m = measured(f"flat+eden:{bits}", synthetic("gaussian", 1 << 16, 1, 0), repeats=2)
        assert excess_bits(m.bits_per_parameter, m.nmse, unbiased=True) == pytest.approx(excess, abs=0.02)


@pytest.mark.parametrize("text", [t for t in ALL if parse_codec(t).name not in ("none", "float16")])
def test_no_codec_beats_shannon_on_gaussian_values(text):
    m = measured(text)
    if m.nmse > 1e-12:
        assert excess_bits(m.bits_per_parameter, m.nmse, unbiased=m.claims_unbiased) > 0


# --- plot -----------------------------------------------------------------------------------------------------------


def test_the_plot_is_a_picture_and_the_same_one_again(tmp_path):
    pytest.importorskip("matplotlib")
    lines = [measured(t) for t in ("sign", "flat+eden:1", "none")]
    for suffix, head in ((".png", b"\x89PNG"), (".svg", b"<?xml")):
        first, second = tmp_path / f"a{suffix}", tmp_path / f"b{suffix}"
        pareto_plot(lines, first, title="Gaussian")
        pareto_plot(lines, second, title="Gaussian")
        assert first.read_bytes().startswith(head)
        assert first.read_bytes() == second.read_bytes()
    drawn = (tmp_path / "a.svg").read_text()
    assert all(f"<!-- {text} -->" in drawn for text in ("sign", "flat+eden:1", "NMSE", "without error: none (32)"))


def test_a_plot_that_cannot_be_drawn_writes_nothing(tmp_path):
    with pytest.raises(ConfigError, match=r"\.png or \.svg, got 'a\.pdf'"):
        pareto_plot([measured("sign")], tmp_path / "a.pdf")
    with pytest.raises(ConfigError, match="no codec with an error"):
        pareto_plot([measured("none")], tmp_path / "a.png")
    assert not list(tmp_path.iterdir())


def test_without_matplotlib_the_message_says_what_to_install():
    code = (
        "import sys; sys.modules['matplotlib.figure'] = sys.modules['matplotlib'] = None\n"
        "from fl_mobile.errors import ConfigError\nfrom fl_mobile.measurements.measurement import new_figure\n"
        "try: new_figure((1, 1))\nexcept ConfigError as e: print(e)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "pip install 'fl-mobile[demo]'" in done.stdout


# --- sources and stored updates -------------------------------------------------------------------------------------


@pytest.mark.parametrize(("name", "kurtosis"), [("gaussian", 3), ("laplace", 6), ("generalised-gaussian", 25.2)])
def test_synthetic_sources_have_their_shape(name, kurtosis):
    values = synthetic(name, 1 << 20, 1, seed=1)[0][name].astype(np.float64)
    assert abs(values.mean()) < 6 * values.std() / 1024
    assert np.mean(values**4) / np.mean(values**2) ** 2 == pytest.approx(kurtosis, rel=0.1)
    assert set(SOURCES) == {"gaussian", "laplace", "generalised-gaussian"}


def test_synthetic_updates_are_keyed_by_their_seed():
    a, b = synthetic("laplace", 100, 2, seed=1), synthetic("laplace", 100, 3, seed=1)
    assert np.array_equal(a[1]["laplace"], b[1]["laplace"])
    assert not np.array_equal(a[0]["laplace"], a[1]["laplace"])
    with pytest.raises(ConfigError, match="Did you mean 'laplace'"):
        synthetic("laplac", 10, 1, 0)
    with pytest.raises(ConfigError, match="at least 1 value"):
        synthetic("laplace", 0, 1, 0)


def test_a_stored_update_comes_back_bit_for_bit(tmp_path):
    write_update(tmp_path / "u.npz", laplace())
    again = read_update(tmp_path / "u.npz")
    assert list(again) == list(SPEC)
    assert all(again[p].tobytes() == v.tobytes() and again[p].shape == v.shape for p, v in laplace().items())
    with np.load(tmp_path / "u.npz", allow_pickle=False) as numpy_reads:
        assert all(np.array_equal(numpy_reads[p], v) for p, v in laplace().items())


def test_numpys_own_files_are_read(tmp_path):
    arrays = {"a/kernel": np.asfortranarray(np.arange(6.0).reshape(2, 3)), "b": np.float16([0.5]), "c": np.float64(2)}
    np.savez_compressed(tmp_path / "u.npz", **arrays)
    again = read_update(tmp_path / "u.npz")
    assert {p: v.shape for p, v in again.items()} == {"a/kernel": (2, 3), "b": (1,), "c": ()}
    assert all(v.dtype == np.float32 and np.array_equal(v, arrays[p]) for p, v in again.items())


def test_a_folder_is_read_by_name_and_must_be_of_one_model(tmp_path):
    for key in (2, 0, 1):
        write_update(tmp_path / f"round-{key}.npz", laplace(key=key))
    updates = read_updates(tmp_path)
    assert all(np.array_equal(u["dense/kernel"], laplace(key=k)["dense/kernel"]) for k, u in enumerate(updates))
    assert len(read_updates(tmp_path / "round-1.npz", SPEC)) == 1
    write_update(tmp_path / "round-9.npz", {"w": np.zeros(3, np.float32)})
    with pytest.raises(DataError, match=r"round-9.npz is of another model: expected 7 .*got 1 tensors \(w \[3\]\)"):
        read_updates(tmp_path)
    with pytest.raises(DataError, match="of another model"):
        read_updates(tmp_path / "round-9.npz", SPEC)


def npy(shape=(3,), dtype="<f4", data=None, header=None) -> bytes:
    text = header or repr({"descr": dtype, "fortran_order": False, "shape": shape})
    zeros = np.zeros(3, "<f4") if header else np.zeros(shape, dtype)
    body = zeros.tobytes() if data is None else data
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(text) + 1) + text.encode() + b"\n" + body


def archive(**members: bytes) -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as file:
        for name, data in members.items():
            file.writestr(name.replace("__", "."), data)
    return out.getvalue()


HUGE = "{'descr': '<f4', 'fortran_order': False, 'shape': (1000000, 1000000)}"


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"not a zip file at all",
        archive(),
        archive(w__txt=b"hello"),
        archive(w__npy=b""),
        archive(w__npy=b"\x93NUMPY\x03\x00" + b"\0" * 100),
        archive(w__npy=npy()[:-1]),
        archive(w__npy=npy() + b"\0"),
        archive(w__npy=npy(data=b"")),
        archive(w__npy=npy(header=HUGE)),
        archive(w__npy=npy(header="{'descr': '<f4', 'fortran_order': False, 'shape': (-1,)}")),
        archive(w__npy=npy(header="{'descr': '|O', 'fortran_order': False, 'shape': (3,)}")),
        archive(w__npy=npy(header="__import__('os').abort()")),
        archive(w__npy=npy(header="(" * 5000)),
        archive(w__npy=npy(dtype="<i4")),
        archive(w__npy=npy(dtype=">f4")),
        archive(w__npy=npy(data=struct.pack("<3f", 1, math.nan, 2))),
        archive(w__npy=npy(dtype="<f8", data=struct.pack("<3d", 1, 1e300, 2))),
        archive(w__npy=npy())[:-30],
        archive(w__npy=npy()).replace(b"\0\0\0\0\0\0\0\0\0\0\0\0", b"\0\0\0\0\0\0\0\0\0\0\0\1", 1),
    ],
)
def test_files_that_are_not_what_they_say_are_data_errors(tmp_path, content):
    path = tmp_path / "u.npz"
    path.write_bytes(content)
    with pytest.raises(DataError, match=r"u\.npz"):
        read_update(path)


def test_pickled_objects_are_never_loaded(tmp_path):
    np.savez(tmp_path / "u.npz", w=np.array([{"a": 1}], dtype=object))
    with pytest.raises(DataError, match="Python objects, which are never loaded"):
        read_update(tmp_path / "u.npz")


def test_a_file_that_declares_too_much_is_refused_before_it_is_read(tmp_path, monkeypatch):
    monkeypatch.setattr("fl_mobile.measurements.sources.MOST_BYTES", 1000)
    write_update(tmp_path / "u.npz", {"w": np.zeros(500, np.float32)})
    with pytest.raises(DataError, match="declares 2128 bytes, more than the 1000"):
        read_update(tmp_path / "u.npz")


def test_any_damaged_byte_is_noticed_or_harmless(tmp_path):
    path, update = tmp_path / "u.npz", {"w": np.arange(20, dtype=np.float32)}
    write_update(path, update)
    whole = path.read_bytes()
    for at in range(len(whole)):
        path.write_bytes(whole[:at] + bytes([whole[at] ^ 0x41]) + whole[at + 1 :])
        try:
            again = read_update(path)
        except DataError:
            continue
        assert [v.tobytes() for v in again.values()] == [update["w"].tobytes()]


def test_missing_files_say_where_updates_come_from(tmp_path):
    with pytest.raises(DataError, match="no such file; a run stores updates"):
        read_update(tmp_path / "nothing.npz")
    with pytest.raises(DataError, match=r"holds no .npz file; keep updates"):
        read_updates(tmp_path)
