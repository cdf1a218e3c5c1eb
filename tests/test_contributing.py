"""CONTRIBUTING's table: its paths and tables are there, and a new row of each kind passes its laws and federates."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections import Counter
from pathlib import Path
from xml.etree import ElementTree

import pytest

ROOT = Path(__file__).parents[1]
TABLE = [
    [cell.strip() for cell in line.strip("|").split("|")]
    for line in (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8").splitlines()
    if line.startswith("| ") and not line.startswith("| to add")
]
LAWS = {
    "codec stage": "tests/fl_mobile/codecs/test_laws.py",
    "algorithm": "tests/fl_mobile/algorithms/test_algorithms.py",
    "aggregation rule": "tests/fl_mobile/aggregation/test_laws.py",
    "local optimizer": "tests/fl_mobile/local/test_optimizers.py",
    "sampler": "tests/device_sim/fleet/test_samplers.py",
    "update policy": "tests/device_sim/fleet/test_policies.py",
    "attack": "tests/device_sim/attacks/test_attacks.py",
    "partitioner": "tests/device_sim/client_data/test_partition.py",
    "dataset": "tests/device_sim/datasets/test_datasets.py",
    "phone class": "tests/device_sim/fleet/test_tables.py",
    "link": "tests/device_sim/fleet/test_tables.py",
}
FEDERATES = (*LAWS, "stratum", "engine")
ELSEWHERE = (
    *(
        "codec",
        "loss",
        "task",
        "metric",
        "model",
        "server mode",
        "export recipe",
        "on-phone runtime",
        "keys that cannot meet",
    ),
)
"""Kinds whose laws train or convert with TensorFlow, or that no key of an experiment names."""


@pytest.mark.parametrize("row", TABLE, ids=lambda row: row[0])
def test_every_path_and_table_that_is_named_exists(row: list[str]) -> None:
    kind, write, table, laws = row
    for path in re.findall(r"`([\w./]+/[\w./]*)`", f"{write} {table} {laws}"):
        assert (ROOT / path).exists(), f"{kind}: {path}"
    name, path = re.fullmatch(r"`([A-Z_]+)`, `([\w./]+)`", table).groups()  # type: ignore[union-attr]
    assert re.search(rf"^{name}(:| =)", (ROOT / path).read_text(encoding="utf-8"), re.MULTILINE), f"{kind}: {table}"
    assert name in "".join(
        p.read_text(encoding="utf-8") for p in _files(ROOT / re.findall(r"`(tests/[\w./]+)`", laws)[0])
    )


def _files(path: Path) -> list[Path]:
    return [path] if path.is_file() else sorted(path.glob("*.py"))


def test_every_kind_is_tried_or_said_to_be_tried_elsewhere() -> None:
    assert sorted(row[0] for row in TABLE) == sorted((*FEDERATES, *ELSEWHERE))


@pytest.fixture(scope="module")
def tried(tmp_path_factory: pytest.TempPathFactory) -> Counter[str]:
    """Runs the law suites over new rows from files that lie outside of the repository; counts what passed."""
    folder = tmp_path_factory.mktemp("rows")
    for name in ("first_rows", "rows"):
        shutil.copy(ROOT / "tests" / "brand_new" / f"{name}.py", folder / f"somebodys_{name}.py")
    report = folder / "report.xml"
    done = subprocess.run(
        [
            *(sys.executable, "-m", "pytest", "-p", "somebodys_first_rows", "-p", "somebodys_rows"),
            *("-p", "no:cacheprovider", f"--junitxml={report}"),
            *("-m", "not tf and not slow", "-k", "brandnew"),
            *sorted(set(LAWS.values())),
            "tests/brand_new/federations.py",
        ],
        cwd=ROOT,
        env=os.environ | {"PYTHONPATH": f"{folder}{os.pathsep}{ROOT}"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr
    cases = list(ElementTree.parse(report).iter("testcase"))
    return Counter(
        f"{case.attrib['classname']}::{case.attrib['name']}" for case in cases if case.find("skipped") is None
    )


@pytest.mark.parametrize("kind", LAWS)
def test_a_new_row_passes_the_laws_of_its_kind(kind: str, tried: Counter[str]) -> None:
    suite = LAWS[kind].removesuffix(".py").replace("/", ".")
    found = [name for name in tried if name.startswith(f"{suite}::") and "brandnew" in name]
    assert found, f"no law of {suite} ran over the new row"


@pytest.mark.parametrize("kind", FEDERATES)
def test_a_new_row_federates(kind: str, tried: Counter[str]) -> None:
    assert any(name.endswith(f"test_brandnew_federation[{kind}]") for name in tried)


def test_parameters_of_a_new_row_are_keys_that_are_checked(tried: Counter[str]) -> None:
    assert sum("test_brandnew_parameter_is_checked" in name for name in tried) == 5
