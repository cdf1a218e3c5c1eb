"""The laws of the protocol over a database, without sockets."""

from __future__ import annotations

import pytest
from hypothesis import settings
from hypothesis.stateful import run_state_machine_as_test

from tests.fl_mobile.coordinator.machine import Coordinating, CoordinatingAsynchronously

MACHINES = (Coordinating, CoordinatingAsynchronously)


@pytest.mark.parametrize("machine", MACHINES)
def test_no_order_of_requests_counts_twice_or_forgets(machine: type[Coordinating]) -> None:
    run_state_machine_as_test(machine, settings=settings(max_examples=25, stateful_step_count=30, deadline=None))


@pytest.mark.slow
@pytest.mark.parametrize("machine", MACHINES)
def test_ten_thousand_sequences(machine: type[Coordinating]) -> None:
    run_state_machine_as_test(machine, settings=settings(max_examples=5_000, stateful_step_count=30, deadline=None))
