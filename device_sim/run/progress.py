"""What the user sees while a run goes on: a live view on a terminal or in a notebook, a line now and then in a log.

Where a notebook shows it, the view is one output that IPython changes in place. The bars that rich and tqdm have there
need ipywidgets in the kernel and in the page, and are gone from a notebook that was saved.
"""

from __future__ import annotations

import math
import sys
import time
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from html import escape
from typing import TYPE_CHECKING, Any

from device_sim.run.interrupt import stop_if_interrupted

if TYPE_CHECKING:
    from rich.table import Table

    from device_sim.run.log import Round

PLAIN_LINES = 20
"""About so many lines a whole run gets when stderr is not a terminal."""

_ETA_ROUNDS = 5
_INLINE_SECONDS = 0.25
_SPARK_ROUNDS = 16
_SPARKS = "▁▂▃▄▅▆▇█"


ACCURACY = "test accuracy"


def follow(rounds: Iterable[Round], limit: int, already: int, *, quiet: bool, score: str = ACCURACY) -> Iterator[Round]:
    """Yields ``rounds`` and reports each on stderr; a Ctrl-C that a library swallowed is raised again here.

    Args:
        limit: Rounds the experiment has at most.
        already: Rounds that were on disk before; they are shown once, together.
        quiet: Report nothing.
        score: What the task's score on the test set is called.
    """
    stoppable = _until_ctrl_c(rounds)
    if quiet:
        yield from stoppable
    elif sys.stderr.isatty():
        yield from _live(stoppable, limit, score)
    elif in_notebook():
        yield from _inline(stoppable, limit, score)
    else:
        yield from _plain(stoppable, limit, already, score)


def in_notebook() -> bool:
    """Returns whether a cell of a notebook asked, and not a script or a terminal."""
    ipython: Any = sys.modules.get("IPython")
    return ipython is not None and hasattr(ipython.get_ipython(), "kernel")


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


def _live(rounds: Iterable[Round], limit: int, score: str) -> Iterator[Round]:
    from rich.console import Console, Group
    from rich.live import Live
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

    eta = TextColumn("ETA {task.fields[eta]}")
    bar = Progress(TextColumn("round"), MofNCompleteColumn(), BarColumn(None), TimeElapsedColumn(), eta, expand=True)
    task, seen = bar.add_task("", total=limit, eta="–"), _Seen(score)
    with Live(bar, console=Console(stderr=True), refresh_per_second=4) as view:
        for done in rounds:
            seen.add(done)
            bar.update(task, completed=done.round_num + 1, eta=clock(seen.left(limit)))
            view.update(Group(bar, _table(seen)))
            yield done


@dataclass(frozen=True)
class _View:
    """The output of a cell: a bar and lines below it, as HTML and as text."""

    done: int
    limit: int
    lines: tuple[tuple[str, str], ...] = ()

    def __repr__(self) -> str:
        return "\n".join([f"round {self.done}/{self.limit}", *(f"{name}  {told}" for name, told in self.lines)])

    def _repr_html_(self) -> str:
        rows = "".join(f"<tr><td>{escape(name)}</td><td>{escape(told)}</td></tr>" for name, told in self.lines)
        bar = f'<progress value="{self.done}" max="{self.limit}"></progress>'
        return f"<div>round {self.done}/{self.limit} {bar}<table>{rows}</table></div>"


def _inline(rounds: Iterable[Round], limit: int, score: str) -> Iterator[Round]:
    from IPython.display import display

    view, seen, last = _View(0, limit), _Seen(score), 0.0
    shown = display(view, display_id=True)
    try:
        for done in rounds:
            seen.add(done)
            left = ("time left", clock(seen.left(limit)))
            view = _View(done.round_num + 1, limit, (*seen.lines(), left))
            if time.monotonic() - last > _INLINE_SECONDS:
                shown.update(view)
                last = time.monotonic()
            yield done
    finally:
        shown.update(view)


def _table(seen: _Seen) -> Table:
    """Returns what stands below the bar: how it learns, what travelled, where devices stayed, simulated time."""
    from rich.table import Table
    from rich.text import Text

    table = Table.grid(padding=(0, 2))
    table.add_column(style="dim")
    table.add_column(overflow="fold")
    for name, told in seen.lines():
        table.add_row(Text(name), Text(told))
    return table


