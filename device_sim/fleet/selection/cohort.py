"""A cohort wanted, a cohort found, and the candidates between: asked in random order until there are enough."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from device_sim.fleet.reasons import code_of
from device_sim.fleet.selection.walk import walk
from fl_mobile.parameters import NoParameters
from fl_mobile.seeds import uniforms

UNDER_WAY = np.uint8(code_of("under-way"))
_GOLDEN = (5**0.5 - 1) / 2

Ask = Callable[[np.ndarray], np.ndarray]
"""Devices ``int64[n]`` → reason codes ``uint8[n]``, 0 for those that can: `gate.Gate.refusals`."""


def _all_in_one(index: np.ndarray) -> np.ndarray:
    return np.zeros(len(index), np.int64)


def _no_time(index: np.ndarray) -> np.ndarray:
    return np.zeros(len(index))


def _nobody() -> np.ndarray:
    return np.zeros(0, np.int64)


@dataclass(frozen=True)
class Request:
    """A cohort wanted, or the part of one that takes the places of devices that are done.

    Samplers promise that ``n`` askings of one device each give about what one asking of ``n`` gives.

    Attributes:
        round_num: Version of the global model.
        count: Devices wanted; the mean number of them for ``poisson``.
        ask: Which candidates can.
        plan: The sampler's parameters, a record of `SamplerRow.parameters`.
        stratum_of: `strata.Strata.of`, for ``stratified``.
        stratum_shares: `strata.Strata.shares`: part of the cohort each stratum gets.
        seconds_of: Devices ``int64[n]`` → expected seconds of a task ``float64[n]``, for ``oort``.
        draw: Number of this asking in the run, which keys all that is random in it; None if a version asks once.
        under_way: ``int64[m]`` devices still busy with an earlier asking: never chosen, but part of the cohort.
        whole: Size of the whole cohort; 0 is ``count`` and those under way.
    """

    seed: int
    round_num: int
    population: int
    count: int
    ask: Ask
    plan: Any = field(default_factory=NoParameters)
    stratum_of: Callable[[np.ndarray], np.ndarray] = _all_in_one
    stratum_shares: tuple[float, ...] = (1.0,)
    seconds_of: Callable[[np.ndarray], np.ndarray] = _no_time
    draw: int | None = None
    under_way: np.ndarray = field(default_factory=_nobody)
    whole: int = 0

    @property
    def key(self) -> int:
        """Keys what is random in this asking."""
        return self.round_num if self.draw is None else self.draw

    @property
    def cohort(self) -> int:
        """Devices of the cohort that this asking is for or belongs to, at least ``count``."""
        return max(self.whole, self.count) if self.whole else self.count + len(self.under_way)

    @property
    def offset(self) -> float:
        """Where between two whole numbers this asking rounds, in [0, 1): spread evenly over askings in a row.

        A multiple of the golden ratio (Weyl's sequence), so that also askings of one device add up to fair shares.
        """
        start = float(uniforms(self.seed, "offset", index=np.zeros(1, np.int64))[0])
        return (start + self.key * _GOLDEN) % 1.0

    def refusals(self, index: np.ndarray) -> np.ndarray:
        """Returns what `ask` says, and ``under-way`` for devices that are."""
        if not len(self.under_way):
            return self.ask(index)
        codes: np.ndarray = np.where(np.isin(index, self.under_way), UNDER_WAY, self.ask(index))
        return codes


@dataclass(frozen=True)
class Choice:
    """A cohort.

    Attributes:
        devices: ``int64[k]``, rising, none twice; fewer than wanted where too few can.
        refused: ``uint8[m]``: reason codes of candidates that were asked and did not.
    """

    devices: np.ndarray
    refused: np.ndarray


def most_asked(request: Request) -> int:
    """Returns how many candidates a round asks before it goes on with fewer devices than it wanted."""
    return min(request.population, 100 * request.count + 1000)


def limited(request: Request) -> Iterator[np.ndarray]:
    """Yields candidates in random order, at most `most_asked`."""
    left = most_asked(request)
    pieces = walk(request.seed, request.key, "cohort", population=request.population)
    for piece in pieces:
        yield piece[:left]
        left -= len(piece)
        if left <= 0:
            return


def first(request: Request, count: int, among: Callable[[np.ndarray], np.ndarray] | None = None) -> Choice:
    """Returns the first ``count`` candidates that can; those behind the last of them are not asked.

    Args:
        among: Devices ``int64[n]`` → ``bool[n]``, those to consider at all.
    """
    taken, refused, left = [np.zeros(0, np.int64)], [np.zeros(0, np.uint8)], count
    if not count:
        return choice(taken[0], refused[0])
    for piece in limited(request):
        asked = piece[among(piece)] if among else piece
        codes = request.refusals(asked)
        willing = np.flatnonzero(codes == 0)[:left]
        last = willing[-1] + 1 if len(willing) == left else len(asked)
        taken.append(asked[willing])
        refused.append(codes[:last])
        left -= len(willing)
        if not left:
            break
    return choice(np.concatenate(taken), np.concatenate(refused))


def choice(devices: np.ndarray, codes: np.ndarray) -> Choice:
    """Returns devices that take part, and what all that were asked said."""
    return Choice(np.sort(devices), codes[codes > 0])
