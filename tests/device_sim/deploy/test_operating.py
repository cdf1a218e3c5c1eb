"""Unit and container file: as far as a machine without systemd and containers can tell."""

from __future__ import annotations

import configparser
import shlex
import shutil
import subprocess
from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner

from device_sim.cli import make_app
from fl_mobile.errors import ConfigError

ROOT = Path(__file__).parents[3]
UNIT, CONTAINER = ROOT / "deploy" / "fl-mobile.service", ROOT / "deploy" / "Containerfile"
WORKER = ROOT / "deploy" / "fl-mobile-worker@.service"


def options_of(command: list[str]) -> set[str]:
    return {word for word in command if word.startswith("--")}


def known_options() -> set[str]:
    group = typer.main.get_command(make_app())
    return {name for parameter in group.commands["serve"].params for name in parameter.opts}  # type: ignore[attr-defined]


@pytest.mark.parametrize("path", [UNIT, WORKER], ids=["master", "worker"])
def test_a_unit_starts_a_command_that_exists_and_ends_it_as_ctrl_c_does(path: Path) -> None:
    unit = configparser.ConfigParser(strict=False, interpolation=None)
    unit.optionxform = str  # type: ignore[assignment,method-assign]
    unit.read_string(path.read_text())
    command = shlex.split(unit["Service"]["ExecStart"])
    assert command[1] == "serve"
    assert options_of(command) <= known_options()
    assert (unit["Service"]["KillSignal"], unit["Service"]["Restart"]) == ("SIGINT", "on-failure")


def test_the_container_copies_what_the_wheel_needs_and_starts_a_command_that_exists() -> None:
    lines = CONTAINER.read_text().splitlines()
    copied = [word for line in lines if line.startswith("COPY") for word in line.split()[1:-1]]
    assert all((ROOT / name).exists() for name in copied)
    needed = {"pyproject.toml", "hatch_build.py", "README.md", "LICENSE", "fl_mobile", "device_sim", "export"}
    assert needed <= set(copied)
    entry = next(line for line in lines if line.startswith("ENTRYPOINT"))
    command = [word.strip('[]", ') for word in entry.removeprefix("ENTRYPOINT ").split(",")]
    assert command[:2] == ["fl-mobile", "serve"]
    assert options_of(command) <= known_options()


def test_systemd_reads_the_unit() -> None:
    if not shutil.which("systemd-analyze"):
        pytest.skip("systemd is not installed")
    told = subprocess.run(["systemd-analyze", "verify", str(UNIT)], capture_output=True, text=True).stderr
    assert "Unknown" not in told
    assert "Failed to parse" not in told


def test_help_of_both_commands_needs_no_server() -> None:
    for verb in ("serve", "client"):
        assert CliRunner().invoke(make_app(), [verb, "--help"]).exit_code == 0


def test_a_worker_is_refused_what_it_cannot_do() -> None:
    for options, told in (
        ([], "--worker needs --database postgresql"),
        (["--check"], "--worker plays no round"),
        (["--standby"], "--worker plays no round"),
    ):
        ended = CliRunner().invoke(make_app(), ["serve", "--worker", *options])
        assert ended.exit_code == ConfigError.exit_code
        assert told in " ".join(ended.stderr.split())
