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


def never_too_few(updates: int, **parameters: Any) -> str:
    """Of a rule that any number of updates will do for."""
    return ""


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
        too_few: (updates, the parameters as keywords) → why so few are too few for what the rule promises; empty if
            they are not.
        reference: Whether the rule measures clients by an update of the server's own, the keyword ``reference`` of
            ``make``: what training on ``public_examples`` examples that no client holds gives, from the same weights.
        by_coordinate: Whether it looks at every coordinate alone and leaves out its ends: where most are zero, it is.
    """

    make: Callable[..., Aggregator]
    summary: str
    parameters: type = NoParameters
    mean: bool = False
    subtractable: bool = False
    too_few: Callable[..., str] = never_too_few
    reference: bool = False
    by_coordinate: bool = False

    @property
    def single_updates(self) -> bool:
        """Whether the server must see every update by itself.

        Masked sums show it none, and no clip bounds what one client moves such a rule by: one that changes its update
        changes who else is listened to. Neither may be combined with it.
        """
        return not self.subtractable

    def with_parameters(self, given: Any) -> AggregationRow:
        """Returns the rule with its parameters, a record of ``parameters``."""
        keys = asdict(given)
        return replace(self, make=partial(self.make, **keys), too_few=partial(self.too_few, **keys))

    def beside(self, reference: Tensors | None) -> AggregationRow:
        """Returns the rule for one round, with the server's own update if it needs one.

        Raises:
            ValueError: It needs one and has none; a fault of whoever drives the server.
        """
        if not self.reference:
            return self
        if reference is None:
            raise ValueError(f"'{self.summary}' needs the server's own update of the round")
        return replace(self, make=partial(self.make, reference=reference))
