"""What tuned recipes train on: never what is held out, never what devices hold unless their owners agreed."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from device_sim.datasets import Samples, load_dataset
from device_sim.experiment.experiment import Output
from device_sim.experiment.toml import parse_experiment
from device_sim.run.tuning_data import open_tuning_set
from export.convert.recipes import RECIPES, TUNED_RECIPES
from export.tuning import TuningSet
from fl_mobile.errors import ConfigError, DataError
from tests.device_sim.cli_runs import SMALL, fl_mobile, the_message


def samples(first: int, last: int) -> Samples:
    """Examples whose pixels hold their number."""
    numbers = np.arange(first, last)
    return Samples(np.tile(numbers[:, None, None, None], (1, 2, 2, 1)).astype(np.uint8), numbers.astype(np.int64) % 3)


def output(path: Path, part: Samples, **changes: object) -> Output:
    np.savez(path, x=part.x, y=part.y)
    return Output(recipes=("float32", "qat-int8"), tuning_data=str(path), **changes)  # type: ignore[arg-type]


def opened(wanted: Output, said: list[str] | None = None, on_devices: Samples | None = None) -> TuningSet:
    say = said.append if said is not None else lambda _: None
    examples = open_tuning_set(wanted, held_out=samples(0, 20), on_devices=on_devices, seed=3, say=say)
    assert examples is not None
    return examples


def numbers(examples: TuningSet) -> list[int]:
    return [int(x.flat[0]) for x in examples.x]


def test_held_out_and_device_examples_are_left_out(tmp_path: Path) -> None:
    said: list[str] = []
    examples = opened(output(tmp_path / "mine.npz", samples(10, 60)), said, on_devices=samples(15, 40))
    assert numbers(examples) == list(range(40, 60))
    assert (examples.y == np.arange(40, 60) % 3).all()
    assert said == ["tuning: 20 of 50 examples, without 10 that are held out and 20 that devices hold"]


def test_devices_examples_only_when_their_owners_agreed(tmp_path: Path) -> None:
    wanted = output(tmp_path / "mine.npz", samples(10, 60), tuning_origin="devices-agreed", tuning_epochs=2)
    examples = opened(wanted, on_devices=samples(15, 40))
    assert numbers(examples) == list(range(20, 60)), "held out stays held out"
    assert (examples.origin, examples.epochs, examples.seed) == ("devices-agreed", 2, 3)


def test_without_devices_only_the_held_out_part_is_left_out(tmp_path: Path) -> None:
    assert numbers(opened(output(tmp_path / "mine.npz", samples(10, 30), tuning_origin="server"))) == list(
        range(20, 30)
    )


def test_examples_are_compared_by_value_not_by_dtype(tmp_path: Path) -> None:
    part = samples(10, 30)
    as_float = Samples(part.x.astype(np.float32), part.y)
    assert numbers(opened(output(tmp_path / "mine.npz", as_float))) == list(range(20, 30))


def test_other_shapes_of_the_same_bytes_are_other_examples(tmp_path: Path) -> None:
    part = samples(0, 10)
    examples = opened(output(tmp_path / "mine.npz", Samples(part.x.reshape(10, 4, 1, 1), part.y)))
    assert len(examples.x) == 10


def test_nothing_left_says_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"none of its 10 examples.*10 that devices hold.*origin to devices-agreed"):
        opened(output(tmp_path / "mine.npz", samples(30, 40)), on_devices=samples(20, 90))


def test_a_dataset_gives_its_training_part() -> None:
    wanted = Output(recipes=("qat-int8",), tuning_data="synthetic")
    assert len(opened(wanted).x) == len(load_dataset("synthetic", seed=3).train)


def test_no_tuned_recipe_reads_nothing() -> None:
    wanted = Output(tuning_data="missing.npz")
    assert open_tuning_set(wanted, held_out=samples(0, 2), on_devices=None, seed=0, say=print) is None


def test_missing_file_is_named() -> None:
    with pytest.raises(DataError, match=r"missing\.npz"):
        opened(Output(recipes=("qat-int8",), tuning_data="missing.npz"))


@pytest.mark.parametrize("recipe", TUNED_RECIPES)
def test_tuned_recipes_need_data(recipe: str) -> None:
    with pytest.raises(ConfigError, match=rf"line 2: output.recipes: '{recipe}' trains the model further"):
        parse_experiment(f'[output]\nrecipes = ["{recipe}"]')
    assert parse_experiment(f'[output]\nrecipes = ["{recipe}"]\ntuning-data = "mnist"').output.tuning_data == "mnist"


@pytest.mark.parametrize("recipe", RECIPES)
def test_plain_recipes_need_none(recipe: str) -> None:
    assert parse_experiment(f'[output]\nrecipes = ["{recipe}"]').output.recipes == (recipe,)


@pytest.mark.parametrize(
    ("line", "says"),
    [
        ('recipes = ["int9"]', "output.recipes: .*Did you mean 'int8'"),
        ('recipes = ["int8", "int8"]', "output.recipes: each name once"),
        ('tuning-data = "mnist5k"', r"is no dataset and no .npz file\. Did you mean 'mnist-5k'"),
        ('tuning-origin = "device"', "unknown output.tuning-origin 'device'. Did you mean"),
        ("tuning-epochs = 0", "output.tuning-epochs must be above 0"),
    ],
)
def test_wrong_keys_are_refused_with_their_line(line: str, says: str) -> None:
    with pytest.raises(ConfigError, match=f"line 2: .*{says}"):
        parse_experiment(f"[output]\n{line}")


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model that knows its digits: tuning may not cost accuracy, and an untrained model has none to keep."""
    import keras

    train, layers = load_dataset("digits", seed=0).train, keras.layers
    keras.utils.set_random_seed(1)
    model = keras.Sequential(
        [
            layers.Input((8, 8, 1)),
            layers.Rescaling(1 / 255),
            layers.Flatten(),
            layers.Dense(32, activation="relu"),
            layers.Dense(10),
        ]
    )
    model.compile(keras.optimizers.Adam(3e-3), keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    model.fit(train.x.astype(np.float32), train.y, batch_size=32, epochs=20, verbose=0)
    path = tmp_path_factory.mktemp("trained") / "model.keras"
    model.save(path)
    return path


@pytest.mark.slow
@pytest.mark.tf
def test_the_command_exports_a_tuned_recipe(trained: Path, tmp_path: Path) -> None:
    pool = load_dataset("digits", seed=0).train
    np.savez(tmp_path / "pool.npz", x=pool.x, y=pool.y)
    arguments = ("export", trained, "--dataset", "digits", "--recipe", "qat-int8", "--format", "json", "--quiet")
    refused = fl_mobile(*arguments, "--out", tmp_path / "none")
    assert refused.code == ConfigError.exit_code
    assert "'qat-int8' trains the model further" in the_message(refused)

    ended = fl_mobile(
        *arguments, "--out", tmp_path / "bundle", "--tuning-data", tmp_path / "pool.npz", "--tuning-origin", "server"
    )
    assert ended.code == 0, ended.err
    assert [artifact["recipe"] for artifact in ended.json["artifacts"]] == ["qat-int8"]
    (told,) = json.loads((tmp_path / "bundle" / "report.json").read_text())["tunings"]
    assert (told["tuning"], told["origin"]) == ("qat", "server")
    assert len(pool) - 5 <= told["examples"] <= len(pool), "a few digits are drawn alike twice"


@pytest.mark.tf
def test_a_run_exports_a_tuned_recipe(tmp_path: Path) -> None:
    """Pixels one brighter are other examples, and as good to learn from."""
    pool = load_dataset("digits", seed=0).train
    np.savez(tmp_path / "public.npz", x=np.minimum(pool.x, 254) + 1, y=pool.y)
    changes = (
        *("model.name=mlp", "train.epochs=5", 'output.recipes=["float32", "qat-int8"]'),
        f"output.tuning-data={tmp_path / 'public.npz'}",
    )
    ended = fl_mobile(
        *("simulate", *SMALL, *(part for change in changes for part in ("--set", change)), "--rounds", "3"),
        *("--out", tmp_path / "run", "--format", "json"),
    )
    assert ended.code == 0, ended.err
    assert [artifact["recipe"] for artifact in ended.json["export"]["artifacts"]] == ["float32", "qat-int8"]
    (told,) = json.loads((tmp_path / "run" / "bundle" / "report.json").read_text())["tunings"]
    assert (told["origin"], told["examples"]) == ("public", len(pool))
