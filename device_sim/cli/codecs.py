"""``fl-mobile codecs``: what ``upload.codec`` and ``download.codec`` may say."""

from __future__ import annotations

from typing import Any

from device_sim.cli.output import Format, FormatOption, make_table, print_json, print_tables


def codecs(output: FormatOption = Format.TEXT) -> None:
    """List codec stages, whole codecs and presets; stages are joined by +, arguments follow a colon.

    Examples:
      fl-mobile codecs
      fl-mobile codecs --format json
    """
    rows = _rows()
    if output is Format.JSON:
        print_json(rows)
        return
    cells = [(r["name"], r["kind"], r["example"], "yes" if r["unbiased"] else "no", r["summary"]) for r in rows]
    print_tables([make_table("", ("name", "kind", "example", "unbiased", "summary"), cells)])


def _rows() -> list[dict[str, Any]]:
    from fl_mobile.codecs import CODECS, PRESETS, STAGES, parse_codec

    rows: list[dict[str, Any]] = []
    for kind, table in (("stage", STAGES), ("codec", CODECS)):
        rows += [{"name": n, "kind": kind, "example": row.example, "summary": row.summary} for n, row in table.items()]
    rows += [{"name": n, "kind": "preset", "example": n, "summary": text} for n, text in PRESETS.items()]
    return [{**row, "unbiased": parse_codec(row["example"]).unbiased} for row in rows]
