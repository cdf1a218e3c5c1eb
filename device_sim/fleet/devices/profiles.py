"""Classes of phones: how fast they train, what fits into them and what a battery holds."""

from __future__ import annotations

from dataclasses import dataclass

GIB = 2**30
JOULES_PER_MAH = 3.85 * 3.6
"""A lithium-ion phone cell's nominal 3.85 V times 3.6 J per mWh."""


@dataclass(frozen=True)
class Profile:
    """One class of phones.

    Attributes:
        train_flops_per_s: Median float32 operations a second that local training sustains.
        flops_sigma: Spread of that within the class: sigma of the logarithm.
        ram_bytes: Fitted memory; `timing.fits_ram` says how much of it training may take.
        battery_joules: Of a full, healthy battery.
        train_watts: The phone draws above idle while it trains.
        idle_watts: Mean draw from unplugged to plugged in, its owner's use included.
        share: Of this class in ``mixed``.
    """

    train_flops_per_s: float
    flops_sigma: float
    ram_bytes: float
    battery_joules: float
    train_watts: float
    idle_watts: float
    share: float


PROFILES: dict[str, Profile] = {
    "ideal": Profile(float("inf"), 0.0, float("inf"), float("inf"), 0.0, 0.0, 0.0),
    "flagship": Profile(20e9, 0.2, 12 * GIB, 5000 * JOULES_PER_MAH, 5.5, 0.8, 0.10),
    "high": Profile(12e9, 0.25, 8 * GIB, 4500 * JOULES_PER_MAH, 5.0, 0.8, 0.20),
    "mid": Profile(6e9, 0.3, 6 * GIB, 5000 * JOULES_PER_MAH, 4.0, 0.7, 0.35),
    "low": Profile(3e9, 0.3, 4 * GIB, 5000 * JOULES_PER_MAH, 3.6, 0.7, 0.25),
    "entry": Profile(1e9, 0.4, 2 * GIB, 3000 * JOULES_PER_MAH, 2.5, 0.5, 0.10),
}
"""``ideal`` trains in no time and holds everything.

Speeds are round assumptions between two published anchors. A Pixel 4 infers MobileNetV1 (569 M multiply-accumulates) in
14 ms on four threads (LiteRT ``performance/measurement.md``), 81 GFLOP/s; training sustains a tenth to a quarter of
that: small batches, weights that change and cannot be packed, gradients without tuned kernels, a hot phone. FedScale
(ICML 2022) publishes devices around 160 ms for MobileNet, 3.7 GFLOP/s, between ``low`` and ``mid`` here.

Watts follow the peak CPU power of phones in Kim and Wu, "AutoScale" (MICRO 2020): 3.6 W for a low-end and 5.5 W for a
high-end one. Memory and batteries are those of data sheets, idle draw is a battery that lasts a day, sigmas and shares
are round assumptions: none of them is a measurement of yours. Give ``fleet.devices-file`` for that.
"""
