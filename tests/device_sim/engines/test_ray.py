"""Actors of a real Ray cluster give what threads give, also when a node is killed in the middle of a round."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import psutil
import pytest

from device_sim.engines import ENGINES, Engine, Evaluation, Task, Trainer, open_engine
from device_sim.engines.pools.pooled import LocalWorker, PooledEngine
from device_sim.engines.pools.ray import RayWorker
from device_sim.engines.trainers.keras import KerasTrainer
from device_sim.experiment.experiment import Engine as EngineKeys
from device_sim.experiment.experiment import Experiment, experiment_hash
from device_sim.experiment.toml import parse_experiment
from fl_mobile.errors import ConfigError, RunError
from fl_mobile.records import FitPlan, Update
from fl_mobile.tensors import Tensors
from tests.device_sim.check.mine import elsewhere
from tests.device_sim.numpy_engine import NumpyTrainer, stripes
from tests.device_sim.run_contents import difference
from tests.device_sim.worker_runs import KERAS_EPOCHS, NUMPY_EPOCHS, OURS, die, fail, run, small_model

NUMPY = partial(NumpyTrainer, 144, 3)
KERAS = partial(KerasTrainer, small_model, stripes().train.x[:8])


def on_ray(open_trainer: Callable[[], Trainer], workers: int, address: str = "") -> PooledEngine:
    pytest.importorskip("ray", reason="Ray is an extra: pip install 'fl-mobile[ray]'")
    from device_sim.engines.pools.ray import open_ray_engine

    return open_ray_engine(open_trainer, workers, address)


def test_ray_is_asked_for_where_it_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(ConfigError, match=r"pip install 'fl-mobile\[ray\]'"):
        open_engine("ray", small_model, stripes().train.x[:8])


def test_keys_that_do_not_fit_are_refused() -> None:
    assert parse_experiment("", ["engine.name=ray", "engine.ray-address=auto"]).engine.ray_address == "auto"
    assert parse_experiment("", ["engine.name=keras", "engine.pool=ray", "engine.ray-address=a:1"]).engine.pool == "ray"
    with pytest.raises(ConfigError, match="ray-address is only for"):
        parse_experiment("", ["engine.name=keras", "engine.ray-address=auto"])
    with pytest.raises(ConfigError, match="pool must be ray for 'ray', got 'threads'"):
        parse_experiment("", ["engine.name=ray", "engine.pool=threads"])


def test_a_run_can_go_on_without_its_cluster() -> None:
    hashes = {name: experiment_hash(Experiment(engine=EngineKeys(name))) for name in ENGINES}
    assert hashes["ray"] == hashes["auto"]
    assert len(set(hashes.values())) == len(ENGINES) - 1, "every other engine has its own last bits"


@pytest.mark.parametrize("address", ["127.0.0.1:1", "nonsense", "auto"])
def test_an_address_where_nobody_answers_is_told(address: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    with pytest.raises(ConfigError, match=rf"engine.ray-address '{address}': no Ray cluster answers"):
        on_ray(NUMPY, 1, address)


@pytest.mark.slow
def test_any_number_of_actors_leaves_the_bytes_of_a_run_in_threads(tmp_path: Path) -> None:
    expected = in_threads(NUMPY, tmp_path, NUMPY_EPOCHS)
    for count in (1, 2):
        found = run(on_ray(NUMPY, count), tmp_path / str(count))
        assert not difference(expected, found)
    assert not [p for p in psutil.Process().children(recursive=True) if "ray" in p.name()], (
        "Ray is gone with its engine"
    )


@pytest.mark.slow
def test_what_goes_wrong_in_an_actor_is_told_as_if_it_had_gone_wrong_here() -> None:
    ray = pytest.importorskip("ray", reason="Ray is an extra: pip install 'fl-mobile[ray]'")
    ray.init("local", num_cpus=1, include_dashboard=False, log_to_driver=False)
    worker = RayWorker(NUMPY)
    for error in OURS:
        with pytest.raises(type(error)) as caught:
            worker.call(fail, error)
        assert (str(caught.value), vars(caught.value)) == (str(error), vars(error))
    with pytest.raises(RunError, match=r"Ray lost 3 engine workers .*Continue with --resume"):
        worker.call(die)
    assert worker.call(type) is NumpyTrainer, "it goes on"
    worker.close()
    ray.shutdown()


@pytest.mark.slow
def test_actors_take_rows_of_ones_own_along(tmp_path: Path) -> None:
    """Model, optimizer, loss and codec of somebody's own module; in a process of its own, whose tables are its own."""
    pytest.importorskip("ray", reason="Ray is an extra: pip install 'fl-mobile[ray]'")
    (tmp_path / "script.py").write_text(elsewhere(("threads", "ray")))
    env = {k: v for k, v in os.environ.items() if k != "TF_NUM_INTRAOP_THREADS"}
    env["PYTHONPATH"] = str(Path(__file__).parents[3])
    done = subprocess.run([sys.executable, "script.py"], cwd=tmp_path, env=env, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]


