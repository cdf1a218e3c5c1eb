"""Progress on stderr: a bar on a real terminal, a few plain lines in a log, nothing when asked for nothing."""

from __future__ import annotations

import os
import pty
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from device_sim.run.log import Round
from device_sim.run.progress import PLAIN_LINES, follow
from tests.device_sim.cli_runs import environment


def played(count: int) -> list[Round]:
    return [
        Round(
            round_num=n,
            accuracy=n / count,
            loss=1.0,
            train_loss=None if n == 0 else 0.5,
            cohort=10,
            accepted=0 if n == 0 else 8,
            dropped={"offline": 1, "lost": 1},
            upload_bytes=1_000_000,
            download_bytes=2_000_000,
            uploads=0 if n == 0 else 9,
            downloads=9,
            ratio=None if n == 0 else 12.34,
            air_seconds=1.0,
            wall_seconds=2.0,
        )
        for n in range(count)
    ]


def test_a_log_gets_a_few_lines_and_always_the_last(capsys: pytest.CaptureFixture[str]) -> None:
    rounds = played(100)
    assert list(follow(rounds, 100, 0, quiet=False)) == rounds
    shown = capsys.readouterr()
    lines = shown.err.splitlines()
    assert shown.out == ""
    assert PLAIN_LINES <= len(lines) <= PLAIN_LINES + 2
    assert lines[0] == (
        "round 1/100  test accuracy 0.0000  train loss –  ETA 3:18  up 1.00 MB  down 2.00 MB  ratio –  dropped 2"
    )
    assert lines[-1] == (
        "round 100/100  test accuracy 0.9900  train loss 0.500  ETA 0:00  up 100.00 MB  down 200.00 MB  ratio 12.3×"
        "  dropped 200"
    )


def test_between_evaluations_the_last_known_accuracy_stays(capsys: pytest.CaptureFixture[str]) -> None:
    rounds = [r if r.round_num % 4 == 3 else replace(r, accuracy=None, loss=None) for r in played(8)]
    list(follow(rounds, 8, 0, quiet=False))
    told = [line.split("test accuracy ")[1].split()[0] for line in capsys.readouterr().err.splitlines()]
    assert told == ["–"] * 3 + ["0.3750"] * 4 + ["0.8750"]


def test_resumed_rounds_are_shown_once_and_counted(capsys: pytest.CaptureFixture[str]) -> None:
    list(follow(played(50), 100, 42, quiet=False))
    lines = capsys.readouterr().err.splitlines()
    assert lines[0].startswith("round 42/100")
    assert "up 42.00 MB" in lines[0]
    assert lines[1].startswith("round 45/100")


def test_quiet_shows_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    assert len(list(follow(played(3), 3, 0, quiet=True))) == 3
    assert capsys.readouterr() == ("", "")


def on_a_terminal(code: str) -> str:
    """Runs Python code whose stderr is a terminal of 80 columns and returns what was shown there."""
    master, slave = pty.openpty()
    child = subprocess.Popen(
        [sys.executable, "-c", code],
        stderr=slave,
        stdout=subprocess.PIPE,
        env=environment(COLUMNS="80", TERM="xterm"),
    )
    os.close(slave)
    shown = b""
    while True:
        try:
            part = os.read(master, 4096)
        except OSError:  # Linux ends a pty with EIO
            break
        if not part:
            break
        shown += part
    os.close(master)
    assert child.stdout is not None
    assert child.stdout.read() == b""
    assert child.wait() == 0
    return shown.decode()


def test_a_terminal_gets_a_view_that_fits_80_columns() -> None:
    text = on_a_terminal(
        "from tests.device_sim.run.test_progress import played\nfrom device_sim.run.progress import follow\n"
        "list(follow(played(80), 80, 0, quiet=False))"
    )
    for word in ("80/80", "accuracy 0.9875", "ETA 0:00", "up 80.00 MB", "down 160.00 MB", "ratio 12.3×", "dropped 160"):
        assert word in text
    assert "dropped 160: 80 offline, 80 lost" in text
    assert "accepted 632" in text
    assert "▁▁▂▂▃▃▄▄▅▅▆▆▇▇██" in text, "accuracy of the last 16 rounds"
    assert "…" not in text, "something was cut off"
    assert "simulated" not in text, "these rounds have no clock"
    assert "skipped" not in text


def test_a_terminal_shows_the_fleet_s_clock_energy_and_who_did_not_take_part() -> None:
    text = on_a_terminal(
        "from dataclasses import replace\nfrom tests.device_sim.run.test_progress import played\n"
        "from device_sim.run.progress import follow\n"
        "timed = [replace(r, sim_seconds=100.0 * (r.round_num + 1), joules=12.5, skipped={'charging': 3, 'metered': 1})"
        " for r in played(80)]\n"
        "list(follow(timed, 80, 0, quiet=False))"
    )
    for word in ("simulated 2:13:20", "energy 1,000 J", "skipped 320: 240 charging, 80 metered"):
        assert word in text


def test_a_terminal_that_saw_no_round_is_left_clean() -> None:
    text = on_a_terminal("from device_sim.run.progress import follow\nlist(follow([], 80, 0, quiet=False))")
    assert "0/80" in text
    assert text.endswith("\x1b[?25h"), "the cursor is back"


CELL = """
from device_sim.run.progress import follow
from tests.device_sim.run.test_progress import played
rounds = [done for done in follow(played(12), 12, 0, quiet=False)]
"""


def test_a_notebook_gets_one_output_that_changes_in_place() -> None:
    """By a kernel of its own, as Jupyter runs a cell."""
    client = pytest.importorskip("nbclient", reason="nbclient is not installed: pip install 'fl-mobile[docs]'")
    from nbformat.v4 import new_code_cell, new_notebook

    root = str(Path(__file__).parents[3])
    notebook = new_notebook(cells=[new_code_cell(f"import sys\nsys.path.insert(0, {root!r})\n{CELL}")])
    client.NotebookClient(notebook, timeout=120, kernel_name="python3").execute()
    (shown,) = [out for out in notebook.cells[0].outputs if out.output_type == "display_data"]
    assert '<progress value="12" max="12">' in shown.data["text/html"]
    assert "round 12/12\n" in shown.data["text/plain"]
    assert "0.9167" in shown.data["text/html"], "the last accuracy"
