"""Ctrl-C is never lost, whoever swallows its exception; the second one ends the process at once."""

from __future__ import annotations

import signal
import subprocess
import sys
from collections.abc import Iterator

import pytest
import typer

from device_sim.cli.edge import reported
from device_sim.run.interrupt import forget_interrupt, stop_if_interrupted
from device_sim.run.progress import follow
from tests.device_sim.cli_runs import environment, interruptible
from tests.device_sim.run.test_progress import played


class PressesCtrlC:
    """Python drops what a destructor raises, as it does for the many destructors inside TensorFlow."""

    def __del__(self) -> None:
        signal.raise_signal(signal.SIGINT)


@pytest.fixture
def default_sigint() -> Iterator[None]:
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.usefixtures("default_sigint")
@pytest.mark.parametrize("quiet", [True, False])
def test_a_swallowed_ctrl_c_ends_the_run_at_the_next_round(capsys: pytest.CaptureFixture[str], quiet: bool) -> None:
    seen = []

    def verb() -> None:
        for done in follow(played(5), 5, 0, quiet=quiet):
            seen.append(done.round_num)
            if done.round_num == 1:
                PressesCtrlC()

    with pytest.raises(typer.Exit) as ended:
        reported(verb)()
    assert (ended.value.exit_code, seen) == (130, [0, 1])
    assert capsys.readouterr().err.endswith("fl-mobile: interrupted\n")
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


@pytest.mark.usefixtures("default_sigint")
def test_a_ctrl_c_swallowed_in_the_last_step_still_stops_the_script_around_it() -> None:
    with pytest.raises(typer.Exit) as ended:
        reported(lambda: PressesCtrlC() and None)()
    assert ended.value.exit_code == 130
    stop_if_interrupted()  # the next command starts afresh


@pytest.mark.usefixtures("default_sigint")
def test_a_server_that_ctrl_c_ends_as_planned_has_succeeded(capsys: pytest.CaptureFixture[str]) -> None:
    def verb() -> None:
        try:
            signal.raise_signal(signal.SIGINT)
        except KeyboardInterrupt:
            forget_interrupt()

    reported(verb)()
    assert capsys.readouterr() == ("", "")


SWALLOWS_EVERYTHING = """
import signal
from device_sim.cli.edge import reported
def verb():
    for count in range(3):
        try:
            print(count, flush=True)
            signal.raise_signal(signal.SIGINT)
        except KeyboardInterrupt:
            pass
reported(verb)()
"""


def test_the_second_ctrl_c_ends_at_once() -> None:
    arguments = [sys.executable, "-c", SWALLOWS_EVERYTHING]
    done = subprocess.run(arguments, capture_output=True, text=True, env=environment(), preexec_fn=interruptible)
    assert (done.returncode, done.stdout) == (130, "0\n1\n")


LOST_IN_A_DESTRUCTOR = """
import sys
from tests.device_sim.cli.test_interrupt import PressesCtrlC, follow, played, reported, typer
def verb():
    for done in follow(played(5), 5, 0, quiet=True):
        PressesCtrlC()
try:
    reported(verb)()
except typer.Exit as ended:
    sys.exit(ended.exit_code)
"""


def test_a_lost_ctrl_c_is_told_once_and_without_a_traceback() -> None:
    arguments = [sys.executable, "-c", LOST_IN_A_DESTRUCTOR]
    done = subprocess.run(arguments, capture_output=True, text=True, env=environment(), preexec_fn=interruptible)
    assert (done.returncode, done.stderr) == (130, "fl-mobile: interrupted\n")


def test_who_was_started_deaf_to_ctrl_c_stays_so() -> None:
    def deaf() -> None:
        signal.signal(signal.SIGINT, signal.SIG_IGN)

    arguments = [sys.executable, "-c", SWALLOWS_EVERYTHING]
    done = subprocess.run(arguments, capture_output=True, text=True, env=environment(), preexec_fn=deaf)
    assert (done.returncode, done.stdout) == (0, "0\n1\n2\n")
