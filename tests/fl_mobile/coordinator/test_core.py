"""The laws of the protocol over a database, without sockets: the same on SQLite and on PostgreSQL."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import settings
from hypothesis.stateful import run_state_machine_as_test

from fl_mobile.coordinator.store import Store
from tests.fl_mobile.coordinator.machine import Coordinating, CoordinatingAsynchronously, Machine
from tests.fl_mobile.coordinator.machine_sums import Summing
from tests.fl_mobile.coordinator.tiny import InMemory
from tests.postgres import Server

MACHINES = (Coordinating, CoordinatingAsynchronously, Summing)
POSTGRES_ROWS = "select coalesce(sum(n_tup_ins + n_tup_upd + n_tup_del), 0) from pg_stat_xact_user_tables"


def play(machine: type[Machine], sequences: int, *, address: str = "sqlite://") -> None:
    """Plays so many sequences of thirty requests, to the end of each."""

    class Counted(machine):  # type: ignore[misc,valid-type]
        store = Store(address, InMemory(Path("none")))
        rows = machine.rows if address.startswith("sqlite") else POSTGRES_ROWS

    wanted = settings(max_examples=sequences, stateful_step_count=30, deadline=None, database=None)
    try:
        run_state_machine_as_test(Counted, settings=wanted)
    finally:
        Counted.store.close()
    print(f"{machine.__name__}: {Counted.ended} sequences")
    assert Counted.ended >= sequences


@pytest.mark.parametrize("machine", MACHINES)
def test_no_order_of_requests_counts_twice_or_forgets(machine: type[Machine]) -> None:
    play(machine, 8 if machine is Summing else 25)  # its clients do real curves


@pytest.mark.parametrize("machine", MACHINES)
def test_nor_does_it_on_postgresql(machine: type[Machine], postgres: Server) -> None:
    play(machine, 3, address=postgres.empty())


@pytest.mark.slow
@pytest.mark.parametrize("machine", MACHINES)
def test_ten_thousand_sequences(machine: type[Machine]) -> None:
    play(machine, 5_000)


@pytest.mark.slow
@pytest.mark.parametrize("machine", MACHINES)
def test_a_thousand_sequences_on_postgresql(machine: type[Machine], postgres: Server) -> None:
    play(machine, 500, address=postgres.empty())
