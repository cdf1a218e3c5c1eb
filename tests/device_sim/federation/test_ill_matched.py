"""What `simulate` says before round 1 of a codec that learns less than another."""

from __future__ import annotations

import numpy as np
import pytest

from device_sim.federation.ill_matched import uneven
from fl_mobile.codecs import parse_codec


@pytest.mark.parametrize("text", ["ecsq", "ecsq:rounding=rdo", "ecsq:abs=0.1"])
def test_where_sizes_differ_much_a_codec_by_examples_is_named(text: str) -> None:
    told = uneven(parse_codec(text), np.array([0, 1, 30, 30, 1403]))
    assert told.startswith("devices hold 1 to 1,403 examples")
    named = parse_codec(told.partition("upload.codec ")[2].partition(" ")[0])
    assert named.examples == 30
    assert uneven(named, np.array([1, 30, 30, 1403])) == ""


@pytest.mark.parametrize("counts", [[50, 50], [], [0, 0], [10, 20, 30, 40]])
def test_nothing_is_said_of_sizes_that_are_much_alike(counts: list[int]) -> None:
    assert uneven(parse_codec("ecsq"), np.array(counts, np.int64)) == ""
    assert uneven(parse_codec("q8"), np.array([1, 1, 1000])) == ""
