"""Machine code made ahead of time: the bytes of plain Python, complete, and compiled where it does not fit."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import numba
import pytest

from fl_mobile.kernels import built, compiled
from fl_mobile.kernels.built import ABOUT, LoopCache, as_member, facts, find_set, member, misfit, read_member, set_name

SECONDS = 300
PLAYED = (
    "import json; from fl_mobile.kernels.build import compiled_all_the_same; from fl_mobile.kernels.plays import play;"
    "print(json.dumps([play(), compiled_all_the_same()]))"
)


@pytest.fixture(scope="module")
def machine_code() -> Path:
    """The set that `make loops` made, before `make test`."""
    file = compiled.built_set()
    if file is None:
        pytest.skip(f"no machine code was made ahead of time ({misfit() or 'make loops'})")
    return file


def in_a_process(code: str, **environment: str) -> list[object]:
    done = subprocess.run(
        [sys.executable, "-c", code],
        env=dict(os.environ, OPENBLAS_NUM_THREADS="1", **environment),
        capture_output=True,
        text=True,
        timeout=SECONDS,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    found: list[object] = json.loads(done.stdout.splitlines()[-1])
    return found


@pytest.fixture
def new_home(machine_code: Path, tmp_path: Path) -> Path:
    """The cache of a machine that has nothing but the set."""
    home = tmp_path / "fl-mobile" / machine_code.parent.name
    home.mkdir(parents=True)
    shutil.copy(machine_code, home)
    return tmp_path


def test_what_was_built_gives_the_bytes_of_plain_python_and_compiles_nothing(new_home: Path) -> None:
    digest, compiled_again = in_a_process(PLAYED, XDG_CACHE_HOME=str(new_home))
    assert compiled_again == []
    assert digest == in_a_process(PLAYED, NUMBA_DISABLE_JIT="1")[0]


def test_all_members_are_sound(machine_code: Path) -> None:
    with zipfile.ZipFile(machine_code) as archive:
        assert archive.testzip() is None
        assert json.loads(archive.read(ABOUT)) == facts(compiled.LOOPS)


def plus_one(number: int) -> int:
    return number + 1


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A set of one function."""
    made = numba.njit(plus_one)
    made(1)
    ((signature, result),) = made.overloads.items()
    file = tmp_path_factory.mktemp("small") / set_name()
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr(ABOUT, json.dumps(facts("1")))
        archive.writestr(member(plus_one, signature), as_member(result._reduce()))
    return file


def run_with(file: Path | None, own: object = None) -> tuple[int, bool]:
    """Returns what the function gives with a set, and whether it was compiled."""
    made = numba.njit(plus_one)
    made._cache = LoopCache(plus_one, lambda: file, own or numba.core.caching.NullCache())
    return made(41), bool(made.stats.cache_misses)


def test_a_function_of_the_set_is_not_compiled(small: Path) -> None:
    assert run_with(small) == (42, False)
    assert run_with(None) == (42, True)


@pytest.mark.parametrize("at", [0.1, 0.5, 0.9])
def test_a_damaged_set_is_as_none(small: Path, tmp_path: Path, at: float) -> None:
    data = bytearray(small.read_bytes())
    data[int(at * len(data))] ^= 0xFF
    (tmp_path / "damaged.zip").write_bytes(data)
    assert run_with(tmp_path / "damaged.zip")[0] == 42


def test_every_damaged_member_is_noticed(small: Path, tmp_path: Path) -> None:
    with zipfile.ZipFile(small) as archive:
        name = next(name for name in archive.namelist() if name != ABOUT)
        start, length = archive.getinfo(name).header_offset + 60, archive.getinfo(name).file_size
    for at in range(start, start + length - 60, max(1, length // 25)):
        data = bytearray(small.read_bytes())
        data[at] ^= 1
        (tmp_path / "damaged.zip").write_bytes(data)
        assert read_member(tmp_path / "damaged.zip", name, numba.njit(plus_one).targetctx) is None


@pytest.mark.parametrize("name", [*facts("1"), "unknown"])
def test_a_set_made_of_or_for_something_else_is_none(small: Path, tmp_path: Path, name: str) -> None:
    assert find_set((small.parent,), "1") == (None if misfit() else small)
    other = tmp_path / set_name()
    with zipfile.ZipFile(other, "w") as archive:
        archive.writestr(ABOUT, json.dumps(facts("1") | {name: "other"}))
    assert find_set((tmp_path,), "1") is None


@pytest.mark.parametrize("data", [b"", b"PK", b"\0" * 1000])
def test_a_file_that_is_no_set_is_none(tmp_path: Path, data: bytes) -> None:
    (tmp_path / set_name()).write_bytes(data)
    assert find_set((tmp_path / "missing", tmp_path), "1") is None


def test_a_set_of_other_loops_is_none(small: Path) -> None:
    assert find_set((small.parent,), "2") is None


@pytest.mark.parametrize(
    "variable", ["NUMBA_BOUNDSCHECK", "NUMBA_CPU_NAME", "NUMBA_CPU_FEATURES", "NUMBA_DEBUGINFO_DEFAULT", "NUMBA_OPT"]
)
def test_who_asks_numba_for_other_code_gets_it(variable: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """With bounds checked, as the suites for hostile bytes do, or for another processor."""
    monkeypatch.setattr(numba.config, variable.removeprefix("NUMBA_"), 1)
    assert misfit.__wrapped__() == f"{variable} is set"


def test_a_processor_that_lacks_a_feature_compiles(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        built, "BASELINES", {built.platform.machine(): built.Baseline("future", ("sse2", "time-travel"))}
    )
    assert misfit.__wrapped__() == "this processor is no future: it lacks time-travel"


def test_it_catches_a_loop_that_is_not_in_the_set(new_home: Path) -> None:
    """One with one more kind of array."""
    more = "import numpy; from fl_mobile.kernels import loops; loops.add_rounded(*numpy.ones((2, 3), int), 1.0, 1.0);"
    _, compiled_again = in_a_process(more + PLAYED.replace("play()", "0"), XDG_CACHE_HOME=str(new_home))
    assert compiled_again == ["add_rounded"]
