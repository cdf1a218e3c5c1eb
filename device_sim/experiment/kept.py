"""Which of a run's models is ``model.keras``: that of the last round, or of the best one by some metric."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from fl_mobile.tasks import METRICS as TOLD

if TYPE_CHECKING:
    from device_sim.run.log import Round

LAST, BEST = "last", "best"
KEEP = (LAST, BEST)


@dataclass(frozen=True)
class Metric:
    """Something a round carries.

    Attributes:
        larger_is_better: Otherwise smaller is.
        of: Reads it off the round; None where it was not measured.
        on_devices: Whether only [evaluation] on single devices measures it.
    """

    larger_is_better: bool
    of: Callable[[Round], float | None]
    on_devices: bool = False


METRICS: dict[str, Metric] = {
    "accuracy": Metric(True, lambda r: r.accuracy),
    "loss": Metric(False, lambda r: r.loss),
    "train-loss": Metric(False, lambda r: r.train_loss),
    "device-mean": Metric(True, lambda r: r.device_accuracy.get("mean"), on_devices=True),
    "device-p10": Metric(True, lambda r: r.device_accuracy.get("p10"), on_devices=True),
    "device-p50": Metric(True, lambda r: r.device_accuracy.get("p50"), on_devices=True),
    "device-worst-5-percent": Metric(True, lambda r: r.device_accuracy.get("worst_5_percent"), on_devices=True),
}
"""Values of output.keep-by, beside metrics that output.metrics names."""


def kept_by(name: str) -> Metric:
    """Returns what output.keep-by names: a row of `METRICS` here, or a metric that rounds are told of."""
    return METRICS[name] if name in METRICS else Metric(TOLD[name].larger_is_better, lambda r: r.metrics.get(name))
