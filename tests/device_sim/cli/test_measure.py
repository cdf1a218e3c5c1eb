"""``fl-mobile measure`` on a source, a file, a run's updates, and on what is none of these."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from device_sim.cli.simulate import byte_count
from device_sim.experiment.toml import parse_experiment
from device_sim.run.folder import create
from device_sim.run.loop import simulate
from fl_mobile.errors import ConfigError
from fl_mobile.measurements.sources import write_update
from tests.device_sim.numpy_engine import numpy_federation
from tests.device_sim.run_until_killed import EXPERIMENT


def measure(*words: str) -> subprocess.CompletedProcess[str]:
    command = [str(Path(sys.executable).with_name("fl-mobile")), "measure", *words]
    return subprocess.run(command, capture_output=True, text=True, timeout=120)


def test_a_source_as_json_with_a_plot(tmp_path: Path) -> None:
    plot = tmp_path / "plot.svg"
    done = measure(
        "gaussian", "q8", "ecsq", "--size", "2000", "--repeats", "4", "--plot", str(plot), "--format", "json"
    )
    assert done.returncode == 0, done.stderr
    found = {m["codec"]: m for m in json.loads(done.stdout)}
    assert found["q8"]["ratio"] == pytest.approx(8000 / found["q8"]["packet_bytes_median"], rel=0.01)
    assert found["ecsq"]["ratio"] > found["q8"]["ratio"]
    assert plot.read_text().startswith("<?xml")


def test_every_codec_on_the_updates_a_run_kept(tmp_path: Path) -> None:
    federation = numpy_federation(parse_experiment(EXPERIMENT))
    list(simulate(federation, create(tmp_path / "run", federation.experiment)))
    done = measure(str(tmp_path / "run"), "--repeats", "2", "--quiet", "--format", "json")
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert len(found) > 20
    assert len({m["codec"] for m in found}) == len(found)
    assert all(m["updates"] == 4 and m["packet_bytes_median"] > 44 for m in found)


def test_a_single_file_as_a_table(tmp_path: Path) -> None:
    write_update(tmp_path / "u.npz", {"w": np.linspace(-1, 1, 400, dtype=np.float32)})
    done = measure(str(tmp_path / "u.npz"), "q4")
    assert done.returncode == 0, done.stderr
    assert "1 updates of 400 values" in done.stdout


@pytest.mark.parametrize(
    ("words", "code", "told"),
    [
        (["nowhere"], 4, "gaussian"),
        (["gaussian", "q99"], 3, "unknown codec"),
        (["gaussian", "q8", "--size", "0"], 2, ""),
    ],
)
def test_mistakes(words: list[str], code: int, told: str) -> None:
    done = measure(*words)
    assert done.returncode == code
    assert told in done.stderr
    assert "Traceback" not in done.stderr


def test_upload_budgets_are_sizes() -> None:
    assert [byte_count(text) for text in ("20kB", "1.5 MB", "900", "0.5k")] == [20_000, 1_500_000, 900, 500]
    with pytest.raises(ConfigError, match="20kB"):
        byte_count("lots")