@pytest.fixture(scope="module")
def cluster() -> Iterator[Any]:
    """One node with one core, which the drivers of the tests run on, and which cannot be lost."""
    pytest.importorskip("ray", reason="Ray is an extra: pip install 'fl-mobile[ray]'")
    from ray.cluster_utils import Cluster

    made = Cluster(initialize_head=True, head_node_args=NODE)
    yield made
    made.shutdown()


NODE = {"num_cpus": 1, "object_store_memory": 80 * 2**20, "include_dashboard": False}


@pytest.mark.slow
def test_more_actors_than_there_are_cores_are_refused(cluster: Any) -> None:
    with pytest.raises(ConfigError, match=r"engine\.workers 2: the Ray cluster has 1 cores"):
        on_ray(NUMPY, 2, cluster.address)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("open_trainer", "epochs"),
    [
        pytest.param(NUMPY, NUMPY_EPOCHS, id="numpy"),
        pytest.param(KERAS, KERAS_EPOCHS, id="keras", marks=pytest.mark.tf),
    ],
)
def test_a_node_killed_in_the_middle_of_a_round_changes_no_byte(
    open_trainer: Callable[[], Trainer], epochs: int, cluster: Any, tmp_path: Path
) -> None:
    expected = in_threads(open_trainer, tmp_path, epochs)
    node, mark = cluster.add_node(**NODE), tmp_path / "trained"
    engine = on_ray(partial(Doomed, open_trainer, node.node_id, mark), 0, cluster.address)
    assert engine.workers == 2, "a core of each node"
    with ThreadPoolExecutor(1) as threads:
        playing = threads.submit(run, engine, tmp_path / "ray", epochs)
        while not mark.exists():
            assert not playing.done(), playing.result()
            time.sleep(0.05)
        cluster.remove_node(node, allow_graceful=False)
        assert not difference(expected, playing.result())


def in_threads(open_trainer: Callable[[], Trainer], path: Path, epochs: int) -> dict[str, str]:
    engine: Engine = PooledEngine([LocalWorker(open_trainer()) for _ in range(2)])
    return run(engine, path / "threads", epochs)


class Doomed:
    """A trainer that, on one node, trains a chunk, says so, and is still there when its node is killed.

    Args:
        open_trainer: Who really trains.
        node: Which node, by Ray's id.
        mark: File that is made when the chunk is trained and nobody has heard of it.
    """

    def __init__(self, open_trainer: Callable[[], Trainer], node: str, mark: Path) -> None:
        import ray

        self._inner, self._mark = open_trainer(), mark
        self._doomed = ray.get_runtime_context().get_node_id() == node
        self.spec, self.initial = self._inner.spec, self._inner.initial
        self.from_logits, self.about = self._inner.from_logits, self._inner.about
        self.time_steps = self._inner.time_steps

    def train(self, weights: Tensors, tasks: Sequence[Task], plan: FitPlan) -> list[Update]:
        updates = self._inner.train(weights, tasks, plan)
        if self._doomed:
            self._mark.touch()
            time.sleep(600)
        return updates

    def score(self, weights: Tensors, tasks: Sequence[Task], plan: FitPlan) -> list[Evaluation]:
        return self._inner.score(weights, tasks, plan)
