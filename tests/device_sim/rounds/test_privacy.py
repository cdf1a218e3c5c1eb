"""Private runs from the first draw of a cohort to the words in the summary, on a real engine without TensorFlow."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from device_sim.engines import Task
from device_sim.experiment.toml import parse_experiment, read_experiment, to_toml
from device_sim.federation.federation import Federation, assemble
from device_sim.fleet.devices.timing import Workload
from device_sim.report import page, read_runs
from device_sim.rounds import SERVERS
from device_sim.rounds.memory import FleetMemory
from device_sim.run.best import Kept
from device_sim.run.facts import facts_of_run
from device_sim.run.folder import RunFolder, create, discard
from device_sim.run.going_on import check_goes_on
from device_sim.run.log import Round
from device_sim.run.loop import restore, simulate, stop_reason
from device_sim.run.privacy import FORECAST, NO_PRIVACY, privacy_of, privacy_told
from device_sim.run.summary import summarise
from fl_mobile.errors import ConfigError, DivergedError, RunError
from fl_mobile.privacy.accounting import curve
from fl_mobile.records import FitPlan, ServerState, Update
from fl_mobile.server import checkpoint
from fl_mobile.storage.shelf import Shelf
from fl_mobile.tensors import Tensors, TensorSpec, weights_hash
from tests.device_sim.numpy_engine import NumpyTrainer, numpy_engine, numpy_federation
from tests.device_sim.rounds.test_oracle import PLAIN

PRIVATE = (
    *("data.devices=30", "train.cohort=10", "train.rounds=12", "selection.sampler=poisson", "privacy.mode=central"),
    *("privacy.noise-multiplier=1", "privacy.clip-norm=0.5", "output.recipes=[]"),
)
REPEATED = (*PRIVATE, "privacy.reproducible=true")


def opened(*changes: str) -> Federation:
    return numpy_federation(parse_experiment(PLAIN, changes))


def played(path: Path, *changes: str) -> tuple[Federation, RunFolder, list[Round]]:
    federation = opened(*changes)
    folder = create(path, federation.experiment)
    return federation, folder, list(simulate(federation, folder))


def test_nobody_is_left_out_by_a_cap_and_the_cohorts_size_is_binomial(tmp_path: Path) -> None:
    _, _, rounds = played(tmp_path / "run", *REPEATED, "train.rounds=25")
    accepted = [r.accepted for r in rounds]
    assert accepted == [r.cohort for r in rounds]
    assert max(accepted) > 10 > min(accepted)
    assert 8.5 < np.mean(accepted) < 11.5


def test_an_assumption_of_nothing_leaves_the_cap_where_it_was(tmp_path: Path) -> None:
    free = ("privacy.sampling=none-assumed", "selection.sampler=uniform", "selection.over-selection=1.5")
    _, _, rounds = played(tmp_path / "run", *REPEATED, *free)
    assert {(r.cohort, r.accepted) for r in rounds} == {(15, 10)}


def test_cohort_and_noise_follow_from_a_secret_unless_the_run_is_to_be_repeatable(tmp_path: Path) -> None:
    ends: dict[bool, list[tuple[list[int], str]]] = {True: [], False: []}
    for repeatable, found in ends.items():
        for i in range(2):
            changes = REPEATED if repeatable else PRIVATE
            federation, folder, rounds = played(tmp_path / f"{repeatable}-{i}", *changes)
            found.append(([r.cohort for r in rounds], weights_hash(restore(federation, folder)[0].weights)))
    assert ends[True][0] == ends[True][1]
    assert ends[False][0][0] != ends[False][1][0]
    assert ends[False][0][1] != ends[False][1][1]


def test_nothing_of_single_devices_is_left_behind(tmp_path: Path) -> None:
    _, folder, rounds = played(tmp_path / "run", *PRIVATE)
    assert {r.train_loss for r in rounds} == {None}
    assert not folder.updates.exists()
    assert folder.checkpoint.stat().st_mode & 0o077 == 0


def test_a_round_in_which_nobody_came_is_released_like_any_other(tmp_path: Path) -> None:
    federation = opened(*REPEATED, "train.cohort=2", "privacy.noise-multiplier=3")
    memory, state = FleetMemory(Shelf(tmp_path / "m")), federation.algorithm.init(federation.initial, federation.spec)
    empty = 0
    for t in range(30):
        after, report, _ = SERVERS["synchronous"](federation, memory, state, tmp_path)
        moved = after.weights["out/kernel"] - state.weights["out/kernel"]
        assert (moved != 0).all(), "noise on every coordinate"
        assert after.privacy is not None
        assert after.privacy.charged == t + 1
        assert np.std(moved) == pytest.approx(3 * 0.5 / 2, rel=0.2)
        empty += report.accepted == 0
        state = after
    assert empty, "a binomial of mean 2 is 0 in one of eight rounds"


def test_every_round_says_what_has_been_spent(tmp_path: Path) -> None:
    federation, _, rounds = played(tmp_path / "run", *REPEATED, "privacy.clip-quantile=0.5")
    assert federation.claim is not None
    spent = [r.privacy["epsilon"] for r in rounds]
    assert spent == sorted(spent)
    assert spent[-1] == pytest.approx(curve(federation.claim, [12])[0][0])
    assert all(a.privacy["epsilon_next"] == b.privacy["epsilon"] for a, b in pairwise(rounds))
    assert "epsilon_next" not in rounds[-1].privacy
    assert len({r.privacy["clip_norm"] for r in rounds}) == 12
    about = privacy_of(federation, rounds)
    told = privacy_told(about)
    for word in ("ε = ", "δ = 0.0237", "one client added or removed", "poisson sampling", "Without amplification"):
        assert word in told
    assert told.endswith(FORECAST)
    assert privacy_told(None) == NO_PRIVACY
    assert FORECAST not in privacy_told({**about, "reproducible": False})  # type: ignore[dict-item]


def test_a_run_stops_before_it_would_spend_too_much(tmp_path: Path) -> None:
    federation, folder, rounds = played(tmp_path / "run", *REPEATED)
    third, fourth = (rounds[t].privacy["epsilon"] for t in (2, 3))
    most = f"privacy.max-epsilon={(third + fourth) / 2}"
    stopped, short, few = played(tmp_path / "short", *REPEATED, most)
    assert len(few) == 3
    assert few[-1].privacy["epsilon"] <= (third + fourth) / 2
    assert "another round would spend" in stop_reason(stopped.experiment, few)
    more = opened(*REPEATED)
    assert check_goes_on(short.path, stopped.experiment, more.experiment, few)
    assert [replace(r, wall_seconds=0) for r in simulate(more, short)] == [replace(r, wall_seconds=0) for r in rounds]
    assert weights_hash(restore(more, short)[0].weights) == weights_hash(restore(federation, folder)[0].weights)


def test_a_budget_below_the_first_round_is_told_before_it(tmp_path: Path) -> None:
    federation = opened(*PRIVATE, "privacy.max-epsilon=0.01")
    folder = create(tmp_path / "run", federation.experiment)
    with pytest.raises(ConfigError, match=r"max-epsilon is 0\.01, and the first round alone spends"):
        list(simulate(federation, folder))
    assert not folder.checkpoint.exists()


class Diverging(NumpyTrainer):
    """Its loss is no number."""

    def train(self, weights: Tensors, tasks: Sequence[Task], plan: FitPlan) -> list[Update]:
        return [replace(update, metrics={"loss": math.nan}) for update in super().train(weights, tasks, plan)]


def test_a_run_that_failed_in_its_first_round_leaves_no_key(tmp_path: Path) -> None:
    federation = numpy_federation(parse_experiment(PLAIN, PRIVATE), numpy_engine(Diverging(144, 3)))
    folder = create(tmp_path / "run", federation.experiment)
    with pytest.raises(DivergedError, match="round 1"):
        list(simulate(federation, folder))
    assert folder.checkpoint.exists()
    discard(folder)
    assert not folder.checkpoint.exists()


@pytest.mark.parametrize("when", range(3))
def test_a_kill_between_draw_and_commit_releases_no_sum_twice(
    when: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With noise from a secret, which nobody can repeat, what is played again is what was lost, to the bit."""
    made: list[ServerState] = []
    save = checkpoint.save

    def recorded(path: Path, state: ServerState, extra: dict[str, Any]) -> None:
        made.append(state)
        if len(made) == when + 2:
            raise KeyboardInterrupt
        save(path, state, extra)

    monkeypatch.setattr(checkpoint, "save", recorded)
    federation = opened(*PRIVATE)
    folder = create(tmp_path / "run", federation.experiment)
    with pytest.raises(KeyboardInterrupt):
        list(simulate(federation, folder))
    lost = made[-1]
    made += [lost] * 9
    rounds = simulate(opened(*PRIVATE), folder)
    for _ in range(when + 1):
        next(rounds)
    again = made[-1]
    assert again.round_num == lost.round_num == when + 1
    assert weights_hash(again.weights) == weights_hash(lost.weights)
    assert again.privacy == lost.privacy


