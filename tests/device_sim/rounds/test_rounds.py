"""Server steps over the virtual clock: deadlines, over-selection, late updates, skips; and FedBuff by hand."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from device_sim.experiment.toml import parse_experiment
from device_sim.rounds.crew import gather
from device_sim.rounds.memory import FleetMemory
from device_sim.rounds.step import open_step
from device_sim.rounds.synchronous import settle
from device_sim.rounds.trip import ACCEPTED, travel
from device_sim.run.folder import RunFolder, create
from device_sim.run.log import Round, read_lines
from device_sim.run.loop import restore, simulate, timeline_rounds
from fl_mobile import wire
from fl_mobile.errors import ConfigError, RunError
from fl_mobile.storage.shelf import Shelf
from fl_mobile.tensors import Tensors, weights_hash
from tests.device_sim.numpy_engine import numpy_federation
from tests.device_sim.rounds.test_oracle import PLAIN
from tests.fl_mobile.one_round import ServerRound

FLEET = ("data.devices=12", "train.cohort=4", "train.rounds=8", "fleet.link=mixed", "fleet.profile=mixed")
ASYNCHRONOUS = ("clock.mode=asynchronous", "clock.buffer=2")


def play(path: Path, *changes: str) -> tuple[list[Round], Tensors]:
    federation = numpy_federation(parse_experiment(PLAIN, [*FLEET, *changes]))
    folder = create(path, federation.experiment)
    return list(simulate(federation, folder)), restore(federation, folder)[0].weights


def trip(tmp_path: Path, *changes: str):  # type: ignore[no-untyped-def]
    """One crew of all twelve devices, played from first weights."""
    federation = numpy_federation(parse_experiment(PLAIN, [*FLEET, *changes]))
    memory = FleetMemory(Shelf(tmp_path / "memory"))
    state = federation.algorithm.init(federation.engine.initial, federation.engine.spec)
    crew, _ = gather(federation, memory, round_num=0, wanted=12, draw=0, now=100.0, under_way=np.zeros(0, np.int64))
    return travel(open_step(federation, memory, state, tmp_path / "updates"), crew)


def test_times_follow_one_another_and_slower_phones_are_later(tmp_path: Path) -> None:
    made = trip(tmp_path)
    assert (made.crew.asked <= made.training.downloaded).all()
    assert (made.training.downloaded <= made.training.trained).all()
    assert (made.training.trained <= made.sending.uploaded).all()
    slow = trip(tmp_path / "slow", "fleet.profile=entry")
    fast = trip(tmp_path / "fast", "fleet.profile=flagship")
    assert (slow.training.trained - slow.training.downloaded).min() > (
        fast.training.trained - fast.training.downloaded
    ).max()


def test_a_round_ends_at_the_deadline_or_with_the_last_of_those_it_needs(tmp_path: Path) -> None:
    made = trip(tmp_path, "fleet.dropout-rate=0")
    times = np.sort(made.resolved()[made.outcomes() == ACCEPTED])
    everybody, end = settle(made, np.inf, 12)
    assert end == made.resolved().max()
    assert (everybody == ACCEPTED).sum() == len(times)
    outcome, end = settle(made, np.inf, 3)
    assert end == times[2]
    assert (outcome == "surplus").sum() == len(times) - 3
    assert set(np.flatnonzero(outcome == ACCEPTED)) == set(np.argsort(made.resolved())[:3])
    outcome, end = settle(made, float(times[4]), 12)
    assert end == times[4]
    assert (outcome == ACCEPTED).sum() == 5
    assert (made.resolved()[outcome == "late"] > times[4]).all()


def test_a_deadline_nobody_keeps_leaves_the_model_and_moves_the_clock(tmp_path: Path) -> None:
    rounds, found = play(tmp_path / "run", "clock.deadline-seconds=0.0001")
    assert all(r.accepted == 0 and set(r.dropped) <= {"late", "offline"} for r in rounds)
    assert [r.sim_seconds for r in rounds] == pytest.approx([0.0001 * (i + 1) for i in range(8)])
    assert weights_hash(found) == weights_hash(numpy_federation(parse_experiment(PLAIN, FLEET)).engine.initial)


def test_over_selection_is_not_slower_and_asks_more(tmp_path: Path) -> None:
    plain, _ = play(tmp_path / "a", "fleet.dropout-rate=0")
    over, _ = play(tmp_path / "b", "fleet.dropout-rate=0", "selection.over-selection=3.0")
    assert {r.cohort for r in over} == {12}
    assert all(r.accepted <= 4 for r in over)
    assert over[-1].sim_seconds < plain[-1].sim_seconds
    assert sum(r.upload_bytes for r in over) > 2 * sum(r.upload_bytes for r in plain)


@pytest.mark.parametrize(
    "changes",
    [
        (),
        ASYNCHRONOUS,
        ("selection.over-selection=2.0", "clock.deadline-seconds=1"),
        ("fleet.availability=diurnal", "fleet.min-battery=0.5", "selection.sampler=oort"),
        ("policy.name=event", "policy.min-update-norm=0.5", "selection.sampler=power-of-choice"),
        (*ASYNCHRONOUS, "fleet.availability=diurnal", "fleet.charging=true", "fleet.interruptions-per-hour=100"),
    ],
)
def test_a_run_stopped_after_any_round_ends_at_the_same_bytes(tmp_path: Path, changes: tuple[str, ...]) -> None:
    whole, expected = play(tmp_path / "whole", *changes)
    federation = numpy_federation(parse_experiment(PLAIN, [*FLEET, *changes]))
    folder = create(tmp_path / "run", federation.experiment)
    played: list[Round] = []
    while len(played) < len(whole):  # a new process each time, as far as the run can tell
        stopped = len(played) + 1
        played = [one for one, _ in zip(simulate(federation, folder), range(stopped), strict=False)]
    assert weights_hash(restore(federation, folder)[0].weights) == weights_hash(expected)
    for again, once in zip(played, whole, strict=True):
        assert (again.dropped, again.skipped, again.upload_bytes) == (once.dropped, once.skipped, once.upload_bytes)
        assert (again.sim_seconds, again.joules) == (once.sim_seconds, once.joules)


def test_one_at_a_time_with_a_buffer_of_one_is_a_chain_of_fresh_updates(tmp_path: Path) -> None:
    changes = (
        "clock.mode=asynchronous",
        "clock.buffer=1",
        "train.cohort=1",
        "fleet.dropout-rate=0",
        "fleet.link=ideal",
    )
    rounds, _ = play(tmp_path / "run", *changes)
    assert [(r.accepted, r.staleness) for r in rounds] == [(1, 0.0)] * 8


def test_a_buffered_step_equals_the_formula_worked_out_by_hand(tmp_path: Path) -> None:
    """Δ = Σ nᵢ (1 + sᵢ)⁻½ Δᵢ / Σ nᵢ over the buffer: Nguyen et al. 2022, with FedAvg's n."""
    changes = (*ASYNCHRONOUS, "upload.codec=none", "download.mode=full", "download.codec=none")
    federation = numpy_federation(parse_experiment(PLAIN, [*FLEET, *changes]))
    memory = FleetMemory(Shelf(tmp_path / "memory"))
    state = federation.algorithm.init(federation.engine.initial, federation.engine.spec)
    from device_sim.rounds.asynchronous import play_asynchronously

    late = 0.0
    for _ in range(5):
        before, flights = state, {}
        state, report, traffic = play_asynchronously(federation, memory, state, tmp_path / "updates")
        late += report.staleness
        flights = {(flight.device, flight.version): flight for flight in memory.flights}
        assert all(version <= before.round_num for _, version in flights)
        assert traffic.end == memory.seconds
    assert late > 0, "nothing was late: the test proves nothing"
    packets = [flight for flight in memory.flights if flight.packet][:2]
    assert {flight.version for flight in packets} != {state.round_num}
    made = ServerRound(
        state, algorithm=federation.algorithm, codec=federation.upload, admission=federation.rules.admission
    )
    after, _ = made.play([flight.packet for flight in packets])
    decoded = [wire.unpack(flight.packet, state.spec, federation.upload) for flight in packets]
    total = sum(header.num_examples for header, _ in decoded)
    for path, value in state.weights.items():
        by_hand = value.astype(np.float64)
        for header, delta in decoded:
            late_by = state.round_num - header.base_round
            by_hand = by_hand + header.num_examples / total * (1 + late_by) ** -0.5 * delta[path]
        np.testing.assert_allclose(after.weights[path], by_hand, atol=2e-4)  # weights are in steps of 1/256


