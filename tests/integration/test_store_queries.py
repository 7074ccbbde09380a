"""Queries, leases, the epoch, pruning, the sweep of holds, tenants."""

import pytest
from sqlalchemy import delete, event, insert, update

from support.databases import NOW, POOL, all_held, give_quota, new_job, outcome, settle, state_of, write
from tether.errors import StoreError
from tether.jobs import JobFilter, JobState, OutcomeKind
from tether.store.admissions import AdmissionKind, admit
from tether.store.bulk import rows_with_keys
from tether.store.epoch import epoch, raise_epoch
from tether.store.holds import sweep_holds
from tether.store.leases import give_up_lease, take_lease
from tether.store.placements import due, placed_rows, waiting
from tether.store.pruning import prune
from tether.store.queries import dead_letter, job, jobs_of
from tether.store.requests import overdue, requested
from tether.store.schema import counters, holds, jobs
from tether.store.tenants import Tenant, all_tenants, save_tenant, tenant


def test_jobs_are_listed_newest_first_and_filtered(store):
    odd = 'a"b'
    write(
        store,
        admit,
        new_job(1, labels={"team": "a", odd: "x"}),
        new_job(2, labels={"team": "A"}, model="other"),
        new_job(3, labels={"note": ',"team":"a"', "z": "\0\ud800"}),
        new_job(4),
    )
    settle(store, outcome(4))

    def ids(after=None, limit=50, **filters):
        rows = store.read(jobs_of, "default", JobFilter(**filters), after, limit)
        return [row.job_id[-1] for row in rows]

    assert ids() == ["4", "3", "2", "1"]
    assert ids(limit=2) == ["4", "3"]
    assert ids(after="job-000003") == ["2", "1"]
    assert ids(states=(JobState.SUCCEEDED,)) == ["4"]
    assert ids(model="other") == ["2"]
    assert ids(labels={"team": "a"}) == ["1"]
    assert ids(labels={odd: "x"}) == ["1"]
    assert ids(labels={"b": "x"}) == []
    assert ids(labels={"team": "a", odd: "x"}) == ["1"]
    assert ids(labels={"team": "A", odd: "x"}) == []
    assert ids(labels={"z": "\0\ud800"}) == ["3"]
    assert store.read(jobs_of, "another") == []
    assert len(store.read(jobs_of, None)) == 4
    assert store.read(job, "job-000001", "another") is None


def test_a_lease_is_its_holders_until_it_ends_or_is_given_up(store):
    def take(holder, now):
        return store.write_alone(take_lease, "outbox", holder, now, 100).result()

    assert take("a", 0)
    assert not take("b", 99)
    assert take("a", 50)
    assert not take("b", 149)
    assert take("b", 150)
    assert not store.write_alone(give_up_lease, "outbox", "a").result()
    assert store.write_alone(give_up_lease, "outbox", "b").result()
    assert take("a", 151)


def test_the_epoch_only_rises(store):
    assert store.read(epoch) == 0
    assert store.write_alone(raise_epoch).result() == 1
    assert store.write_alone(raise_epoch, 7).result() == 8
    assert store.write_alone(raise_epoch, 3).result() == 9
    assert store.read(epoch) == 9


def test_pruning_removes_what_ended_long_ago_and_frees_its_key(store):
    write(store, admit, new_job(1), new_job(2), new_job(3))
    settle(store, outcome(1, OutcomeKind.POISONED), now_ms=NOW)
    settle(store, outcome(2), now_ms=NOW + 10)
    assert store.write_alone(prune, NOW, 10).result() == 0
    assert store.write_alone(prune, NOW + 1, 10).result() == 1
    assert store.read(job, "job-000001") is None
    assert store.read(dead_letter, "job-000001") is None
    assert store.write_alone(prune, NOW + 99, 10).result() == 1
    assert state_of(store, 3) == ("accepted", 1)
    assert write(store, admit, new_job(1))[0].kind is AdmissionKind.ACCEPTED


