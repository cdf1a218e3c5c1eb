"""What an aggregation rule is, and what a row of the table says that it needs and can."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from functools import partial
from typing import Any, Protocol

from fl_mobile.parameters import NoParameters
from fl_mobile.tensors import Spec, Tensors


class Aggregator(Protocol):
    """Takes client updates one at a time, in any order, and gives one update; see `AggregationRow` for its promises."""

    @property
    def spec(self) -> Spec:
        """Shapes of the updates."""
        ...

    def add(self, delta: Tensors, weight: int) -> None:
        """Adds ``weight · delta``; a `WireError` leaves the sum as it was.

        A weight below 0 takes out, to the last bit, what was added with the same weight above 0.
        """
        ...

    def merge(self, other: Any) -> None:
        """Adds what another aggregator of the same kind has folded; the order does not matter."""
        ...

    def result(self) -> Tensors | None:
        """Returns the aggregate, ``float32``, or None if nothing was added."""
        ...

    @property
    def weight(self) -> int:
        """Sum of the weights so far."""
        ...


@dataclass(frozen=True)
class AggregationRow:
    """One row of `AGGREGATORS`.

    Attributes:
        make: Shapes of the updates → an empty aggregate; picklable.
        summary: A line of help.
        parameters: The record of its parameters: keys of [server]; ``make`` takes them as keywords.
        mean: Whether the result is the weighted mean of the updates. Control variates, error feedback, predictions and
            the weights of late updates are derived for that alone; other rules give every update the same say.
        subtractable: Whether an update can be taken out again to the last bit. Packets are then folded where they are
            made, before it is known who arrives; else the link comes first, and single updates are kept until the end.
    """

    make: Callable[[Spec], Aggregator]
    summary: str
    parameters: type = NoParameters
    mean: bool = False
    subtractable: bool = False

    def with_parameters(self, given: Any) -> AggregationRow:
        """Returns the rule with its parameters, a record of ``parameters``."""
        return replace(self, make=partial(self.make, **asdict(given)))
