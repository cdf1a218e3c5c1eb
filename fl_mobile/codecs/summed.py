"""Codecs whose payloads are whole numbers that can be added before anybody decodes them, as masked sums need it.

A payload is a number of fields of ``width`` bits; fields of several clients add up modulo ``2^width``. Entropy codes,
levels with a scale of their own and positions that a client chooses do not: masked they are noise.
"""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Protocol, cast

import numpy as np

from fl_mobile.codecs.base import Codec
from fl_mobile.codecs.linear import Linear
from fl_mobile.codecs.sketch import Sketch
from fl_mobile.codecs.sketch.projection import round_key
from fl_mobile.errors import ConfigError
from fl_mobile.tensors import Spec, Tensors

FIRST_STEP = 2.0**-10
"""Of sketch's fields, where the server moves it: small, for what wraps in the first rounds is then small as well."""

SPREAD = 1.5
"""Root mean square of a client's numbers, in steps, that the server aims at."""

_LARGEST_CHANGE = 8.0


class Summed(Codec, Protocol):
    """A codec of which payloads add up."""

    @property
    def width(self) -> int:
        """Bits of a field, and of their sum."""
        ...

    def count_fields(self, spec: Spec) -> int:
        """Returns the fields of a payload."""
        ...

    def read_fields(self, payload: bytes | memoryview, spec: Spec) -> np.ndarray:
        """Returns ``int64[m]``, each from 0 to 2^width − 1; raises `WireError`."""
        ...

    def signed(self, fields: np.ndarray) -> np.ndarray:
        """Returns the numbers, ``int64[m]``, that a sum of fields modulo 2^width stands for."""
        ...

    def decode_total(self, total: np.ndarray, spec: Spec, count: int) -> Tensors:
        """Returns the mean of ``count`` clients from the sum of their numbers."""
        ...


def summed(codec: Codec) -> Summed | None:
    """Returns the codec if its payloads add up, else None."""
    return cast(Summed, codec) if getattr(codec, "width", 0) and hasattr(codec, "decode_total") else None


def can_be_summed(codec: Codec) -> bool:
    """Whether its payloads add up, or do once they are fields: `sketch` has two packings."""
    return isinstance(codec, Sketch) or summed(codec) is not None


def with_fields(codec: Codec, clients: int) -> Codec:
    """Returns the codec as ``clients`` of a masked sum use it.

    Fields of `sketch` hold the sum of numbers that are independent of each other, with a bit to spare:
    ``5 + ½·log2(n/2.5)``. Single fields may wrap, of the sum one in a billion does.

    Raises:
        ConfigError: Its fields are too narrow for so many.
    """
    if isinstance(codec, Linear) and codec.devices < clients:
        raise ConfigError(
            f"upload.codec '{codec.name}' holds the sum of {codec.devices} devices, and a masked sum is of up to"
            f" {clients}: write linear:devices={clients}, or lower masks.group"
        )
    if isinstance(codec, Sketch) and not codec.width:
        return replace(codec, bits=1, width=math.ceil(5 + 0.5 * math.log2(max(clients, 3) / 2.5)), step=FIRST_STEP)
    return codec


def in_step(codec: Codec, round_num: int, step: float | None) -> Codec:
    """Returns the codec as the server publishes it for one round.

    Args:
        step: Of sketch's fields, where it moves.
    """
    if isinstance(codec, Linear) and codec.keep < 1:  # the same ones every round would leave the rest untrained
        return replace(codec, seed=round_key(codec.seed, round_num))
    return codec.with_step(step) if isinstance(codec, Sketch) and step is not None else codec


def next_step(step: float, total: np.ndarray, clients: int) -> float:
    """Returns the step of the next round from the sum of this one, which is all that the server knows.

    Numbers of several clients are about independent of each other (compression of updates by a random projection), so
    that of one has a spread of the sum's over the root of their number. A sum that wrapped looks as large as its
    fields, and the step grows by as much.

    Args:
        total: ``int64[k]`` whole steps.
    """
    spread = math.sqrt(float(np.mean(np.square(total, dtype=np.float64))) / clients) if len(total) else SPREAD
    return step * min(max(spread / SPREAD, 1 / _LARGEST_CHANGE), _LARGEST_CHANGE)
