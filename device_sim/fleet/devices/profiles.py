"""Classes of devices: how fast they train, what fits into them and what a battery holds."""

from __future__ import annotations

from dataclasses import dataclass

from fl_mobile.errors import ConfigError
from fl_mobile.table import Table

GIB = 2**30
JOULES_PER_MAH = 3.85 * 3.6
"""A lithium-ion phone cell's nominal 3.85 V times 3.6 J per mWh."""


@dataclass(frozen=True)
class Profile:
    """One class of devices.

    Attributes:
        train_flops_per_s: Median float32 operations a second that local training sustains.
        flops_sigma: Spread of that within the class: sigma of the logarithm.
        ram_bytes: Fitted memory; `timing.fits_ram` says how much of it training may take.
        battery_joules: Of a full, healthy battery.
        train_watts: The device draws above idle while it trains.
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


def _share_of_none(name: str, row: Profile) -> None:
    if row.share:
        raise ConfigError(f"profile {name}: share must be 0, got {row.share:g}: the shares of mixed add up without it")


PROFILES: Table[Profile] = Table(
    "profile",
    Profile,
    {
        "ideal": Profile(
            train_flops_per_s=float("inf"),
            flops_sigma=0.0,
            ram_bytes=float("inf"),
            battery_joules=float("inf"),
            train_watts=0.0,
            idle_watts=0.0,
            share=0.0,
        ),
        "flagship": Profile(
            train_flops_per_s=20e9,
            flops_sigma=0.2,
            ram_bytes=12 * GIB,
            battery_joules=5000 * JOULES_PER_MAH,
            train_watts=5.5,
            idle_watts=0.8,
            share=0.10,
        ),
        "high": Profile(
            train_flops_per_s=12e9,
            flops_sigma=0.25,
            ram_bytes=8 * GIB,
            battery_joules=4500 * JOULES_PER_MAH,
            train_watts=5.0,
            idle_watts=0.8,
            share=0.20,
        ),
        "mid": Profile(
            train_flops_per_s=6e9,
            flops_sigma=0.3,
            ram_bytes=6 * GIB,
            battery_joules=5000 * JOULES_PER_MAH,
            train_watts=4.0,
            idle_watts=0.7,
            share=0.35,
        ),
        "low": Profile(
            train_flops_per_s=3e9,
            flops_sigma=0.3,
            ram_bytes=4 * GIB,
            battery_joules=5000 * JOULES_PER_MAH,
            train_watts=3.6,
            idle_watts=0.7,
            share=0.25,
        ),
        "entry": Profile(
            train_flops_per_s=1e9,
            flops_sigma=0.4,
            ram_bytes=2 * GIB,
            battery_joules=3000 * JOULES_PER_MAH,
            train_watts=2.5,
            idle_watts=0.5,
            share=0.10,
        ),
    },
    check=_share_of_none,
)
"""``ideal`` trains in no time and holds everything.

Speeds are round assumptions between two published anchors. A Pixel 4 infers MobileNetV1 (569 M multiply-accumulates) in
14 ms on four threads (LiteRT ``performance/measurement.md``), 81 GFLOP/s; training sustains a tenth to a quarter of
that: small batches, weights that change and cannot be packed, gradients without tuned kernels, a hot device. FedScale
(ICML 2022) publishes devices around 160 ms for MobileNet, 3.7 GFLOP/s, between ``low`` and ``mid`` here.

Watts follow the peak CPU power of phones in Kim and Wu, "AutoScale" (MICRO 2020): 3.6 W for a low-end and 5.5 W for a
high-end one. Memory and batteries are those of data sheets, idle draw is a battery that lasts a day, sigmas and shares
are round assumptions: none of them is a measurement of yours. Give ``fleet.devices-file`` for that.
"""
