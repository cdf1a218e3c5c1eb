"""Pickles of plain data are read without unpickling, and hostile ones do nothing."""

from __future__ import annotations

import os
import pickle
import random
import struct
from contextlib import suppress

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fl_mobile.errors import DataError
from fl_mobile.storage.plain_pickle import Made, Named, load_plain

keys = st.text(max_size=5) | st.integers() | st.floats(allow_nan=False)
plain = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**200), 2**200) | st.floats(allow_nan=False) | st.text(max_size=300),
    lambda inner: (
        st.lists(inner, max_size=5)
        | st.dictionaries(keys, inner, max_size=5)
        | st.tuples(inner, inner, inner, inner)
        | st.tuples(inner, inner)
        | st.just(())
    ),
    max_leaves=30,
)


@given(plain, st.integers(2, 5))
@settings(deadline=None)
def test_plain_data_comes_back(value, protocol):
    raw = pickle.dumps(value, protocol)
    read = load_plain(raw, "file")
    assert read == value
    assert repr(read) == repr(value), "True is not 1"


def test_long_containers_and_shared_parts_come_back():
    shared = {"active": list(range(3000))}
    value = dict.fromkeys(range(1500), shared)
    read = load_plain(pickle.dumps(value, 4), "file")
    assert read == value
    assert read[0] is read[1499]


class Evil:
    """Unpickled, it makes a folder."""

    def __init__(self, path):
        self.path = str(path)

    def __reduce__(self):
        return os.mkdir, (self.path,)


@pytest.mark.parametrize("protocol", [0, 1, 2, 3, 4, 5])
def test_a_pickle_that_runs_code_is_refused_and_nothing_runs(tmp_path, protocol):
    raw = pickle.dumps({1: {"computation": Evil(tmp_path / "owned")}}, protocol)
    with pytest.raises(DataError, match="not a pickle of plain data"):
        load_plain(raw, "file")
    assert not (tmp_path / "owned").exists()
    pickle.loads(raw)
    assert (tmp_path / "owned").exists(), "the sample is hostile: unpickling it acts"


def nested_key(depth):
    return b"\x80\x04}" + b"K\x01" + b"\x85" * depth + b"K\x01s."


HOSTILE = {
    "calls os.system by text": b"cos\nsystem\n(S'true'\ntR.",
    "instance": b"(S'true'\nios\nsystem\n.",
    "object": b"\x80\x02(cos\nsystem\nX\x04\x00\x00\x00trueo.",
    "extension": b"\x80\x02\x82\x01.",
    "persistent id": b"\x80\x02X\x01\x00\x00\x00aQ.",
    "build": b"\x80\x02}}b.",
    "reduce": b"\x80\x02}}R.",
    "newobj": b"\x80\x02}}\x81.",
    "a set": pickle.dumps({1}, 4),
    "bytes": pickle.dumps(b"x", 4),
    "a buffer": pickle.dumps(bytearray(b"x"), 5),
    "huge text": b"\x80\x04\x8d" + struct.pack("<Q", 2**62) + b".",
    "huge text, 32 bit": b"\x80\x02X\xff\xff\xff\xff.",
    "nested tuple as key": nested_key(200_000),
    "list as key": b"\x80\x02}]K\x01s.",
    "tuple as key": b"\x80\x02}K\x01\x85K\x01s.",
    "odd items": b"\x80\x02}(K\x01u.",
    "no mark": b"\x80\x02}K\x01K\x02u.",
    "append to a number": b"\x80\x02K\x01K\x02a.",
    "append to nothing": b"\x80\x02K\x02a.",
    "items under a mark": b"\x80\x02}(s.",
    "an item from under a mark": b"\x80\x02}K\x01(K\x02su.",
    "unknown memo": b"\x80\x02h\x05.",
    "store nothing": b"\x80\x02q\x05.",
    "two values": b"\x80\x02K\x01K\x02.",
    "no value": b"\x80\x02.",
    "open mark": b"\x80\x02K\x01(.",
    "protocol 0": pickle.dumps({1: 2.5}, 0),
    "protocol 9": b"\x80\x09K\x01.",
    "not UTF-8": b"\x80\x02X\x01\x00\x00\x00\xff.",
    "no instruction": b"\x80\x02\xee.",
    "empty": b"",
}