def _plain(rounds: Iterable[Round], limit: int, already: int, score: str) -> Iterator[Round]:
    seen, every = _Seen(score), max(1, limit // PLAIN_LINES)
    for done in rounds:
        seen.add(done)
        count = done.round_num + 1
        if count >= already and (count == already or count % every == 0 or count in (1, limit)):
            print(f"round {count}/{limit}  {'  '.join(seen.told(limit))}", file=sys.stderr, flush=True)
        yield done


class _Seen:
    """Running totals of the rounds so far; what it holds does not grow with them."""

    def __init__(self, score: str) -> None:
        self.last: Round
        self._score = score
        self._walls: list[float] = []
        self._accuracies: list[float] = []
        self._best, self._joules = -math.inf, 0.0
        self._up = self._down = self._accepted = 0
        self._dropped: Counter[str] = Counter()
        self._skipped: Counter[str] = Counter()

    def add(self, done: Round) -> None:
        self.last = done
        self._walls = [*self._walls[1 - _ETA_ROUNDS :], done.wall_seconds]
        if done.accuracy is not None:
            self._accuracies = [*self._accuracies[1 - _SPARK_ROUNDS :], done.accuracy]
            self._best = max(self._best, done.accuracy)
        self._up += done.upload_bytes
        self._down += done.download_bytes
        self._accepted += done.accepted
        self._joules += done.joules
        self._dropped.update(done.dropped)
        self._skipped.update(done.skipped)

    def left(self, limit: int) -> float:
        """Returns seconds until the last round, as the latest ones went."""
        return sum(self._walls) / len(self._walls) * (limit - self.last.round_num - 1)

    def told(self, limit: int) -> tuple[str, str]:
        """Returns how it learns and how long it takes, and what travelled: two halves that fit 80 columns."""
        return (
            f"{self._score} {self._accuracy()}  train loss {self._loss()}  ETA {clock(self.left(limit))}",
            f"{self._traffic()}  dropped {self._dropped.total()}",
        )

    def lines(self) -> Iterator[tuple[str, str]]:
        """Yields (name, text) of the live view's lines; those about nothing are left out."""
        last = self.last
        spark = f"{sparkline(self._accuracies)}  best {self._best:.4f}" if self._accuracies else ""
        yield "model", f"{self._score} {self._accuracy()}  {spark}  train loss {self._loss()}"
        yield "traffic", self._traffic()
        yield "devices", f"accepted {self._accepted:,}  dropped {_reasons(self._dropped)}"
        if self._skipped.total():
            yield "", f"skipped {_reasons(self._skipped)}"
        if last.sim_seconds:
            yield "fleet", f"simulated {clock(last.sim_seconds)}  energy {self._joules:,.0f} J"

    def _accuracy(self) -> str:
        """Of the global model on the held-out test set, when it was last evaluated there."""
        return f"{self._accuracies[-1]:.4f}" if self._accuracies else "–"

    def _loss(self) -> str:
        """Mean loss of the devices' own training."""
        return "–" if self.last.train_loss is None else f"{self.last.train_loss:.3f}"

    def _traffic(self) -> str:
        ratio = "–" if self.last.ratio is None else f"{self.last.ratio:.1f}×"
        return f"up {self._up / 1e6:.2f} MB  down {self._down / 1e6:.2f} MB  ratio {ratio}"


def _reasons(counts: Counter[str]) -> str:
    named = ", ".join(f"{count:,} {reason}" for reason, count in counts.most_common() if count)
    return f"{counts.total():,}" + (f": {named}" if named else "")


def sparkline(values: Sequence[float]) -> str:
    """Returns one block per value, from the lowest to the highest of them.

    >>> sparkline([0.1, 0.2, 0.3, 0.45])
    '▁▃▅█'
    """
    low, high = min(values), max(values)
    step = (high - low) / (len(_SPARKS) - 1) or 1
    return "".join(_SPARKS[round((value - low) / step)] for value in values)


def clock(seconds: float) -> str:
    """Returns minutes and seconds, with hours and days where there are any.

    >>> clock(75.4), clock(3700), clock(200_000)
    ('1:15', '1:01:40', '2 d 7:33:20')
    """
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    days, hours = divmod(hours, 24)
    told = f"{hours}:{minutes:02}:{rest:02}" if days or hours else f"{minutes}:{rest:02}"
    return f"{days} d {told}" if days else told