@pytest.mark.slow
def test_a_target_is_solved_and_binds_the_number_of_rounds(tmp_path: Path) -> None:
    federation = opened(*REPEATED[:-1], "privacy.noise-multiplier=0", "privacy.target-epsilon=8")
    assert federation.claim is not None
    assert federation.ledger is not None
    assert 7.9 < federation.ledger.after(12).epsilon <= 8
    stored = federation.experiment
    longer = replace(stored, train=replace(stored.train, rounds=20))
    create(tmp_path / "run", stored)
    with pytest.raises(RunError, match="was solved for the noise of 12 rounds"):
        check_goes_on(tmp_path / "run", stored, longer, [])


class WithStatistics(NumpyTrainer):
    """Its model counts something about the examples of devices."""

    def __init__(self) -> None:
        super().__init__(144, 3)
        self.spec["norm/moving_mean"] = TensorSpec((3,), trainable=False)
        self.initial["norm/moving_mean"] = np.zeros(3, np.float32)


def with_a_small_phone(federation: Federation) -> Federation:
    heavy = Workload(432, 435, 10**9)
    return assemble(federation.experiment, federation.dataset, federation.data, numpy_engine(), heavy, lambda: None)


REFUSED: dict[str, tuple[Callable[[], object], str]] = {
    "statistics": (
        lambda: numpy_federation(parse_experiment(PLAIN, PRIVATE), numpy_engine(WithStatistics())),
        "'norm/moving_mean'.*batch-norm",
    ),
    "delta": (lambda: opened(*PRIVATE, "privacy.delta=0.04"), r"below 1/30"),
    "no noise": (lambda: opened(*PRIVATE, "privacy.noise-multiplier=0"), "one of them"),
    "both": (lambda: opened(*PRIVATE, "privacy.target-epsilon=3"), "one of them"),
    "little noise": (lambda: opened(*PRIVATE, "privacy.noise-multiplier=0.2"), "from 0.3"),
    "an epsilon below 0": (
        lambda: opened(*PRIVATE, "privacy.noise-multiplier=0", "privacy.target-epsilon=-1"),
        "above 0",
    ),
    "no such sampling": (lambda: opened(*PRIVATE, "privacy.sampling=poison"), "Did you mean 'poisson'"),
    "a norm of nothing": (lambda: opened(*PRIVATE, "privacy.clip-norm=0"), "1e-8"),
    "a count that is too exact": (
        lambda: opened(*PRIVATE, "privacy.clip-quantile=0.5", "privacy.count-noise=0.4"),
        "above half",
    ),
    "fixed size, and some cannot": (
        lambda: with_a_small_phone(
            opened(*PRIVATE, "privacy.sampling=fixed-size", "selection.sampler=uniform", "fleet.profile=entry")
        ),
        "devices that all can",
    ),
    "weights by examples": (lambda: opened(*PRIVATE, "server.weighting=uniform"), "does nothing with privacy.mode"),
    "keys without a mode": (lambda: opened("privacy.clip-norm=2"), "does nothing with privacy.mode 'none'"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_is_refused_before_round_1(name: str) -> None:
    make, told = REFUSED[name]
    with pytest.raises(ConfigError, match=told):
        make()


def test_the_section_is_written_and_read_again(tmp_path: Path) -> None:
    for changes in ((), PRIVATE, (*REPEATED, "privacy.clip-quantile=0.3", "privacy.delta=1e-3")):
        experiment = parse_experiment(PLAIN, changes)
        path = tmp_path / "experiment.toml"
        path.write_text(to_toml(experiment))
        assert read_experiment(path) == experiment


def test_report_and_model_card_say_what_epsilon_is_about(tmp_path: Path) -> None:
    federation, folder, rounds = played(tmp_path / "run", *REPEATED, "privacy.clip-quantile=0.5")
    made = page(read_runs([folder.path]))
    for word in ("<h2>Privacy</h2>", "ε spent", "Clipping norm", f"{rounds[-1].privacy['epsilon']:.4g}"):
        assert word in made
    plain = create(tmp_path / "plain", opened(*PRIVATE[:4]).experiment)
    list(simulate(opened(*PRIVATE[:4]), plain))
    assert "<h2>Privacy</h2>" not in page(read_runs([plain.path]))
    weights = restore(federation, folder)[0].weights
    summary = summarise(federation, rounds, Kept(len(rounds) - 1, weights), None, command="x")
    facts = facts_of_run(federation.experiment, json.loads(json.dumps(summary)))
    assert facts.privacy == privacy_told(privacy_of(federation, rounds))
    assert facts.devices == "30, simulated; about 10 updates a round were added", "how many came is not told"
    assert facts_of_run(federation.experiment, {**summary, "privacy": None}).privacy == NO_PRIVACY


def test_private_training_learns(tmp_path: Path) -> None:
    """As far as 30 clients let it: with little noise nearly as well as without, with much noise not at all."""
    found = {}
    for z in (0.3, 30.0):
        rounds = played(tmp_path / str(z), *REPEATED, f"privacy.noise-multiplier={z}")[2]
        found[z] = rounds[-1].accuracy
    assert found[0.3] is not None
    assert found[30.0] is not None
    assert found[0.3] > 0.8
    assert found[30.0] < found[0.3]
