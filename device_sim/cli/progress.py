"""What the user sees while a run goes on: a live bar on a terminal, a plain line now and then in a log."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from device_sim.cli.edge import stop_if_interrupted

if TYPE_CHECKING:
    from device_sim.simulate import Round

PLAIN_LINES = 20
"""About so many lines a whole run gets when stderr is not a terminal."""

_ETA_ROUNDS = 5


def follow(rounds: Iterable[Round], limit: int, already: int, *, quiet: bool) -> Iterator[Round]:
    """Yields ``rounds`` and reports each on stderr; a Ctrl-C that a library swallowed is raised again here.

    Args:
        limit: Rounds the experiment has at most.
        already: Rounds that were on disk before; they are shown once, together.
        quiet: Report nothing.
    """
    stoppable = _until_ctrl_c(rounds)
    if quiet:
        yield from stoppable
    elif sys.stderr.isatty():
        yield from _live(stoppable, limit)
    else:
        yield from _plain(stoppable, limit, already)


def _until_ctrl_c(rounds: Iterable[Round]) -> Iterator[Round]:
    for done in rounds:
        stop_if_interrupted()
        yield done


@contextmanager
def waiting(what: str, *, quiet: bool) -> Iterator[None]:
    """Shows a spinner with ``what`` on a terminal, one line in a log."""
    from rich.console import Console

    if quiet:
        yield
    elif sys.stderr.isatty():
        with Console(stderr=True).status(what):
            yield
    else:
        print(what, file=sys.stderr, flush=True)
        yield


def _live(rounds: Iterable[Round], limit: int) -> Iterator[Round]:
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

    columns = (TextColumn("round"), MofNCompleteColumn(), BarColumn(bar_width=10), TextColumn("{task.fields[told]}"))
    with Progress(*columns, console=Console(stderr=True), refresh_per_second=4) as bar:
        task, seen = bar.add_task("", total=limit, told=""), _Seen()
        for done in rounds:
            seen.add(done)
            bar.update(task, completed=done.round_num + 1, told="\n".join(seen.told(limit)))
            yield done


def _plain(rounds: Iterable[Round], limit: int, already: int) -> Iterator[Round]:
    seen, every = _Seen(), max(1, limit // PLAIN_LINES)
    for done in rounds:
        seen.add(done)
        count = done.round_num + 1
        if count >= already and (count == already or count % every == 0 or count in (1, limit)):
            print(f"round {count}/{limit}  {'  '.join(seen.told(limit))}", file=sys.stderr, flush=True)
        yield done


class _Seen:
    """Running totals of the rounds so far."""

    def __init__(self) -> None:
        self._last: list[Round] = []
        self._up = self._down = self._dropped = 0

    def add(self, done: Round) -> None:
        self._last = [*self._last[1 - _ETA_ROUNDS :], done]
        self._up += done.upload_bytes
        self._down += done.download_bytes
        self._dropped += sum(done.dropped.values())

    def told(self, limit: int) -> tuple[str, str]:
        """Returns how it learns and how long it takes, and what travelled: two halves that fit 80 columns."""
        now = self._last[-1]
        left = sum(r.wall_seconds for r in self._last) / len(self._last) * (limit - now.round_num - 1)
        loss = "–" if now.train_loss is None else f"{now.train_loss:.3f}"
        ratio = "–" if now.ratio is None else f"{now.ratio:.1f}×"
        return (
            f"accuracy {now.accuracy:.4f}  loss {loss}  ETA {clock(left)}",
            f"up {self._up / 1e6:.2f} MB  down {self._down / 1e6:.2f} MB  ratio {ratio}  dropped {self._dropped}",
        )


def clock(seconds: float) -> str:
    """Returns minutes and seconds.

    >>> clock(75.4), clock(3700)
    ('1:15', '1:01:40')
    """
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"
