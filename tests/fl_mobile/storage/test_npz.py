"""The one reader of ``.npz`` files: what NumPy wrote comes back, and nothing is believed before it is looked at."""

from __future__ import annotations

import io
import pickle
import random
import re
import zipfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays

from fl_mobile.storage.npz import Header, parse_arrays, read_arrays, write_arrays

ROOT = Path(__file__).parents[3]
kinds = st.sampled_from(["<f4", "<f8", "<i8", "|u1", "|b1", "<U5", ">f4"])


def packed(**members: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    np.savez(buffer, **members)  # type: ignore[arg-type]
    return buffer.getvalue()


def zipped(**members: bytes) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name, data in members.items():
            archive.writestr(f"{name}.npy", data)
    return buffer.getvalue()


def header(text: str, version: bytes = b"\x01\x00") -> bytes:
    padded = text.ljust(117) + "\n"
    return b"\x93NUMPY" + version + len(padded).to_bytes(2, "little") + padded.encode()


@given(
    kind=kinds, data=st.data(), shape=array_shapes(min_dims=0, max_dims=3, min_side=0, max_side=4), order=st.booleans()
)
def test_what_numpy_wrote_comes_back_and_can_be_changed(kind, data, shape, order):
    value = data.draw(arrays(np.dtype(kind), shape))
    value = np.asfortranarray(value) if order else value
    found = parse_arrays(packed(a=value, b=np.arange(3)))
    assert list(found) == ["a", "b"]
    assert (found["a"].dtype, found["a"].shape) == (value.dtype, value.shape)
    assert np.array_equal(found["a"], value, equal_nan=kind[1] == "f")
    assert found["a"].flags.writeable


def test_deflated_files_are_read_too(tmp_path: Path) -> None:
    np.savez_compressed(tmp_path / "a.npz", x=np.ones(1000))
    assert read_arrays(tmp_path / "a.npz")["x"].sum() == 1000
    write_arrays(tmp_path / "b.npz", {"x": np.ones(3)})
    assert read_arrays(tmp_path / "b.npz")["x"].sum() == 3


def shaped(shape: str, descr: str = "<f4") -> bytes:
    return header(f"{{'descr': '{descr}', 'fortran_order': False, 'shape': {shape}, }}")


BAD: dict[str, tuple[bytes, str]] = {
    "empty": (b"", "BadZipFile"),
    "text": (b"hello", "BadZipFile"),
    "no npy": (zipped(x=b"hello"), "magic"),
    "terabytes": (zipped(x=shaped("(9999999999, 99)")), "declares"),
    "negative": (zipped(x=shaped("(-1, -1)") + b"\0\0\0\0"), "declares"),
    "too much": (zipped(x=shaped("(1,)") + b"\0" * 9), "holds 9"),
    "objects": (zipped(x=shaped("(1,)", "|O") + pickle.dumps(1)), "objects"),
    "version 9": (zipped(x=header("{}", b"\x09\x00")), "format"),
    "header of code": (zipped(x=header("__import__('os')")), "malformed"),
    "deep header": (zipped(x=header("{'descr': " + "[" * 90)), "EOF"),
}


@pytest.mark.parametrize(("data", "words"), BAD.values(), ids=BAD)
def test_damage_is_a_value_error_that_says_how(data: bytes, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        parse_arrays(data)


def test_a_name_twice_and_too_much_together_are_refused() -> None:
    one, buffer = zipfile.ZipFile(io.BytesIO(packed(x=np.ones(2)))).read("x.npy"), io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr("x.npy", one)
        with pytest.warns(UserWarning, match="Duplicate"):
            archive.writestr("x.npy", one)
    with pytest.raises(ValueError, match="same name"):
        parse_arrays(buffer.getvalue())
    with pytest.raises(ValueError, match="more than the 100 that are read"):
        parse_arrays(packed(x=np.ones(4), y=np.ones(4)), most_bytes=100)


def test_headers_are_shown_before_any_data_is_read() -> None:
    class Refused(Exception):
        pass

    seen: list[Header] = []

    def check(header: Header) -> None:
        seen.append(header)
        if header.name == "b":
            raise Refused

    with pytest.raises(Refused):
        parse_arrays(packed(a=np.ones((2, 3), np.float32), b=np.ones(1)), check=check)
    assert [(h.name, h.shape, h.dtype.str, h.array_bytes, h.stored_bytes) for h in seen][:1] == [
        ("a", (2, 3), "<f4", 24, 24)
    ]


def test_any_flipped_byte_is_the_same_file_or_a_value_error() -> None:
    good = packed(a=np.arange(40, dtype=np.float32), b=np.arange(5))
    expected, rng = parse_arrays(good), random.Random(0)
    for _ in range(400):
        bad = bytearray(good)
        bad[rng.randrange(len(bad))] ^= 1 << rng.randrange(8)
        try:
            found = parse_arrays(bytes(bad))
        except ValueError:
            continue
        same_values = all(np.array_equal(a, b) for a, b in zip(found.values(), expected.values(), strict=False))
        assert same_values, "zip's checksum covers every value"


def test_a_missing_file_is_the_systems_error(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        read_arrays(tmp_path / "none.npz")


def test_nobody_else_reads_npz_files() -> None:
    own = re.compile(r"np\.load\(|read_array_header|lib\.format\.read_")
    sources = [p for package in ("fl_mobile", "device_sim", "export") for p in (ROOT / package).rglob("*.py")]
    found = [str(p.relative_to(ROOT)) for p in sources if own.search(p.read_text(encoding="utf-8"))]
    assert found == ["fl_mobile/storage/npz.py"]
