"""Parts of one's own: found by name, checked by their kind's laws, hashed, carried along, never run for a stranger."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner

from device_sim.check import check_part
from device_sim.check.laws import LAWS
from device_sim.cli import make_app
from device_sim.experiment.experiment import sources_of
from device_sim.experiment.toml import parse_experiment, to_toml
from device_sim.run.best import best_round
from device_sim.run.folder import create
from device_sim.run.loop import simulate
from export.convert.conversion import convert_apart
from export.convert.recipes import RECIPES, asked_for
from export.convert.to_tflite import to_tflite
from fl_mobile.codecs import admit_codec, parse_codec
from fl_mobile.errors import ConfigError, ExportError, VerifyError
from fl_mobile.table import TABLES, own_parts_named, own_rows, source_sha256
from fl_mobile.tasks import check_further
from tests.device_sim.check import mine
from tests.device_sim.check.mine import KEYS, ROWS, elsewhere
from tests.device_sim.numpy_engine import numpy_federation

MINE = "tests.device_sim.check.mine"
OF_TENSORFLOW = ("optimizer", "loss", "model", "recipe")
BROKEN = {
    "CARELESS": "errs 24.00 times as much",
    "FORGETFUL": "expected float32",
    "JUMPING": "leaves [0, 1]",
    "MISMATCHED": "from Adam",
    "ONE_FOR_ALL": "expected a loss for each of 8",
    "LOST": "partition",
    "SHORT": "expected a device for each of 600 examples, got shape (3,) (",
    "FALLING_ODDS": "of right answers and",
    "RAISING_ODDS": "IndexError: list index out of range",
    "WIDE_ODDS": "expected a number",
    "COARSE": "is not the Keras model",
    "UNABLE": "LookupError: no such converter",
    "RAISING": "ZeroDivisionError: division by zero",
}


@pytest.fixture(autouse=True)
def tables_as_shipped() -> Iterator[None]:
    """Rows of one's own stay in their tables until the process ends, and others here read the tables too."""
    before = {kind: dict(table) for kind, table in TABLES.items()}
    yield
    for kind, rows in before.items():
        TABLES[kind].clear()
        TABLES[kind].update(rows)


def marked(names: dict[str, Any], of_tensorflow: tuple[str, ...]) -> list[Any]:
    return [pytest.param(n, marks=pytest.mark.tf if of in of_tensorflow else ()) for n, of in names.items()]


def test_every_kind_has_laws_and_a_row_here() -> None:
    assert set(TABLES) | {"model"} == set(LAWS) - ({"codec"} - set(TABLES))
    assert set(ROWS.values()) == set(LAWS) - {"codec"}


@pytest.mark.parametrize("name", marked(ROWS, OF_TENSORFLOW))
def test_a_row_of_ones_own_passes_the_laws_of_its_kind(name: str) -> None:
    kind = ROWS[name] if name.islower() else ""
    found_kind, found = check_part(f"{MINE}:{name}", kind)
    assert found_kind == ROWS[name]
    assert not [one for one in found if one.broken]


@pytest.mark.parametrize("name", marked({n: n for n in BROKEN}, ("MISMATCHED", "ONE_FOR_ALL", "COARSE", "UNABLE")))
def test_it_catches(name: str) -> None:
    broken = [one.broken for one in check_part(f"{MINE}:{name}")[1] if one.broken]
    assert any(BROKEN[name] in told for told in broken), broken
    if name in ("RAISING", "RAISING_ODDS", "UNABLE"):
        assert f"{Path(__file__).with_name('mine.py')}, line " in broken[0]


def test_the_verb_tells_what_is_broken() -> None:
    done = CliRunner().invoke(make_app(), ["check", f"{MINE}:FORGETFUL"])
    assert done.exit_code == VerifyError.exit_code
    assert "BROKEN" in done.output


SHIPPED = [
    (kind, name)
    for kind, table in TABLES.items()
    if kind not in (*OF_TENSORFLOW, "codec", "stage", "dataset", "link", "profile", "schedule", "availability")
    for name in table
    if (kind, name) != ("averaging", "none")
]


@pytest.mark.parametrize(("kind", "name"), SHIPPED)
def test_the_laws_hold_for_what_is_shipped(kind: str, name: str) -> None:
    row = TABLES[kind][name]
    for law in LAWS[kind]:
        law.holds(row, name)


