"""Three devices on an exported program in two threads; run as a script where TensorFlow is not loaded.

``python exported_engine.py FOLDER RUNTIME`` prints the first number of every tensor of every update as JSON.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).parents[2]))

import numpy as np

from device_sim.engines import Task, train_each
from device_sim.engines.pools.pooled import LocalWorker, PooledEngine
from device_sim.engines.trainers.litert import ExportedPrograms, LitertTrainer
from export.training import contract_from_json
from fl_mobile.records import FitPlan

PLAN = FitPlan(epochs=2, batch_size=4, learning_rate=0.05)


def task(device: int) -> Task:
    """Returns the same examples for any version of NumPy's generators."""
    values = np.arange((6 + device) * 36, dtype=np.int64) * (7919 + device) % 251
    return Task(device, values.astype(np.uint8).reshape(-1, 6, 6, 1), np.arange(6 + device) % 3, seed=device)


def programs(folder: Path) -> ExportedPrograms:
    """Returns the program and weights of a folder."""
    contract = contract_from_json(json.loads((folder / "train.json").read_text()))
    with np.load(folder / "weights.npz") as file:
        initial = {key.replace("|", "/"): file[key] for key in file.files}
    return ExportedPrograms(((folder / "train.tflite").read_bytes(), contract), initial)


def main(folder: Path, runtime: str) -> None:
    """Prints the updates and whether TensorFlow was loaded."""
    source = programs(folder)
    engine = PooledEngine([LocalWorker(LitertTrainer(source, runtime)) for _ in range(2)])
    done = train_each(engine, source.initial, [task(device) for device in range(3)], PLAN)
    updates = [[float(v.ravel()[0]) for v in update.delta.values()] for _, update in done]
    engine.close()
    loaded = "tensorflow" in sys.modules or "keras" in sys.modules
    print(json.dumps({"updates": updates, "tensorflow": loaded}))


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2])
