"""The real command with TensorFlow, killed and out of disk while it writes the model, the bundle and the summary."""

from __future__ import annotations

import json
import re
import shutil
import signal
import subprocess
from pathlib import Path
from typing import Any

import pytest

from device_sim.run.folder import RunFolder
from device_sim.verify.run import verify_run
from tests.device_sim.broken_fork import strace_is_missing
from tests.device_sim.cli_runs import SMALL, Ended, command, environment, fl_mobile, the_message

pytestmark = pytest.mark.tf

ARGUMENTS = (*SMALL, "--set", 'output.recipes=["float32"]', "--rounds", "1", "--workers", "1", "-q")


def made(run: Path) -> list[Any]:
    """What two runs of one experiment agree in: the weights and the artifacts."""
    summary = json.loads((run / "summary.json").read_text())
    return [summary["model"], [a["sha256"] for a in summary["export"]["artifacts"]]]


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    run = tmp_path_factory.mktemp("finished") / "run"
    ended = fl_mobile("simulate", *ARGUMENTS, "--out", run)
    assert ended.code == 0, ended.err
    return run


def test_a_run_killed_between_its_bundle_and_the_summary_that_names_it_goes_on(finished: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    shutil.copytree(finished, run)
    (run / "summary.json").write_text(json.dumps({**json.loads((run / "summary.json").read_text()), "export": None}))
    ended = fl_mobile("simulate", "--out", run, "--resume", "-q")
    assert ended.code == 0, ended.err
    assert made(run) == made(finished)
    assert sorted(p.name for p in run.iterdir()) == sorted(p.name for p in finished.iterdir())


def test_a_bundle_of_another_run_is_not_touched(finished: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    shutil.copytree(finished, run)
    (run / "summary.json").unlink()
    (run / "bundle" / "labels.txt").write_text("mine\n")
    ended = fl_mobile("simulate", "--out", run, "--resume", "-q")
    assert ended.code == 7
    assert "bundle is not a bundle of this run" in the_message(ended)
    assert (run / "bundle" / "labels.txt").read_text() == "mine\n"


def under_strace(run: Path, trace: Path, *options: str) -> Ended:
    strace = ["strace", "-f", "-o", str(trace), "-e", "trace=rename", *options]
    arguments = [*strace, *command("simulate", *ARGUMENTS, "--out", run)]
    done = subprocess.run(arguments, capture_output=True, text=True, env=environment())
    return Ended(done.returncode, done.stdout, done.stderr)


@pytest.mark.slow
@pytest.mark.skipif(bool(strace_is_missing()), reason=strace_is_missing())
def test_faults_while_the_results_are_written(finished: Path, tmp_path: Path) -> None:
    """Killed at every rename from the first summary on, out of disk at some; TensorFlow starts anew every time."""
    trace = tmp_path / "trace"
    assert under_strace(tmp_path / "clean", trace).code == 0
    # strace counts by thread, and TensorFlow has many.
    main = re.search(r'^(\d+) +rename\(".*/experiment.toml"', trace.read_text(), re.MULTILINE)
    assert main
    renamed = re.findall(rf'^{main[1]} +rename\("[^"]*", "([^"]*)"\) = 0', trace.read_text(), re.MULTILINE)
    names = [Path(name).name for name in renamed]
    ours = [at for at, name in enumerate(renamed) if str(tmp_path / "clean") in name]
    last = [at for at in ours if at > names.index("model.keras")]
    assert {"summary.json", "float32.tflite", "manifest.json", "bundle"} <= {names[at] for at in last}
    full = [at for at in last if names[at] in ("summary.json", "bundle")]
    for at, fault in [*((at, "signal=KILL") for at in last), *((at, "error=ENOSPC") for at in full)]:
        run = tmp_path / f"{fault}-{names[at]}"
        ended = under_strace(run, trace, "-e", f"inject=rename:{fault}:when={at + 1}")
        if fault == "signal=KILL":
            assert ended.code in (-signal.SIGKILL, 128 + signal.SIGKILL)
        else:
            assert ended.code == 12
            assert "No space left" in the_message(ended)
        again = fl_mobile("simulate", "--out", run, "--resume", "-q")
        assert again.code == 0, (names[at], fault, again.err)
        assert made(run) == made(finished), (names[at], fault)
        verify_run(RunFolder(run))
        shutil.rmtree(run)
