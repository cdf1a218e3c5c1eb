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

import pytest
from typer.testing import CliRunner

from device_sim.check import check_part
from device_sim.check.laws import LAWS
from device_sim.cli import make_app
from device_sim.experiment.experiment import sources_of
from device_sim.experiment.toml import parse_experiment, to_toml
from device_sim.run.folder import create
from device_sim.run.loop import simulate
from fl_mobile.codecs import admit_codec, parse_codec
from fl_mobile.errors import ConfigError, VerifyError
from fl_mobile.table import TABLES, own_rows, source_sha256
from tests.device_sim.numpy_engine import numpy_federation

MINE = "tests.device_sim.check.mine"
OF_TENSORFLOW = ("optimizer", "loss", "model")
ROWS = {
    "HALVES": "stage",
    "DAMPED": "algorithm",
    "MIDDLE": "aggregation",
    "SLOWER": "server-schedule",
    "AVERAGE": "averaging",
    "HEAVY": "optimizer",
    "SQUARES": "loss",
    "every_second": "schedule",
    "EVEN": "partition",
    "BARS": "dataset",
    "ANYBODY": "sampler",
    "ALWAYS": "policy",
    "LAZY": "attack",
    "SLOW_LINK": "link",
    "OLD_PHONE": "profile",
    "here_always": "availability",
    "build": "model",
}
BROKEN = {
    "CARELESS": "errs 24.00 times as much",
    "FORGETFUL": "expected float32",
    "JUMPING": "leaves [0, 1]",
    "MISMATCHED": "from Adam",
    "ONE_FOR_ALL": "expected a loss for each of 8",
    "LOST": "partition",
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


@pytest.mark.parametrize("name", marked({n: n for n in BROKEN}, ("MISMATCHED", "ONE_FOR_ALL")))
def test_it_catches(name: str) -> None:
    broken = [one.broken for one in check_part(f"{MINE}:{name}")[1] if one.broken]
    assert any(BROKEN[name] in told for told in broken), broken
    if name == "RAISING":
        assert f"{Path(__file__).with_name('mine.py')}, line " in broken[0]
    done = CliRunner().invoke(make_app(), ["check", f"{MINE}:{name}"])
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


KEYS = {
    "data.dataset": "BARS",
    "data.partition": "EVEN",
    "train.schedule": "every_second",
    "train.optimizer": "HEAVY",
    "train.loss": "SQUARES",
    "server.algorithm": "DAMPED",
    "server.aggregation": "MIDDLE",
    "server.schedule": "SLOWER",
    "server.averaging": "AVERAGE",
    "upload.codec": "HALVES",
    "fleet.profile": "OLD_PHONE",
    "fleet.link": "SLOW_LINK",
    "fleet.availability": "here_always",
    "selection.sampler": "ANYBODY",
    "policy.name": "ALWAYS",
}
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
"""


@pytest.mark.parametrize("change", ["server.algorithm=plugin:ROW", "upload.codec=plugin:STAGE+deflate"])
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
    code += "e = parse_experiment('', ['server.algorithm=very-damped'])\nprint(e.server.of_algorithm, sources_of(e))"
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


ELSEWHERE = f"""
import device_sim, warnings
warnings.simplefilter("error", UserWarning)  # ops have one thread: nothing used TensorFlow before
keys = dict(rounds=1, cohort=4, devices=8, epochs=1, workers=1, engine="keras", recipes=[], damping=0.25)
mine = dict(loss="SQUARES", optimizer="HEAVY", upload="HALVES", algorithm="DAMPED", partition="EVEN")
found = []
for pool in ("threads", "processes"):
    parts = {{key: f"{MINE}:{{name}}" for key, name in mine.items()}}
    with device_sim.simulate("{MINE}:build", "{MINE}:BARS", engine_pool=pool, **keys, **parts) as run:
        run.finish()
        found.append([v.tobytes() for update in run.updates for v in update.values()])
        assert "threads an op" not in run._federation.engine.about
assert found[0] == found[1]
"""


@pytest.mark.tf
def test_worker_processes_take_them_along(tmp_path: Path) -> None:
    """From a script without a guard, where nothing had used TensorFlow before."""
    (tmp_path / "script.py").write_text(ELSEWHERE)
    env = {k: v for k, v in os.environ.items() if k != "TF_NUM_INTRAOP_THREADS"}
    env["PYTHONPATH"] = str(Path(__file__).parents[3])
    done = subprocess.run([sys.executable, "script.py"], cwd=tmp_path, env=env, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]
