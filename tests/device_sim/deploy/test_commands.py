"""`serve` and `client` as commands: the examples of their help, side by side, to the end of a run."""

from __future__ import annotations

import contextlib
import json
import socket
import sqlite3
import subprocess
import threading
import time
from pathlib import Path

import pytest

from device_sim.datasets.scaling import column_names
from device_sim.experiment.toml import parse_experiment
from device_sim.federation.dealing import loaded, open_dataset
from device_sim.run.folder import reopen
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


def is_serving(server: subprocess.Popen[str], seconds: float = 240, *, says: str = "serving") -> bool:
    """Waits until a server says that it serves, or something else; one that does not in time is killed."""
    assert server.stderr is not None
    limit = threading.Timer(seconds, server.kill)
    limit.start()
    try:
        return any(says in line for line in server.stderr)
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


def test_sums_come_before_round_1_also_to_a_server_that_is_killed_meanwhile(tmp_path: Path) -> None:
    keys = ("data.dataset=diabetes", "data.devices=3", "model.name=tabular-mlp", "train.cohort=2", "train.rounds=1")
    sets = [part for key in keys for part in ("--set", key)]
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = str(free.getsockname()[1])
    serve = ["serve", "--out", "served", "--port", port, "--sums", "3", "--retry-seconds", "1", "--no-export", *sets]
    assert fl_mobile("serve", "--deal", "data", *sets, cwd=tmp_path).code == 0
    children = [started(serve, tmp_path)]
    try:
        assert is_serving(children[0], says="asking the first 3 devices")
        for number in range(3):
            data = ["--server", f"http://127.0.0.1:{port}", "--data", f"data/client-{number:06d}.npz"]
            children.append(started(["client", *data, "--state", f"kept-{number}"], tmp_path))
            if number == 0:
                counted = "SELECT COUNT(*) FROM statistics"
                with contextlib.closing(sqlite3.connect(tmp_path / "served/coordinator/coordinator.db")) as db:
                    for _ in range(600):
                        if db.execute(counted).fetchone()[0]:
                            break
                        time.sleep(0.1)
                    assert db.execute(counted).fetchone()[0] == 1
                children[0].kill()
                children.append(started(serve, tmp_path))
        told = [child.communicate(timeout=300) for child in children[1:]]
    finally:
        for child in children:
            child.kill()
    assert [child.returncode for child in children[1:]] == [0] * 4, told
    scaling = open_dataset(parse_experiment("", keys)).scaling
    assert scaling is not None
    gathered = reopen(tmp_path / "served")[1]
    means = dict(zip(column_names(loaded(gathered)), [*scaling.mean, *scaling.target_mean], strict=True))
    found = {name: float(pair.partition(":")[0]) for name, pair in (c.rsplit("=", 1) for c in gathered.data.scaling)}
    assert found == means
