"""stdout is the result, stderr is everything else: one place for both."""

from __future__ import annotations

import io
import json
import sys
from collections.abc import Iterable, Sequence
from enum import Enum
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:  # rich is loaded when something is drawn, not when a verb is looked up
    from rich.table import Table


class Format(str, Enum):
    """Values of ``--format``."""

    TEXT = "text"
    JSON = "json"


FormatOption = Annotated[
    Format, typer.Option("--format", help="What stdout gets: tables for people, or one JSON value for programs.")
]
SetOption = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="KEY=VALUE", help="Change one key of the experiment; may be repeated."),
]


def encodable_stdout() -> None:
    """Makes stdout take every character: where its encoding lacks one (LC_ALL=C), a ``?`` stands for it.

    A result must not be lost to a dash after an hour of training.
    """
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")


def print_json(value: Any) -> None:
    """Prints one JSON value on stdout; NaN is a programming error here, because JSON has none."""
    print(json.dumps(value, indent=2, ensure_ascii=not _takes_unicode(), allow_nan=False))


def _takes_unicode() -> bool:
    return (sys.stdout.encoding or "").lower().replace("-", "") in ("utf8", "utf16", "utf32")


def print_tables(tables: Iterable[Table]) -> None:
    """Prints tables on stdout: as wide as the terminal, and never cut when stdout is a file or pipe."""
    from rich.console import Console

    console = Console(width=None if sys.stdout.isatty() else 200, highlight=False, soft_wrap=False)
    for table in tables:
        console.print(table)


def make_table(
    title: str, columns: Sequence[str], rows: Iterable[Sequence[object]], *, numbers: Sequence[str] = ()
) -> Table:
    """Returns a table; columns listed in ``numbers`` are set flush right. Cells are text, not markup."""
    from rich import box
    from rich.table import Table
    from rich.text import Text

    table = Table(title=title or None, title_justify="left", box=box.SIMPLE_HEAD, pad_edge=False)
    for column in columns:
        table.add_column(column, justify="right" if column in numbers else "left", overflow="fold")
    for row in rows:
        table.add_row(*(Text(str(cell)) for cell in row))
    return table


def say(line: str) -> None:
    """Prints one line of progress or advice on stderr."""
    print(line, file=sys.stderr, flush=True)


def size(count: float) -> str:
    """Returns bytes in the decimal unit that suits them.

    >>> size(1_234_567), size(4_321), size(87)
    ('1.23 MB', '4.32 kB', '87 bytes')
    """
    for unit, name in ((1e6, "MB"), (1e3, "kB")):
        if count >= unit:
            return f"{count / unit:.2f} {name}"
    return f"{count:.0f} bytes"
