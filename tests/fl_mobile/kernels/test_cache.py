"""Compiled loops are compiled again when what they are made of changes, and only then; old folders go."""

from __future__ import annotations

import os
import shutil
import time
from pathlib import Path

import pytest

import fl_mobile
from fl_mobile.kernels.cache import KEPT_FOLDERS, KEPT_SECONDS, claim_folder, loops_hash

PACKAGE = Path(fl_mobile.__file__).parent


@pytest.fixture
def package(tmp_path: Path) -> Path:
    copy = tmp_path / "fl_mobile"
    shutil.copytree(PACKAGE, copy, ignore=shutil.ignore_patterns("__pycache__"))
    return copy


@pytest.mark.parametrize(
    ("edited", "again"),
    [
        ("codecs/ecsq/ans.py", True),
        ("kernels/compiled.py", True),
        ("codecs/ecsq/lowrank.py", True),  # has no loop; `read.py` takes a constant from it
        ("errors.py", False),
        ("server/fold.py", False),
        ("storage/files.py", False),
    ],
)
def test_only_edits_of_what_loops_are_made_of_compile_again(package: Path, edited: str, again: bool) -> None:
    before = loops_hash(package)
    with open(package / edited, "a") as file:
        file.write("\nADDED = 1\n")
    assert (loops_hash(package) != before) is again


def test_a_constant_that_is_two_imports_away_counts(tmp_path: Path) -> None:
    package = tmp_path / "fl_mobile"
    (package / "kernels").mkdir(parents=True)
    (package / "kernels" / "compiled.py").write_text("")
    (package / "deep").mkdir()
    (package / "deep" / "__init__.py").write_text("STEP = 3\n")
    (package / "near.py").write_text("from fl_mobile.deep import STEP\n")
    (package / "loop.py").write_text("from fl_mobile import near\n\n\n@compiled\ndef f():\n    return near.STEP\n")
    before = loops_hash(package)
    (package / "deep" / "__init__.py").write_text("STEP = 4\n")
    assert loops_hash(package) != before


def test_folders_go_when_they_are_old_and_not_among_the_last_used(tmp_path: Path) -> None:
    now, day = time.time(), 24 * 3600.0
    ages = {f"compiled-{i}": i * day for i in range(1, 12)} | {"other": 100 * day}
    for name, age in ages.items():
        (tmp_path / name).mkdir()
        os.utime(tmp_path / name, (now - age, now - age))
    folder = claim_folder([tmp_path], "mine")
    assert folder == str(tmp_path / "compiled-mine")
    left = {path.name for path in tmp_path.iterdir()}
    within = {name for name, age in ages.items() if age <= KEPT_SECONDS - day}
    assert left == {"compiled-mine", "other"} | within
    assert len(within) > KEPT_FOLDERS, "what was used this week stays, however many"


def test_the_last_used_folders_stay_however_old(tmp_path: Path) -> None:
    for i in range(KEPT_FOLDERS):
        (tmp_path / f"compiled-{i}").mkdir()
        os.utime(tmp_path / f"compiled-{i}", (i, i))
    claim_folder([tmp_path], "mine")
    assert not (tmp_path / "compiled-0").exists()
    assert all((tmp_path / f"compiled-{i}").exists() for i in range(1, KEPT_FOLDERS))


def test_where_nothing_can_be_written_there_is_no_folder(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    assert claim_folder([tmp_path / "file"], "mine") == ""
    assert claim_folder([tmp_path / "file", tmp_path / "second"], "mine") == str(tmp_path / "second" / "compiled-mine")
