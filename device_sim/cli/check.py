"""``fl-mobile check``: what holds of a part of one's own."""

from __future__ import annotations

from typing import Annotated

import typer

from device_sim.cli.output import Format, FormatOption, make_table, print_json, print_tables


def check(
    part: Annotated[str, typer.Argument(metavar="PACKAGE.MODULE:NAME", help="A row of a table, or a function.")],
    kind: Annotated[str, typer.Option(metavar="KIND", help="Of a function: model, schedule or availability.")] = "",
    output: FormatOption = Format.TEXT,
) -> None:
    """Try the laws of its kind on a part of your own: codec stage, algorithm, loss, sampler … It imports and runs it.

    Examples:
      fl-mobile check my_codecs:HALVES
      fl-mobile check my_models:build --kind model
    """
    from device_sim.check import check_part
    from fl_mobile.errors import VerifyError

    kind, found = check_part(part, kind)
    broken = [one for one in found if one.broken]
    if output is Format.JSON:
        print_json({"part": part, "kind": kind, "laws": [{"law": one.law, "broken": one.broken} for one in found]})
    else:
        rows = [(one.law, "BROKEN" if one.broken else "holds", one.broken) for one in found]
        print_tables([make_table(f"{kind} {part}", ("law", "", ""), rows)])
    if broken:
        raise VerifyError(f"{kind} {part}: {len(broken)} of {len(found)} laws do not hold: {broken[0].broken}")
