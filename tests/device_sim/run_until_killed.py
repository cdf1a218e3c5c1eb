"""Runs or resumes a NumPy federation in this process: ``python -m tests.device_sim.run_until_killed RUN``."""

import sys
from pathlib import Path

from device_sim.experiment.toml import parse_experiment
from device_sim.run.folder import RunFolder, create, reopen
from device_sim.run.loop import restore, simulate
from fl_mobile.tensors import weights_hash
from tests.device_sim.numpy_engine import numpy_federation

EXPERIMENT = """
[data]
devices = 8
[train]
rounds = 12
cohort = 5
epochs = 2
learning-rate = 0.5
[server]
algorithm = "fedadam"
learning-rate = 0.1
[upload]
codec = "ecsq:step=1,rounding=rdo"
memory = "error-feedback"
budget-bytes = 250
[output]
keep-updates = 4
"""


def main(path: Path) -> None:
    folder = reopen(path)[0] if RunFolder(path).experiment.exists() else create(path, parse_experiment(EXPERIMENT))
    federation = numpy_federation(parse_experiment(EXPERIMENT))
    for _ in simulate(federation, folder):
        pass
    print(weights_hash(restore(federation, folder)[0].weights))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
