"""The litert engine against the keras engine: the same batches, the same deltas by path."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from device_sim.engines import Task, open_engine, train_each
from device_sim.engines.trainers.litert import LitertTrainer, Programs
from export.runtimes import RUNTIMES
from export.training.apart import write_program
from export.training.session import SESSIONS
from fl_mobile.errors import ConfigError, VerifyError
from fl_mobile.local import LOSSES, OPTIMIZERS
from fl_mobile.records import FitPlan
from fl_mobile.seeds import rng_for
from tests.device_sim import exported_engine
from tests.device_sim.small_models import CLASSES, MODELS, SHAPE, frozen_base, subclassed, three_dense, with_batchnorm
from tests.export.training.runtimes import python_with_tflite_runtime

pytestmark = pytest.mark.tf

SCRIPT = exported_engine.__file__

PLAN = FitPlan(epochs=2, batch_size=4, learning_rate=0.05)


def task(device: int, count: int = 11) -> Task:
    rng = rng_for(5, device)
    x = rng.integers(0, 255, (count, *SHAPE)).astype(np.uint8)
    return Task(device, x, rng.integers(0, CLASSES, count), seed=device)


def litert(build: Any, workers: int = 1) -> Any:
    return open_engine("litert", build, task(0, 8).x, workers=workers)


def keras(build: Any) -> Any:
    return open_engine("keras", build, task(0, 8).x, workers=1)


def compare(build: Any, plan: FitPlan, bound: float = 2e-5) -> None:
    """Both engines train three devices; the second starts where nothing of the first may be left."""
    two, one = keras(build), litert(build)  # keras first: it sets TensorFlow to one thread
    plan = replace(plan, from_logits=one.from_logits)
    assert one.from_logits == two.from_logits
    tasks = [task(d, n) for d, n in enumerate((11, 4, 7))]
    both = zip(train_each(one, one.initial, tasks, plan), train_each(two, two.initial, tasks, plan), strict=True)
    for (done, mine), (_, theirs) in both:
        assert list(mine.delta) == list(one.spec)
        assert mine.num_examples == theirs.num_examples == len(done.y)
        assert mine.metrics["loss"] == pytest.approx(theirs.metrics["loss"], rel=1e-4)
        for (path, a), b in zip(mine.delta.items(), theirs.delta.values(), strict=True):
            np.testing.assert_allclose(a, b, atol=bound * max(1.0, float(np.abs(b).max())), err_msg=path)
    mine, theirs = (e.evaluate(e.initial, *_held_out(), plan) for e in (one, two))
    assert (mine.accuracy, mine.examples) == (theirs.accuracy, theirs.examples)
    assert mine.loss == pytest.approx(theirs.loss, rel=1e-4)


def _held_out() -> tuple[np.ndarray, np.ndarray]:
    done = task(9, 37)
    return done.x, done.y


@pytest.mark.parametrize("name", MODELS)
def test_every_topology_trains_as_on_keras(name: str) -> None:
    compare(MODELS[name], PLAN)


@pytest.mark.sample(r"adam")
@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_every_optimizer(optimizer: str) -> None:
    rate = 1e-3 if optimizer == "adam" else 0.05
    compare(three_dense, replace(PLAN, optimizer=optimizer, learning_rate=rate), 1e-3 if optimizer == "adam" else 2e-5)


@pytest.mark.sample(r"sparse-categorical-crossentropy|huber")
@pytest.mark.parametrize("loss", [name for name, row in LOSSES.items() if row.one_per_class])
def test_every_loss(loss: str) -> None:
    compare(three_dense, replace(PLAN, loss=loss))


def test_proximal_term_and_clipping() -> None:
    compare(three_dense, replace(PLAN, proximal_mu=0.5, clip_gradient_norm=0.2, epochs=3))


def test_order_of_the_examples() -> None:
    compare(three_dense, replace(PLAN, shuffle=False))


def test_same_bits_for_any_number_of_workers() -> None:
    one, two = litert(with_batchnorm, 1), litert(with_batchnorm, 2)
    tasks = [task(d, 5 + 3 * d) for d in range(5)]
    alone = {t.device: next(iter(train_each(one, one.initial, [t], PLAN)))[1] for t in reversed(tasks)}
    for done, update in train_each(two, two.initial, tasks, PLAN):
        assert update.metrics == alone[done.device].metrics
        for a, b in zip(update.delta.values(), alone[done.device].delta.values(), strict=True):
            np.testing.assert_array_equal(a, b)
            assert np.any(a), "every travelling tensor must move"


def test_a_batch_larger_than_the_device_and_frozen_layers() -> None:
    compare(frozen_base, replace(PLAN, batch_size=16))


def test_dropout_depends_on_the_devices_seed() -> None:
    engine = litert(subclassed)
    plan = replace(PLAN, from_logits=engine.from_logits, shuffle=False)
    train = partial(train_each, engine, engine.initial, plan=plan)
    first, again, other = (next(iter(train([replace(task(1), seed=s)])))[1].metrics["loss"] for s in (1, 1, 2))
    assert first == again != other


@pytest.mark.slow
def test_all_examples_in_one_batch() -> None:
    """Devices of 11, 4 and 7 examples share programs of 16, 4 and 8 rows, masked."""
    compare(with_batchnorm, replace(PLAN, batch_size=0))


@pytest.mark.sample(r"(?!litert-compiled).*")
@pytest.mark.parametrize("runtime", [name for name in SESSIONS if RUNTIMES[name].missing() is None])
def test_every_runtime_trains_alike(runtime: str) -> None:
    one, two = litert(with_batchnorm), open_engine(runtime, with_batchnorm, task(0, 8).x, workers=2)
    tasks = [task(d, 6) for d in range(3)]
    runs = (train_each(engine, one.initial, tasks, PLAN) for engine in (one, two))
    for (_, mine), (_, theirs) in zip(*runs, strict=True):
        for path, a in mine.delta.items():
            np.testing.assert_allclose(a, theirs.delta[path], atol=1e-7, err_msg=path)


@pytest.mark.parametrize("runtime", [name for name in SESSIONS if RUNTIMES[name].missing() is not None])
def test_a_runtime_that_is_not_here_is_refused_with_how_to_get_it(runtime: str) -> None:
    with pytest.raises(ConfigError, match="pip install"):
        open_engine(runtime, with_batchnorm, task(0, 8).x)


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Any]:
    """A folder with a program and first weights, and the engine it was taken from."""
    folder, engine = tmp_path_factory.mktemp("program"), litert(with_batchnorm)
    (_, program) = Programs(with_batchnorm, task(0, 8).x).get(PLAN, PLAN.batch_size)
    write_program(folder, *program)
    np.savez(folder / "weights.npz", **{k.replace("/", "|"): v for k, v in engine.initial.items()})
    return folder, engine


@pytest.mark.parametrize("runtime", ["litert", "tflite-runtime"])
def test_an_exported_program_trains_in_threads_of_a_process_without_tensorflow(
    exported: tuple[Path, Any], runtime: str
) -> None:
    folder, engine = exported
    python = sys.executable if runtime == "litert" else str(python_with_tflite_runtime())
    done = subprocess.run([python, SCRIPT, folder, runtime], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    assert told["tensorflow"] is False
    tasks = [exported_engine.task(device) for device in range(3)]
    for found, (_, update) in zip(told["updates"], train_each(engine, engine.initial, tasks, PLAN), strict=True):
        want = [float(v.ravel()[0]) for v in update.delta.values()]
        np.testing.assert_allclose(found, want, atol=0 if runtime == "litert" else 1e-7)


def test_an_exported_program_trains_by_its_own_plan_only(exported: tuple[Path, Any]) -> None:
    programs = exported_engine.programs(exported[0])
    for plan in (replace(PLAN, batch_size=8), replace(PLAN, optimizer="adam"), replace(PLAN, proximal_mu=0.1)):
        with pytest.raises(ConfigError, match="was exported with"):
            programs.get(plan, plan.batch_size)
    with pytest.raises(ConfigError, match="correction"):
        programs.get(PLAN, PLAN.batch_size, pulled=True)


def test_a_damaged_program_reaches_no_runtime(exported: tuple[Path, Any]) -> None:
    whole = exported_engine.programs(exported[0])
    broken = replace(whole, program=(whole.program[0][:-1], whole.program[1]))
    with pytest.raises(VerifyError, match="bytes"):
        LitertTrainer(broken).train(whole.initial, [task(0, 4)], PLAN)
