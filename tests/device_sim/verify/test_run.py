"""`verify RUN` runs nothing that somebody else's run names, unless it is told to."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from device_sim.run.folder import RunFolder
from device_sim.verify.run import verify_run
from fl_mobile.errors import ConfigError, RunError
from tests.device_sim.report.made_runs import made_run


@pytest.mark.parametrize("key", ["model.name", "data.dataset", "server.algorithm"])
def test_code_of_another_run_is_not_imported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, key: str) -> None:
    run = made_run(tmp_path / "run")
    (tmp_path / "evil_module.py").write_text("raise SystemExit('ran')\n")
    monkeypatch.syspath_prepend(tmp_path)
    section, name = key.split(".")
    text = (run / "experiment.toml").read_text().splitlines()
    inside = ""
    for at, line in enumerate(text):
        inside = line.strip("[]") if line.startswith("[") else inside
        if inside == section and line.startswith(f"{name} ="):
            text[at] = f'{name} = "evil_module:build"'
    (run / "experiment.toml").write_text("\n".join(text) + "\n")
    with pytest.raises(ConfigError, match=rf"{key} = 'evil_module:build' names code.*--trust-code"):
        verify_run(RunFolder(run))
    assert "evil_module" not in sys.modules


def test_codecs_and_paths_with_colons_are_no_code(tmp_path: Path) -> None:
    run = made_run(tmp_path / "run", changes=["upload.codec=topk:0.05+q8", "data.path=C:somewhere"], finished=False)
    with pytest.raises(RunError, match="is not finished"):
        verify_run(RunFolder(run))


def test_told_to_trust_it_goes_on(tmp_path: Path) -> None:
    run = made_run(tmp_path / "run", changes=["model.name=some_module:build"], finished=False)
    with pytest.raises(RunError, match="is not finished"):
        verify_run(RunFolder(run), trust_code=True)
