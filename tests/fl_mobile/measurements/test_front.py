"""The Pareto front against its definition."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from fl_mobile.measurements.front import pareto_front

Points = list[tuple[int, ...]]


@given(st.integers(1, 3).flatmap(lambda n: st.lists(st.tuples(*[st.integers(0, 4)] * n), max_size=12)))
def test_the_front_holds_what_nothing_beats_and_nothing_else(points: Points) -> None:
    front = pareto_front(points, lambda point: point)
    for point in points:
        beaten = any(other != point and all(a <= b for a, b in zip(other, point, strict=True)) for other in points)
        assert front.count(point) == (0 if beaten else points.count(point))
    assert [point[::-1] for point in front] == sorted(point[::-1] for point in front)


def test_more_bits_for_less_error_by_rising_bits() -> None:
    points = [(0.5, 1.0), (0.6, 2.0), (0.1, 2.0), (0.9, 0.5), (0.1, 3.0), (0.8, 0.5)]
    assert pareto_front(points, lambda point: point) == [(0.8, 0.5), (0.5, 1.0), (0.1, 2.0)]
