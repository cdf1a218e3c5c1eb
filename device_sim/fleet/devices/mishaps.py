"""Devices that were asked and break off: some never answer, some stop in the middle of training."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from fl_mobile.seeds import uniforms


@dataclass(frozen=True)
class Mishaps:
    """What goes wrong in one round, one entry per device. Uploads that break off are in `links.Air`.

    Attributes:
        silent: ``bool[n]``: never answers, before anything is downloaded.
        lasts_seconds: ``float64[n]``: training is interrupted after so long, unless it is done by then.
    """

    silent: np.ndarray
    lasts_seconds: np.ndarray


def draw_mishaps(
    seed: int, round_num: int, index: np.ndarray, *, dropout_rate: float, interruptions_per_hour: float
) -> Mishaps:
    """Returns what befalls each device in one round; depends on (seed, round, device) alone.

    Args:
        dropout_rate: Probability of ``silent``.
        interruptions_per_hour: Of training; memoryless, so that slow devices and large models are hit more often.
    """
    patience = -np.log1p(-uniforms(seed, round_num, "interrupted", index=index))
    hours = patience / interruptions_per_hour if interruptions_per_hour else np.full(len(index), np.inf)
    return Mishaps(uniforms(seed, round_num, "silent", index=index) < dropout_rate, hours * 3600)
