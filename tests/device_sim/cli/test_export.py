"""What `fl-mobile export` says about models it cannot take."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from fl_mobile.errors import ExportError, ModelError
from tests.device_sim.cli_runs import fl_mobile, the_message
from tests.device_sim.run.test_keras_file import LAYERS

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


def test_layers_of_ones_own_go_the_whole_way(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """`--import MODULE` from the working directory: an artifact and a training program, both proven."""
    import keras

    (tmp_path / "layers_of_a_person.py").write_text(LAYERS)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    import layers_of_a_person as own  # type: ignore[import-not-found]

    model = keras.Sequential(
        [keras.layers.Input((8, 8, 1)), keras.layers.Flatten(), own.Twice(), keras.layers.Dense(10, "softmax")]
    )
    model.save("mine.keras")
    del sys.modules["layers_of_a_person"]
    asked = ("export", "mine.keras", "--dataset", "digits", "--quiet")
    ended = fl_mobile(*asked, "--recipe", "float32", "--out", "without")
    assert ended.code == ModelError.exit_code
    assert "--import MODULE" in the_message(ended)
    for out, more in (("bundle", ("--recipe", "float32")), ("program", ("--training",))):
        ended = fl_mobile(*asked, *more, "--import", "layers_of_a_person", "--out", out)
        assert ended.code == 0, ended.err
        assert fl_mobile("verify", out).code == 0
    sys.modules.pop("layers_of_a_person", None)
