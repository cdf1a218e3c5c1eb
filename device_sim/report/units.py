"""Numbers with the unit that suits them, for axes and tables."""

from __future__ import annotations

import math
from collections.abc import Iterable

Units = tuple[tuple[float, str], ...]
"""(how many base units, name), falling."""

BYTES: Units = ((1e9, "GB"), (1e6, "MB"), (1e3, "kB"), (1, "bytes"))
SECONDS: Units = ((86_400, "days"), (3_600, "hours"), (60, "minutes"), (1, "seconds"), (1e-3, "milliseconds"))
JOULES: Units = ((1e6, "MJ"), (1e3, "kJ"), (1, "J"))


def unit_for(values: Iterable[float], units: Units) -> tuple[float, str]:
    """Returns the largest unit that the largest value holds at least once; of nothing but zeros, the base unit.

    >>> unit_for([12.0, 7_000.0], SECONDS), unit_for([0.0], SECONDS)
    ((3600, 'hours'), (1, 'seconds'))
    """
    top = max((abs(value) for value in values), default=0.0) or 1.0
    return next((row for row in units if top >= row[0]), units[-1])


def told(value: float | None, units: Units) -> str:
    """Returns a value with its unit; a dash for None.

    >>> told(1_234_567, BYTES), told(87, BYTES), told(5_400, SECONDS), told(None, JOULES)
    ('1.23 MB', '87 bytes', '1.5 hours', '–')
    """
    if value is None:
        return "–"
    one, name = unit_for([value], units)
    return f"{number(value / one)} {name}"


def number(value: float) -> str:
    """Returns three significant digits, and all digits before the point.

    >>> number(0.012345), number(12.345), number(1234.5), number(2.0), number(-0.5)
    ('0.0123', '12.3', '1,234', '2', '-0.5')
    """
    if value == 0 or not math.isfinite(value):
        return f"{value:g}"
    digits = max(0, 2 - math.floor(math.log10(abs(value))))
    text = f"{value:,.{digits}f}"
    return text.rstrip("0").rstrip(".") if "." in text else text
