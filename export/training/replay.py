"""The first steps of a training program from weights and a batch that everybody can draw: the answer it must repeat.

``python -m export.training.replay FOLDER RUNTIME`` prints the losses as JSON.
"""

from __future__ import annotations

import json
import sys
from math import prod, sqrt
from pathlib import Path

import numpy as np

from export.training.apart import read_program, run_apart
from export.training.contract import Contract, Weight
from export.training.session import SESSIONS, TrainingSession
from fl_mobile.errors import VerifyError
from fl_mobile.seeds import rng_for
from fl_mobile.tensors import Tensors

STEPS, _LEARNING_RATE = 3, 0.01


def replay_apart(folder: Path, runtime: str) -> list[float]:
    """Returns `first_losses` of the program in ``folder`` from a process of its own.

    Args:
        folder: What `write_program` wrote.
        runtime: Row of `SESSIONS`.

    Raises:
        VerifyError: The runtime refuses the program, or its process ended badly.
    """
    losses: list[float] = run_apart("export.training.replay", folder, runtime)
    return losses


def first_losses(session: TrainingSession) -> list[float]:
    """Returns the loss of `STEPS` steps on one drawn batch, and of the batch afterwards.

    Raises:
        VerifyError: Weights do not come out as they went in.
    """
    weights, x, y = _drawn(session.contract)
    session.set_weights(weights)
    for path, value in session.get_weights().items():
        if not np.array_equal(value, weights[path]):
            raise VerifyError(f"weight {path!r} does not come out as it went in")
    losses = [session.train(x, y, learning_rate=_LEARNING_RATE)[0] for _ in range(STEPS)]
    return [*losses, session.evaluate(x, y)[0] / len(x)]


def _drawn(contract: Contract) -> tuple[Tensors, np.ndarray, np.ndarray]:
    rng = rng_for(0, "replay")
    port = next(p for p in contract.signature("train").inputs if p.name == "x")
    x = rng.standard_normal(port.shape) if port.dtype == "float32" else rng.integers(0, 2, port.shape)
    return {w.path: _weight(w, rng) for w in contract.weights}, x.astype(port.dtype), np.arange(len(x)) % 2


def _weight(weight: Weight, rng: np.random.Generator) -> np.ndarray:
    """Returns kernels as He et al. (2015) start them, and positive vectors: a variance must be one."""
    if len(weight.shape) < 2:
        return rng.uniform(0.5, 1.0, weight.shape).astype(np.float32)
    return (rng.standard_normal(weight.shape) * sqrt(2 / prod(weight.shape[:-1]))).astype(np.float32)


def main(arguments: list[str]) -> None:
    """Prints the losses of one folder on one runtime."""
    folder, runtime = arguments
    print(json.dumps(first_losses(SESSIONS[runtime](*read_program(Path(folder))))))


if __name__ == "__main__":
    main(sys.argv[1:])
