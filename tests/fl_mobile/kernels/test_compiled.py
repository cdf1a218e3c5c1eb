"""What is compiled, and how often."""

from __future__ import annotations

from fl_mobile.kernels.compiled import compiled


@compiled
def shifted(number: int, by: int) -> int:
    return number << by


@compiled
def several(number: int, by: int) -> int:
    return shifted(number, 1) + shifted(number, 2) + shifted(0, by)


def test_calls_with_constants_share_one_code() -> None:
    """numba would compile a loop again for each constant that another calls it with."""
    assert several(3, 4) == 18
    assert len(getattr(shifted, "overloads", [0])) <= 1