SMALL = ["server.damping=0.25", "data.devices=8", "train.cohort=6", "train.rounds=2", "train.epochs=1"]
ALL = [*(f"{key}={MINE}:{name}" for key, name in KEYS.items()), *SMALL]


def test_every_table_takes_package_module_name(tmp_path: Path) -> None:
    """Two rounds in NumPy; the file that is written says the same, the hash covers the source."""
    experiment = parse_experiment("", ALL)
    assert parse_experiment(to_toml(experiment)) == experiment
    assert experiment.server.of_algorithm.damping == 0.25
    assert sources_of(experiment) == dict.fromkeys(
        sorted(f"{MINE}:{name}" for name in KEYS.values()), source_sha256(f"{MINE}:HALVES")
    )
    assert {(TABLES_OF[key], f"{MINE}:{name}") for key, name in KEYS.items()} <= set(own_rows())
    federation = numpy_federation(parse_experiment("", [c for c in ALL if not c.startswith("train.optimizer")]))
    rounds = list(simulate(federation, create(tmp_path / "run", federation.experiment)))
    assert [done.accepted > 0 for done in rounds] == [True, True]


TABLES_OF = {key: ROWS[name] for key, name in KEYS.items()}

PLUGIN = """
import pathlib
pathlib.Path({trace!r}).write_text("run")
from tests.device_sim.check.mine import damped, Damping, AlgorithmRow, StageRow, Halves
ROW = AlgorithmRow(damped, Damping)
STAGE = StageRow(lambda argument: Halves("plugin:STAGE"), "plugin:STAGE", "halves")
from tests.device_sim.check.mine import ODDS as METRIC
"""


@pytest.mark.parametrize(
    "change",
    ["server.algorithm=plugin:ROW", "upload.codec=plugin:STAGE+deflate", 'output.metrics=["plugin:METRIC"]'],
)
def test_verify_of_a_strangers_run_imports_nothing(change: str, tmp_path: Path) -> None:
    """In a process of its own; the source is part of the hash, and a run does not go on with another one."""
    trace = tmp_path / "trace"
    (tmp_path / "plugin.py").write_text(PLUGIN.format(trace=str(trace)))
    code = f"""
    from pathlib import Path
    from device_sim.experiment.experiment import experiment_hash
    from device_sim.experiment.toml import parse_experiment
    from device_sim.run.folder import check_sources, create
    experiment = parse_experiment("", [{change!r}])
    folder = create(Path("run"), experiment)
    before = experiment_hash(experiment)
    Path("plugin.py").write_text(Path("plugin.py").read_text() + "# another comment")
    assert experiment_hash(experiment) != before
    try: check_sources(folder, experiment)
    except Exception as error: print(error)
    """
    root = str(Path(__file__).parents[3])
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code)],
        cwd=tmp_path,
        env={"PYTHONPATH": root, "PATH": ""},
        capture_output=True,
        text=True,
    )
    assert "the source of plugin:" in done.stdout, done.stderr
    trace.unlink()
    code = "from pathlib import Path; from device_sim.run.folder import RunFolder\n"
    code += "from device_sim.verify.run import verify_run\nverify_run(RunFolder(Path('run')))"
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, env={"PYTHONPATH": root}, capture_output=True, text=True
    )
    assert "--trust-code" in done.stderr.splitlines()[-1]
    assert not trace.exists(), "verify ran a stranger's code"


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (f'output.recipes=["{MINE}:NAMESAKE"]', "its name 'float32' is that of another recipe"),
        (f'output.recipes=["{MINE}:LOOSE"]', "tolerance and integer_frames must be those of its conversion, 'float32'"),
        (f'output.recipes=["{MINE}:UNJUDGED"]', r"conversion must name the recipe that judges it \(float32, .*got ''"),
        (f'output.recipes=["{MINE}:PATHLIKE"]', "expected a name of a-z, 0-9 and -"),
        (f'output.metrics=["{MINE}:odds"]', r"expected a Metric of fl_mobile.tasks.metrics, got function \(.*mine.py"),
        (f'output.metrics=["{MINE}:HALVES"]', "expected a Metric of fl_mobile.tasks.metrics, got StageRow"),
        ('output.metrics=["f1"]', "unknown output.metrics 'f1'"),
        ("output.keep-by=macro-f1", "unknown output.keep-by 'macro-f1'"),
        ("server.algorithm=nowhere.at.all:ROW", "cannot import nowhere.at.all: ModuleNotFoundError"),
        (f"server.algorithm={MINE}:DAMPD", "mine.py has no 'DAMPD'.*Did you mean 'DAMPED'"),
        (f"server.algorithm={MINE}:HALVES", "expected a AlgorithmRow of fl_mobile.algorithms.base, got StageRow"),
        (f"server.algorithm={MINE}:damped", r"got function \(.*mine.py, line \d+\)"),
        (f"fleet.link={MINE}:SHARED_LINK", "share must be 0, got 0"),
        (f"upload.codec={MINE}:MISNAMED", "its name must be what it is found by"),
        ("upload.codec=nowhere:STAGE", "unknown codec stage 'nowhere:STAGE'"),
    ],
)
def test_what_leads_to_no_row_is_told_with_its_place(change: str, told: str) -> None:
    with pytest.raises(ConfigError, match=told) as caught:
        parse_experiment("", [change])
    assert "\n" not in str(caught.value)


