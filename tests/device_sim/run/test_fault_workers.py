"""Worker processes that are killed end a run that can go on; a run that is killed leaves no worker behind."""

from __future__ import annotations

import errno
import multiprocessing
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import psutil
import pytest

from device_sim.engines.pools.pooled import PooledEngine
from device_sim.engines.pools.processes import ProcessWorker
from device_sim.experiment.toml import parse_experiment
from device_sim.run.folder import RunFolder, create
from device_sim.run.loop import restore, simulate
from fl_mobile.errors import RunError
from fl_mobile.storage.files import append_line
from fl_mobile.tensors import weights_hash
from tests.device_sim.fault_sweep import CONFIGURATIONS, PLAIN
from tests.device_sim.numpy_engine import NumpyTrainer, numpy_federation

ROOT = Path(__file__).parents[3]
SHORT = (*CONFIGURATIONS["memory"], "train.rounds=4")
FOREVER = (*CONFIGURATIONS["memory"], "train.rounds=100000")


def processes() -> PooledEngine:
    return PooledEngine([ProcessWorker(partial(NumpyTrainer, 144, 3)) for _ in range(2)])


def test_a_worker_killed_between_rounds_ends_a_run_that_goes_on_to_the_same_bytes(tmp_path: Path) -> None:
    experiment = parse_experiment(PLAIN, SHORT)
    reference = numpy_federation(experiment)
    whole = create(tmp_path / "whole", experiment)
    assert len(list(simulate(reference, whole))) == 4

    federation = numpy_federation(experiment, processes())
    folder = create(tmp_path / "run", experiment)
    rounds = simulate(federation, folder)
    assert [next(rounds).round_num for _ in range(2)] == [0, 1]
    for worker in multiprocessing.active_children():
        worker.kill()
    with pytest.raises(RunError, match=r"worker process died \(exit code -9\).*Continue with --resume"):
        list(rounds)
    federation.engine.close()
    assert len(list(simulate(reference, folder))) == 4
    hashes = [weights_hash(restore(reference, f)[0].weights) for f in (folder, whole)]
    assert hashes[0] == hashes[1]


def test_a_full_disk_in_a_worker_is_a_full_disk() -> None:
    """A worker cannot write temporary files: the command ends with exit code 12 and says where."""
    worker = ProcessWorker(partial(NumpyTrainer, 144, 3))
    with pytest.raises(OSError, match="No space left") as caught:
        worker.call(write_to, "/dev/full")
    worker.close()
    assert (caught.value.errno, caught.value.filename) == (errno.ENOSPC, "/dev/full")


def write_to(_: object, path: str) -> None:
    append_line(Path(path), "x")


def run_forever(path: Path) -> None:
    """Runs in a process of its own until it is killed."""
    experiment = parse_experiment(PLAIN, FOREVER)
    for _ in simulate(numpy_federation(experiment, processes()), create(path, experiment)):
        pass


def test_a_killed_run_leaves_no_worker_behind(tmp_path: Path) -> None:
    code = f"from {__name__} import run_forever; import pathlib, sys; run_forever(pathlib.Path(sys.argv[1]))"
    run = tmp_path / "run"
    parent = subprocess.Popen([sys.executable, "-c", code, str(run)], cwd=ROOT, stderr=subprocess.PIPE, text=True)
    until(lambda: RunFolder(run).checkpoint.exists() or parent.poll() is not None)
    workers = psutil.Process(parent.pid).children()
    assert len([worker for worker in workers if "resource_tracker" not in " ".join(worker.cmdline())]) == 2
    os.kill(parent.pid, signal.SIGKILL)
    _, complaints = parent.communicate(timeout=60)  # ends when the last of them has closed its stderr
    until(lambda: not any(worker.is_running() for worker in workers))
    assert complaints == ""


def test_a_worker_whose_run_is_killed_while_it_works_ends_without_a_word(tmp_path: Path) -> None:
    code = f"import sys; from {__name__} import killed_at_work; killed_at_work(sys.argv[1])"
    done = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path / "began")], cwd=ROOT, capture_output=True, text=True
    )
    assert (done.returncode, done.stderr) == (-signal.SIGKILL, "")


def killed_at_work(began: str) -> None:
    """Kills its own process while a worker computes."""
    worker = ProcessWorker(partial(NumpyTrainer, 144, 3))
    threading.Thread(target=worker.call, args=(slow_work, began), daemon=True).start()
    until(lambda: Path(began).exists())
    os.kill(os.getpid(), signal.SIGKILL)


def slow_work(_: object, began: str) -> None:
    """Works until its parent is gone."""
    parent = os.getppid()
    Path(began).touch()
    until(lambda: os.getppid() != parent)


def until(happened: Callable[[], bool], seconds: float = 60) -> None:
    deadline = time.monotonic() + seconds
    while not happened():
        assert time.monotonic() < deadline, "it did not happen"
        time.sleep(0.05)