def refused(raw, **options):
    with pytest.raises(DataError, match="file: not a pickle of plain data: byte"):
        load_plain(raw, "file", **options)


@pytest.mark.parametrize("what", HOSTILE)
def test_hostile_bytes_are_refused(what):
    refused(HOSTILE[what])


def test_a_far_memo_takes_no_memory():
    """CPython's unpickler would make room for four billion entries."""
    assert load_plain(b"\x80\x02K\x07r\xff\xff\xff\xff.", "file") == 7


def test_a_list_inside_itself_is_read_as_one():
    loop = []
    loop.append(loop)
    read = load_plain(pickle.dumps(loop, 4), "file")
    assert read[0] is read


def test_every_cut_is_refused():
    raw = pickle.dumps({i: {"computation": 1.5, "communication": i, "x": ["é", (1, 2)]} for i in range(5)}, 4)
    for length in range(len(raw)):
        with pytest.raises(DataError):
            load_plain(raw[:length], "file")


def test_damaged_bytes_are_read_or_refused_and_nothing_else():
    good = pickle.dumps({i: {"computation": 1.5 * i, "active": [1, 2, i]} for i in range(40)}, 4)
    chance = random.Random(0)
    refused = 0
    for _ in range(5000):
        raw = bytearray(good)
        for _ in range(chance.randint(1, 4)):
            raw[chance.randrange(len(raw))] = chance.randrange(256)
        try:
            load_plain(bytes(raw), "file")
        except DataError:
            refused += 1
    assert 1000 < refused < 5000


@pytest.mark.parametrize("objects", [False, True])
@given(raw=st.binary(max_size=100))
@settings(deadline=None)
def test_any_bytes_are_read_or_refused(objects, raw):
    with suppress(DataError):
        load_plain(b"\x80\x04" + raw, "file", objects=objects)


# --- names and calls, written down and never followed ---------------------------------------------------------------


def test_calls_are_written_down_and_nothing_runs(tmp_path):
    (made,) = load_plain(pickle.dumps([Evil(tmp_path / "owned")], 2), "file", objects=True)
    assert (type(made), made.args, made.state) == (Made, (str(tmp_path / "owned"),), None)
    assert made.name.split() == [os.mkdir.__module__, "mkdir"]
    assert not (tmp_path / "owned").exists()


@pytest.mark.parametrize("order", "CF")
@pytest.mark.parametrize("dtype", ["<f8", "<i8", "<f4"])
def test_an_array_is_its_parts(order, dtype):
    array = np.asarray(np.arange(12).reshape(3, 4), dtype, order=order)
    made = load_plain(pickle.dumps(array, 2), "file", objects=True)
    assert made.args[0] == Named("numpy ndarray")
    _, shape, kind, column_major, data = made.state
    assert (shape, kind.args[0], kind.state[1], column_major) == ((3, 4), dtype[1:], "<", order == "F")
    assert data.args[0].encode(data.args[1]) == array.tobytes(order)


STRANGE = {
    "calls text": b"\x80\x02X\x01\x00\x00\x00a)R.",
    "calls with a list": b"\x80\x02cos\nmkdir\n]R.",
    "state of a number": b"\x80\x02K\x01}b.",
    "a number in text": b"\x80\x02I12\n.",
    "a name that does not end": b"\x80\x02cos\nmkdir",
    "a name that is no text": b"\x80\x02c\xff\nmkdir\n.",
    "an instance": b"\x80\x02cos\nmkdir\n)\x81.",
}


@pytest.mark.parametrize("what", STRANGE)
def test_strange_calls_are_refused(what):
    refused(STRANGE[what], objects=True)
