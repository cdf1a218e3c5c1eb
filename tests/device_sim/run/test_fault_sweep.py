"""Killed, out of disk, out of luck at any file-system call: a run stops cleanly and goes on to the same bytes."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from tests.device_sim import broken_fork
from tests.device_sim.broken_fork import strace_is_missing
from tests.device_sim.cli_runs import command
from tests.device_sim.fault_sweep import CONFIGURATIONS, STARTS, _judged

ROOT = Path(__file__).parents[3]
STRACE, PYTHON = "tests.device_sim.fault_sweep", "tests.device_sim.fault_sweep_portable"

needs_strace = pytest.mark.skipif(bool(strace_is_missing()), reason=strace_is_missing())


def sweep(module: str, *arguments: str, planted: str = "") -> list[dict[str, Any]]:
    """Returns the points of a sweep that runs in a process of its own, because it forks."""
    code = f"{planted}\nimport sys, {module} as sweep\nsweep.main()"
    done = subprocess.run([sys.executable, "-c", code, *arguments], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]
    return [json.loads(line) for line in done.stdout.splitlines()]


def wrong(points: list[dict[str, Any]]) -> list[str]:
    return [f"{p['fault']} at {p['call']['text']}: {p['wrong']}" for p in points if p["wrong"]]


@needs_strace
def test_a_run_survives_faults_at_every_rename_and_some_other_calls() -> None:
    points = sweep(STRACE, "memory", "--start", "new", "--calls", "rename", "--sample", "6")
    assert wrong(points) == []
    ended = Counter((p["fault"], p["ended"]) for p in points)
    assert ended["kill -9", "killed"] > 15
    assert ended["disk full", "told"] > 15
    assert ended["I/O error", "told"] > 15


@needs_strace
@pytest.mark.slow
@pytest.mark.parametrize("start", STARTS)
@pytest.mark.parametrize("configuration", CONFIGURATIONS)
def test_a_run_survives_faults_at_every_call(configuration: str, start: str) -> None:
    points = sweep(STRACE, configuration, "--start", start, "--events")
    assert wrong(points) == []
    assert len(points) > 300


@needs_strace
def test_every_file_is_synced_before_it_is_swapped_in_and_its_folder_after() -> None:
    """What a kill cannot show: after a loss of power a rename without them may leave an empty file, or none."""
    calls = sweep(STRACE, "memory", "--start", "new", "--list")
    acts = [c["text"] for c in calls if c["name"] in ("write", "rename", "fsync")]
    renames = [(at, *re.findall(r'"([^"]+)"', text)) for at, text in enumerate(acts) if text.startswith("rename")]
    assert len(renames) > 10
    for at, old, new in renames:
        if "/memory/" in new:  # needed from the next checkpoint on
            checkpoint = next(then for then, _, path in renames if then > at and path.endswith("checkpoint.npz"))
            for path in (new, str(Path(new).parent)):
                assert any(text.startswith("fsync(") and f"<{path}>" in text for text in acts[at:checkpoint]), path
        else:
            assert [text for text in acts[:at] if f"<{old}>" in text][-1].startswith("fsync("), old
            assert acts[at + 1].startswith("fsync("), new
            assert f"<{Path(new).parent}>" in acts[at + 1], new
    appended = [at for at, text in enumerate(acts) if text.startswith("write(") and "jsonl>" in text]
    assert appended
    assert all(acts[at + 1].startswith("fsync(") for at in appended)


PLANTED = {
    "written in place": (
        "import fl_mobile.storage.npz as npz\n"
        "npz.write_atomic = lambda path, data: (path.parent.mkdir(exist_ok=True), path.write_bytes(data))",
        ("--start", "new", "--calls", "write"),
        "is damaged",
    ),
    "checkpoint before log": (
        "import device_sim.run.loop as s; log = s.append_round; save = s.checkpoint.save; kept = []\n"
        "s.append_round = lambda *of: kept.append(of)\n"
        "s.checkpoint.save = lambda *of: (save(*of), log(*kept.pop()))",
        ("--start", "new", "--calls", "write"),
        "cannot be resumed",
    ),
    "temporaries stay": (
        "import device_sim.run.folder as r; r.clear_temporaries = lambda folder: None",
        ("--start", "resumed", "--calls", "rename"),
        "tmp.npz extra",
    ),
}


@needs_strace
@pytest.mark.slow
@pytest.mark.parametrize(("bug", "where", "told"), [pytest.param(*row, id=name) for name, row in PLANTED.items()])
def test_the_sweep_finds_a_planted_bug(bug: str, where: tuple[str, ...], told: str) -> None:
    found = wrong(sweep(STRACE, "memory", *where, planted=bug))
    assert [line for line in found if told in line] != []


@pytest.mark.parametrize("every", [40, pytest.param(1, marks=pytest.mark.slow)])
@pytest.mark.parametrize("start", STARTS)
def test_without_strace_faults_are_raised_by_python_itself(start: str, every: int) -> None:
    points = sweep(PYTHON, "memory", "--start", start, "--every", str(every))
    assert wrong(points) == []
    assert len(points) > 300 / every


@pytest.mark.parametrize("walks", [3, pytest.param(60, marks=pytest.mark.slow)])
def test_a_run_that_is_broken_again_and_again_ends_at_the_same_bytes(walks: int) -> None:
    points = sweep(PYTHON, "memory", "--start", "new", "--every", "10000", "--walks", str(walks))
    assert wrong(points) == []
    assert sum(p["call"]["number"] for p in points if p["fault"] == "all of them") > 3 * walks


def test_a_log_on_the_full_disk_does_not_hide_the_exit_code(tmp_path: Path) -> None:
    arguments = command("simulate", tmp_path / "missing.toml")
    with open("/dev/full", "w") as full:
        assert subprocess.run(arguments, stderr=full).returncode == 3
        done = subprocess.run(command("codecs"), stdout=full, stderr=subprocess.PIPE, text=True)
    assert done.returncode == 12
    assert done.stderr.startswith("fl-mobile: No space left on device. Make room")


@pytest.mark.parametrize("talks", [True, False])
def test_a_fork_that_does_not_end_is_told_from_one_that_is_killed(monkeypatch: pytest.MonkeyPatch, talks: bool) -> None:
    monkeypatch.setattr(broken_fork, "SECONDS_TO_END", 0.5)

    def forever() -> int:
        while True:
            time.sleep(0.05)
            if talks:
                print("waiting for room", flush=True)

    ended = broken_fork.in_fork(forever)
    assert (ended.code, "waiting for room" in ended.told) == (broken_fork.HUNG, talks)
    assert _judged(ended), "no law takes it for a kill"
