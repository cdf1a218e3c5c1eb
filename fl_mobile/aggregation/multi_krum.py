"""Multi-Krum: the mean of the updates that have the closest neighbours.

Blanchard et al., "Machine learning with adversaries: Byzantine tolerant gradient descent", NeurIPS 2017. Of n updates,
f of which may lie, each is scored by the sum of its squared distances to its n − f − 2 nearest neighbours, and the
n − f − 2 with the lowest scores are averaged: as many as the proof of El Mhamdi et al. ("The hidden vulnerability of
distributed learning in Byzantium", ICML 2018) allows. Krum itself keeps one, which loses 14 points on non-IID data.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial

import numpy as np

from fl_mobile.aggregation.single import Values, Verdict, WholeUpdates, assumed_liars
from fl_mobile.parameters import check_parameters, parameter
from fl_mobile.tensors import Spec

BLOCK = 4096
"""Columns that are compared at a time: a cohort's worth of them stays in the processor's cache."""


@dataclass(frozen=True)
class Suspicion:
    """[server] of multi-Krum."""

    malicious_share: float = parameter(
        0.3, "share of a cohort, rounded up, that may lie at most; 0.2 of all clients can be 0.3 of a cohort",
        above=0, below=0.5,
    )  # fmt: skip

    def __post_init__(self) -> None:
        check_parameters(self, "server")


def multi_krum(spec: Spec, malicious_share: float = Suspicion.malicious_share) -> WholeUpdates:
    """Returns the rule."""
    return WholeUpdates(spec, partial(closest, malicious_share=malicious_share))


def closest(rows: Values, malicious_share: float) -> Verdict:
    """Returns the mean of the rows with the closest neighbours."""
    n = len(rows)
    liars = min(assumed_liars(n, malicious_share), max(0, (n - 3) // 2))
    kept = max(1, n - liars - 2)
    apart = np.sort(squared_distances(rows), axis=1)[:, 1 : kept + 1]  # without the distance to itself
    heard = np.zeros(n, bool)
    heard[np.argsort(apart.sum(axis=1), kind="stable")[:kept]] = True
    return Verdict(rows[heard].mean(axis=0), heard)


def squared_distances(rows: Values) -> np.ndarray:
    """Returns ``float64[n, n]``; by differences, because products cancel where updates are long and close."""
    n, d = rows.shape
    out = np.zeros((n, n))
    for at in range(0, d, BLOCK):
        some = np.ascontiguousarray(rows[:, at : at + BLOCK])
        for i in range(n - 1):
            apart = some[i + 1 :] - some[i]
            out[i, i + 1 :] += np.einsum("ij,ij->i", apart, apart)
    return out + out.T


def too_crowded(updates: int, malicious_share: float = Suspicion.malicious_share) -> str:
    """Returns why so few updates are below Krum's bound of 2f + 3."""
    liars = assumed_liars(updates, malicious_share)
    told = f"it needs 2f + 3 = {2 * liars + 3} updates where f = {liars} may lie (server.malicious-share"
    return "" if updates >= 2 * liars + 3 else f"{told} {malicious_share:g}), and gets {updates}"
