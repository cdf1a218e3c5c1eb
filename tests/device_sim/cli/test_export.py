"""What `fl-mobile export` says about models it cannot take."""

from __future__ import annotations

from pathlib import Path

import pytest

from fl_mobile.errors import ExportError
from tests.device_sim.cli_runs import fl_mobile, the_message

pytestmark = pytest.mark.tf


@pytest.fixture(scope="module")
def two_inputs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    import keras

    layers = keras.layers
    frame, sensors = layers.Input((8, 8, 1), name="camera"), layers.Input((4,), name="sensors")
    x = layers.Concatenate()([layers.Flatten()(frame), sensors])
    path = tmp_path_factory.mktemp("several") / "model.keras"
    keras.Model([frame, sensors], layers.Dense(10)(x), name="two_inputs").save(path)
    return path


def test_a_dataset_has_one_input(two_inputs: Path, tmp_path: Path) -> None:
    ended = fl_mobile("export", two_inputs, "--dataset", "digits", "--out", tmp_path / "bundle", "--quiet")
    assert ended.code == ExportError.exit_code
    assert "the model has 2 (camera [1, 8, 8, 1], sensors [1, 4]) inputs" in the_message(ended)
    assert not (tmp_path / "bundle").exists()


def test_the_training_program_takes_one_input(two_inputs: Path, tmp_path: Path) -> None:
    ended = fl_mobile("export", two_inputs, "--training", "--out", tmp_path / "program", "--quiet")
    assert ended.code == ExportError.exit_code
    assert "model 'two_inputs' has 2 inputs and 1 outputs (camera" in the_message(ended)
    assert not (tmp_path / "program").exists()
