"""Text of the code as Markdown: table cells, and Google docstrings."""

from __future__ import annotations

import re
import textwrap
from collections.abc import Iterable, Sequence

_SECTION = re.compile(r"^(Args|Arguments|Returns|Yields|Raises|Attributes|Examples?|Note):$")
_ENTRY = re.compile(r"^(\*{0,2}[\w., *`()|]+?): (.*)$")


def plain(text: str) -> str:
    """Returns text whose Markdown signs are meant as they stand; what is between backticks stays code.

    >>> plain("a*b <c> `d*e`")
    'a\\\\*b &lt;c> `d*e`'
    """
    parts = re.split(r"(`+[^`]+`+)", text)
    return "".join(p if p.startswith("`") else re.sub(r"([*_\[\]$])", r"\\\1", p.replace("<", "&lt;")) for p in parts)


def cell(value: object) -> str:
    """Returns a value as one table cell."""
    return " ".join(str(value).split()).replace("|", "\\|")


def table(columns: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """Returns a Markdown table; cells that are no code have to be `plain` already."""
    lines = [columns, ["---"] * len(columns), *rows]
    return "\n".join("| " + " | ".join(cell(c) for c in line) + " |" for line in lines) + "\n"


def code(text: str, language: str = "text") -> str:
    """Returns a block of code, whatever fences it has inside."""
    fence = "`" * max(3, 1 + max((len(run) for run in re.findall("`+", text)), default=0))
    return f"{fence}{language}\n{text.rstrip()}\n{fence}\n"


def docstring(text: str | None) -> str:
    """Returns a Google docstring as Markdown: sections as lists, doctests and drawings as code."""
    blocks, out = _blocks(textwrap.dedent(_first_line_indented(text or ""))), []
    for block in blocks:
        first = block.split("\n", 1)[0]
        if block.startswith("```"):
            out.append(code(block.strip("`").removeprefix("\n"), "text"))
        elif first.startswith(">>>"):
            out.append(code(block, "pycon"))
        elif _SECTION.match(first):
            out.append(f"**{first[:-1]}**\n\n{_entries(block.split(chr(10), 1)[1])}")
        elif any(line.startswith("  ") for line in block.split("\n")):
            out.append(code(block))
        else:
            out.append(plain(" ".join(block.replace("``", "`").split())))
    return "\n\n".join(out) + "\n"


def _first_line_indented(text: str) -> str:
    """Returns the docstring with its first line as far in as the rest."""
    rest = [line for line in text.split("\n")[1:] if line.strip()]
    margin = min((len(line) - len(line.lstrip()) for line in rest), default=0)
    return " " * margin + text.lstrip()


def _blocks(text: str) -> list[str]:
    """Returns paragraphs; a fenced drawing with its empty lines is one, and so is a section."""
    blocks: list[list[str]] = [[]]
    fenced = False
    for line in text.strip().split("\n"):
        if line.startswith("```"):
            if not fenced:
                blocks.append([])
            blocks[-1].append(line)
            if fenced:
                blocks.append([])
            fenced = not fenced
        elif not line.strip() and not fenced:
            blocks.append([])
        else:
            blocks[-1].append(line)
    return ["\n".join(b) for b in blocks if b]


def _entries(text: str) -> str:
    """Returns ``name: what it is`` lines as a list."""
    items: list[str] = []
    for line in textwrap.dedent(text).split("\n"):
        if line.startswith(" ") and items:
            items[-1] += " " + line.strip()
        else:
            items.append(line.strip())
    out = []
    for item in items:
        found = _ENTRY.match(item.replace("``", "`"))
        if found:
            out.append(f"- `{found[1].strip('`')}`: {plain(found[2])}")
        else:
            out.append(f"- {plain(item.replace('``', '`'))}")
    return "\n".join(out)
