"""A served run broken at any file-system call ends, run again, with the model that nothing happened to."""

from __future__ import annotations

import errno
import random
from pathlib import Path

import pytest

import device_sim.deploy.serve as serve
from device_sim.experiment.toml import parse_experiment
from device_sim.run.folder import create
from tests.device_sim.broken_fork import strace_is_missing
from tests.device_sim.deploy.fault_sweep import points, sweeping
from tests.device_sim.deploy.loopback import on, serve_and_play
from tests.device_sim.deploy.test_deployed import SOME
from tests.device_sim.numpy_engine import numpy_federation
from tests.device_sim.rounds.test_oracle import PLAIN


@pytest.mark.parametrize("most", [12, pytest.param(10**6, marks=pytest.mark.slow)])
def test_broken_anywhere_it_ends_with_the_same_model_and_receipts(most: int) -> None:
    if why := strace_is_missing():
        pytest.skip(why)
    with sweeping() as sweep:
        every = points(sweep.calls())
        assert len(every) > 1000
        chosen = random.Random(1).sample(every, min(most, len(every)))
        broken = [(fault, call.text, wrong) for call, fault in chosen if (wrong := sweep.wrong(call, fault))]
    assert not broken


def test_a_run_waits_while_its_disk_is_full_and_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    federation = numpy_federation(parse_experiment(PLAIN, SOME))
    folder = create(tmp_path / "run", federation.experiment)
    real, full = serve.simulate, iter([True, True])

    def simulate(*arguments: object) -> object:
        for done in real(*arguments):  # type: ignore[arg-type]
            yield done
            if done.round_num == 1 and next(full, False):
                raise OSError(errno.ENOSPC, "No space left on device", str(folder.checkpoint))

    monkeypatch.setattr(serve, "simulate", simulate)
    monkeypatch.setattr(serve, "DISK_SECONDS", 0.01)
    rounds, visits = serve_and_play(federation, folder, tmp_path / "clients", train=on(federation.engine))
    assert [r.round_num for r in rounds] == [0, 1, 2, 3]
    assert visits == {"accepted": 16}
