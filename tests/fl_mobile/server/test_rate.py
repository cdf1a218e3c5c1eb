"""Closed loop: what real updates cost, and the step that follows from it, round after round."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from fl_mobile.codecs.ecsq import Ecsq
from fl_mobile.codecs.ecsq.codec import Rounding
from fl_mobile.server.rate import RateControl, rate_control_of
from tests.fl_mobile.real_updates import real_updates

ROUNDINGS = ("stochastic", "rdo", "nearest")


@pytest.mark.parametrize("start", [0.5, 30.0])
@pytest.mark.parametrize("ratio", [30, 110, 300])
@pytest.mark.parametrize("rounding", ROUNDINGS)
def test_packets_come_to_the_size_asked_for_and_stay_there(rounding: str, ratio: int, start: float) -> None:
    spec, update = real_updates()["two layers, trained"]
    control = RateControl(round(4 * sum(t.size for t in spec.values()) / ratio), rounding)
    codec, step, sizes = Ecsq(rounding=rounding), start, list[int]()  # type: ignore[arg-type]
    for number in range(24):
        payload = replace(codec, step=step).encode(update, np.random.default_rng(number))
        sizes.append(len(payload))
        step = control.next_step(step, [len(payload)])
    late = np.array(sizes[-8:])
    assert late.mean() == pytest.approx(control.target_bytes, rel=0.1), sizes
    assert late.max() <= 1.6 * late.min(), sizes


@pytest.mark.parametrize("rounding", ROUNDINGS)
def test_a_step_by_examples_does_not_follow_whom_a_round_asks(rounding: Rounding) -> None:
    spec, update = real_updates()["two layers, trained"]
    control = rate_control_of(Ecsq(rounding=rounding, examples=80), round(4 * sum(t.size for t in spec.values()) / 100))
    assert control is not None
    rng, step, spent, steps = np.random.default_rng(1), 20.0, list[float](), list[float]()
    for number in range(120):
        examples = np.maximum(1, rng.lognormal(3.5, 1.5, 10)).astype(int).tolist()
        codecs = [Ecsq(step, rounding, examples=80).for_examples(size) for size in examples]
        sizes = [len(codec.encode(update, np.random.default_rng(number))) for codec in codecs]
        spent.append(float(np.mean(sizes)))
        step = control.next_step(step, sizes)
        steps.append(step)
    assert np.mean(spent[-80:]) == pytest.approx(control.target_bytes, rel=0.15)
    assert max(steps[-80:]) < 5 * min(steps[-80:])
