"""Rows that wait and cannot be read cost themselves, where not all that waits finds room."""

import pytest
from sqlalchemy import text

from integration.orchestrator.test_waiting_for_room import Bounded, end, parked
from support.databases import fresh_sqlite, make_tenants
from tether.orchestrator import waiting_turns
from tether.orchestrator.waiting import SHORT_SECONDS
from tether.store import Store


@pytest.fixture
def sqlite_store(tmp_path):
    with Store(fresh_sqlite(tmp_path / "tether.db")) as opened:
        make_tenants(opened, *"abcdefgh")
        yield opened


def put(store, column, value, *numbers):
    for number in numbers:
        statement = text(f"UPDATE jobs SET {column} = {value} WHERE job_id = 'job-{number:06}'")
        store.write_alone(lambda connection, sql=statement: connection.execute(sql) and None).result()


@pytest.mark.parametrize("due_at", ["'soon'", "x'00'", "9e999", "-9e999", "1.5"])
def test_a_tenant_whose_times_cannot_be_read_does_not_hide_those_behind_it(sqlite_store, monkeypatch, due_at):
    monkeypatch.setattr(waiting_turns, "TENANTS", 4)
    fleet = Bounded(sqlite_store, 40)
    for index, tenant in enumerate("abcdefgh"):
        parked(sqlite_store, range(index * 100, index * 100 + 40), tenant)
    put(sqlite_store, "due_at", due_at, *range(100, 140))
    seen = set()
    for _ in range(6):
        placed, _ = fleet.run()
        seen |= {number // 100 for number in placed}
        end(sqlite_store, *placed)
    assert seen >= {0, 2, 3, 4, 5, 6, 7}


@pytest.mark.parametrize("priority", ["'odd'", "x'7b7d'", "CAST(x'736563726574ff' AS TEXT)", "''"])
def test_a_job_of_no_class_does_not_keep_the_loop_awake(sqlite_store, priority):
    fleet = Bounded(sqlite_store, 10)
    parked(sqlite_store, range(12))
    parked(sqlite_store, [50], "b")
    put(sqlite_store, "priority", priority, 50)
    fleet.run()
    assert fleet.short_of_room.is_set()
    end(sqlite_store, *range(7))
    fleet.run()
    end(sqlite_store, *range(7, 12))
    assert fleet.run()[1] != SHORT_SECONDS
    assert not fleet.short_of_room.is_set()
