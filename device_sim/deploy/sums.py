"""A masked round on real clients: the simulator's server role, whose every input and output is a row before it counts.

```
invite ─▶ keys ─▶ rosters ─▶ shares ─▶ inboxes ─▶ packets ─▶ request ─▶ unmasking ─▶ result ─▶ receipts
```
Who was killed in the middle plays the steps again from what clients have said, to the same messages.
"""

from __future__ import annotations

from collections.abc import Callable

from device_sim.rounds.step import Step
from fl_mobile.coordinator import sums
from fl_mobile.coordinator.coordinator import Coordinator
from fl_mobile.secure_sum.client import REVEALED, SEALED, SHARED_HEAD
from fl_mobile.secure_sum.registry import with_keys
from fl_mobile.server.fold import Fold
from fl_mobile.server.masked import MaskedRound
from fl_mobile.wire import Layout


def most_step_bytes(group: int) -> int:
    """Returns the length of the longest answer to a step, where everybody is everybody's neighbour."""
    return SHARED_HEAD + max(SEALED.size, REVEALED.size) * group


def play_sums(
    step: Step, coordinator: Coordinator, *, least: int, seconds: float | None, stopped: Callable[[], bool]
) -> tuple[Fold, dict[str, int]]:
    """Returns the sums of the open round as its aggregate, and ``groups`` and bytes of messages, ``up`` and ``down``.

    Args:
        least: Clients without which a deadline begins no sum.
        seconds: Deadline of the coming, and of the packets.

    Raises:
        KeyboardInterrupt: It was stopped; the round stays where it is.
    """
    round_, plan = coordinator.open, step.agreement.masks
    assert round_ is not None
    assert round_.masks is not None
    assert plan is not None
    waits = dict.fromkeys(sums.ANSWERED_HERE, round_.masks.step_seconds)
    waits[sums.PACKETS] = round_.seat_seconds if seconds is None else min(seconds, round_.seat_seconds)

    def said(number: int) -> dict[int, bytes]:
        answers = coordinator.wait_step(number, seconds=waits.get(number, seconds), least=least, stopped=stopped)
        if answers is None:
            raise KeyboardInterrupt
        return answers

    identities = said(sums.COME)
    server = MaskedRound(
        layout=Layout(step.agreement.spec, step.assignment.upload),
        round_num=step.round_num,
        plan=plan,
        run=coordinator.run,
        identities=identities,
        fit=step.assignment.plan,
    )
    coordinator.tell(sums.KEYS, server.invite(sorted(identities)))
    groups, rosters = server.groups, server.rosters(said(sums.KEYS))
    keyed = {roster: with_keys(roster, identities) for roster in set(rosters.values())}
    coordinator.tell(sums.SHARES, {client: keyed[roster] for client, roster in rosters.items()})
    coordinator.tell(sums.PACKETS, server.inboxes(said(sums.SHARES)))
    coordinator.tell(sums.UNMASK, server.request(said(sums.PACKETS)))
    folded = server.result(said(sums.UNMASK))
    up, down = coordinator.settle(server.receipts)
    return folded, {"groups": groups, "up": up, "down": down}