def test_an_update_too_late_is_refused_and_counted(tmp_path: Path) -> None:
    rounds, _ = play(tmp_path / "run", *ASYNCHRONOUS, "clock.max-staleness=0")
    assert sum(r.dropped.get("round", 0) for r in rounds) > 0
    assert all(r.staleness == 0 for r in rounds)


def test_a_fleet_that_can_never_take_part_is_told_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from device_sim.rounds import asynchronous

    monkeypatch.setattr(asynchronous, "PATIENCE", 20)
    with pytest.raises(RunError, match=r"no device could take part .*'metered': \d+.*Loosen"):
        play(tmp_path / "run", *ASYNCHRONOUS, "fleet.link=4g", "fleet.unmetered=true")
    rounds, _ = play(tmp_path / "sync", "fleet.link=4g", "fleet.unmetered=true")
    assert [(r.cohort, r.accepted, r.skipped) for r in rounds] == [(0, 0, {"metered": 12})] * 8
    assert rounds[-1].sim_seconds == 8 * 600


@pytest.mark.parametrize(
    "changes",
    [("upload.memory=cafe",), ("upload.codec=ecsq", "upload.target-ratio=10"), ("selection.over-selection=2.0",)],
)
def test_what_needs_rounds_is_refused_without_them(changes: tuple[str, ...]) -> None:
    with pytest.raises(ConfigError, match="cannot be used with clock"):
        parse_experiment(PLAIN, [*FLEET, *ASYNCHRONOUS, *changes])


