"""The envelope in columns: what the migration makes of jobs that an older version accepted."""

import json

import pytest
from sqlalchemy import create_engine, text

from support.databases import NOW, POOL, due, new_job, waiting_at
from tether.jobs import JobState, Priority
from tether.store import Store
from tether.store.addresses import database_url as database_url_of
from tether.store.admissions import admit
from tether.store.migrations import downgrade, upgrade
from tether.store.placements import PlacedDispatch, record_placed

TRACE = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
BODY = {"v": 1, "version": "2", "prompt": "p", "sampling": {"max_tokens": 99}, "traceparent": TRACE}
COLUMNS = "job_id, model_version, max_tokens, options"


def envelopes(url):
    with Store(url) as store:
        rows = store.read(lambda c: c.execute(text(f"SELECT {COLUMNS} FROM jobs ORDER BY job_id")).all())
    return {row.job_id: (row.model_version, row.max_tokens, json.loads(row.options)) for row in rows}


def change(url, statement, **values):
    with Store(url) as store:
        store.write_alone(lambda c: c.execute(text(statement), values) and None).result(30)


def change_old(url, statement, **values):
    engine = create_engine(database_url_of(url))
    with engine.begin() as connection:
        connection.execute(text(statement), values)
    engine.dispose()


@pytest.fixture
def old_database(database_url):
    """One of version 0003 with jobs in it: waiting, placed, ended, and one whose body nobody can read."""
    with Store(database_url) as store:
        for number, changes in enumerate(
            (
                {},
                {"pool": None},
                {},
                {"payload": "{"},
                {"payload": '{"sampling":{"max_tokens":-1},"version":7}'},
            )
        ):
            job = new_job(number, **{"payload": json.dumps(BODY), **changes})
            store.write(admit, job).result(30)
        store.write(record_placed, PlacedDispatch("job-000000", 1, Priority.STANDARD)).result(30)
    change(database_url, f"UPDATE jobs SET state = '{JobState.EXPIRED}' WHERE job_id = 'job-000002'")
    downgrade(database_url, "0003")
    return database_url


def test_open_jobs_get_their_envelope_from_the_body(old_database):
    upgrade(old_database)
    filled, empty = ("2", 99, {"traceparent": TRACE}), ("", 0, {})
    assert envelopes(old_database) == {
        "job-000000": filled,
        "job-000001": filled,
        "job-000002": empty,
        "job-000003": empty,
        "job-000004": empty,
    }


@pytest.mark.parametrize("version", ["\ud800", "a\0b"])
def test_a_version_that_is_no_text_of_a_database_does_not_stop_the_migration(old_database, version):
    body = json.dumps({**BODY, "version": version})
    change_old(old_database, "UPDATE jobs SET body = :body WHERE job_id = 'job-000000'", body=body)
    upgrade(old_database)
    assert envelopes(old_database)["job-000000"] == ("", 99, {"traceparent": TRACE})


def test_more_jobs_than_a_page_are_all_filled(old_database, monkeypatch):
    monkeypatch.setattr("tether.store.migrations.versions.v0004_envelopes.ROWS_AT_ONCE", 1)
    upgrade(old_database)
    assert [version for version, *_ in envelopes(old_database).values()] == ["2", "2", "", "", ""]


def test_going_down_gives_the_trace_back_to_the_body(database_url):
    payload = {name: value for name, value in BODY.items() if name != "traceparent"}
    with Store(database_url) as store:
        job = new_job(1, payload=json.dumps(payload), options=json.dumps({"traceparent": TRACE, "more": 1}))
        store.write(admit, job).result(30)
    downgrade(database_url, "0003")
    upgrade(database_url)
    assert envelopes(database_url) == {"job-000001": ("2", 99, {"traceparent": TRACE})}


def test_an_envelope_is_read_as_it_was_written(database_url):
    needs = {"region": "eu", "gpu_class": "h100", "min_vram": 2**40, "any_version": True, "prefer": "region"}
    placed, parked = new_job(1, options='{"a":"ü"}', not_before=0, **needs), new_job(2, pool=None, cost=3)
    with Store(database_url) as store:
        store.write(admit, placed).result(30)
        store.write(admit, parked).result(30)
        [found] = due(store, NOW + 60_000)
        [other] = waiting_at(store, NOW + 60_000)
    assert (found.job, found.pool) == (placed.job, POOL)
    assert other.job == parked.job
