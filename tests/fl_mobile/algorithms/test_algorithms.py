"""Laws of every algorithm: the paper's formula element by element, and statistics that no optimizer touches."""

from __future__ import annotations

import math
from dataclasses import fields

import numpy as np
import pytest

from fl_mobile.agreement import Agreement
from fl_mobile.algorithms import ALGORITHMS, Mean
from fl_mobile.codecs import parse_codec
from fl_mobile.errors import ConfigError
from fl_mobile.records import FitPlan
from fl_mobile.server.publish import assign
from fl_mobile.server.step import ServerRules
from fl_mobile.tensors import TensorSpec
from tests.fl_mobile.samples import philox

OURS = {
    "learning_rate": 0.3,
    "momentum": 0.8,
    "beta1": 0.7,
    "beta2": 0.95,
    "tau": 1e-2,
    "proximal_mu": 0.25,
    "alpha": 0.5,
}


def plan_of(name):
    """Values other than the defaults for every parameter of an algorithm."""
    kind = ALGORITHMS[name].parameters
    return kind(**{f.name: OURS[f.name] for f in fields(kind)})


SPEC = {
    "dense/kernel": TensorSpec((3, 2)),
    "norm/moving_variance": TensorSpec((4,), trainable=False),
    "bias": TensorSpec(()),
    "frozen/empty": TensorSpec((0,)),
}
every_algorithm = pytest.mark.parametrize("name", ALGORITHMS)


# One scalar weight over rounds, in Python floats, as the papers write it: deltas → weights after each round.
def averaging(w, deltas, p):
    for d in deltas:
        w = w + p.learning_rate * d
        yield w


def momentum(w, deltas, p):  # Hsu et al. 2019, equation 3
    m = 0.0
    for d in deltas:
        m = p.momentum * m + d
        w = w + p.learning_rate * m
        yield w


def adaptive(w, deltas, p, second):  # Reddi et al. 2021, algorithm 2
    m, v = 0.0, p.tau**2
    for d in deltas:
        m = p.beta1 * m + (1 - p.beta1) * d
        v = second(v, d, p)
        w = w + p.learning_rate * m / (math.sqrt(v) + p.tau)
        yield w


def scaffold(w, deltas, p):  # Karimireddy et al. 2020, algorithm 1, option II; half of the devices take part
    c = 0.0
    for d in deltas:
        w, c = w + p.learning_rate * d, c + SHARE * (-c - d / STEPS / LOCAL_RATE)
        yield w


def normalised(w, deltas, p):  # Wang et al. 2020, equation 10; every device with the same update and τ = STEPS
    for d in deltas:
        w = w + p.learning_rate * (MEAN_STEPS * d / STEPS)
        yield w


def dynamic(w, deltas, p):  # Acar et al. 2021, algorithm 1
    h = 0.0
    for d in deltas:
        h = h - p.alpha * SHARE * d
        w = w + p.learning_rate * (d - h / p.alpha)
        yield w


SHARE, STEPS, MEAN_STEPS, LOCAL_RATE = 0.5, 4, 5.0, 0.2


def mean_of(state, delta):
    """Returns the mean of a round in which everybody made `STEPS` steps; the server's slots arrive as they are.

    SCAFFOLD's packets hold the update less what c lets both ends foresee, ``−Kᵢηₗc``.
    """
    sent = dict(state.slots.get("c", {}))
    known = {p: np.float32(LOCAL_RATE) * sent.get(p, np.float32(0)) for p in delta}
    per_step = {p: d / np.float32(STEPS) + known[p] for p, d in delta.items() if p != "norm/moving_variance"}
    packets = {p: d + np.float32(MEAN_STEPS) * known[p] for p, d in delta.items()}
    return Mean(packets, per_step, MEAN_STEPS, SHARE, sent, LOCAL_RATE)


ORACLES = {
    "fedavg": averaging,
    "fedsgd": averaging,
    "fedprox": averaging,
    "fedavgm": momentum,
    "fedadagrad": lambda w, ds, p: adaptive(w, ds, p, lambda v, d, p: v + d * d),
    "fedadam": lambda w, ds, p: adaptive(w, ds, p, lambda v, d, p: p.beta2 * v + (1 - p.beta2) * d * d),
    "fedyogi": lambda w, ds, p: adaptive(
        w, ds, p, lambda v, d, p: v - (1 - p.beta2) * d * d * ((v > d * d) - (v < d * d))
    ),
    "scaffold": scaffold,
    "fednova": normalised,
    "feddyn": dynamic,
}


