"""[train.qat] and [train.pruning] on Keras: which engines round, with what result, and what the others say."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from device_sim.engines import ENGINES, open_engine, train_each
from device_sim.experiment.toml import parse_experiment
from device_sim.federation.federation import open_federation
from device_sim.run.folder import create
from device_sim.run.loop import restore, simulate
from export.convert.recipes import RECIPES
from export.convert.to_tflite import to_tflite
from export.tuning import with_fake_quant, with_kept_zeros
from fl_mobile.errors import ConfigError, ExportError
from fl_mobile.local import OPTIMIZERS
from fl_mobile.models import keras_bridge
from fl_mobile.wire.pruning_mask import PruningPlan, apply_masks, masks_for, pruned_paths
from tests.device_sim.engines.test_keras import PLAN, same, task
from tests.device_sim.small_models import MODELS, three_dense

pytestmark = pytest.mark.tf

ROUNDED = replace(PLAN, fake_quant=True)


def updates(name: str, build: Any, plan: Any, workers: int = 1) -> list[Any]:
    engine = open_engine(name, build, task(0, 8).x, workers=workers)
    plan = replace(plan, from_logits=engine.from_logits)
    return [update for _, update in train_each(engine, engine.initial, [task(d, 5 + d) for d in range(4)], plan)]


def rounded(build: Any) -> Any:
    return with_fake_quant(build())


def holding(build: Any) -> Any:
    return with_kept_zeros(build())


@pytest.mark.parametrize("name", ["three-dense", "batchnorm"])
def test_rounding_trains_as_the_rewired_model_does_and_not_as_the_plain_one(name: str) -> None:
    build = MODELS[name]
    ours, plain = updates("keras", build, ROUNDED), updates("keras", build, PLAN)
    oracle = updates("keras", partial(rounded, build), PLAN)
    for mine, theirs, other in zip(ours, oracle, plain, strict=True):
        assert same(mine.delta, theirs.delta)
        assert mine.metrics == theirs.metrics
        assert not same(mine.delta, other.delta)


def test_same_bits_for_any_number_of_workers_and_under_auto() -> None:
    one, two, auto = (
        updates(name, three_dense, ROUNDED, workers) for name, workers in (("keras", 1), ("keras", 2), ("auto", 1))
    )
    assert all(same(a.delta, b.delta) and same(a.delta, c.delta) for a, b, c in zip(one, two, auto, strict=True))


@pytest.mark.sample(r"vectorized-adam|keras-momentum|vectorized-sgd")
@pytest.mark.parametrize("optimizer", OPTIMIZERS)
@pytest.mark.parametrize("name", ["keras", "vectorized"])
def test_zeros_stay_zero_in_every_step_and_the_rest_learns_to_do_without(name: str, optimizer: str) -> None:
    """The oracle is the model whose zeros get no gradient, trained plainly."""
    plan = replace(PLAN, optimizer=optimizer, momentum=0.5, proximal_mu=0.1, learning_rate=0.02)
    found = []
    for build, keep in ((three_dense, True), (partial(holding, three_dense), False), (three_dense, False)):
        engine = open_engine("keras" if build is not three_dense else name, build, task(0, 8).x, workers=1)
        masks = masks_for(PruningPlan(0.5, smallest_kernel=1), engine.initial, engine.spec, 0)
        start = apply_masks(engine.initial, masks)
        pruned = [~masks[path] if path in masks else np.zeros(t.shape, bool) for path, t in engine.spec.items()]
        given = replace(plan, from_logits=engine.from_logits, keep_zeros=keep)
        each = train_each(engine, start, [task(d, 5 + d) for d in range(3)], given)
        found.append([list(update.delta.values()) for _, update in each])  # by order: every model has its own paths
    for ours, oracle, plain in zip(*found, strict=True):
        assert all(not value[gone].any() for value, gone in zip(ours, pruned, strict=True))
        assert any(value[gone].any() for value, gone in zip(plain, pruned, strict=True)), "without it they move"
        for mine, theirs in zip(ours, oracle, strict=True):
            np.testing.assert_allclose(mine, theirs, atol=2e-5)


UNABLE = [name for name, row in ENGINES.items() if not row.abilities.fake_quant and name != "tflite-runtime"]


@pytest.mark.parametrize("name", UNABLE)
def test_engines_that_cannot_round_refuse_to(name: str) -> None:
    with pytest.raises(ConfigError, match=r"cannot train with rounding.*keras"):
        updates(name, three_dense, ROUNDED)
    if not ENGINES[name].abilities.keeps_zeros:
        with pytest.raises(ConfigError, match=r"cannot keep zeros.*keras"):
            updates(name, three_dense, replace(PLAN, keep_zeros=True))


def subclassed(input_shape: Any, num_classes: int, **_: Any) -> Any:
    return MODELS["subclassed"]()


def test_a_model_without_a_graph_is_refused_before_the_first_round() -> None:
    model = f"model.name={__name__}:{subclassed.__name__}"
    data = ("data.dataset=synthetic", "data.image-size=6x6", "data.color=gray", "data.classes=3", "data.devices=10")
    with pytest.raises(ExportError, match="subclassed"):
        open_federation(parse_experiment("", [model, *data, "train.qat.begin-round=70"]))


SMALL = """
[data]
dataset = "synthetic"
image-size = "20x20"
color = "gray"
examples = 200
devices = 10
[train]
rounds = 3
cohort = 3
epochs = 1
[train.pruning]
sparsity = 0.8
end-round = 2
[train.qat]
begin-round = 2
[engine]
workers = 1
"""


def test_a_run_ends_with_the_zeros_it_was_asked_for_and_int8_keeps_them(tmp_path: Path) -> None:
    """Convolutions and dense kernels; the recipe is the plain ``int8``, nothing is tuned again."""
    from ai_edge_litert.interpreter import Interpreter

    federation = open_federation(parse_experiment(SMALL))
    folder = create(tmp_path / "run", federation.experiment)
    list(simulate(federation, folder))
    weights = restore(federation, folder)[0].weights
    plan = federation.experiment.train.pruning
    paths = pruned_paths(plan, federation.engine.spec)
    assert {weights[path].ndim for path in paths} == {2, 4}
    for path in paths:
        run = plan.zero_run if weights[path].ndim == 2 and len(weights[path]) % plan.zero_run == 0 else 1
        assert int((weights[path] == 0).sum()) == run * round(0.8 * weights[path].size / run), path
    model = federation.build()
    keras_bridge.write(model, weights)
    reader = Interpreter(
        model_content=to_tflite(model, RECIPES["int8"], representative=federation.dataset.test.x[:100])
    )
    stored = {
        tensor["shape"].prod(): reader.get_tensor(tensor["index"])
        for tensor in reader.get_tensor_details()
        if tensor["dtype"] == np.int8 and len(tensor["quantization_parameters"]["scales"]) > 1
    }
    assert all((stored[weights[path].size] == 0).mean() >= 0.795 for path in paths)
