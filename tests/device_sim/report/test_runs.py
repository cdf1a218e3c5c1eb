"""Reading run folders: everything of a whole one, and one clear error for every kind of damage."""

from __future__ import annotations

import json
import typing
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from device_sim.report import read_runs
from device_sim.report.runs import Closing, Evaluation, Spread, Timeline, Trips
from device_sim.run.checked import FIELD_KINDS, record_of
from device_sim.run.log import Round
from fl_mobile.errors import ConfigError, RunError
from tests.device_sim.report.made_runs import made_round, made_run, made_timeline, raw_rounds, write_lines


def test_a_whole_run_is_read(tmp_path: Path) -> None:
    path = made_run(tmp_path / "a")
    (run,) = read_runs([path])
    assert (run.label, run.path) == ("a", path)
    assert [r.accuracy for r in run.rounds] == [r["accuracy"] for r in raw_rounds(path)]
    assert [t.round_num for t in run.timelines] == [0, 5]
    assert run.closing is not None
    assert run.closing.fp32_model_bytes == 220_000
    assert run.closing.evaluation is not None


def test_rounds_of_before_there_was_a_clock_are_read(tmp_path: Path) -> None:
    path = made_run(tmp_path / "old")
    new = ("sim_seconds", "skipped", "saved_bytes", "joules", "staleness")
    write_lines(path / "rounds.jsonl", [{k: v for k, v in r.items() if k not in new} for r in raw_rounds(path)])
    (run,) = read_runs([path])
    assert run.rounds[-1].sim_seconds == 0


def test_a_torn_last_line_is_left_out_where_the_run_is_unfinished(tmp_path: Path) -> None:
    path = made_run(tmp_path / "torn", finished=False)
    with open(path / "rounds.jsonl", "a") as file:
        file.write('{"round_num": 12, "accu')
    assert len(read_runs([path])[0].rounds) == 12


def test_of_a_round_played_twice_the_later_timeline_counts_and_none_beyond_the_rounds(tmp_path: Path) -> None:
    path = made_run(tmp_path / "again", rounds=6)
    again = {**made_timeline(5, seed=9), "end": 1e6}
    write_lines(path / "timeline.jsonl", [made_timeline(n, seed=0) for n in (0, 5)] + [again, made_timeline(6, seed=0)])
    (run,) = read_runs([path])
    assert [t.round_num for t in run.timelines] == [0, 5]
    assert run.timelines[-1].end == 1e6


def test_folders_are_told_apart_and_none_comes_twice(tmp_path: Path) -> None:
    runs = [made_run(tmp_path / name / "seed-0") for name in ("x", "y")]
    assert [run.label for run in read_runs(runs)] == ["x/seed-0", "y/seed-0"]
    with pytest.raises(ConfigError, match="given twice"):
        read_runs([runs[0], tmp_path / "y" / ".." / "x" / "seed-0"])


def edited_round(number: int, **changes: Any) -> Callable[[Path], None]:
    def damage(path: Path) -> None:
        rounds = raw_rounds(path)
        rounds[number] = {k: v for k, v in {**rounds[number], **changes}.items() if v is not ...}
        write_lines(path / "rounds.jsonl", rounds)

    return damage


def edited_summary(*keys: str, to: Any) -> Callable[[Path], None]:
    def damage(path: Path) -> None:
        summary = inner = json.loads((path / "summary.json").read_text())
        for key in keys[:-1]:
            inner = inner[key]
        if to is ...:
            del inner[keys[-1]]
        else:
            inner[keys[-1]] = to
        (path / "summary.json").write_text(json.dumps(summary))

    return damage


def edited_timeline(change: Callable[[dict[str, Any]], Any]) -> Callable[[Path], None]:
    def damage(path: Path) -> None:
        timeline = made_timeline(0, seed=0)
        change(timeline)
        write_lines(path / "timeline.jsonl", [timeline])

    return damage


def wrote(name: str, content: bytes) -> Callable[[Path], None]:
    return lambda path: (path / name).write_bytes(content) and None


