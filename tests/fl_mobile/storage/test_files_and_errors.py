"""Files are whole or untouched; the error tree is what its drawing says."""

from __future__ import annotations

import errno
import os
import re

import numpy as np
import pytest

from fl_mobile import errors
from fl_mobile.records import ServerState
from fl_mobile.server import checkpoint
from fl_mobile.storage.files import (
    append_line,
    clear_temporaries,
    replace_atomic,
    sync_files,
    temporary,
    write_atomic,
    write_json,
)
from fl_mobile.storage.npz import read_arrays, write_arrays
from tests.fl_mobile.samples import SPEC, laplace


def test_writing_replaces_the_whole_file(tmp_path):
    path = tmp_path / "deep" / "model.keras"
    write_atomic(path, b"old" * 1000)
    write_atomic(path, b"new")
    assert path.read_bytes() == b"new"
    assert os.listdir(path.parent) == ["model.keras"]


class Fails(Exception):
    """What goes wrong in the middle of a write."""


@pytest.mark.parametrize("error", [Fails(), KeyboardInterrupt(), OSError(errno.ENOSPC, "No space left on device")])
@pytest.mark.parametrize("existed", [True, False])
def test_a_failed_write_leaves_the_old_file_and_no_rubbish(tmp_path, error, existed):
    path = tmp_path / "state.npz"
    if existed:
        write_atomic(path, b"old")

    def half(tmp):
        tmp.write_bytes(b"half of the new")
        raise error

    with pytest.raises(type(error)):
        replace_atomic(path, half)
    assert os.listdir(tmp_path) == (["state.npz"] if existed else [])
    assert not existed or path.read_bytes() == b"old"


def test_a_really_full_disk_leaves_the_old_file(tmp_path):
    """Python's own write to /dev/full fails the way a full disk does."""
    path = tmp_path / "summary.json"
    write_json(path, {"rounds": 1})

    def onto_full_disk(tmp):
        tmp.symlink_to("/dev/full")
        with open(tmp, "wb", buffering=0) as file:
            file.write(b"x" * 10_000)

    with pytest.raises(OSError, match="No space left"):
        replace_atomic(path, onto_full_disk)
    assert path.read_text() == '{\n  "rounds": 1\n}\n'
    assert os.listdir(tmp_path) == ["summary.json"]


def test_the_temporary_file_keeps_the_suffix_and_the_folder(tmp_path):
    seen = []
    replace_atomic(tmp_path / "a.keras", lambda tmp: (seen.append(tmp), tmp.write_bytes(b"")))
    assert seen[0].suffix == ".keras"
    assert seen[0].parent == tmp_path


def test_json_that_cannot_be_written_leaves_the_old_file(tmp_path):
    path = tmp_path / "a.json"
    write_json(path, {"b": 1, "a": 2})
    with pytest.raises(TypeError):
        write_json(path, {"x": np.float32(1)})
    assert path.read_text() == '{\n  "a": 2,\n  "b": 1\n}\n'


def test_lines_are_appended(tmp_path):
    append_line(tmp_path / "rounds.jsonl", "one")
    append_line(tmp_path / "rounds.jsonl", "zwei ü")
    assert (tmp_path / "rounds.jsonl").read_text(encoding="utf-8") == "one\nzwei ü\n"


def test_what_killed_processes_left_is_cleared_and_nothing_else(tmp_path):
    kept = (tmp_path / ".gitignore", tmp_path / "a.tmp", tmp_path / "deep" / "model.keras")
    left = (
        temporary(tmp_path / "a.json"),
        temporary(tmp_path / "deep" / "b.npz"),
        temporary(tmp_path / "bundle") / "c",
    )
    for path in (*kept, *left):
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(b"x")
    clear_temporaries(tmp_path)
    assert sorted(p for p in tmp_path.rglob("*") if p.is_file()) == sorted(kept)
    assert not left[2].parent.exists()


def test_an_error_of_the_disk_says_where(tmp_path):
    full = tmp_path / "rounds.jsonl"
    full.symlink_to("/dev/full")
    with pytest.raises(OSError, match="No space left") as caught:
        append_line(full, "x" * 10)
    assert caught.value.filename == str(full)


