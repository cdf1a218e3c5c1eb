"""Trainers in actors of a Ray cluster: for more machines than one.

```
weights ─▶ object store, once a round ─▶ every machine's actors read one copy
chunk   ─▶ a free actor; if it is lost, another one in its place
```
A chunk's results depend on its arguments alone, so what a lost actor was doing is done again, to the same bytes. All
machines need the same versions of Python, fl-mobile and TensorFlow.
"""

from __future__ import annotations

import logging
import os
import shutil
import socket
import tempfile
from collections.abc import Callable
from typing import Any, TypeVar

from device_sim.engines.pools.pooled import PooledEngine
from device_sim.engines.pools.processes import Desk
from device_sim.engines.records import Trainer
from fl_mobile.errors import ConfigError, RunError
from fl_mobile.table import own_rows

ATTEMPTS = 3
"""How many actors may be lost over one chunk: more is the chunk's fault, e.g. that it does not fit into memory."""

START_SECONDS = 300
"""How long an actor may take until it has imported TensorFlow from a cold disk and built its model."""

ANSWER_SECONDS = 10
"""How long a cluster's address may take to answer."""

OBJECT_STORE_BYTES = 256 * 2**20
"""Shared memory of a cluster that is started here: some rounds' weights and chunks under way; more goes to disk."""

T = TypeVar("T")


def open_ray_engine(open_trainer: Callable[[], Trainer], workers: int, address: str) -> PooledEngine:
    """Returns an engine whose trainers live in a Ray cluster.

    Args:
        open_trainer: Makes a trainer, in its actor; must be picklable.
        workers: How many actors; 0 is one for every core that nobody in the cluster has reserved.
        address: ``auto`` or ``host:port`` of a running cluster; empty starts one on this machine, and ends it.

    Raises:
        ConfigError: Ray is not installed, there is no such cluster, or it has not as many free cores.
        RunError: The cluster does not start the actors.
    """
    try:
        import ray
    except ModuleNotFoundError:
        raise ConfigError("engine ray needs Ray: pip install 'fl-mobile[ray]'") from None

    leave = _join(address, workers)
    try:
        count = _reserve(workers)
        return PooledEngine([RayWorker(open_trainer) for _ in range(count)], share=ray.put, leave=leave)
    except BaseException:
        leave()
        raise


class RayWorker:
    """A trainer in an actor; starts at once. An actor that is lost is replaced.

    Args:
        open_trainer: Makes the trainer, in the actor; must be picklable.
    """

    shares_memory = False

    def __init__(self, open_trainer: Callable[[], Trainer]) -> None:
        self._open_trainer = open_trainer
        self._actor = self._start(cores=1)

    def call(self, work: Callable[..., T], *args: Any) -> T:
        """Returns ``work(trainer, *args)``; an object reference among ``args`` arrives as what it refers to.

        Raises:
            RunError: Actors were lost over and over, or none can be started.
        """
        import ray
        from ray import exceptions

        for _ in range(ATTEMPTS):
            try:
                ray.get(self._actor.__ray_ready__.remote(), timeout=START_SECONDS)
                fine, result = ray.get(self._actor.call.remote(work, *args))
            except exceptions.GetTimeoutError:
                raise RunError(
                    f"the Ray cluster did not start an engine worker within {START_SECONDS} s; is a node with a free"
                    " core alive (`ray status`)? Continue with --resume."
                ) from None
            except (exceptions.RayActorError, exceptions.ObjectLostError) as error:
                lost = error
                self.close()
                # Reserves nothing: the nodes that are left take a lost node's work on top of theirs.
                self._actor = self._start(cores=0)
                continue
            if not fine:
                raise result
            answer: T = result
            return answer
        raise RunError(
            f"Ray lost {ATTEMPTS} engine workers one after another over the same work ({_told(lost)}); if machines are"
            " out of memory, use fewer engine.workers. Continue with --resume."
        )

    def close(self) -> None:
        """Ends the actor."""
        import ray

        ray.kill(self._actor)

    def _start(self, cores: int) -> Any:
        import ray

        return ray.remote(num_cpus=cores, max_restarts=0)(Desk).remote(self._open_trainer, own_rows())


def _join(address: str, workers: int) -> Callable[[], None]:
    """Connects to a cluster, or starts one; returns what leaves or ends it."""
    import ray
    from ray import exceptions

    if ray.is_initialized():  # by the program around us, whose it stays
        return _nothing
    quiet = {"log_to_driver": False, "logging_level": logging.ERROR}
    if address:
        try:
            _knock(address)
            ray.init(address, **quiet)
        except (OSError, RuntimeError, ValueError, exceptions.RayError) as error:
            raise ConfigError(
                f"engine.ray-address '{address}': no Ray cluster answers ({_told(error)}). Expected auto or HOST:PORT"
                " of one that runs; start it with `ray start --head`, or leave the address empty."
            ) from None
        return ray.shutdown
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # a simulation tells nobody that it runs
    folder = tempfile.mkdtemp(prefix="ray-")

    def end() -> None:
        ray.shutdown()
        shutil.rmtree(folder, ignore_errors=True)

    try:
        ray.init(
            "local",
            num_cpus=workers or os.cpu_count(),
            object_store_memory=OBJECT_STORE_BYTES,
            include_dashboard=False,
            _temp_dir=folder,
            **quiet,
        )
    except BaseException:
        end()
        raise
    return end


def _knock(address: str) -> None:
    """Raises `OSError` or `ValueError` where nobody listens, which Ray itself takes minutes to notice."""
    if address != "auto":
        host, _, port = address.rpartition(":")
        socket.create_connection((host, int(port)), ANSWER_SECONDS).close()


def _reserve(workers: int) -> int:
    """Returns how many actors to start, each on a core of its own."""
    import ray

    free = int(ray.available_resources().get("CPU", 0))
    if free < max(workers, 1):
        raise ConfigError(
            f"engine.workers {workers}: the Ray cluster has {free} cores that nobody has reserved. Ask for fewer"
            " (0 takes all that are free), or add nodes (`ray start --address HOST:PORT`)."
        )
    return workers or free


def _told(error: Exception) -> str:
    """Returns the first line of what Ray says."""
    return str(error).strip().partition("\n")[0]


def _nothing() -> None:
    pass