def test_policies_skip_save_and_are_counted(tmp_path: Path) -> None:
    every, _ = play(tmp_path / "a")
    rare, _ = play(tmp_path / "b", "policy.min-separation-seconds=100000")
    assert sum(r.skipped.get("min-separation", 0) for r in rare) > 0
    assert sum(r.saved_bytes for r in rare) > 0
    assert sum(r.upload_bytes for r in rare) < sum(r.upload_bytes for r in every)
    assert all(r.saved_bytes == 0 and r.skipped == {} for r in every)


def test_the_timeline_adds_up_to_the_rounds(tmp_path: Path) -> None:
    rounds, _ = play(tmp_path / "run", "output.timeline-rounds=3", "clock.deadline-seconds=0.9")
    federation = numpy_federation(parse_experiment(PLAIN, [*FLEET, "output.timeline-rounds=3"]))
    lines = [line for line, _ in read_lines(RunFolder(tmp_path / "run").timeline)]
    assert {line["round_num"] for line in lines} == timeline_rounds(federation.experiment) == {0, 4, 7}
    for line in lines:
        done, columns = rounds[line["round_num"]], line["devices"]
        assert len({len(column) for column in columns.values()}) == 1
        assert len(columns["device"]) == done.cohort
        assert sum(columns["upload_bytes"]) == done.upload_bytes
        assert sum(columns["download_bytes"]) == done.download_bytes
        assert sum(columns["joules"]) == pytest.approx(done.joules)
        assert columns["outcome"].count("accepted") == done.accepted
        assert line["end"] == done.sim_seconds