def test_parts_of_codecs() -> None:
    text = f"topk:0.1+{MINE}:HALVES+deflate"
    admit_codec(text)
    assert parse_codec(parse_codec(text).name).name == parse_codec(text).name == text
    admit_codec(f"{MINE}:WHOLE")
    assert parse_codec(f"{MINE}:WHOLE").name == "q8"
    with pytest.raises(ConfigError, match="unknown codec stage"):
        parse_codec("somebodys.codecs:STAGE")  # what came over a wire loads nothing
    with pytest.raises(ConfigError, match="say --kind model"):
        check_part(f"{MINE}:build")
    with pytest.raises(ConfigError, match="a object is no row of a table"):
        check_part(f"{MINE}:NOTHING")


def test_installed_packages_register_rows(tmp_path: Path) -> None:
    """An entry point of group ``fl_mobile.<kind>`` is a name like those of the table."""
    info = tmp_path / "somebodys-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: somebodys\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(f"[fl_mobile.algorithm]\nvery-damped = {MINE}:DAMPED\n")
    code = "from device_sim.experiment.toml import parse_experiment\nfrom device_sim.experiment.experiment import *\n"
    code += "e = parse_experiment('', ['server.damping=0.5', 'server.algorithm=very-damped'])\n"
    code += "from device_sim.experiment.keywords import changes_of\n"
    code += "changes_of(dict(damping=0.5, algorithm='very-damped'))\n"
    code += "print(e.server.of_algorithm, sources_of(e))"
    root = str(Path(__file__).parents[3])
    done = subprocess.run(
        [sys.executable, "-c", code], env={"PYTHONPATH": f"{root}:{tmp_path}"}, capture_output=True, text=True
    )
    assert "damping=0.5" in done.stdout, done.stderr
    assert source_sha256(f"{MINE}:DAMPED") in done.stdout


def test_check_as_json() -> None:
    done = CliRunner().invoke(make_app(), ["check", f"{MINE}:EVEN", "--format", "json"])
    assert done.exit_code == 0, done.output
    told = json.loads(done.stdout)
    assert told["kind"] == "partition"
    assert [law["broken"] for law in told["laws"]] == ["", ""]


@pytest.mark.slow
@pytest.mark.tf
def test_worker_processes_take_them_along(tmp_path: Path) -> None:
    """From a script without a guard, where nothing had used TensorFlow before."""
    (tmp_path / "script.py").write_text(elsewhere(("threads", "processes")))
    env = {k: v for k, v in os.environ.items() if k != "TF_NUM_INTRAOP_THREADS"}
    env["PYTHONPATH"] = str(Path(__file__).parents[3])
    done = subprocess.run([sys.executable, "script.py"], cwd=tmp_path, env=env, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]


