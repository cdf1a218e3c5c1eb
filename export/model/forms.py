"""What each input of an artifact is given: camera frames, tokens or floats, and in which range."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass

from export.model.ends import Opening
from fl_mobile.errors import ExportError, nearest

InputForms = str | Mapping[str, str] | None
"""One form for all inputs or one by name: ``"uint8"``, ``"int32"``, ``"float32"`` or ``"float32:LOW..HIGH"``."""

_FORM = re.compile(r"(uint8|int32|float32)(?::(.+)\.\.(.+))?")


@dataclass(frozen=True)
class Entry:
    """One input of the artifact.

    Attributes:
        name: See ``export.model.ends``.
        shape: With the batch, e.g. ``(1, 28, 28, 1)``.
        dtype: ``"uint8"`` raw pixels 0..255, ``"int32"`` such as tokens, or ``"float32"``.
        span: Least and largest value that ``"float32"`` inputs are declared to have; None for any.
    """

    name: str
    shape: tuple[int, ...]
    dtype: str
    span: tuple[float, float] | None = None

    @property
    def is_image(self) -> bool:
        """Whether it takes raw camera frames."""
        return self.dtype == "uint8"


def entries_of(opening: Opening, forms: InputForms) -> tuple[Entry, ...]:
    """Returns the inputs of the artifact.

    Args:
        opening: Of the model.
        forms: What the user says of them.

    Raises:
        ExportError: A name is no input's, or a form is not known or cannot hold what the input takes.
    """
    if isinstance(forms, Mapping):
        odd = [name for name in forms if name not in opening.names]
        if odd:
            raise ExportError(f"input_dtype: the model has no input {odd[0]!r}.{nearest(odd[0], opening.names)}")
        wanted = dict(forms)
    else:
        wanted = dict.fromkeys(opening.names, forms) if forms is not None else {}
    return tuple(
        _entry(name, shape, takes, wanted.get(name) or _usual(shape, takes))
        for name, shape, takes in zip(opening.names, opening.shapes, opening.dtypes, strict=True)
    )


def _usual(shape: tuple[int, ...], takes: str) -> str:
    return "uint8" if takes == "float32" and len(shape) == 4 else takes


def _entry(name: str, shape: tuple[int, ...], takes: str, form: str) -> Entry:
    found = _FORM.fullmatch(form)
    if not found:
        raise ExportError(
            f"input_dtype must be 'uint8' (raw pixels) or 'float32', 'float32:LOW..HIGH' or 'int32', got {form!r}"
        )
    dtype = found[1]
    if takes != "float32" and dtype != takes and (takes, dtype) != ("int32", "uint8"):
        raise ExportError(f"input {name!r} takes {takes} in Keras, so its form is {takes}, got {form!r}")
    return Entry(name, shape, dtype, _span(form, found[2], found[3]))


def _span(form: str, low: str | None, high: str | None) -> tuple[float, float] | None:
    if low is None or high is None:
        return None
    try:
        ends = float(low), float(high)
    except ValueError:
        ends = math.nan, math.nan
    if not form.startswith("float32") or not -math.inf < ends[0] < ends[1] < math.inf:
        raise ExportError(f"input_dtype: expected a range such as 'float32:0..1' or 'float32:-1..1', got {form!r}")
    return ends
