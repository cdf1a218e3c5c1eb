"""Parameters of a table's rows: default, help and limits beside each field; the experiment's keys come from them.

>>> @dataclass(frozen=True)
... class Proximal:
...     proximal_mu: float = parameter(0.01, "how strongly", at_least=0)
...     def __post_init__(self) -> None:
...         check_parameters(self, "server")
>>> Proximal(proximal_mu=-1)
Traceback (most recent call last):
fl_mobile.errors.ConfigError: server.proximal-mu must be ≥ 0, got -1
"""

from __future__ import annotations

import math
import operator
from dataclasses import dataclass, field, fields
from typing import Any

from fl_mobile.errors import ConfigError, check_known

_LIMITS = {
    "above": ("above", operator.gt),
    "at_least": ("≥", operator.ge),
    "below": ("below", operator.lt),
    "at_most": ("≤", operator.le),
}


@dataclass(frozen=True)
class NoParameters:
    """Of a row that has none."""


def parameter(default: Any, doc: str, *, known: Any = None, **limits: float) -> Any:
    """Returns a field of a row's parameters.

    Args:
        doc: What `fl-mobile new` writes beside the key.
        known: The names it can have, if it is a name.
        **limits: ``above``, ``at_least``, ``below``, ``at_most``.
    """
    return field(
        default=default, metadata={"doc": doc, "known": known, "limits": {_LIMITS[k]: v for k, v in limits.items()}}
    )


def check_parameters(record: Any, section: str) -> None:
    """Raises `ConfigError` naming the first key of ``section`` whose value is out of its limits, or not finite."""
    for f in fields(record):
        name, value, limits = f"{section}.{f.name.replace('_', '-')}", getattr(record, f.name), f.metadata["limits"]
        if f.metadata["known"] is not None:
            check_known(name, value, f.metadata["known"])
            continue
        if not math.isfinite(value) or not all(fits(value, limit) for (_, fits), limit in limits.items()):
            told = " and ".join(f"{word} {limit:g}" for (word, _), limit in limits.items())
            raise ConfigError(f"{name} must be {told or 'finite'}, got {value}")
