"""The server's step over rounds, and the mean over rounds: against their formulas, for every algorithm."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from fl_mobile import wire
from fl_mobile.algorithms import ALGORITHMS
from fl_mobile.codecs import parse_codec
from fl_mobile.errors import ConfigError, RunError
from fl_mobile.records import ITERATE, MODEL, ServerState
from fl_mobile.server import checkpoint
from fl_mobile.server.averaging import AVERAGINGS, Averaging, Exponential, Last
from fl_mobile.server.schedule import SCHEDULES, Falling, Schedule
from fl_mobile.storage.npz import read_arrays, write_arrays
from fl_mobile.tensors import Tensors, TensorSpec, global_norm
from tests.fl_mobile.one_round import ServerRound
from tests.fl_mobile.samples import philox

SPEC = {
    "kernel": TensorSpec((5, 3)),
    "norm/moving_mean": TensorSpec((4,), trainable=False),
    "norm/moving_variance": TensorSpec((4,), trainable=False),
}
TAIL = Falling(schedule_start=0.5, schedule_end=0.2)


def drawn(key: int) -> Tensors:
    return {p: np.abs(philox(key).normal(size=t.shape)).astype(np.float32) for p, t in SPEC.items()}


def play(algorithm: str, rounds: int, schedule: Schedule, averaging: Averaging) -> list[ServerState]:
    made, codec = ALGORITHMS[algorithm].build(), parse_codec("none")
    states = [made.init(drawn(99), SPEC)]
    for t in range(rounds):
        server = ServerRound(states[-1], algorithm=made, codec=codec)
        server.rules = replace(server.rules, schedule=schedule, averaging=averaging)
        delta = {path: (value - 0.5) * np.float32(0.1) for path, value in drawn(t).items()}
        delta["norm/moving_variance"] = np.abs(delta["norm/moving_variance"])
        packet = wire.pack(wire.Header(wire.UPDATE, t, t, 5), delta, SPEC, codec, philox(0))
        states.append(server.play([packet])[0])
    return states


@pytest.mark.parametrize("name", [name for name, row in SCHEDULES.items() if row.fall])
def test_a_falling_step_is_whole_until_it_falls_and_ends_where_it_is_told(name: str) -> None:
    factors = [Schedule(name, TAIL, rounds=81).factor(t) for t in range(120)]
    assert factors[:41] == [1.0] * 41
    assert np.isclose(factors[60], 0.6), "half way down, both shapes are half way"
    assert np.allclose(factors[80:], 0.2), "the last round has the end, and what comes after it too"
    assert (np.diff(factors[40:81]) < 0).all()
    assert Schedule(name, TAIL, rounds=1).factor(0) == pytest.approx(0.2)


def test_a_cosine_is_half_a_cosine() -> None:
    schedule = Schedule("cosine", Falling(schedule_start=0.0, schedule_end=0.1), rounds=11)
    expected = [0.1 + 0.9 * (1 + np.cos(np.pi * t / 10)) / 2 for t in range(11)]
    assert np.allclose([schedule.factor(t) for t in range(11)], expected)


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_a_scheduled_step_is_that_part_of_the_algorithms_own_and_statistics_go_all_the_way(algorithm: str) -> None:
    schedule = Schedule("linear-tail", Falling(schedule_start=0.0, schedule_end=0.25), rounds=2)
    whole = play(algorithm, 1, Schedule(), Averaging())[-1]
    part = play(algorithm, 1, replace(schedule, rounds=1), Averaging())[-1]
    start = drawn(99)
    expected = start["kernel"] + 0.25 * (whole.weights["kernel"].astype(np.float64) - start["kernel"])
    assert np.allclose(part.weights["kernel"], expected, atol=1e-7)
    assert not np.array_equal(part.weights["kernel"], whole.weights["kernel"])
    assert all(np.array_equal(part.weights[p], whole.weights[p]) for p in SPEC if p != "kernel")
    assert all((part.slots[s][p] == v).all() for s, tensors in whole.slots.items() for p, v in tensors.items())


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_means_are_those_of_the_models_and_leave_the_algorithm_alone(algorithm: str) -> None:
    plain = play(algorithm, 5, Schedule(), Averaging())
    mean = plain[1].weights["kernel"].astype(np.float64)
    for state in plain[2:]:
        mean = 0.7 * mean + 0.3 * state.weights["kernel"]
    smooth = play(algorithm, 5, Schedule(), Averaging("exponential", Exponential(averaging_decay=0.7)))[-1]
    last = play(algorithm, 5, Schedule(), Averaging("last", Last(averaging_rounds=3)))[-1]
    assert np.allclose(smooth.model["kernel"], mean, atol=1e-6)
    assert np.allclose(last.model["kernel"], np.mean([s.weights["kernel"] for s in plain[-3:]], axis=0), atol=1e-6)
    for state in (smooth, last):
        assert np.array_equal(state.weights["kernel"], plain[-1].weights["kernel"])
        assert ITERATE not in state.averages
        assert state.model is state.averages[MODEL]
    assert plain[-1].model is plain[-1].weights


def test_a_broadcast_mean_is_what_is_published_and_steps_go_on_from_the_model_that_is_averaged() -> None:
    averaging = Averaging("last", Last(averaging_rounds=2, averaging_broadcast=True))
    states = play("fedavg", 4, Schedule(), averaging)
    plain = play("fedavg", 4, Schedule(), Averaging())
    for before, state, alone in zip(states[1:], states[2:], plain[2:], strict=False):
        models = [before.averages[ITERATE]["kernel"], state.averages[ITERATE]["kernel"]]
        assert np.allclose(state.weights["kernel"], np.mean(models, axis=0), atol=1e-6)
        assert np.array_equal(models[1], alone.weights["kernel"]), "the same updates: the same series of models"
        assert np.array_equal(state.weights["norm/moving_mean"], alone.weights["norm/moving_mean"])
        assert state.model["kernel"] is state.weights["kernel"]


def test_a_round_without_updates_leaves_the_mean_alone() -> None:
    state = play("fedavg", 3, Schedule(), Averaging("last", Last(averaging_rounds=2)))[-1]
    server = ServerRound(state, algorithm=ALGORITHMS["fedavg"].build(), codec=parse_codec("none"))
    server.rules = replace(server.rules, averaging=Averaging("last", Last(averaging_rounds=2)))
    after, _ = server.play([])
    assert after.averages == state.averages


def test_the_norm_of_the_weights_is_reported() -> None:
    server = ServerRound(play("fedavg", 1, Schedule(), Averaging())[-1], algorithm=ALGORITHMS["fedavg"].build(),
                         codec=parse_codec("none"))  # fmt: skip
    after, report = server.play([])
    assert report.weights_norm == global_norm({"kernel": after.weights["kernel"]})


@pytest.mark.parametrize("name", [name for name, row in AVERAGINGS.items() if row.add])
def test_a_checkpoint_keeps_what_the_mean_is_made_of(name: str, tmp_path: Path) -> None:
    averaging = Averaging(name, AVERAGINGS[name].parameters())
    state = play("fedadam", 3, Schedule(), averaging)[-1]
    checkpoint.save(tmp_path / "state", state, {})
    found, _ = checkpoint.load(tmp_path / "state", SPEC)
    assert list(found.averages) == list(state.averages)
    assert all((found.averages[n][p] == v).all() for n, tensors in state.averages.items() for p, v in tensors.items())
    arrays = dict(read_arrays(tmp_path / "state"))
    arrays["a/model/0"] = arrays["a/model/0"][:2]
    write_arrays(tmp_path / "state", arrays)
    with pytest.raises(RunError, match="damaged"):
        checkpoint.load(tmp_path / "state", SPEC)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Falling(schedule_start=1.0), "server.schedule-start must be ≥ 0 and below 1, got 1.0"),
        (lambda: Falling(schedule_end=0.0), "server.schedule-end must be above 0 and ≤ 1, got 0.0"),
        (lambda: Exponential(averaging_decay=1.0), "server.averaging-decay must be above 0 and below 1"),
        (lambda: Last(averaging_rounds=0), "server.averaging-rounds must be ≥ 1 and ≤ 100, got 0"),
    ],
)
def test_parameters_out_of_their_limits_are_refused_by_key(make, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        make()
