"""``fl-mobile report`` as a command."""

from __future__ import annotations

import json
from pathlib import Path

from tests.device_sim.cli_runs import fl_mobile, the_message
from tests.device_sim.report.made_runs import made_run, raw_rounds


def test_a_comparison_is_written_and_told(tmp_path: Path) -> None:
    paths = [made_run(tmp_path / "a", timelines=()), made_run(tmp_path / "b", seed=1, timelines=())]
    ended = fl_mobile("report", "a", "b", "--out", "both.html", "--format", "json", cwd=tmp_path)
    assert (ended.code, ended.err) == (0, "")
    assert ended.json["report"] == "both.html"
    assert ended.json["different_keys"] == {"seed": ["0", "1"]}
    for line, path in zip(ended.json["runs"], paths, strict=True):
        assert line["accuracy"] == raw_rounds(path)[-1]["accuracy"]
    assert "Accuracy minus that of a" in (tmp_path / "both.html").read_text(encoding="utf-8")


def test_one_run_s_report_lies_beside_its_rounds(tmp_path: Path) -> None:
    made_run(tmp_path / "a", rounds=2, timelines=(), evaluated=False)
    ended = fl_mobile("report", "a", cwd=tmp_path)
    assert ended.code == 0
    assert "Report: a/report.html" in ended.out
    assert (tmp_path / "a" / "report.html").exists()


def test_mistakes_write_nothing(tmp_path: Path) -> None:
    path = made_run(tmp_path / "a", rounds=2, timelines=())
    before = sorted(p.name for p in path.iterdir())
    rounds = (path / "rounds.jsonl").read_bytes()
    for arguments, code, word in (
        (["a", "--out", "a/rounds.jsonl"], 3, ".html"),
        (["a", "nope"], 7, "nope holds no run"),
        (["a", "./a"], 3, "given twice"),
    ):
        ended = fl_mobile("report", *arguments, cwd=tmp_path)
        assert ended.code == code
        assert word in the_message(ended)
    assert sorted(p.name for p in path.iterdir()) == before
    assert (path / "rounds.jsonl").read_bytes() == rounds
    assert json.loads(rounds.splitlines()[0])["round_num"] == 0