def draw(key, scale=1.0):
    rng = philox(key)
    return {p: (scale * rng.normal(size=t.shape)).astype(np.float32) for p, t in SPEC.items()}


def rounds(name, deltas, plan=None):
    algorithm = ALGORITHMS[name].make(plan or plan_of(name))
    state = algorithm.init(draw(0), SPEC)
    for delta in deltas:
        state = algorithm.apply(state, mean_of(state, delta))
        yield state


@every_algorithm
def test_apply_equals_the_papers_formula_element_by_element(name):
    assert name in ORACLES, f"write the slow version of '{name}' into ORACLES"
    deltas = [draw(key, scale=0.1) for key in range(1, 7)]
    states = list(rounds(name, deltas))
    for path, tensor in SPEC.items():
        for i in range(tensor.size):
            column = [float(d[path].flat[i]) for d in deltas]
            start = float(draw(0)[path].flat[i])
            oracle = (
                ORACLES[name](start, column, plan_of(name)) if tensor.trainable else np.cumsum([start, *column])[1:]
            )
            for state, expected in zip(states, oracle, strict=True):
                assert float(state.weights[path].flat[i]) == pytest.approx(expected, rel=2e-5, abs=2e-6)


@every_algorithm
def test_statistics_see_the_plain_mean_and_own_no_slot(name):
    variance = draw(0)["norm/moving_variance"]
    for state in rounds(name, [draw(1), draw(2)]):
        variance = variance + draw(state.round_num)["norm/moving_variance"]
        assert np.array_equal(state.weights["norm/moving_variance"], variance)
        assert all("norm/moving_variance" not in slot for slot in state.slots.values())


@every_algorithm
def test_a_shrinking_variance_stays_positive(name):
    """FedAdam over every tensor once drove a moving variance to −0.36; it has to end at the devices' mean."""
    algorithm = ALGORITHMS[name].build(learning_rate=0.2)
    spec = {"norm/moving_variance": TensorSpec((8,), trainable=False), "w": TensorSpec((8,))}
    state = algorithm.init({p: np.ones(8, np.float32) for p in spec}, spec)
    for _ in range(30):
        shrink = (0.01 - state.weights["norm/moving_variance"]) * np.float32(0.9)
        state = algorithm.apply(state, mean_of(state, {"norm/moving_variance": shrink, "w": shrink}))
        assert (state.weights["norm/moving_variance"] > 0).all()
    assert np.allclose(state.weights["norm/moving_variance"], 0.01)


@every_algorithm
def test_apply_changes_nothing_it_was_given(name):
    algorithm, delta = ALGORITHMS[name].make(plan_of(name)), draw(1)
    state = algorithm.init(draw(0), SPEC)
    first = algorithm.apply(state, mean_of(state, delta))
    again = algorithm.apply(state, mean_of(state, delta))
    for path in SPEC:
        assert np.array_equal(state.weights[path], draw(0)[path])
        assert np.array_equal(delta[path], draw(1)[path])
        assert first.weights[path].tobytes() == again.weights[path].tobytes()
        assert first.weights[path].dtype == np.float32
        assert first.weights[path].shape == SPEC[path].shape
    assert (state.round_num, first.round_num) == (0, 1)


@every_algorithm
def test_zero_updates_at_the_start_move_nothing(name):
    zeros = {p: np.zeros(t.shape, np.float32) for p, t in SPEC.items()}
    for state in rounds(name, [zeros, zeros]):
        assert all(np.array_equal(state.weights[p], draw(0)[p]) for p in SPEC)


def test_fedavg_at_rate_one_takes_the_mean_of_the_devices():
    algorithm = ALGORITHMS["fedavg"].build()
    state = algorithm.apply(algorithm.init(draw(0), SPEC), Mean(draw(1)))
    assert all(np.array_equal(state.weights[p], draw(0)[p] + draw(1)[p]) for p in SPEC)


