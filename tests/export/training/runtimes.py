"""Ten training steps of one program on any runtime; run as a script where only NumPy and tflite-runtime are installed.

``python runtimes.py FOLDER`` prints what `ten_steps` returns as JSON.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np

ROOT = Path(__file__).parents[3]
ENVIRONMENT = ROOT / ".venv-tflite"


def inputs(contract: Any) -> tuple[dict[str, np.ndarray], np.ndarray, np.ndarray]:
    """Returns weights and one batch, the same on every runtime: from raw bits, which are stable over NumPy versions."""
    raw = np.random.Generator(np.random.Philox(key=9)).bit_generator

    def draw(shape: tuple[int, ...], scale: float) -> np.ndarray:
        bits = raw.random_raw(max(int(np.prod(shape)), 1)).reshape(shape)
        return (((bits >> np.uint64(40)).astype(np.float32) / 2**24 - 0.5) * scale).astype(np.float32)

    weights = {w.path: np.abs(draw(w.shape, 0.2)) if not w.trainable else draw(w.shape, 0.2) for w in contract.weights}
    port = next(p for p in contract.signature("train").inputs if p.name == "x")
    x = draw(port.shape, 2.0)
    if port.dtype != "float32":
        x = (np.abs(x) * 5).astype(port.dtype)
    return weights, x, np.arange(contract.batch_size) % 2


def ten_steps(session: Any) -> dict[str, list[float]]:
    """Returns ten losses, then outputs, evaluation and a probe of every weight."""
    weights, x, y = inputs(session.contract)
    session.set_weights(weights)
    short = max(session.contract.batch_size - 3, 1)
    losses = [session.train(x, y, learning_rate=0.01, seed=3)[0] for _ in range(9)]
    losses.append(session.train(x[:short], y[:short], learning_rate=0.01, seed=3)[0])
    return {
        "losses": losses,
        "outputs": session.infer(x).ravel().astype(float).tolist(),
        "evaluation": list(session.evaluate(x, y)),
        "weights": [float(v.ravel()[i]) for v in session.get_weights().values() for i in (0, -1)],
    }


def python_with_tflite_runtime() -> Path:
    """Returns the interpreter of the old runtime's own environment, which the Makefile makes; skips without it."""
    if not (ENVIRONMENT / ".made").exists():
        import pytest

        pytest.skip("tflite-runtime 2.14 is not here: `make .venv-tflite/.made`, online and with Python 3.11")
    return ENVIRONMENT / "bin" / "python"


def main(folder: Path) -> None:
    """Prints the ten steps on tflite-runtime."""
    from tflite_runtime.interpreter import Interpreter

    from export.training import contract_from_json, open_session

    contract = contract_from_json(json.loads((folder / "train.json").read_text()))
    session = open_session((folder / "train.tflite").read_bytes(), contract, interpreter=Interpreter)
    print(json.dumps(ten_steps(session)))


if __name__ == "__main__":
    sys.path.insert(0, str(ROOT))
    main(Path(sys.argv[1]))
