"""A row of every kind, as somebody writes it outside of the package: nothing here touches a table."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, Literal

import numpy as np

from device_sim.attacks import AttackRow
from device_sim.attacks.base import Attack
from device_sim.client_data.partition import PartitionRow
from device_sim.datasets import Dataset, DatasetRow
from device_sim.datasets.records import LoadRequest
from device_sim.datasets.split import split_dataset
from device_sim.fleet.availability.presence import PRESENCES
from device_sim.fleet.devices.links import LINKS
from device_sim.fleet.devices.profiles import PROFILES
from device_sim.fleet.selection.cohort import first
from device_sim.fleet.selection.policies import Policy, PolicyRow
from device_sim.fleet.selection.samplers import SamplerRow
from export.convert.recipes import RECIPES, keep_float32, store_float16
from fl_mobile.aggregation import AggregationRow
from fl_mobile.aggregation.order_statistics import OrderStatistic
from fl_mobile.algorithms import Algorithm, AlgorithmRow, Mean, ServerPlan
from fl_mobile.algorithms.base import init_with, step, unchanged
from fl_mobile.codecs import CodecRow, Reader, StageRow, parse_codec
from fl_mobile.local import LocalOptimizer, Loss
from fl_mobile.local.optimizers import OPTIMIZERS
from fl_mobile.parameters import parameter
from fl_mobile.records import MODEL, ServerState
from fl_mobile.seeds import rng_for
from fl_mobile.server.averaging import AveragingRow
from fl_mobile.server.schedule import Falling, ScheduleRow
from fl_mobile.tasks import Metric, Tally

HERE = __name__


@dataclass(frozen=True)
class Halves:
    """Every value as IEEE half."""

    name: str = f"{HERE}:HALVES"
    kind: Literal["quantize"] = "quantize"
    unbiased: bool = False
    contracts: bool = True

    def encode(self, values: np.ndarray, rng: np.random.Generator) -> bytes:
        return np.clip(values, -65504, 65504).astype("<f2").tobytes()

    def decode(self, reader: Reader, count: int) -> np.ndarray:
        return reader.finite("<f2", count).astype(np.float32)

    def max_bytes(self, count: int) -> int:
        return 2 * count


@dataclass(frozen=True)
class Careless(Halves):
    """Says that it is unbiased."""

    unbiased: bool = True


HALVES = StageRow(lambda argument: Halves(), f"{HERE}:HALVES", "half precision")
CARELESS = StageRow(lambda argument: Careless(f"{HERE}:CARELESS"), f"{HERE}:CARELESS", "half precision")
MISNAMED = StageRow(lambda argument: Halves("halves"), "halves", "half precision")
WHOLE = CodecRow(lambda argument: parse_codec("q8"), "q8", "another name for q8")


@dataclass(frozen=True)
class Damping(ServerPlan):
    damping: float = parameter(0.5, "part of every step that is not taken", at_least=0, below=1)


def damped(server: Damping) -> Algorithm:
    def apply(state: ServerState, mean: Mean) -> ServerState:
        moves = {p: np.float32(1 - server.damping) * d for p, d in mean.delta.items() if state.spec[p].trainable}
        return step(state, mean.delta, moves, state.slots)

    return Algorithm("damped", "damped average (nobody 2026)", unchanged, init_with(), apply)


def forgetful(server: ServerPlan) -> Algorithm:
    def apply(state: ServerState, mean: Mean) -> ServerState:
        return replace(state, weights={p: w + mean.delta[p] * np.float64(1) for p, w in state.weights.items()})

    return Algorithm("forgetful", "counts no round", unchanged, init_with(), apply)


DAMPED, FORGETFUL = AlgorithmRow(damped, Damping), AlgorithmRow(forgetful)


def middle(values: np.ndarray) -> np.ndarray:
    return np.asarray(np.quantile(values.astype(np.float64), [0.25, 0.75], axis=0).mean(axis=0))


MIDDLE = AggregationRow(partial(OrderStatistic, combine=middle), "mean of two quantiles")
WIDE_MIDDLE = AggregationRow(partial(OrderStatistic, combine=lambda values: np.zeros(3)), "three zeros")
SLOWER = ScheduleRow(lambda p: p * p, "a parabola", Falling)
JUMPING = ScheduleRow(lambda p: 2 * p, "too far", Falling)
AVERAGE = AveragingRow(lambda given, memory, model: {MODEL: model}, "the last one")
HEAVY = LocalOptimizer(**vars(OPTIMIZERS["momentum"]))
MISMATCHED = replace(OPTIMIZERS["sgd"], keras=OPTIMIZERS["adam"].keras)


def _squares(truth: Any, out: Any, logits: bool, smoothing: float) -> Any:
    import keras

    return keras.ops.mean(keras.ops.square(truth - out), axis=-1)


SQUARES = Loss(_squares, one_output=True)
ONE_FOR_ALL = Loss(lambda truth, out, logits, smoothing: out[0, 0], one_output=True)


def every_second(t: int, train: Any) -> float:
    return 1.0 if t % 2 else 0.5


EVEN = PartitionRow(lambda deal: deal.rng.permutation(len(deal.y)) % deal.devices, "random and even", "nobody 2026")
SHORT = PartitionRow(lambda deal: np.zeros(3, np.int64), "three examples", "nobody 2026")
LOST = PartitionRow(lambda deal: np.zeros(len(deal.y), np.int64) - 1, "to nobody", "nobody 2026")


def load_bars(request: LoadRequest) -> Dataset:
    rng = rng_for(request.seed, "bars")
    y = rng.permutation(np.arange(120) % 4).astype(np.int64)
    x = rng.integers(0, 90, (120, 8, 8, 1)).astype(np.uint8)
    x[np.arange(120), y] += 150
    return split_dataset("bars", x, y, tuple("abcd"), request, source="made in a test")


BARS = DatasetRow(load_bars, "bars", "120 examples", "none", "nothing to get", lambda: "")
ANYBODY = SamplerRow(lambda request, ledger: first(request, request.count))
NOBODY = SamplerRow(lambda request, ledger: 1 / 0)  # type: ignore[arg-type,return-value]
ALWAYS = PolicyRow(
    lambda plan, seed: Policy(
        lambda ledger, at, index: np.zeros(len(index), np.uint8),
        lambda ledger, trained: np.zeros(len(trained.index), np.uint8),
    )
)
RAISING = PolicyRow(lambda plan, seed: 1 / 0)  # type: ignore[arg-type,return-value]
LAZY = AttackRow(lambda keys, setting: Attack(), "does what it is told")
SLOW_LINK = replace(LINKS["3g"], share=0.0)
SHARED_LINK = LINKS["3g"]
OLD_PHONE = replace(PROFILES["low"] if "low" in PROFILES else list(PROFILES.values())[-1], share=0.0)


def here_always(seed: int, clock: Any) -> Any:
    return PRESENCES["always"](seed, clock)


def odds(tally: Tally, units: np.ndarray) -> float:
    return float(tally["right"] / (1 + tally["count"] - tally["right"]))


ODDS = Metric(odds, share=False)
FALLING_ODDS = replace(ODDS, larger_is_better=False)
RAISING_ODDS = Metric(lambda tally, units: [1, 2][int(tally["count"])])
WIDE_ODDS = Metric(lambda tally, units: np.ones(2))  # type: ignore[arg-type,return-value]


def halves(converter: Any, calibration: Any) -> None:
    store_float16(converter, calibration)


def nothing(converter: Any, calibration: Any) -> None:
    raise LookupError("no such converter")


HALF_WEIGHTS = replace(RECIPES["float16"], name="half-weights", configure=halves, conversion="float16")
COARSE = replace(RECIPES["float32"], name="coarse", configure=halves, conversion="float32")
UNABLE = replace(RECIPES["float32"], name="unable", configure=nothing, conversion="float32")
NAMESAKE = replace(RECIPES["float32"], configure=keep_float32, conversion="float32")
LOOSE = replace(RECIPES["float32"], name="loose", tolerance=RECIPES["int8"].tolerance, conversion="float32")
UNJUDGED = replace(RECIPES["float32"], name="unjudged")
PATHLIKE = replace(RECIPES["float32"], name="../../etc/x", conversion="float32")


def build(input_shape: tuple[int, ...], num_classes: int) -> Any:
    import keras

    layers = [keras.layers.Rescaling(1 / 255), keras.layers.Flatten(), keras.layers.Dense(num_classes)]
    return keras.Sequential([keras.Input(input_shape), *layers])


NOTHING = object()


ROWS = {
    "HALVES": "stage",
    "DAMPED": "algorithm",
    "MIDDLE": "aggregation",
    "SLOWER": "server-schedule",
    "AVERAGE": "averaging",
    "HEAVY": "optimizer",
    "SQUARES": "loss",
    "every_second": "schedule",
    "EVEN": "partition",
    "BARS": "dataset",
    "ANYBODY": "sampler",
    "ALWAYS": "policy",
    "LAZY": "attack",
    "SLOW_LINK": "link",
    "OLD_PHONE": "profile",
    "here_always": "availability",
    "ODDS": "metric",
    "HALF_WEIGHTS": "recipe",
    "build": "model",
}
"""The row of each kind that keeps its laws."""

KEYS = {
    "data.dataset": "BARS",
    "data.partition": "EVEN",
    "train.schedule": "every_second",
    "train.optimizer": "HEAVY",
    "train.loss": "SQUARES",
    "server.algorithm": "DAMPED",
    "server.aggregation": "MIDDLE",
    "server.schedule": "SLOWER",
    "server.averaging": "AVERAGE",
    "upload.codec": "HALVES",
    "fleet.profile": "OLD_PHONE",
    "fleet.link": "SLOW_LINK",
    "fleet.availability": "here_always",
    "selection.sampler": "ANYBODY",
    "policy.name": "ALWAYS",
}
"""What names them in an experiment, but for those that name a list or what is attacked."""


def elsewhere(pools: Sequence[str]) -> str:
    """Returns a script without a guard that trains with rows of this file in workers of each pool, to the same bits."""
    return f"""
import device_sim, warnings
warnings.simplefilter("error", UserWarning)  # ops have one thread: nothing used TensorFlow before
keys = dict(rounds=1, cohort=4, devices=8, epochs=1, workers=1, engine="keras", recipes=[], damping=0.25)
mine = dict(loss="SQUARES", optimizer="HEAVY", upload="HALVES", algorithm="DAMPED", partition="EVEN")
found = []
for pool in {pools!r}:
    parts = {{key: f"{HERE}:{{name}}" for key, name in mine.items()}}
    with device_sim.simulate("{HERE}:build", "{HERE}:BARS", engine_pool=pool, **keys, **parts) as run:
        run.finish()
        found.append([v.tobytes() for update in run.updates for v in update.values()])
        assert "threads an op" not in run._federation.engine.about
assert found[0] == found[1]
"""
