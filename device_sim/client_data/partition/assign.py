"""How examples are dealt to devices. Every function returns ``owner int64[n]``, the device of each example: that alone
makes a partition disjoint and complete."""

from __future__ import annotations

import heapq
from dataclasses import dataclass

import numpy as np

from fl_mobile.errors import ConfigError, DataError


@dataclass(frozen=True)
class Deal:
    """What is dealt, and the knobs of all rows; each row says which it reads.

    Attributes:
        y: ``int64[n]`` classes.
        alpha: ``dirichlet``: concentration, smaller is more skewed. ``quantity-skew``: σ of ln(size), larger is more.
        device_of: ``int64[n]`` natural devices, or None.
        min_examples: Rows that draw sizes at random top small devices up to this.
    """

    y: np.ndarray
    devices: int
    rng: np.random.Generator
    alpha: float
    shards_per_device: int
    device_of: np.ndarray | None
    min_examples: int


def iid(deal: Deal) -> np.ndarray:
    """Returns a random deal in which device sizes differ by at most one."""
    return deal.rng.permutation(np.arange(len(deal.y)) % deal.devices)


def dirichlet(deal: Deal) -> np.ndarray:
    """Returns label skew: of each class, device shares drawn from Dir(α, …, α).

    The per-class variant of Yurochkin et al. 2019 (arXiv 1905.12022) and Li et al. 2021 (NIID-Bench, arXiv 2102.02079,
    "distribution-based label imbalance"): device sizes vary too. Hsu et al. 2019 (arXiv 1909.06335) instead draw each
    device's class mixture and keep sizes equal. Those papers redraw until the smallest device has ten examples; here
    devices short of ``min_examples`` are topped up from the largest ones,
    which ends for any number of devices and leaves the rest as drawn.
    """
    owner = np.empty(len(deal.y), np.int64)
    for label in np.unique(deal.y):
        members = deal.rng.permutation(np.flatnonzero(deal.y == label))
        shares = deal.rng.dirichlet(np.full(deal.devices, deal.alpha))
        owner[members] = np.repeat(np.arange(deal.devices), _counts(shares, len(members)))
    return _top_up(owner, deal)


def shards(deal: Deal) -> np.ndarray:
    """Returns the pathological split of McMahan et al. 2017 (arXiv 1602.05629, section 3).

    Examples sorted by class are cut into ``devices * shards_per_device`` slices whose sizes differ by at most one; each
    device gets ``shards_per_device`` of them, so it sees few classes.
    """
    pieces = deal.devices * deal.shards_per_device
    if pieces > len(deal.y):
        raise DataError(
            f"shards: {deal.devices} devices with {deal.shards_per_device} shards each need {pieces} examples, "
            f"there are {len(deal.y)}. Lower devices or shards-per-device."
        )
    shuffled = deal.rng.permutation(len(deal.y))
    by_class = shuffled[np.argsort(deal.y[shuffled], kind="stable")]
    shard_owner = deal.rng.permutation(np.arange(pieces) % deal.devices)
    owner = np.empty(len(deal.y), np.int64)
    owner[by_class] = shard_owner[np.arange(len(deal.y)) * pieces // len(deal.y)]
    return owner


def quantity_skew(deal: Deal) -> np.ndarray:
    """Returns log-normal device sizes, ``ln(size)`` with standard deviation ``alpha``, over one class mixture.

    Sizes as the LEAF datasets have them (Caldas et al. 2018, arXiv 1812.01097); classes are dealt at random. Devices
    short of ``min_examples`` are topped up from the largest ones.
    """
    logs = deal.alpha * deal.rng.standard_normal(deal.devices)
    weights = np.exp(logs - logs.max())
    counts = _counts(weights / weights.sum(), len(deal.y))
    owner = deal.rng.permutation(np.repeat(np.arange(deal.devices), counts))
    return _top_up(owner, deal)


def natural(deal: Deal) -> np.ndarray:
    """Returns the devices the data came from (writers, folders), numbered by rising id; nothing is moved."""
    if deal.device_of is None:
        raise DataError("natural: this dataset does not say which device an example is from. Choose another partition.")
    if deal.device_of.shape != deal.y.shape:
        raise DataError(f"natural: {len(deal.y)} examples but device_of has shape {deal.device_of.shape}.")
    ids, owner = np.unique(deal.device_of, return_inverse=True)
    if len(ids) != deal.devices:
        raise ConfigError(
            f"natural: the dataset comes from {len(ids)} devices, got devices = {deal.devices}. Set it so."
        )
    return owner.astype(np.int64)


def _counts(shares: np.ndarray, total: int) -> np.ndarray:
    """Returns whole counts that add up to ``total``, each within one of ``shares * total``."""
    edges = np.rint(np.cumsum(shares) * total).astype(np.int64)
    edges[-1] = total  # the shares' sum may miss 1 by rounding
    return np.diff(np.minimum(edges, total), prepend=0)


def _top_up(owner: np.ndarray, deal: Deal) -> np.ndarray:
    """Moves random examples, always from the device that is largest just then, to devices below ``min_examples``."""
    counts = np.bincount(owner, minlength=deal.devices)
    short = np.repeat(np.arange(deal.devices), np.maximum(deal.min_examples - counts, 0))
    if not len(short):
        return owner
    shuffled = deal.rng.permutation(len(owner))
    grouped = shuffled[np.argsort(owner[shuffled], kind="stable")]
    ends = np.cumsum(counts)
    largest = [(-int(count), device) for device, count in enumerate(counts)]
    heapq.heapify(largest)
    for device in short:
        count, donor = largest[0]
        heapq.heapreplace(largest, (count + 1, donor))
        ends[donor] -= 1
        owner[grouped[ends[donor]]] = device
    return owner