def test_what_each_algorithm_asks_of_the_devices():
    fit = FitPlan(epochs=5, batch_size=16, optimizer="adam", learning_rate=0.03)
    plans = {name: row.make(plan_of(name)).plan(fit) for name, row in ALGORITHMS.items()}
    sgd = plans.pop("fedsgd")
    assert (sgd.epochs, sgd.batch_size, sgd.optimizer, sgd.learning_rate) == (1, 0, "sgd", 0.03)
    assert plans.pop("fedprox").proximal_mu == 0.25
    assert plans.pop("feddyn").proximal_mu == 0.5
    assert all(plan == fit for plan in plans.values())


@every_algorithm
def test_names_and_papers(name):
    algorithm = ALGORITHMS[name].make(plan_of(name))
    assert algorithm.name == name
    assert "20" in algorithm.summary, "the summary names paper and year"


@pytest.mark.parametrize(
    ("name", "wrong"),
    [
        ("fedavg", {"learning_rate": 0.0}),
        ("fednova", {"learning_rate": float("nan")}),
        ("fedyogi", {"tau": 0.0}),
        ("fedprox", {"proximal_mu": -1.0}),
        ("feddyn", {"alpha": 0.0}),
        ("fedavgm", {"momentum": 1.0}),
        ("fedadagrad", {"beta1": -0.1}),
        ("fedadam", {"beta2": 1.0}),
    ],
)
def test_hyperparameters_out_of_range_are_refused(name, wrong):
    with pytest.raises(ConfigError):
        ALGORITHMS[name].build(**wrong)


KEEPERS = [name for name, row in ALGORITHMS.items() if row.build().variate]


@pytest.mark.parametrize("name", KEEPERS)
def test_what_clients_keep_adds_up_to_what_the_server_holds(name):
    """By weight, over all clients, whoever takes part and however long: Σ pᵢcᵢ = c, so that pulls cancel."""
    algorithm, rng = ALGORITHMS[name].make(plan_of(name)), philox(5)
    weights = np.array([1, 3, 9, 2], np.float64)
    steps = np.array([2.0, 4.0, 8.0, 3.0])
    state = algorithm.init(draw(0), SPEC)
    paths = [p for p in SPEC if SPEC[p].trainable]
    kept = [{p: np.zeros(SPEC[p].shape, np.float32) for p in paths} for _ in weights]
    (slot,) = state.slots
    for _ in range(6):
        chosen = rng.permutation(4)[:2]
        part = weights[chosen] / weights[chosen].sum()
        told = [draw(int(rng.integers(99)), scale=0.1) for _ in chosen]
        sent = dict(state.slots[algorithm.sends]) if algorithm.sends else {}
        mean = Mean(
            {p: sum(w * t[p] for w, t in zip(part, told, strict=True)).astype(np.float32) for p in SPEC},
            {p: sum(w * t[p] / k for w, t, k in zip(part, told, steps[chosen], strict=True)) for p in paths},
            steps=float(part @ steps[chosen]),
            share=weights[chosen].sum() / weights.sum(),
            sent=sent,
            learning_rate=LOCAL_RATE,
        )
        for i, t in zip(chosen, told, strict=True):
            kept[i] = algorithm.variate.keep(kept[i], t, steps[i] * LOCAL_RATE)
        state = algorithm.apply(state, mean)
        for p in paths:
            total = sum(w * own[p] for w, own in zip(weights / weights.sum(), kept, strict=True))
            np.testing.assert_allclose(state.slots[slot][p], total, atol=1e-5)


@every_algorithm
@pytest.mark.parametrize("text", ["ecsq", "q8+deflate", "ecsq:step=64"])
def test_what_keeps_an_error_or_squares_it_has_clients_round_so_that_it_dies_out(name, text):
    codec, algorithm = parse_codec(text), ALGORITHMS[name].make(plan_of(name))
    state = algorithm.init(draw(0), SPEC)
    agreement = Agreement(SPEC, state.weights, algorithm, codec, parse_codec("none"))
    published = assign(agreement, ServerRules(), state, FitPlan())[1].upload
    if name in ("scaffold", "feddyn", "fedavgm", "fedadam", "fedyogi", "fedadagrad"):
        assert published.contracts
        assert published.wire_name == codec.wire_name
    else:
        assert published == codec
