"""Workers in processes give what threads give, and what goes wrong in them is told as if it had gone wrong here."""

from __future__ import annotations

import multiprocessing
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from functools import partial
from multiprocessing.connection import Connection
from pathlib import Path

import pytest

from device_sim.engines import open_engine
from device_sim.engines.pools.pooled import LocalWorker, PooledEngine
from device_sim.engines.pools.processes import ProcessWorker
from fl_mobile.errors import ConfigError, DivergedError, RunError
from tests.device_sim.numpy_engine import NumpyTrainer, stripes
from tests.device_sim.run_contents import difference
from tests.device_sim.worker_runs import KERAS_EPOCHS, OURS, die, fail, no_trainer, run, small_model

NUMPY = partial(NumpyTrainer, 144, 3)


@pytest.fixture
def worker() -> Iterator[ProcessWorker]:
    made = ProcessWorker(NUMPY)
    yield made
    made.close()


def test_a_run_in_processes_leaves_the_bytes_of_a_run_in_threads(tmp_path: Path) -> None:
    expected = run(PooledEngine([LocalWorker(NUMPY())]), tmp_path / "threads")
    assert any("updates" in name for name in expected), "packets are compared"
    for count in (1, 2):
        found = run(PooledEngine([ProcessWorker(NUMPY) for _ in range(count)]), tmp_path / str(count))
        assert not difference(expected, found)


@pytest.mark.slow
@pytest.mark.tf
def test_so_does_keras(tmp_path: Path) -> None:
    probe = stripes().train.x[:8]
    expected, found = (
        run(open_engine("keras", small_model, probe, workers=2, pool=pool), tmp_path / pool, KERAS_EPOCHS)
        for pool in ("threads", "processes")
    )
    assert not difference(expected, found)


def test_a_worker_that_is_killed_while_it_works_is_named_with_its_exit_code(worker: ProcessWorker) -> None:
    with pytest.raises(RunError, match=r"worker process died \(exit code -9\).*Continue with --resume"):
        worker.call(die)


@pytest.mark.parametrize("error", OURS, ids=lambda error: type(error).__name__)
def test_our_own_errors_arrive_as_themselves(worker: ProcessWorker, error: Exception) -> None:
    with pytest.raises(type(error)) as caught:
        worker.call(fail, error)
    assert (str(caught.value), vars(caught.value)) == (str(error), vars(error))
    assert worker.call(type) is NumpyTrainer, "the worker goes on"


def test_other_errors_arrive_with_their_class_in_words(worker: ProcessWorker) -> None:
    with pytest.raises(RuntimeError, match="in an engine worker process: ZeroDivisionError: by 0"):
        worker.call(fail, ZeroDivisionError("by 0"))


def test_a_trainer_that_cannot_be_opened_is_told_by_every_call() -> None:
    worker = ProcessWorker(no_trainer)
    for _ in range(2):
        with pytest.raises(DivergedError, match="before it starts"):
            worker.call(type)
    worker.close()


def test_a_worker_that_has_to_be_killed_is_waited_for(worker: ProcessWorker, monkeypatch: pytest.MonkeyPatch) -> None:
    """It stayed behind as a zombie for as long as the program ran."""
    monkeypatch.setattr("device_sim.engines.pools.processes.ENDED_SECONDS", 0.0)
    process = worker._process
    os.kill(process.pid, signal.SIGSTOP)  # it will not end by itself
    worker.close()
    assert process.exitcode == -signal.SIGKILL


SCRIPT = """
from functools import partial
from tests.device_sim.numpy_engine import NumpyTrainer
from device_sim.engines.pools.processes import ProcessWorker
print("started")
def here(): return NumpyTrainer(144, 3)
{guard}
{indent}worker = ProcessWorker({trainer})
{indent}print(worker.call(type).__name__)
{indent}print(__file__, __spec__)
"""


@pytest.mark.parametrize("trainer", ["partial(NumpyTrainer, 144, 3)", "here"])
@pytest.mark.parametrize("guarded", [False, True])
def test_a_script_needs_a_guard_only_for_what_is_in_it(tmp_path: Path, guarded: bool, trainer: str) -> None:
    script = tmp_path / "mine.py"
    guard = {"guard": 'if __name__ == "__main__":', "indent": "    "} if guarded else {"guard": "", "indent": ""}
    script.write_text(SCRIPT.format(trainer=trainer, **guard))
    root = Path(__file__).parents[3]
    env = {**os.environ, "PYTHONPATH": str(root)}
    done = subprocess.run([sys.executable, script], capture_output=True, text=True, env=env, timeout=120)
    if guarded or trainer != "here":
        assert done.returncode == 0, done.stderr
        assert done.stdout.splitlines()[-2:] == ["NumpyTrainer", f"{script} None"]
        return
    last = done.stderr.splitlines()[-1]
    assert f"ConfigError: {script}: engine.pool processes" in last
    assert 'if __name__ == "__main__":' in last
    assert "engine.pool threads" in last
    assert done.stdout.count("started") == 1, "nothing was started twice"


def test_what_no_process_could_find_is_refused_at_once() -> None:
    with pytest.raises(ConfigError, match=r"cannot send the model there .* engine.pool threads"):
        ProcessWorker(lambda: NumpyTrainer(144, 3))


def _started_in_a_worker(pipe: Connection) -> None:
    try:
        ProcessWorker(partial(NumpyTrainer, 144, 3))
    except ConfigError as error:
        pipe.send(str(error))


def test_a_module_that_starts_its_run_when_it_is_imported_is_told_so() -> None:
    """Its reason was that daemonic processes are not allowed to have children."""
    context = multiprocessing.get_context("spawn")
    here, there = context.Pipe()
    worker = context.Process(target=_started_in_a_worker, args=(there,), daemon=True)
    worker.start()
    told = here.recv() if here.poll(60) else ""
    worker.join(60)
    assert told.startswith("a run starts when this module is imported")
    assert 'below `if __name__ == "__main__":`' in told
