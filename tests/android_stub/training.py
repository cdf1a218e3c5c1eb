"""A training program and what it answers: `training/`, which Java's engines must repeat.

``python -m tests.android_stub.training`` writes the folder anew: twenty steps of LiteRT on examples that both draw.
"""

from __future__ import annotations

import base64
import json
from pathlib import Path
from typing import Any

import numpy as np

from export.training.contract import Contract, contract_from_json
from export.training.session import open_session
from fl_mobile.seeds import uniform
from fl_mobile.tensors import cut
from tests.android_stub.vectors import values_of
from tests.fl_mobile.samples import philox

FOLDER = Path(__file__).parent / "training"
STEPS, RATE = 20, 0.1

EXPERIMENT = """
[data]
dataset = "digits"
devices = 12
[model]
name = "logistic"
[train]
rounds = 1
cohort = 8
"""


def shipped() -> tuple[bytes, Contract]:
    """Returns the committed program and its contract."""
    value = json.loads((FOLDER / "contract.json").read_text(encoding="utf-8"))
    return (FOLDER / "train.tflite").read_bytes(), contract_from_json(value)


def replayed(tflite: bytes, contract: Contract) -> dict[str, Any]:
    """Returns losses and last weights of the steps, as LiteRT computes them."""
    session, size = open_session(tflite, contract), contract.batch_size
    values = sum(t.size for t in contract.spec.values())
    first = (uniform(philox(99), values) - np.float32(0.5)) * np.float32(0.125)
    session.set_weights(cut(first, contract.spec))
    port = next(p for p in contract.signature("train").inputs if p.name == "x")
    losses = []
    for step in range(STEPS):
        x = np.floor(uniform(philox(step), int(np.prod(port.shape))) * 256).reshape(port.shape)  # pixels, uint8
        y = (np.arange(size) * 7 + step) % 10
        losses.append(session.train(x, y, learning_rate=RATE)[0])
    return {"losses": losses, "weights": base64.b64encode(values_of(session.get_weights())).decode()}


def main() -> None:
    """Builds the program with TensorFlow, and records."""
    from device_sim.deploy.opening import deployable, open_deployed
    from device_sim.experiment.toml import parse_experiment

    federation, programs = open_deployed(deployable(parse_experiment(EXPERIMENT, ())))
    federation.engine.close()
    FOLDER.mkdir(exist_ok=True)
    (FOLDER / "train.tflite").write_bytes(programs["training"])
    (FOLDER / "contract.json").write_bytes(programs["training-contract"])
    (FOLDER / "replay.json").write_text(json.dumps(replayed(*shipped())) + "\n", encoding="utf-8")
    print("wrote", FOLDER)


if __name__ == "__main__":
    main()
