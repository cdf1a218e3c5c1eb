"""`serve` and `client` as commands: the examples of their help, side by side, to the end of a run."""

from __future__ import annotations

import json
import subprocess
import threading
from pathlib import Path

import pytest

from fl_mobile.secure_sum.registry import read_registry
from tests.device_sim.cli.test_cli import examples
from tests.device_sim.cli_runs import command, environment, fl_mobile

pytestmark = [pytest.mark.tf, pytest.mark.slow]


def started(arguments: list[str], cwd: Path) -> subprocess.Popen[str]:
    return subprocess.Popen(
        command(*arguments),
        cwd=cwd,
        env=environment(),
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )


def is_serving(server: subprocess.Popen[str], seconds: float = 240) -> bool:
    """Waits until a server says that it serves; one that does not in time is killed."""
    assert server.stderr is not None
    limit = threading.Timer(seconds, server.kill)
    limit.start()
    try:
        return any("serving" in line for line in server.stderr)
    finally:
        limit.cancel()


def test_the_examples_of_serve_and_client_train_a_model_together(tmp_path: Path) -> None:
    check, deal, serve = examples("serve")
    one, fleet, keys = examples("client")
    for arguments in (check, deal):
        ended = fl_mobile(*arguments, cwd=tmp_path)
        assert ended.code == 0, (arguments, ended.err)
    (tmp_path / "registry.txt").write_text(fl_mobile(*keys, cwd=tmp_path).out)
    assert len(read_registry(tmp_path / "registry.txt")) == 20
    server = started(serve, tmp_path)
    assert is_serving(server)
    clients = [started([*arguments, "--state", f"kept-{i}"], tmp_path) for i, arguments in enumerate((one, fleet))]
    told = [child.communicate(timeout=500) for child in (*clients, server)]
    assert [child.returncode for child in (*clients, server)] == [0, 0, 0], told
    summary = json.loads((tmp_path / "served/summary.json").read_text())
    assert summary["rounds"] == 3
    assert {artifact["recipe"] for artifact in summary["export"]["artifacts"]} >= {"float32", "int8"}
    assert fl_mobile("verify", "served", cwd=tmp_path).code == 0


def test_a_second_coordinator_is_refused_and_a_standby_takes_over_from_one_that_is_killed(
    tmp_path: Path, database: str
) -> None:
    _, _, serve = examples("serve")
    command = [*serve, "--port", "0", "--no-export", *(("--database", database) if database else ())]
    server = started(command, tmp_path)
    assert is_serving(server)
    second = fl_mobile(*command, cwd=tmp_path)
    assert (second.code, "another process" in second.err) == (7, True)
    standby = started([*command, "--standby"], tmp_path)
    try:
        with pytest.raises(subprocess.TimeoutExpired):
            standby.wait(20)
        server.kill()
        server.communicate(timeout=60)
        assert is_serving(standby)
    finally:
        for each in (server, standby):
            each.kill()
            each.communicate(timeout=60)
