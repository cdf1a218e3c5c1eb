"""The keyboard's layers: the cell as its formula has it, the embedding both ways, and both from a file."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from device_sim.run.keras_file import read_model, write_model
from fl_mobile.models import build_model, keras_bridge

pytestmark = pytest.mark.tf
WORDS, STEPS = 11, 5


@pytest.fixture(scope="module")
def model():
    return build_model("next-word-lstm", input_shape=(STEPS,), num_classes=WORDS, input_scale=1.0, seed=3)


def sigmoid(x: np.ndarray) -> np.ndarray:
    return 1 / (1 + np.exp(-x))


def scores(weights: dict[str, np.ndarray], tokens: np.ndarray) -> np.ndarray:
    """Returns what the formula of `CifgCell` gives, in float64."""
    table, kernel, recurrent, projection, bias = (value.astype(np.float64) for value in weights.values())
    told, cell = np.zeros((len(tokens), table.shape[1])), np.zeros((len(tokens), projection.shape[0]))
    out = []
    for step in range(tokens.shape[1]):
        keep, gate, new = np.split(table[tokens[:, step]] @ kernel + told @ recurrent + bias, 3, axis=1)
        cell = sigmoid(keep) * cell + (1 - sigmoid(keep)) * np.tanh(new)
        told = sigmoid(gate) * np.tanh(cell) @ projection
        out.append(told @ table.T)
    return np.stack(out, axis=1)


def test_the_model_is_its_formula(model):
    tokens = np.random.default_rng(0).integers(0, WORDS, (4, STEPS)).astype(np.int32)
    weights = keras_bridge.read(model)
    assert [path.rpartition("/")[2] for path in weights] == [
        *("embeddings", "kernel", "recurrent_kernel", "projection_kernel", "bias")
    ]
    np.testing.assert_allclose(model(tokens).numpy(), scores(weights, tokens), atol=1e-5)


def test_it_begins_by_remembering_and_counts_each_word_once(model):
    weights = keras_bridge.read(model)
    bias = weights["cifg/cifg_cell/bias"]
    assert bias[:128].tolist() == [1.0] * 128
    assert not bias[128:].any()
    assert sum(value.shape == (WORDS, 32) for value in weights.values()) == 1, "scores are by the same vectors"


def test_a_file_of_it_is_read_without_naming_its_layers(model, tmp_path: Path):
    write_model(tmp_path / "model.keras", model)
    tokens = np.arange(STEPS, dtype=np.int32)[None]
    assert np.array_equal(read_model(tmp_path / "model.keras")(tokens), model(tokens))
