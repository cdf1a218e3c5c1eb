"""What each kind of tensor cost on the wire: a run's own codec over the few updates that it kept."""

from __future__ import annotations

from typing import Any

from device_sim.federation.federation import Federation
from device_sim.run.folder import RunFolder
from fl_mobile.measurements.kinds import by_kind
from fl_mobile.measurements.sources import read_updates


def kinds_of(federation: Federation, folder: RunFolder) -> list[dict[str, Any]]:
    """Returns bytes and ratio of embeddings, recurrent, convolution and dense kernels and vectors of one update.

    Means over the updates that ``output.keep-updates`` left; empty where there are none, as under [privacy].
    """
    if not any(folder.updates.glob("*.npz")):
        return []
    updates = read_updates(folder.updates, federation.spec)
    return [
        row.to_json() for row in by_kind(federation.upload, updates, federation.spec, seed=federation.experiment.seed)
    ]
