"""Accuracy against bytes of masked sums, beside `ecsq` and no codec: logistic regression on digits, three seeds.

```
python benchmarks/masks.py
```
Masks change no bit of a sum (`tests/device_sim/rounds/test_masked.py`), so keys are free here, of the same lengths.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

import numpy as np
import pytest

sys.path.insert(0, str(Path(__file__).parents[1]))

from device_sim.experiment.toml import parse_experiment
from device_sim.federation.dealing import data_of, open_dataset
from device_sim.federation.federation import assemble
from device_sim.fleet.devices.timing import Workload
from device_sim.run.folder import create
from device_sim.run.log import Round
from device_sim.run.loop import simulate
from tests.device_sim import numpy_engine
from tests.fl_mobile.secure_sum.parties import make_free

COMMON = (
    *("data.dataset=digits", "data.devices=100", "train.cohort=20", "train.rounds=60", "train.learning-rate=0.3"),
    *("output.recipes=[]", "fleet.link=wifi", "fleet.dropout-rate=0.05", "evaluation.interval=10"),
)
MASKED = "masks.group=20"
RUNS: dict[str, tuple[str, ...]] = {
    "none": ("upload.codec=none", "server.weighting=uniform"),
    "ecsq": ("upload.codec=ecsq", "server.weighting=uniform"),
    **{f"masked sketch:k={k}": (MASKED, f"upload.codec=sketch:k={k}") for k in (512, 256, 128)},
}


def played(*changes: str) -> list[Round]:
    """Returns the rounds of a run."""
    experiment = parse_experiment("", (*COMMON, *changes))
    dataset = open_dataset(experiment)
    inputs, classes = dataset.train.x[0].size, dataset.num_classes
    engine = numpy_engine.numpy_engine(numpy_engine.NumpyTrainer(inputs, classes))
    size = (inputs + 1) * classes
    workload = Workload(size, size, size)
    federation = assemble(experiment, dataset, data_of(experiment, dataset), engine, workload, lambda: None)
    with tempfile.TemporaryDirectory() as folder:
        return list(simulate(federation, create(Path(folder) / "run", experiment)))


def main() -> None:
    """Prints a row a codec: accuracy of each seed, bytes of a mean packet, and of the protocol beside it."""
    numpy_engine._flat = lambda x: x.reshape(len(x), -1).astype(np.float32) / np.float32(max(x.max(), 1))  # type: ignore[assignment]
    make_free(pytest.MonkeyPatch())
    for name, changes in RUNS.items():
        runs = [played(*changes, f"seed={seed}") for seed in range(3)]
        uploads = sum(r.uploads for rounds in runs for r in rounds)
        keys = sum(r.masks.get("up", 0) for rounds in runs for r in rounds)
        sent = sum(r.upload_bytes for rounds in runs for r in rounds)
        scores = [f"{100 * (rounds[-1].accuracy or 0):.2f}" for rounds in runs]
        print(f"{name:20} {' '.join(scores)}  {(sent - keys) / uploads:6.0f} B  + {keys / uploads:5.0f} B", flush=True)


if __name__ == "__main__":
    main()
