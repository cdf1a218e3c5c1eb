"""Nothing grows with rounds: neither the process nor what it remembers of devices on disk."""

from __future__ import annotations

import os
from pathlib import Path

import psutil
import pytest

from device_sim.experiment.toml import parse_experiment
from device_sim.run.folder import create
from device_sim.run.loop import restore, simulate
from fl_mobile.server.publish import VERSIONS_KEPT
from tests.device_sim.fault_sweep import CONFIGURATIONS, PLAIN
from tests.device_sim.numpy_engine import numpy_federation

DEVICES, ROUNDS, SETTLED = 12, 300, 100
"""All devices have taken part, and the shelf holds all the versions it ever will, after `SETTLED` rounds."""


@pytest.mark.slow
@pytest.mark.parametrize("configuration", CONFIGURATIONS)
def test_memory_and_disk_are_flat_over_rounds(tmp_path: Path, configuration: str) -> None:
    changes = (*CONFIGURATIONS[configuration], f"data.devices={DEVICES}", "train.cohort=4", f"train.rounds={ROUNDS}")
    federation = numpy_federation(parse_experiment(PLAIN, changes))
    folder = create(tmp_path / "run", federation.experiment)
    process, rss, files, size = psutil.Process(), [], [], []
    for _ in simulate(federation, folder):
        kept = list(os.scandir(folder.memory)) if folder.memory.exists() else []
        rss.append(process.memory_info().rss)
        files.append(len(kept))
        size.append(sum(entry.stat().st_size for entry in kept) + folder.checkpoint.stat().st_size)
    assert SETTLED > VERSIONS_KEPT
    assert max(rss[SETTLED:]) < 1.02 * rss[SETTLED]
    assert max(files) <= 2 * DEVICES + VERSIONS_KEPT + 1
    assert max(files[SETTLED:]) <= max(files[:SETTLED]) + DEVICES
    assert max(size[SETTLED:]) < 1.1 * max(size[:SETTLED])
    in_the_checkpoint = restore(federation, folder)[0].mean is not None
    assert files[-1] > 1 or in_the_checkpoint, "nothing was remembered, so nothing was shown"
