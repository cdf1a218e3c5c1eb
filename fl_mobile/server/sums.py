"""What a server makes of packets of sums: exact totals in any order, and means and spreads from them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from typing import NamedTuple

import numpy as np

from fl_mobile.client.sums import EXAMPLES, SQUARES, SUMS, bounded_length
from fl_mobile.errors import WireError
from fl_mobile.privacy.clipped_sum import ClippedSum
from fl_mobile.privacy.release import release_sum
from fl_mobile.tensors import TensorSpec
from fl_mobile.wire.sums import MOST_COUNT, Question, unpack_sums

_ONE = 1 << 1074
"""The smallest float64 above 0 is one part of it: every number is a whole number of those."""


class Totals(NamedTuple):
    """Sums of all devices whose packet could be read.

    Attributes:
        values: ``float64`` or, of counts, ``int64`` by name.
        upload_bytes: Of all packets, those that were dropped too.
        dropped: Reason → packets.
    """

    values: dict[str, np.ndarray]
    upload_bytes: int
    dropped: dict[str, int]


def read_sums(question: Question, packet: bytes) -> dict[str, np.ndarray]:
    """Returns what a device's packet tells.

    Raises:
        WireError: It cannot be read, or no examples have such a number, sums and squares.
    """
    found = unpack_sums(question, packet)
    if EXAMPLES in found:
        count = found[EXAMPLES][0]
        if count != np.rint(count) or not 1 <= count <= MOST_COUNT:
            raise WireError("value", f"'{EXAMPLES}' is {count:g}, expected a whole number from 1 to {MOST_COUNT}")
        if not (np.square(found[SUMS]) <= count * found[SQUARES] * (1 + 1e-9)).all():
            raise WireError("value", f"'{SQUARES}': no {count:g} examples have these sums and sums of squares")
    return found


def add_up(question: Question, packets: Iterable[bytes]) -> Totals:
    """Returns the sums over devices, rounded once: the order of packets cannot change a bit."""
    exact: dict[str, list[int]] = {part.name: [0] * part.length for part in question if not part.counts}
    counts = {part.name: np.zeros(part.length, np.int64) for part in question if part.counts}
    upload_bytes, dropped = 0, Counter[str]()
    for packet in packets:
        upload_bytes += len(packet)
        try:
            found = read_sums(question, packet)
        except WireError as error:
            dropped[error.reason] += 1
            continue
        for name, total in exact.items():
            for at, value in enumerate(found[name].tolist()):
                over, under = value.as_integer_ratio()
                total[at] += over * (_ONE // under)
        for name in counts:
            counts[name] += found[name]
    rounded = {name: np.array([total / _ONE for total in totals]) for name, totals in exact.items()}
    return Totals({part.name: (counts | rounded)[part.name] for part in question}, upload_bytes, dict(dropped))


def add_up_private(question: Question, packets: Iterable[bytes], *, noise_multiplier: float, key: bytes) -> Totals:
    """Returns sums that are differentially private: every packet clipped to a length of 1, noise on every number.

    It is the mechanism of a round (`fl_mobile.privacy.release`), and costs as much as one.

    Args:
        noise_multiplier: Standard deviation of the noise on a number.
        key: 32 secret bytes, used for nothing else.
    """
    total = ClippedSum({part.name: TensorSpec((part.length,)) for part in question}, clip_norm=1.0)
    upload_bytes, dropped = 0, Counter[str]()
    for packet in packets:
        upload_bytes += len(packet)
        try:
            total.add({name: value.astype(np.float32) for name, value in unpack_sums(question, packet).items()}, 1)
        except WireError as error:
            dropped[error.reason] += 1
    return Totals(release_sum(total, noise_multiplier, key), upload_bytes, dict(dropped))


def moments_from(totals: Mapping[str, np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    """Returns mean and standard deviation of every column; 1 for the spread of one that never changes."""
    count = totals[EXAMPLES][0]
    mean = totals[SUMS] / count
    variance = np.maximum(totals[SQUARES] / count - np.square(mean), 0.0)
    still = variance <= 1e-12 * np.square(mean)
    return mean, np.where(still, 1.0, np.sqrt(np.where(still, 1.0, variance)))


def moments_from_bounded(
    totals: Mapping[str, np.ndarray], low: np.ndarray, high: np.ndarray, noise: float
) -> tuple[np.ndarray, np.ndarray]:
    """Returns the same from noised sums of means within ranges; no variance is told below what the noise lets see.

    Args:
        totals: Of `add_up_private`.
        noise: Of a mean, `noise_of_means`.
    """
    count = max(totals[EXAMPLES][0], 1e-9)
    mean = np.clip(totals[SUMS] / count, -1.0, 1.0)
    variance = np.clip(totals[SQUARES] / count - np.square(mean), noise, 1.0)
    half = (high - low) / 2
    return low + half * (mean + 1), half * np.sqrt(variance)


def noise_of_means(noise_multiplier: float, columns: int, cohort: int) -> float:
    """Returns the standard deviation of the noise on a mean, in halves of its range, for ``cohort`` devices.

    >>> f"{noise_of_means(1.0, 4, 100):.2f}"
    '0.03'
    """
    return noise_multiplier * bounded_length(columns) / max(cohort, 1)
