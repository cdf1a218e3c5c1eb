"""Oort: prefer devices that still have something to teach and that answer in time.

Lai, Zhu, Madhyastha and Chowdhury, "Oort: efficient federated learning via guided participant selection" (OSDI 2021);
clipping and cut-off are the paper's 95 %, the defaults of `Guided` those of the authors' code (FedScale
``config_parser.py``). Simplified in three places:

- The statistical utility of a device is examples × mean loss; the paper takes the root mean square of the losses,
  which devices here do not report.
- The pacer relaxes the preferred duration every ``pacer_rounds``, whatever the utility did; the paper's waits until it
  stops growing.
- No device is ever barred for having taken part too often.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from device_sim.fleet.ledger import Ledger
from device_sim.fleet.selection.cohort import UNDER_WAY, Choice, Request, choice, first
from fl_mobile.parameters import check_parameters, parameter
from fl_mobile.seeds import uniforms


@dataclass(frozen=True)
class Guided:
    """[selection] of Oort."""

    exploration: float = parameter(0.9, "part of the first cohort that are devices never seen", at_least=0, at_most=1)
    exploration_decay: float = parameter(0.98, "factor a round on that", above=0, at_most=1)
    exploration_min: float = parameter(0.3, "and its floor", at_least=0, at_most=1)
    round_percentile: float = parameter(
        30.0, "tasks longer than this percentile of the known ones are penalised", above=0, at_most=100
    )
    pacer_rounds: int = parameter(20, "after so many rounds the percentile rises", at_least=1)
    pacer_step: float = parameter(5.0, "by so many points", at_least=0)
    round_penalty: float = parameter(2.0, "exponent of the penalty", at_least=0)

    def __post_init__(self) -> None:
        check_parameters(self, "selection")


_CLIP_PERCENTILE = 95.0
_CUT_OFF = 0.95
_UNCERTAINTY = 0.1
_EXPLORE_WINDOW = 5
_PIECE = 1024


def oort(request: Request, ledger: Ledger) -> Choice:
    """Returns mostly devices of high utility, and some never seen, the quick ones first."""
    plan = request.plan
    share = max(plan.exploration_min, plan.exploration * plan.exploration_decay**request.round_num)
    new_ones = min(request.count, math.floor(request.count * share + request.offset))
    known, refused = _exploit(request, ledger, request.count - new_ones, share)
    new = first(
        request,
        _EXPLORE_WINDOW * (request.count - len(known)),
        among=lambda index: np.isnan(ledger.column("rounds", index)),
    )
    penalty = _penalty(request, ledger, request.seconds_of(new.devices))
    found = _weighted(
        request=request, purpose="explore", devices=new.devices, weights=penalty, count=request.count - len(known)
    )
    if len(known) + len(found) < request.count:  # everybody has been seen: exploit more
        known, refused = _exploit(request, ledger, request.count - len(found), 0.0)
    return choice(np.concatenate([known, found]), np.concatenate([refused, new.refused]))


def utilities(request: Request, ledger: Ledger, seen: np.ndarray) -> np.ndarray:
    """Returns ``float64[n]`` for the devices ``seen`` ``int64[n]``; equation 2 with the uncertainty term."""
    useful = np.nan_to_num(ledger.column("examples", seen) * ledger.column("loss", seen))
    clipped = np.minimum(useful, np.percentile(useful, _CLIP_PERCENTILE))
    spread = max(float(np.ptp(clipped)), np.finfo(float).tiny)
    last_round = ledger.column("last_round", seen) + 1  # the paper counts from 1
    unsure = np.sqrt(_UNCERTAINTY * np.log(request.round_num + 1) / last_round)
    in_time = _penalty(request, ledger, ledger.column("task_seconds", seen))
    scores: np.ndarray = ((clipped - clipped.min()) / spread + unsure) * in_time
    return scores


def _exploit(request: Request, ledger: Ledger, count: int, share: float) -> tuple[np.ndarray, np.ndarray]:
    """Returns ``count`` devices drawn in proportion to utility from the best, and what those asked said.

    Args:
        share: Of the cohort that explores; the bar lies where the others of the whole cohort would end.
    """
    seen = ledger.devices()
    seen = seen[~np.isnan(ledger.column("rounds", seen))]
    if not count or not len(seen):
        return np.zeros(0, np.int64), np.zeros(0, np.uint8)
    scores = utilities(request, ledger, seen)
    order = np.argsort(-scores, kind="stable")
    codes, bar, last = np.zeros(0, np.uint8), 0.0, max(count, request.cohort - math.ceil(request.cohort * share))
    for start in range(0, len(order), _PIECE):  # from the best down to where enough can
        codes = np.concatenate([codes, request.refusals(seen[order[start : start + _PIECE]])])
        willing, cohort = order[: len(codes)][codes == 0], order[: len(codes)][np.isin(codes, (0, UNDER_WAY))]
        enough = len(willing) >= count and len(cohort) >= last
        bar = _CUT_OFF * min(scores[willing[count - 1]], scores[cohort[last - 1]]) if enough else 0.0
        if scores[order[len(codes) - 1]] < bar:
            break
    best = willing[scores[willing] >= bar]
    asked = codes[: np.searchsorted(-scores[order], -bar, side="right")]
    return _weighted(request=request, purpose="exploit", devices=seen[best], weights=scores[best], count=count), asked


def _penalty(request: Request, ledger: Ledger, seconds: np.ndarray) -> np.ndarray:
    """Returns ``float64[n]``: 1 for tasks in time, ``(preferred / seconds) ** round_penalty`` for longer ones."""
    plan, known = request.plan, ledger.column("task_seconds")
    known = known[np.isfinite(known)]
    percentile = plan.round_percentile + plan.pacer_step * (request.round_num // plan.pacer_rounds)
    if not len(known) or percentile >= 100:
        return np.ones(len(seconds))
    preferred = np.percentile(known, percentile)
    late: np.ndarray = np.where(seconds > preferred, preferred / np.maximum(seconds, 1e-9), 1.0)
    return late**plan.round_penalty


def _weighted(request: Request, purpose: str, devices: np.ndarray, weights: np.ndarray, count: int) -> np.ndarray:
    """Returns ``count`` of ``devices``, without replacement, in proportion to ``weights``.

    Efraimidis and Spirakis, "Weighted random sampling with a reservoir" (2006): the largest ``log(u) / weight``.
    """
    u = uniforms(request.seed, request.key, purpose, index=devices)
    keys = np.log(u + 2.0**-54) / np.maximum(weights, 1e-12)
    return devices[np.argsort(-keys, kind="stable")[:count]]
