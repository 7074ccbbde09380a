"""Rows with values that no column of theirs may hold cost themselves. SQLite keeps whatever it is given."""

import pytest
from sqlalchemy import text

from support.databases import accept, fresh_sqlite, new_job
from tether.errors import StoreError, StoreUnavailable
from tether.store import Store
from tether.store.outbox import DueDispatch, due_dispatches
from tether.store.rows import UnreadableRow

NO_UTF_8 = "CAST(x'736563726574ff' AS TEXT)"
SAID_AS = {"body": "payload"}
IDS = [f"job-{number:06}" for number in range(7)]


@pytest.fixture
def sqlite_store(tmp_path):
    with Store(fresh_sqlite(tmp_path / "tether.db")) as opened:
        accept(opened, *(new_job(number) for number in range(7)))
        yield opened


def put(store, table, column, value, *numbers):
    """Write a value, in SQL, into a column of jobs."""
    for number in numbers:
        statement = text(f"UPDATE {table} SET {column} = {value} WHERE job_id = 'job-{number:06}'")
        store.write_alone(lambda connection, sql=statement: connection.execute(sql) and None).result()


@pytest.mark.parametrize("column", ["body", "options", "model", "priority"])
def test_rows_that_cannot_be_fetched_cost_themselves(sqlite_store, column):
    bad = (1, 4)
    put(sqlite_store, "jobs", column, NO_UTF_8, *bad)
    rows, errors = sqlite_store.read_each(due_dispatches, IDS)
    assert sorted(row.job_id for row in rows) == [IDS[n] for n in range(7) if n not in bad]
    assert all(isinstance(row, DueDispatch) for row in rows)
    assert sorted(errors) == [IDS[number] for number in bad]
    for error in errors.values():
        assert isinstance(error, StoreError)
        assert not isinstance(error, StoreUnavailable)
        assert SAID_AS.get(column, column) in str(error)
        assert "secret" not in str(error)


VALUES = [
    *[("jobs", name, "x'7b7d'") for name in ("body", "options", "model", "model_version", "priority")],
    *[
        ("jobs", name, value)
        for name in ("weight", "deadline", "not_before", "cost", "max_tokens")
        for value in ("'soon'", "x'00'", "9e999")
    ],
    ("jobs", "cost", "1.5"),
    ("jobs", "weight", "0"),
    ("jobs", "weight", "-1"),
    ("jobs", "priority", "'odd'"),
    ("dispatches", "pool", "x'00'"),
    ("dispatches", "dispatch", "'one'"),
]


@pytest.mark.parametrize(("table", "column", "value"), VALUES, ids=lambda value: str(value))
def test_a_row_with_a_value_of_another_type_is_unreadable(sqlite_store, table, column, value):
    put(sqlite_store, table, column, value, 3)
    rows, errors = sqlite_store.read_each(due_dispatches, IDS)
    assert errors == {}
    kinds = {row.job_id: type(row) for row in rows}
    assert kinds == {job_id: UnreadableRow if job_id == IDS[3] else DueDispatch for job_id in IDS}
    [bad] = [row for row in rows if row.job_id == IDS[3]]
    assert SAID_AS.get(column, column) in bad.reason.lower()


def test_a_read_of_each_in_a_closed_store_is_an_error_of_no_row(tmp_path):
    with pytest.raises(StoreError, match="not open"):
        Store(f"sqlite:///{tmp_path}/tether.db").read_each(due_dispatches, IDS)


def test_both_databases_read_each_row_that_is_whole(store):
    accept(store, *(new_job(number) for number in range(7)))
    rows, errors = store.read_each(due_dispatches, [*IDS, "nobody", IDS[0]])
    assert (sorted(row.job_id for row in rows), errors) == (IDS, {})
    assert all(isinstance(row, DueDispatch) for row in rows)
