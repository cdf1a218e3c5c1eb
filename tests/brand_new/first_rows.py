"""New rows of the tables that others are made from when they are imported; see `rows.py`."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from device_sim.fleet.devices.links import LINKS
from device_sim.fleet.devices.profiles import PROFILES
from fl_mobile.local.optimizers import OPTIMIZERS, LocalOptimizer

NAME = "brandnew"

# --- local optimizer -------------------------------------------------------------------------------------------------


def _step(w: Any, g: Any, slots: Any, rate: Any, done: Any, momentum: float) -> tuple[Any, list[Any]]:
    """Heavy ball at half the momentum that is asked for."""
    velocity = slots[0] * (momentum / 2) - g * rate
    return w + velocity, [velocity]


def _carries(steps: int, momentum: float) -> float:
    half = momentum / 2
    return (steps - half * (1 - half**steps) / (1 - half)) / (1 - half)


def _keras(rate: float, momentum: float) -> Any:
    import keras

    return keras.optimizers.SGD(rate, momentum=momentum / 2)


OPTIMIZERS[NAME] = LocalOptimizer(slots=("velocity",), step=_step, sgd_steps=_carries, keras=_keras)


# --- phones and links: shares of the mix add up to 1, so the slowest gives some of its own away ----------------------


slowest, weakest = list(PROFILES)[-1], list(LINKS)[-1]
PROFILES[slowest] = replace(PROFILES[slowest], share=PROFILES[slowest].share - 0.01)
PROFILES[NAME] = replace(PROFILES[slowest], train_flops_per_s=PROFILES[slowest].train_flops_per_s / 2, share=0.01)
LINKS[weakest] = replace(LINKS[weakest], share=LINKS[weakest].share - 0.01)
slower = LINKS[weakest]
LINKS[NAME] = replace(slower, up_bps=slower.up_bps / 4, down_bps=slower.down_bps / 4, share=0.01)
