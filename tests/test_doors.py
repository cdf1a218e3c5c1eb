"""Three doors, one a package: their names, what they cost, that types know them, and what comes out of two of them."""

from __future__ import annotations

import json
import math
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

import device_sim
import export
import fl_mobile
from fl_mobile.errors import ConfigError, DataError, SpecMismatch

NAMES = {
    device_sim: ["Report", "Round", "Run", "simulate"],
    export: [
        "BundleProof",
        "BundleReport",
        "CORE_RECIPES",
        "RECIPES",
        "RUNTIMES",
        "bundle",
        "export_model",
        "verify_bundle",
    ],
    fl_mobile: [
        "Codec",
        "FlMobileError",
        "Measurement",
        "Measurements",
        "Tensors",
        "__version__",
        "measure",
        "parse_codec",
    ],
}
"""What a user may rely on; whoever changes it says so in CHANGELOG.md."""


@pytest.mark.parametrize("package", NAMES, ids=lambda package: package.__name__)
def test_the_names_of_each_door(package: ModuleType) -> None:
    assert sorted(package.__all__) == sorted(NAMES[package])
    folder = Path(str(package.__file__)).parent
    assert (folder / "py.typed").exists()
    modules = {path.stem for path in folder.iterdir()}
    for name in NAMES[package]:
        assert name not in modules, f"a module named {name} would hide it"
        value = getattr(package, name)
        assert not callable(value) or (value.__doc__ or "").strip()
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = package.nothing


@pytest.mark.parametrize("package", ["device_sim", "fl_mobile"])
def test_a_door_alone_costs_nothing(package: str) -> None:
    code = f"import sys, {package}; assert not {{'numpy', 'keras', 'tensorflow'}} & sys.modules.keys()"
    subprocess.run([sys.executable, "-c", code], check=True, capture_output=True)


def test_types_know_every_name(tmp_path: Path) -> None:
    lines = [f"reveal_type({p.__name__}.{name})" for p, names in NAMES.items() for name in names]
    script = tmp_path / "names.py"
    script.write_text("import device_sim, export, fl_mobile\n" + "\n".join(lines))
    cache = str(tmp_path / "cache")
    config = str(Path(fl_mobile.__file__).parents[1] / "pyproject.toml")
    command = [sys.executable, "-m", "mypy", "--follow-imports=silent", "--config-file", config, "--cache-dir", cache]
    done = subprocess.run([*command, str(script)], capture_output=True, text=True, cwd=tmp_path)
    told = [line for line in done.stdout.splitlines() if "Revealed type" in line]
    assert len(told) == len(lines), done.stdout
    assert not [line for line in told if '"Any"' in line]


UPDATES = [{"w": np.random.default_rng(i).laplace(size=(40, 10)).astype(np.float32)} for i in range(2)]


def test_a_table_of_codecs_is_read_by_people_and_programs(tmp_path: Path) -> None:
    found = fl_mobile.measure(UPDATES, ["q8+deflate", fl_mobile.parse_codec("ecsq")], repeats=2)
    assert [row.codec for row in found] == [found[0].codec, found["ecsq"].codec] == ["q8+deflate", "ecsq"]
    text = str(found).splitlines()
    assert len(text) == len(found) + 1 == 3
    assert len({len(line) for line in text}) == 1
    assert text[1].startswith("ecsq"), "the smallest first"
    rows = json.loads(found.to_json(tmp_path / "table.json"))
    assert rows == json.loads((tmp_path / "table.json").read_text()) == [row.to_json() for row in found]
    header, *lines = found.to_csv().splitlines()
    assert header.split(",") == list(rows[0])
    assert [float(line.split(",")[header.split(",").index("ratio")]) for line in lines] == [row.ratio for row in found]
    assert found._repr_html_().count("<tr>") == 3
    found.plot(tmp_path / "table.svg")
    with pytest.raises(ConfigError, match=r"unknown measured codec 'esq'.*Did you mean 'ecsq'"):
        _ = found["esq"]


def test_a_table_is_a_frame_where_pandas_is() -> None:
    pd = pytest.importorskip("pandas")
    found = fl_mobile.measure([{"w": np.zeros(9, np.float32)}], ["sign"], repeats=2)
    frame = found.to_frame()
    assert isinstance(frame, pd.DataFrame)
    assert frame.loc[0, "packet_bytes_median"] == found[0].packet_bytes_median
    assert list(frame.columns) == list(found[0].to_json())


def test_without_pandas_a_frame_is_refused_in_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pandas", None)
    with pytest.raises(ConfigError, match=r"pip install pandas; .to_csv"):
        fl_mobile.measure(UPDATES, ["q8"], repeats=2).to_frame()


@pytest.mark.parametrize(
    ("updates", "told"),
    [
        ([], "expected a list of updates, each tensor name → array .run.updates., got none"),
        ([np.zeros(3)], "got ndarray"),
        ([{}], "got dict"),
        ([{"w": np.full(3, np.nan)}], "update 0, 'w': holds NaN"),
        ([{"w": np.zeros(3)}, {"w": np.zeros(4)}], "update 1: is of another model"),
        ("nowhere", "no run folder"),
    ],
)
def test_updates_that_cannot_be_measured(updates: object, told: str) -> None:
    with pytest.raises((DataError, SpecMismatch), match=told) as caught:
        fl_mobile.measure(updates, ["q8"], repeats=2)  # type: ignore[arg-type]
    assert "\n" not in str(caught.value)


def test_a_table_never_says_that_infinite_is_a_number() -> None:
    found = fl_mobile.measure([{"w": np.full(9, 1e-38, np.float32)}], ["topk:0.1"], repeats=2)
    assert all(
        v is None or not isinstance(v, float) or math.isfinite(v) for v in json.loads(found.to_json())[0].values()
    )


@pytest.mark.tf
def test_frames_and_names_are_enough_for_a_bundle(tmp_path: Path) -> None:
    import keras

    model = keras.Sequential(
        [keras.Input((8, 8, 1)), keras.layers.Rescaling(1 / 255), keras.layers.Flatten(), keras.layers.Dense(3)]
    )
    x = np.random.default_rng(0).integers(0, 256, (60, 8, 8, 1)).astype(np.uint8)
    report = export.bundle(model, frames=x, labels=["a", "b", "c"], recipes=["int8"], out=tmp_path / "bundle")
    assert [(v.recipe, v.file) for v in report.variants] == [("int8", "int8.tflite")]
    assert (report.samples, report.calibration_frames, report.keras_accuracy) == (30, 30, None)
    assert (tmp_path / "bundle" / "labels.txt").read_text() == "a\nb\nc\n"
    assert export.verify_bundle(tmp_path / "bundle").replays