DAMAGES: dict[str, tuple[Callable[[Path], None], list[str]]] = {
    "no experiment": (lambda path: (path / "experiment.toml").unlink(), ["holds no run", "fl-mobile simulate"]),
    "experiment of nobody": (wrote("experiment.toml", b"[trian]\nrounds = 1\n"), ["trian", "another version"]),
    "no rounds": (lambda path: (path / "rounds.jsonl").unlink(), ["no finished round"]),
    "empty rounds": (wrote("rounds.jsonl", b""), ["no finished round"]),
    "not JSON": (wrote("rounds.jsonl", b"hello\n{}\n"), ["rounds.jsonl, line 1", "JSON"]),
    "not UTF-8": (wrote("rounds.jsonl", b"\xff\xfe\n\n"), ["rounds.jsonl, line 1"]),
    "a list": (wrote("rounds.jsonl", b"[]\n"), ["line 1", "fields of a Round"]),
    "deep": (wrote("rounds.jsonl", b"[" * 100_000 + b"\n\n"), ["line 1"]),
    "key missing": (edited_round(3, accuracy=...), ["line 4", "accuracy"]),
    "key of nobody": (edited_round(3, accuracies=1), ["line 4", "accuracies", "version"]),
    "text for a number": (edited_round(3, accuracy="0.5"), ["line 4", "accuracy", "'0.5'"]),
    "negative bytes": (edited_round(3, upload_bytes=-1), ["line 4", "upload_bytes", "≥ 0"]),
    "boolean count": (edited_round(3, accepted=True), ["line 4", "accepted"]),
    "NaN": (edited_round(3, loss=float("nan")), ["line 4", "NaN"]),
    "beyond double": (edited_round(3, loss=10**400), ["line 4", "loss"]),
    "reasons that do not count": (edited_round(3, dropped={"late": 0.5}), ["line 4", "dropped"]),
    "accuracy above one": (edited_round(3, accuracy=1.5), ["line 4", "1.5"]),
    "a round missing": (edited_round(3, round_num=5), ["line 4", "round 3", "round 5"]),
    "summary is no JSON": (wrote("summary.json", b"{"), ["summary.json", "damaged"]),
    "summary of fewer rounds": (edited_summary("rounds", to=3), ["3 rounds", "holds 12"]),
    "summary without a model": (edited_summary("model", to=...), ["summary.json", "model"]),
    "summary with odd data": (edited_summary("dataset", to=[1]), ["summary.json"]),
    "summary with an odd command": (edited_summary("command", to=[1]), ["summary.json", "command"]),
    "evaluation without bins": (edited_summary("federated_evaluation", "histogram", "edges", to=...), ["edges"]),
    "bins that do not fit": (edited_summary("federated_evaluation", "histogram", "edges", to=[0, 1]), ["11 rising"]),
    "bins that fall": (
        edited_summary("federated_evaluation", "histogram", "edges", to=list(range(10, -1, -1))),
        ["rising edges"],
    ),
    "timeline without an end": (edited_timeline(lambda t: t.pop("end")), ["timeline.jsonl, line 1", "end"]),
    "columns of unequal length": (
        edited_timeline(lambda t: t["devices"]["joules"].pop()),
        ["timeline.jsonl, line 1", "equal length"],
    ),
    "a column that is none": (edited_timeline(lambda t: t["devices"].update(asked=3)), ["timeline.jsonl, line 1"]),
    "a time that is text": (
        edited_timeline(lambda t: t["devices"]["asked"].__setitem__(0, "now")),
        ["timeline.jsonl, line 1", "asked"],
    ),
    "a column missing": (edited_timeline(lambda t: t["devices"].pop("link")), ["timeline.jsonl, line 1", "link"]),
}


@pytest.mark.parametrize(("damage", "words"), DAMAGES.values(), ids=DAMAGES)
def test_damage_is_a_run_error_that_says_where(
    tmp_path: Path, damage: Callable[[Path], None], words: list[str]
) -> None:
    path = made_run(tmp_path / "run")
    assert read_runs([path])
    damage(path)
    with pytest.raises(RunError) as caught:
        read_runs([path])
    for word in (*words, str(path)):
        assert word in str(caught.value)


def test_a_folder_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(RunError, match="holds no run"):
        read_runs([tmp_path / "nope"])


@pytest.mark.parametrize("kind", [Round, Trips, Timeline, Spread, Evaluation, Closing])
def test_every_annotation_has_a_check(kind: type) -> None:
    records = {Trips, Spread, Spread | None, Evaluation | None}  # made by `record_of` themselves
    assert set(typing.get_type_hints(kind).values()) <= FIELD_KINDS.keys() | records


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=6,
)


@given(st.sampled_from(list(typing.get_type_hints(Round))), JSON)
def test_any_value_of_any_field_is_a_round_or_a_run_error(name: str, value: Any) -> None:
    fits, _ = FIELD_KINDS[typing.get_type_hints(Round)[name]]
    line = {**asdict(made_round(0, 0)), name: value}
    if fits(value):
        assert getattr(record_of(Round, line, "here"), name) == value
    else:
        with pytest.raises(RunError, match=f"here: {name} must be"):
            record_of(Round, line, "here")