def test_a_metric_of_ones_own_is_told_each_round_and_chooses_the_best(tmp_path: Path) -> None:
    metrics = f'output.metrics=["{MINE}:ODDS", "top-3"]'
    experiment = parse_experiment("", [metrics, "output.keep=best", f"output.keep-by={MINE}:ODDS", *SMALL[1:]])
    assert parse_experiment(to_toml(experiment)) == experiment
    federation = numpy_federation(experiment)
    rounds = list(simulate(federation, create(tmp_path / "run", federation.experiment)))
    odds = [done.metrics[f"{MINE}:ODDS"] for done in rounds]
    n = len(federation.dataset.test.y)
    assert odds == pytest.approx([n * done.accuracy / (1 + n * (1 - done.accuracy)) for done in rounds])
    best = best_round(experiment, rounds)
    assert best is not None
    assert best.metrics[f"{MINE}:ODDS"] == max(odds)


@pytest.mark.parametrize(
    ("name", "told"),
    [
        (f"{MINE}:RAISING_ODDS", r"metric .*:RAISING_ODDS: IndexError: .*mine.py, line \d+\)"),
        (f"{MINE}:WIDE_ODDS", r"expected a number or None, got shape \(2,\) \(.*mine.py, line \d+\)"),
        ("r2", "KeyError: 'squares'.*The tally of task 'classification' has: count, right, confusion"),
    ],
)
def test_a_metric_that_breaks_is_told_before_training(name: str, told: str) -> None:
    parse_experiment("", [f'output.metrics=["{name}"]'])
    with pytest.raises(ConfigError, match=told):
        check_further("classification", [name], np.arange(8), 10)


@pytest.mark.tf
def test_a_bundle_of_a_recipe_of_ones_own_is_verified_without_its_code(tmp_path: Path) -> None:
    import keras

    from export import bundle, verify_bundle

    keras.utils.set_random_seed(0)
    model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(3)])
    report = bundle(
        model, np.eye(4, dtype=np.float32).repeat(10, 0), out=tmp_path / "b", recipes=[f"{MINE}:HALF_WEIGHTS"]
    )
    assert [(one.file, one.conversion) for one in report.variants] == [("half-weights.tflite", "float16")]
    RECIPES.pop(f"{MINE}:HALF_WEIGHTS")  # as in a process that never heard of it
    assert [replay.recipe for replay in verify_bundle(tmp_path / "b").replays][:1] == ["half-weights"]


@pytest.mark.slow
@pytest.mark.tf
def test_a_larger_model_is_converted_by_a_recipe_of_ones_own_in_another_process() -> None:
    import keras

    model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(3)])
    with convert_apart() as convert:
        assert to_tflite(model, asked_for(f"{MINE}:HALF_WEIGHTS"), convert=convert)
        with pytest.raises(ExportError, match=r"recipe 'unable': LookupError.*mine.py, line"):
            to_tflite(model, asked_for(f"{MINE}:UNABLE"), convert=convert)


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ("policy.name=RAISING", "^policy .*:RAISING: ZeroDivisionError: division by zero"),
        ("selection.sampler=NOBODY", "^sampler .*:NOBODY: ZeroDivisionError: division by zero"),
        ("server.aggregation=WIDE_MIDDLE", "^ValueError: .*; parts of your own in use: aggregation .*:WIDE_MIDDLE "),
    ],
)
def test_what_breaks_in_a_run_is_told_with_part_file_and_line(change: str, told: str, tmp_path: Path) -> None:
    key, _, name = change.partition("=")

    @own_parts_named()
    def play() -> None:
        federation = numpy_federation(parse_experiment("", [f"{key}={MINE}:{name}", *SMALL[1:]]))
        list(simulate(federation, create(tmp_path / "run", federation.experiment)))

    with pytest.raises(ConfigError, match=told) as caught:
        play()
    assert f"({mine.__file__}, line {_line_of(name)})" in str(caught.value)
    assert "\n" not in str(caught.value)


def _line_of(name: str) -> int:
    lines = Path(mine.__file__).read_text().splitlines()
    return next(number for number, text in enumerate(lines, 1) if text.startswith(f"{name} ="))


def test_a_broken_law_is_told_with_file_and_line() -> None:
    (broken,) = (one.broken for one in check_part(f"{MINE}:JUMPING")[1] if one.broken)
    assert broken.endswith(f"({mine.__file__}, line {_line_of('JUMPING')})")


def test_other_peoples_errors_stay_what_they_are() -> None:
    with pytest.raises(KeyError), own_parts_named():
        raise KeyError("of nobody")
