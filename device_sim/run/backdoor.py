"""Whether a backdoor works: measured on the test set beside accuracy, which hardly shows it."""

from __future__ import annotations

import numpy as np

from device_sim.federation.federation import Federation
from fl_mobile.records import ServerState


def backdoor_success(federation: Federation, state: ServerState) -> float | None:
    """Returns the share of stamped test examples of other classes that the model takes for the attackers' class.

    Args:
        state: After at least one round.

    Returns:
        0 to 1; None where nobody attempts a backdoor, or the test set knows no other class.
    """
    wanted = federation.attackers.attack.backdoor if federation.attackers else None
    if wanted is None:
        return None
    test = federation.dataset.test
    others = test.y != wanted.target
    if not others.any():
        return None
    x, y = wanted.stamp(test.x[others]), np.full(int(others.sum()), wanted.target, np.int64)
    weights, plan = federation.whole(state.weights), federation.plan(state.round_num - 1)
    return federation.engine.evaluate(weights, x, federation.dataset.trained_targets(y), plan).accuracy
