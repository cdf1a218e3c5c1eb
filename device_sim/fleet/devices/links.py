"""The air between device and server: what a connection is, and what one transfer over it meets.

Virtual time only. A device keeps its link for the whole run, drawn from the seed; every transfer varies around it.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from device_sim.fleet.devices.energy import Radio
from device_sim.fleet.draws import lognormals
from fl_mobile.errors import ConfigError
from fl_mobile.seeds import uniforms
from fl_mobile.table import Table


@dataclass(frozen=True)
class Link:
    """One kind of connection, as distributions over devices: a median and the sigma of its logarithm.

    Attributes:
        down_bps: Median download rate, bits a second.
        up_bps: Median upload rate, bits a second.
        latency_s: Median set-up and round-trip time of one transfer, seconds.
        rate_sigma: Spread of both rates over devices: good and bad reception.
        latency_sigma: Spread of the latency over devices.
        jitter_sigma: Spread of the rate between transfers of one device.
        loss: Probability that a transfer breaks off and is given up.
        metered: Whether the user pays by volume.
        share: Of this link in ``mixed``.
        radio: What it draws from the battery.
    """

    down_bps: float
    up_bps: float
    latency_s: float
    rate_sigma: float
    latency_sigma: float
    jitter_sigma: float
    loss: float
    metered: bool
    share: float
    radio: Radio


def _share_of_none(name: str, row: Link) -> None:
    if row.share:
        raise ConfigError(f"link {name}: share must be 0, got {row.share:g}: the shares of mixed add up without it")


LINKS: Table[Link] = Table(
    "link",
    Link,
    {
        "ideal": Link(
            down_bps=float("inf"),
            up_bps=float("inf"),
            latency_s=0.0,
            rate_sigma=0.0,
            latency_sigma=0.0,
            jitter_sigma=0.0,
            loss=0.0,
            metered=False,
            share=0.0,
            radio=Radio(
                down_joules_per_megabit=0.0,
                up_joules_per_megabit=0.0,
                base_watts=0.0,
                tail_joules=0.0,
            ),
        ),
        "wifi": Link(
            down_bps=60e6,
            up_bps=20e6,
            latency_s=0.05,
            rate_sigma=0.7,
            latency_sigma=0.4,
            jitter_sigma=0.3,
            loss=0.005,
            metered=False,
            share=0.60,
            radio=Radio(
                down_joules_per_megabit=0.137,
                up_joules_per_megabit=0.283,
                base_watts=0.133,
                tail_joules=0.028,
            ),
        ),
        "5g": Link(
            down_bps=90e6,
            up_bps=15e6,
            latency_s=0.06,
            rate_sigma=0.8,
            latency_sigma=0.4,
            jitter_sigma=0.4,
            loss=0.01,
            metered=True,
            share=0.15,
            radio=Radio(
                down_joules_per_megabit=0.0135,
                up_joules_per_megabit=0.029,
                base_watts=1.60,
                tail_joules=10.0,
            ),
        ),
        "4g": Link(
            down_bps=25e6,
            up_bps=8e6,
            latency_s=0.09,
            rate_sigma=0.8,
            latency_sigma=0.5,
            jitter_sigma=0.4,
            loss=0.02,
            metered=True,
            share=0.20,
            radio=Radio(
                down_joules_per_megabit=0.052,
                up_joules_per_megabit=0.438,
                base_watts=1.288,
                tail_joules=12.3,
            ),
        ),
        "3g": Link(
            down_bps=3e6,
            up_bps=1e6,
            latency_s=0.25,
            rate_sigma=0.6,
            latency_sigma=0.5,
            jitter_sigma=0.5,
            loss=0.05,
            metered=True,
            share=0.05,
            radio=Radio(
                down_joules_per_megabit=0.122,
                up_joules_per_megabit=0.869,
                base_watts=0.818,
                tail_joules=7.0,
            ),
        ),
    },
    check=_share_of_none,
)
"""``ideal`` takes no time, loses nothing and costs nothing.

Rates: about half of what speed tests report, because one transfer to one server is no speed test: Ookla's global
medians are 84 Mbit/s down and 38 up for fixed lines behind Wi-Fi (Q3 2023), 166 to 203 down and 21 up for 5G (2021,
2023); 4G is Ookla's US mobile mean of 2018 (27 and 8.6), against 13 and 6 in Huang et al. 2012. 3G, latencies, losses,
sigmas and shares are round assumptions.

Radios: Huang et al., "A close examination of performance and power characteristics of 4G LTE networks" (MobiSys 2012),
table 4 and its tails (LTE 11.6 s at 1.06 W; 3G 8.1 s at 0.80 W and 0.8 s at 0.60 W; Wi-Fi 0.24 s at 0.12 W). 5G is a
round assumption in the sense of Narayanan et al., "A variegated look at 5G in the wild" (SIGCOMM 2021): a flatter slope
on a higher base than 4G.
"""


@dataclass(frozen=True)
class Air:
    """What the transfers of one round meet, one entry per device.

    Attributes:
        down_factor: ``float64[n]``, on the device's download rate; median 1.
        up_factor: ``float64[n]``, on its upload rate.
        lost: ``bool[n]``: the upload breaks off.
        lost_share: ``float64[n]`` in [0, 1): how far a lost upload got.
    """

    down_factor: np.ndarray
    up_factor: np.ndarray
    lost: np.ndarray
    lost_share: np.ndarray


def draw_air(seed: int, round_num: int, index: np.ndarray, jitter_sigma: np.ndarray, loss: np.ndarray) -> Air:
    """Returns what each device's transfers of one round meet; depends on (seed, round, device) alone."""
    return Air(
        lognormals(jitter_sigma, seed, round_num, "air-down", index=index),
        lognormals(jitter_sigma, seed, round_num, "air-up", index=index),
        uniforms(seed, round_num, "air-lost", index=index) < loss,
        uniforms(seed, round_num, "air-lost-share", index=index),
    )


def transfer_seconds(
    packet_bytes: np.ndarray | int, bps: np.ndarray, latency_s: np.ndarray, factor: np.ndarray | float = 1.0
) -> np.ndarray:
    """Returns ``float64[n]`` seconds on air: latency, and the packet's real length over the rate."""
    seconds: np.ndarray = np.asarray(latency_s) + 8 * np.asarray(packet_bytes) / (np.asarray(bps) * factor)
    return seconds
