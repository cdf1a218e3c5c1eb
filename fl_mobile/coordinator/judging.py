"""Whether a packet counts, told before its step is made: by the admission that folds it later."""

from __future__ import annotations

from collections.abc import Callable

from fl_mobile.errors import WireError
from fl_mobile.records import Receipt
from fl_mobile.server.fold import Folding
from fl_mobile.server.masked import payload_of


def judge_by(folding: Folding) -> Callable[[bytes, int], Receipt]:
    """Returns (packet, version its client was asked for) → its receipt in the step that ``folding`` folds."""

    def judge(packet: bytes, version: int) -> Receipt:
        (one,) = folding.admit_each([packet])
        if isinstance(one, WireError):
            return Receipt(reason=one.reason)
        return one.receipt if one.header.round_num == version else Receipt(reason="round")

    return judge


def judge_masked(folding: Folding) -> Callable[[bytes, int], Receipt]:
    """Returns (packet, version its client was asked for) → its receipt if it is in the sum; nobody reads more of it."""

    def judge(packet: bytes, version: int) -> Receipt:
        try:
            payload_of(packet, folding.layout, folding.round_num)
        except WireError as error:
            return Receipt(reason=error.reason)
        return Receipt(weight=1, local_steps=folding.plan.local_steps(1))

    return judge
