"""One new row of each kind, written as somebody would who adds it; `test_contributing.py` runs it through its laws.

Not imported by any suite: it changes the tables of the process that imports it.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import partial
from typing import Any, Literal

import numpy as np

from device_sim.attacks import ATTACKS, AttackRow
from device_sim.attacks.base import Attack, Setting
from device_sim.client_data.partition.assign import Deal
from device_sim.client_data.partition.table import PARTITIONERS, PartitionRow
from device_sim.datasets import DATASETS, Dataset, DatasetRow
from device_sim.datasets.records import LoadRequest
from device_sim.datasets.split import split_dataset
from device_sim.engines import ENGINES, EngineRow
from device_sim.fleet.ledger import Ledger
from device_sim.fleet.reasons import first_of
from device_sim.fleet.selection.cohort import Choice, Request, first
from device_sim.fleet.selection.policies import POLICIES, Policy, PolicyRow, Trained
from device_sim.fleet.selection.samplers import SAMPLERS, SamplerRow
from device_sim.fleet.selection.strata import STRATA, Column, Holdings
from fl_mobile.aggregation import AGGREGATORS, AggregationRow
from fl_mobile.aggregation.order_statistics import OrderStatistic
from fl_mobile.algorithms import ALGORITHMS, Algorithm, AlgorithmRow, Mean, ServerPlan
from fl_mobile.algorithms.base import init_with, step, unchanged
from fl_mobile.codecs import STAGES, Reader, StageRow
from fl_mobile.parameters import check_parameters, parameter
from fl_mobile.records import ServerState, Update
from fl_mobile.seeds import rng_for
from fl_mobile.tensors import Spec

NAME = "brandnew"


# --- codec stage -----------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Companded:
    """The root of every value as IEEE half: ``|x − x̂| ≤ |x|·2⁻⁹`` where it is no denormal. Layout: ``f2`` a value."""

    name: str = NAME
    kind: Literal["quantize"] = "quantize"
    unbiased: bool = False
    contracts: bool = True

    def encode(self, values: np.ndarray, rng: np.random.Generator) -> bytes:
        """Returns 2 bytes a value."""
        return np.clip(np.sign(values) * np.sqrt(np.abs(values)), -65504, 65504).astype("<f2").tobytes()

    def decode(self, reader: Reader, count: int) -> np.ndarray:
        """Returns ``float32[count]``."""
        root = reader.finite("<f2", count)
        return np.asarray(np.sign(root) * root * root, np.float32)

    def max_bytes(self, count: int) -> int:
        """Bytes that ``count`` values take at most."""
        return 2 * count


STAGES[NAME] = StageRow(lambda argument: Companded(), NAME, "the root of every value, in half precision")


# --- algorithm with a parameter --------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Damping(ServerPlan):
    """[server] of the damped average."""

    damping: float = parameter(0.5, "part of every step that is not taken", at_least=0, below=1)


def damped(server: Damping) -> Algorithm:
    """``w ← w + η·(1 − d)·Δ``."""
    rate = np.float32(server.learning_rate * (1 - server.damping))

    def apply(state: ServerState, mean: Mean) -> ServerState:
        moves = {p: rate * d for p, d in mean.delta.items() if state.spec[p].trainable}
        return step(state, mean.delta, moves, state.slots)

    return Algorithm(NAME, "damped average (nobody 2026)", unchanged, init_with(), apply)


ALGORITHMS[NAME] = AlgorithmRow(damped, Damping)


# --- aggregation rule with a parameter -------------------------------------------------------------------------------


@dataclass(frozen=True)
class Place:
    """[server] of the mean of two quantiles."""

    quantile: float = parameter(0.25, "the lower one; the upper one is as far from its end", above=0, below=0.5)

    def __post_init__(self) -> None:
        check_parameters(self, "server")


def two_quantiles(values: np.ndarray, quantile: float) -> np.ndarray:
    """Returns the mean of two quantiles of rising values ``float32[n, m]``."""
    return np.asarray(np.quantile(values.astype(np.float64), [quantile, 1 - quantile], axis=0).mean(axis=0))


def between_quantiles(spec: Spec, quantile: float = Place.quantile) -> OrderStatistic:
    """Returns the coordinate-wise mean of two quantiles."""
    return OrderStatistic(spec, partial(two_quantiles, quantile=quantile))


AGGREGATORS[NAME] = AggregationRow(between_quantiles, "coordinate-wise mean of two quantiles", Place)


# --- attack with a parameter -----------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Laziness:
    """[attack] of those that send a part of their update."""

    fraction: float = parameter(0.5, "of the update", at_least=0, below=1)

    def __post_init__(self) -> None:
        check_parameters(self, "attack")


def lazily(update: Update, rng: np.random.Generator, *, fraction: float) -> Update:
    """Returns an update that is too short."""
    return replace(update, delta={path: np.float32(fraction) * value for path, value in update.delta.items()})


def lazy(keys: Laziness, setting: Setting) -> Attack:
    """Returns the attack."""
    return Attack(update=partial(lazily, fraction=keys.fraction))


ATTACKS[NAME] = AttackRow(lazy, "sends a part of its update", Laziness)


# --- who takes part --------------------------------------------------------------------------------------------------


def anybody(request: Request, ledger: Ledger) -> Choice:
    """Returns ``count`` devices, all equally likely."""
    return first(request, request.count)


@dataclass(frozen=True)
class Rest:
    """[policy] of devices that rest after they took part."""

    rest_seconds: float = parameter(10.0, "after a participation", at_least=0)

    def __post_init__(self) -> None:
        check_parameters(self, "policy")


def resting(plan: Rest, seed: int) -> Policy:
    """Returns the policy of devices that rest."""

    def before(ledger: Ledger, at_seconds: float, index: np.ndarray) -> np.ndarray:
        since = at_seconds - ledger.column("last_seconds", index)
        return first_of([("period", since < plan.rest_seconds)], len(index))

    def after(ledger: Ledger, trained: Trained) -> np.ndarray:
        return np.zeros(len(trained.index), np.uint8)

    return Policy(before, after)


def by_number(fleet: Any, holdings: Holdings) -> Column:
    """Returns two strata: devices of even and of odd number."""
    return lambda index: index % 2


SAMPLERS[NAME] = SamplerRow(anybody)
POLICIES[NAME] = PolicyRow(resting, Rest)
STRATA[NAME] = by_number


# --- data ------------------------------------------------------------------------------------------------------------


def scattered(deal: Deal) -> np.ndarray:
    """Returns a random deal in which device sizes differ by at most one."""
    return np.asarray(deal.rng.permutation(len(deal.y)) % deal.devices)


def load_bars(request: LoadRequest) -> Dataset:
    """Returns pictures whose class is the row that is lit."""
    rng = rng_for(request.seed, NAME)
    y = rng.permutation(np.arange(120) % 4).astype(np.int64)
    x = rng.integers(0, 90, (120, 8, 8, 1)).astype(np.uint8)
    x[np.arange(120), y] += 150
    return split_dataset(NAME, x, y, tuple("abcd"), request, source="made in a test")


PARTITIONERS[NAME] = PartitionRow(scattered, "random and even", "nobody 2026")
DATASETS[NAME] = DatasetRow(load_bars, "bars", "120 examples", "none", "nothing to get", lambda: "")


# --- engine ----------------------------------------------------------------------------------------------------------


def _softmax_regression(build: Any, probe: np.ndarray) -> Any:
    from tests.device_sim.numpy_engine import NumpyTrainer

    return partial(NumpyTrainer, probe[0].size, 4)


ENGINES[NAME] = EngineRow(_softmax_regression, ("threads",), "softmax regression in NumPy")


# --- what the laws want beside a row: the slow version ---------------------------------------------------------------


def pytest_configure() -> None:
    """Writes the oracles of this file's rows into the law suites that ask for one."""
    from tests.fl_mobile.aggregation import test_laws
    from tests.fl_mobile.algorithms import test_algorithms

    def oracle(w: float, deltas: Any, plan: Damping) -> Any:
        for delta in deltas:
            w = w + plan.learning_rate * (1 - plan.damping) * delta
            yield w

    test_algorithms.OURS["damping"] = 0.25
    test_algorithms.ORACLES[NAME] = oracle
    test_laws.ORACLES[NAME] = lambda rows: (np.quantile(rows, 0.25, axis=0) + np.quantile(rows, 0.75, axis=0)) / 2
