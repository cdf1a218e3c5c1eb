"""Why a device did not take part: one list, so that every skip is counted under a name."""

from __future__ import annotations

from collections import Counter

import numpy as np

UNAVAILABLE = ("offline-hours", "not-charging", "metered", "busy", "battery", "ram", "no-examples", "under-way")
"""The device cannot, or a rule says it must not: the server looks for another, so that nothing is saved."""

DECLINED = ("period", "min-separation", "few-new-examples")
"""The device was chosen and its update policy keeps it out: it neither downloads nor trains nor uploads."""

AFTER_TRAINING = ("small-update", "small-drift")
"""The device has the model and has trained; its update policy keeps the update: only the upload is saved."""

REASONS = ("", *UNAVAILABLE, *DECLINED, *AFTER_TRAINING)
"""A reason's code is its position; 0 is taking part."""


def code_of(reason: str) -> int:
    """Returns the position in `REASONS`."""
    return REASONS.index(reason)


def count(codes: np.ndarray) -> Counter[str]:
    """Returns reason → how often it is among ``codes`` ``uint8[n]``; taking part is not a reason."""
    found = np.bincount(codes, minlength=len(REASONS))
    return Counter({reason: int(n) for reason, n in zip(REASONS[1:], found[1:], strict=True) if n})


def saved_bytes(skipped: Counter[str], *, download_bytes: int, upload_bytes: int) -> int:
    """Returns what the devices that were chosen and kept out by their policy would have cost.

    Args:
        download_bytes: What a device of this round downloads.
        upload_bytes: What one uploads, the mean of those that did.
    """
    declined = sum(skipped[reason] for reason in DECLINED)
    kept = sum(skipped[reason] for reason in AFTER_TRAINING)
    return declined * (download_bytes + upload_bytes) + kept * upload_bytes


def first_of(refused: list[tuple[str, np.ndarray]], size: int) -> np.ndarray:
    """Returns ``uint8[size]``: the code of the first reason that holds for each device, 0 where none does.

    Args:
        refused: Reason and ``bool[size]``, in the order they are checked.
    """
    codes = np.zeros(size, np.uint8)
    for reason, holds in refused:
        codes[(codes == 0) & holds] = code_of(reason)
    return codes