def test_the_sweep_frees_planted_holds_and_puts_counters_right(store):
    write(store, admit, new_job(1), new_job(2))
    settle(store, outcome(1))
    planted = [
        {"job_id": job_id, "kind": "quota", "name": "default", "dispatch": 1, "amount": 1, "created_at": 0}
        for job_id in ("job-000001", "gone")
    ]

    def plant(connection):
        connection.execute(insert(holds), planted)
        connection.execute(update(counters).where(counters.c.kind == "quota").values(held=3))
        connection.execute(update(counters).where(counters.c.kind == "capacity").values(held=17))
        connection.execute(insert(counters), {"kind": "quota", "name": "ghost", "held": 4})

    store.write_alone(plant).result()
    assert store.write_alone(sweep_holds).result() == 4
    assert all_held(store) == {("quota", "default"): 1, ("capacity", POOL): 1}
    store.write_alone(lambda c: c.execute(delete(counters)) and None).result()
    assert store.write_alone(sweep_holds).result() == 2


def test_tenants_are_made_and_changed(store):
    [first] = store.read(all_tenants)
    assert (first.tenant_id, first.weight, first.quota) == ("default", 1.0, None)
    give_quota(store, 3)
    store.write_alone(save_tenant, Tenant("small", "Small", 2.0, None, 5)).result()
    assert store.read(tenant, "small") == Tenant("small", "Small", 2.0, None, NOW)
    assert store.read(tenant, "nobody") is None


def test_a_reader_cannot_write(store):
    with pytest.raises(StoreError):
        store.read(lambda connection: connection.execute(delete(jobs)))


def test_text_that_the_database_cannot_hold_fails_alone(store):
    bad = new_job(1, body="\ud800")
    good, failed = store.write_many(admit, [new_job(2), bad])
    assert good.result().kind is AdmissionKind.ACCEPTED
    with pytest.raises((StoreError, UnicodeError)):
        failed.result()


UNIQUE_KEY = ("uq_jobs_tenant_id_correlation_id_retry_token", "tenant_id", "correlation_id", "retry_token")


def plan_of(store, function, *args):
    """How the database finds what ``function`` asks for."""
    asked = []
    event.listen(store._readers, "before_cursor_execute", lambda *call: asked.append(call[2:4]))
    store.read(function, *args)
    query, parameters = asked[-1]
    is_sqlite = store.place.startswith("sqlite")

    def explain(connection):
        if not is_sqlite:
            # A small table is read as a whole, whatever indexes it has.
            connection.exec_driver_sql("SET LOCAL enable_seqscan = off")
            connection.exec_driver_sql("SET LOCAL enable_bitmapscan = off")
        prefix = "EXPLAIN QUERY PLAN" if is_sqlite else "EXPLAIN"
        return str(connection.exec_driver_sql(f"{prefix} {query}", parameters).all())

    return store.read(explain)


@pytest.mark.parametrize(
    ("index", "function", "args"),
    [
        ("ix_jobs_waiting", waiting, (NOW, 10)),
        ("ix_jobs_in_redis", placed_rows, ("", 10)),
        ("ix_jobs_deadline", overdue, (NOW, 10)),
        ("ix_jobs_requested", requested, (NOW, 10)),
        ("ix_jobs_tenant_id_job_id", jobs_of, ("default",)),
        ("ix_dispatches_due_at", due, (NOW, 10)),
        ("ix_jobs_finished_at", prune, (NOW, 10)),
        (UNIQUE_KEY[0], rows_with_keys, (jobs, ("job_id",), UNIQUE_KEY[1:], [("a", "b", "c")] * 3)),
    ],
)
def test_a_query_that_runs_often_has_an_index(store, index, function, args):
    plan = plan_of(store, function, *args)
    # SQLite gives the index of a unique constraint a name of its own.
    assert index in plan or (index == UNIQUE_KEY[0] and "sqlite_autoindex_jobs_2" in plan)