@pytest.mark.parametrize("count", [1, 20])
def test_syncing_many_files_tells_which_one_could_not_be(tmp_path, count):
    paths = [tmp_path / f"{i}.npz" for i in range(count)]
    for path in paths:
        write_atomic(path, b"x", sync=False)
    sync_files(paths)
    paths[-1].unlink()
    with pytest.raises(FileNotFoundError) as caught:
        sync_files(paths)
    assert caught.value.filename == str(paths[-1])


def test_arrays_come_back_and_the_same_ones_give_the_same_bytes(tmp_path):
    arrays = {"a": np.arange(6, dtype=np.float32).reshape(2, 3), "b/0": np.array(7, np.uint8)}
    for name in ("one.npz", "two.npz"):
        write_arrays(tmp_path / name, arrays)
    assert (tmp_path / "one.npz").read_bytes() == (tmp_path / "two.npz").read_bytes()
    found = read_arrays(tmp_path / "one.npz")
    assert list(found) == list(arrays)
    for name, value in arrays.items():
        assert (found[name].dtype, found[name].tobytes()) == (value.dtype, value.tobytes())


def test_a_disk_that_fails_is_not_taken_for_a_damaged_file(tmp_path):
    """Reading a folder is an error of the system, as a failing disk is."""
    (tmp_path / "c.npz").mkdir()
    with pytest.raises(IsADirectoryError):
        checkpoint.load(tmp_path / "c.npz", SPEC)


def test_exit_codes_and_tree_are_those_of_the_drawing():
    drawn = dict(re.findall(r"(\w+Error|SpecMismatch) +(\d+)  ", errors.__doc__ or ""))
    classes = {
        name: value
        for name, value in vars(errors).items()
        if isinstance(value, type) and issubclass(value, errors.FlMobileError)
    }
    assert {name: str(value.exit_code) for name, value in classes.items()} == drawn
    roots = [name for name, kind in classes.items() if len(kind.__mro__) < 6]  # a kind below another ends as that does
    assert len({drawn[name] for name in roots}) == len(roots)
    assert not {"0", "2", "12", "130"} & set(drawn.values())


def test_unknown_names_get_the_nearest_and_all_known():
    assert errors.nearest("fedadm", ["fedavg", "fedadam"]) == " Did you mean 'fedadam'? Known: fedadam, fedavg."
    assert errors.nearest("zzz", ["fedavg"]) == " Known: fedavg."


def state(round_num=4):
    slots = {"m": {p: v for p, v in laplace(key=2).items() if SPEC[p].trainable}}
    return ServerState(round_num, laplace(key=1), SPEC, slots)


def test_a_checkpoint_comes_back_bit_for_bit(tmp_path):
    checkpoint.save(tmp_path / "c.npz", state(), {"best": 0.5})
    loaded, extra = checkpoint.load(tmp_path / "c.npz", SPEC)
    assert (loaded.round_num, extra) == (4, {"best": 0.5})
    for path in SPEC:
        assert loaded.weights[path].tobytes() == state().weights[path].tobytes()
    assert {p: v.tobytes() for p, v in loaded.slots["m"].items()} == {
        p: v.tobytes() for p, v in state().slots["m"].items()
    }


def test_a_damaged_checkpoint_is_a_run_error_at_any_byte(tmp_path):
    path = tmp_path / "c.npz"
    checkpoint.save(path, state(), {})
    whole = path.read_bytes()
    for cut in (0, 1, 100, len(whole) // 2, len(whole) - 1):
        path.write_bytes(whole[:cut])
        with pytest.raises(errors.FlMobileError) as caught:
            checkpoint.load(path, SPEC)
        assert caught.value.exit_code == 7
    refused = 0
    for at in range(0, len(whole), 41):
        path.write_bytes(whole[:at] + bytes([whole[at] ^ 0x10]) + whole[at + 1 :])
        try:
            loaded, _ = checkpoint.load(path, SPEC)
        except errors.RunError:
            refused += 1
        else:  # a bit that zip does not use, such as a time stamp
            assert all(loaded.weights[p].tobytes() == state().weights[p].tobytes() for p in SPEC)
    assert refused > 0.8 * len(whole) / 41
