"""The laws of the protocol over a database, without sockets: the same on SQLite and on PostgreSQL."""

from __future__ import annotations

import pytest
from hypothesis import settings
from hypothesis.stateful import run_state_machine_as_test
from sqlalchemy import delete

from fl_mobile.coordinator.store import _engine
from fl_mobile.coordinator.tables import metadata
from tests.fl_mobile.coordinator.machine import Coordinating, CoordinatingAsynchronously
from tests.postgres import Server

MACHINES = (Coordinating, CoordinatingAsynchronously)


def play(machine: type[Coordinating], sequences: int) -> None:
    wanted = settings(max_examples=sequences, stateful_step_count=30, deadline=None)
    run_state_machine_as_test(machine, settings=wanted)


def on_postgres(machine: type[Coordinating], server: Server) -> type[Coordinating]:
    """Returns the machine over a database that is emptied for every sequence."""
    address = server.empty()
    engine = _engine(address)

    class OnPostgres(machine):  # type: ignore[misc,valid-type]
        url = address
        rows = "select coalesce(sum(n_tup_ins + n_tup_upd + n_tup_del), 0) from pg_stat_xact_user_tables"

        def teardown(self) -> None:
            super().teardown()
            with engine.begin() as db:
                for table in reversed(metadata.sorted_tables):
                    db.execute(delete(table))

    return OnPostgres


@pytest.mark.parametrize("machine", MACHINES)
def test_no_order_of_requests_counts_twice_or_forgets(machine: type[Coordinating]) -> None:
    play(machine, 25)


@pytest.mark.parametrize("machine", MACHINES)
def test_nor_does_it_on_postgresql(machine: type[Coordinating], postgres: Server) -> None:
    play(on_postgres(machine, postgres), 3)


@pytest.mark.slow
@pytest.mark.parametrize("machine", MACHINES)
def test_ten_thousand_sequences(machine: type[Coordinating]) -> None:
    play(machine, 5_000)


@pytest.mark.slow
@pytest.mark.parametrize("machine", MACHINES)
def test_a_thousand_sequences_on_postgresql(machine: type[Coordinating], postgres: Server) -> None:
    play(on_postgres(machine, postgres), 500)
