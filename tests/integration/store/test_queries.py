"""Queries, leases, the epoch, pruning, the sweep of holds, tenants."""

import re
from functools import partial

import pytest
from sqlalchemy import delete, event, insert, text, update

from support.databases import (
    DEMO,
    NOW,
    POOL,
    accept,
    all_held,
    give_quota,
    indexed_labels,
    new_job,
    outcome,
    settle_each,
    state_of,
    write,
)
from tether.dead_letters import LetterFilter
from tether.errors import StoreError
from tether.job_filters import JobFilter
from tether.jobs import JobState, Priority
from tether.outcomes import OutcomeKind
from tether.store.admissions import AdmissionKind, admit
from tether.store.audit_pages import audit_page
from tether.store.beginnings import unbegun
from tether.store.bulk import rows_with_keys
from tether.store.dead_letters import dead_letter, open_letters, scan_letters
from tether.store.end_requests import overdue, requested
from tether.store.epoch import epoch, raise_epoch
from tether.store.holds import sweep_holds
from tether.store.job_lists import scan_jobs
from tether.store.letter_changes import old_letters
from tether.store.loop_leases import give_up_lease, take_lease
from tether.store.outbox import next_due, owed_in_lane, owing_lanes, strays
from tether.store.placements import placed_jobs
from tether.store.pruning import prunable_jobs, prune
from tether.store.queries import job
from tether.store.schema import counters, dead_letters, holds, jobs
from tether.store.tenants import Tenant, all_tenants, change_tenant, create_tenant, tenant
from tether.store.waiting_jobs import due_retry_ids, models_with_needs, next_waiting, waiting_ids
from tether.store.waiting_tenants import waiting_tenants


def test_jobs_are_listed_newest_first_and_filtered(store):
    odd = 'a"b'
    accept(
        store,
        new_job(1, labels={"team": "a", odd: "x"}),
        new_job(2, labels={"team": "A"}, model="other"),
        new_job(3, labels={"note": ',"team":"a"', "z": "\0\ud800"}),
        new_job(4),
    )
    settle_each(store, outcome(4))

    def ids(after=None, limit=50, **filters):
        rows = store.read(scan_jobs, "default", JobFilter(**filters), after, limit).rows
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
    assert ids(labels={"team": "a"}, model="other") == []
    assert ids(labels={"team": "A"}, model="other", states=(JobState.ACCEPTED,)) == ["2"]
    assert ids(labels={"team": "a"}, states=(JobState.SUCCEEDED,)) == []
    assert store.read(scan_jobs, "another").rows == []
    assert len(store.read(scan_jobs, None).rows) == 4
    everybodys = store.read(scan_jobs, None, JobFilter(labels={"team": "a"})).rows
    assert [row.job_id for row in everybodys] == ["job-000001"]
    assert store.read(job, "job-000001", "another") is None


@pytest.mark.parametrize(
    "filters",
    [
        {"labels": {"odd": "1"}},
        {"labels": {"odd": "1", "all": "yes"}},
        {"labels": {"all": "yes"}, "model": "other"},
        {"labels": {"all": "yes"}, "states": (JobState.SUCCEEDED, JobState.PARKED)},
        {"model": "other"},
        {"states": (JobState.SUCCEEDED,)},
        {"states": (JobState.PARKED, JobState.SUCCEEDED)},
        {"states": (JobState.SUCCEEDED, JobState.ACCEPTED), "model": "other"},
        {"states": (JobState.PARKED, JobState.ACCEPTED), "model": "other"},
        {"states": (JobState.SUCCEEDED,), "labels": {"odd": "0"}, "model": "demo"},
        {},
    ],
)
def test_a_list_is_whole_however_few_rows_a_call_may_look_at(store, filters):
    for number in range(12):
        accept(
            store,
            new_job(
                number,
                labels={"odd": str(number % 2), "all": "yes"},
                model=("demo", "demo", "other")[number % 3],
                pool=None if number % 4 == 3 else POOL,
            ),
        )
    settle_each(store, *(outcome(number) for number in range(0, 12, 2)))
    whole = store.read(scan_jobs, "default", JobFilter(**filters), None, 50)
    assert whole.rows
    assert whole.after is None
    for limit, max_scanned in ((1, 50), (2, 3), (50, 1), (50, 5)):
        pages, after = [], None
        while True:
            page = store.read(scan_jobs, "default", JobFilter(**filters), after, limit, max_scanned)
            assert page.scanned <= max_scanned
            assert len(page.rows) <= limit
            pages += page.rows
            after = page.after
            if after is None:
                break
        assert pages == whole.rows


@pytest.mark.parametrize(
    "filters",
    [
        {"labels": {"rare": "1"}},
        {"labels": {"all": "yes", "rare": "1"}},
        {"labels": {"all": "yes"}, "model": "other"},
        {"labels": {"all": "yes"}, "states": (JobState.SUCCEEDED,)},
    ],
)
def test_a_list_begins_with_the_filter_that_fewest_jobs_pass(store, filters):
    accept(
        store,
        *(
            new_job(
                number,
                labels={"all": "yes"} | ({"rare": "1"} if number == 3 else {}),
                model="other" if number == 3 else "demo",
            )
            for number in range(40)
        ),
    )
    settle_each(store, outcome(3))
    page = store.read(scan_jobs, "default", JobFilter(**filters), None, 5, 10)
    assert [row.job_id for row in page.rows] == ["job-000003"]
    assert (page.after, page.scanned) == (None, 1)


def test_pruning_and_a_quota_leave_no_label_behind(store):
    give_quota(store, 1)
    labels = {"a": "1", "b": "x" * 256, "\0\ud800": "\U0001f600" * 256}
    accept(store, new_job(1, labels=labels), new_job(2, labels=labels))
    settle_each(store, outcome(1))
    refused = write(store, admit, *(new_job(n, tenant_id="small", labels=labels) for n in (3, 4)))
    assert [answer.kind for answer in refused] == [AdmissionKind.ACCEPTED, AdmissionKind.OVER_QUOTA]
    assert write(store, admit, new_job(2, labels=labels))[0].kind is AdmissionKind.KNOWN
    assert len(store.read(indexed_labels)) == 9
    assert write(store, prune, "job-000001") == [True]
    assert {job_id for _, _, job_id in store.read(indexed_labels)} == {"job-000002", "job-000003"}


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
    accept(store, new_job(1), new_job(2), new_job(3))
    settle_each(store, outcome(1, OutcomeKind.POISONED), now_ms=NOW)
    settle_each(store, outcome(2), now_ms=NOW + 10)
    retry(store, 1)
    assert store.read(prunable_jobs, NOW + 1, 10, now_ms=0) == []
    assert store.read(prunable_jobs, NOW + 2, 10, now_ms=0) == ["job-000001"]
    assert store.read(prunable_jobs, NOW + 99, 10, 1, now_ms=0) == ["job-000002"]
    assert write(store, prune, "job-000001", "job-000003") == [True, False]
    assert store.read(job, "job-000001") is None
    assert store.read(dead_letter, "job-000001") is None
    assert store.read(prunable_jobs, NOW + 99, 10, now_ms=0) == ["job-000002"]
    assert state_of(store, 3) == ("accepted", 1)
    assert write(store, admit, new_job(1))[0].kind is AdmissionKind.ACCEPTED


def test_a_job_with_a_retention_of_its_own_is_kept_no_longer(store):
    accept(store, new_job(1, retention_ms=1_000), new_job(2, retention_ms=5_000), new_job(3))
    settle_each(store, *(outcome(number) for number in (1, 2, 3)), now_ms=NOW)
    assert store.read(prunable_jobs, 0, 10, now_ms=NOW + 1_000) == []
    assert store.read(prunable_jobs, 0, 10, now_ms=NOW + 1_001) == ["job-000001"]
    assert store.read(prunable_jobs, NOW + 1, 10, now_ms=NOW + 1_001) == [f"job-00000{n}" for n in (1, 2, 3)]


@pytest.mark.parametrize("damaged", ["'soon'", "x'ff'", "-1", "0", "9223372036854775807"])
def test_a_retention_that_is_none_costs_neither_its_job_nor_others(store, damaged):
    if "'" in damaged and store.read(lambda connection: connection.dialect.name) != "sqlite":
        pytest.skip("Postgres keeps numbers in that column")
    accept(store, new_job(1), new_job(2, retention_ms=1_000))
    settle_each(store, outcome(1), outcome(2), now_ms=NOW)
    change = text(f"UPDATE jobs SET retention_ms = {damaged} WHERE job_id = 'job-000001'")
    store.write_alone(lambda connection: connection.execute(change) and None).result(60)
    assert store.read(prunable_jobs, 0, 10, now_ms=NOW + 10**12) == ["job-000002"]


def test_a_dead_job_is_kept_until_its_dead_letter_was_closed(store):
    accept(store, *(new_job(number) for number in range(6)))
    for number, kind in enumerate([OutcomeKind.POISONED, OutcomeKind.SUCCEEDED] * 3):
        settle_each(store, outcome(number, kind), now_ms=NOW + number)
    retry(store, 2)
    old = [f"job-{number:06}" for number in (1, 2, 3, 5)]
    assert store.read(prunable_jobs, NOW + 99, 10, now_ms=0) == old
    pages = [store.read(prunable_jobs, NOW + 99, 2, offset, now_ms=0) for offset in (0, 2, 4)]
    assert pages == [old[:2], old[2:], []]


def retry(store, number):
    """Note that another job retries a dead one."""
    of_job = dead_letters.c.job_id == f"job-{number:06}"
    change = (
        update(dead_letters)
        .where(of_job)
        .values(retried_as="job-retried", closed="retried", closed_at=NOW + number)
    )
    store.write_alone(lambda connection: connection.execute(change) and None).result()


def test_the_sweep_frees_planted_holds_and_puts_counters_right(store):
    accept(store, new_job(1), new_job(2))
    settle_each(store, outcome(1))
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
    assert store.write_alone(sweep_holds).result() == 3


def test_tenants_are_made_and_changed(store):
    [first] = store.read(all_tenants)
    assert (first.tenant_id, first.weight, first.quota) == ("default", 1.0, None)
    give_quota(store, 3)
    again = Tenant("small", "another", 3.0, 1, NOW + 1)
    assert not store.write_alone(create_tenant, again).result()
    changed = Tenant("small", "Small", 2.0, None, NOW)
    values = {"name": "Small", "weight": 2.0, "quota": None}
    assert store.write_alone(change_tenant, "small", values).result() == changed
    assert store.read(tenant, "small") == changed
    assert store.read(tenant, "nobody") is None


def test_a_reader_cannot_write(store):
    with pytest.raises(StoreError):
        store.read(lambda connection: connection.execute(delete(jobs)))


def test_text_that_the_database_cannot_hold_fails_alone(store):
    bad = new_job(1, payload="\ud800")
    good, failed = store.write_many(admit, [new_job(2), bad])
    assert good.result().kind is AdmissionKind.ACCEPTED
    with pytest.raises((StoreError, UnicodeError)):
        failed.result()


BOTH = (JobState.DEAD, JobState.EXPIRED)
LABELS = "pk_job_labels"
UNIQUE_KEY = ("uq_jobs_tenant_id_correlation_id_retry_token", "tenant_id", "correlation_id", "retry_token")
IN_SQLITE = {
    UNIQUE_KEY[0]: "sqlite_autoindex_jobs_2",
    LABELS: "job_labels USING PRIMARY KEY (tenant_id=? AND label=?",
}


def plan_of(store, function, *args):
    """How the database finds what ``function`` asks for."""
    asked = []
    event.listen(store._readers, "before_cursor_execute", lambda *call: asked.append(call[2:4]))
    store.read(function, *args)
    # The last one: a list looks first where it begins, and finds no ids here whose rows it would read.
    query, parameters = [(query, parameters) for query, parameters in asked if query != "BEGIN"][-1]
    is_sqlite = store.place.startswith("sqlite")

    def explain(connection):
        if not is_sqlite:
            # A small table is read as a whole, whatever indexes it has.
            connection.exec_driver_sql("SET LOCAL enable_seqscan = off")
            connection.exec_driver_sql("SET LOCAL enable_bitmapscan = off")
        prefix = "EXPLAIN QUERY PLAN" if is_sqlite else "EXPLAIN"
        return str(connection.exec_driver_sql(f"{prefix} {query}", parameters).all())

    return store.read(explain)


def test_whose_turn_is_next_is_found_in_the_index_of_turns_alone(store):
    accept(store, *(new_job(number, pool=None) for number in range(1_000)))
    if store.place.startswith("postgresql"):
        store.write_alone(lambda connection: connection.exec_driver_sql("ANALYZE jobs") and None).result()
    plan = plan_of(store, waiting_tenants, DEMO, Priority.STANDARD, "", 64)
    assert set(re.findall(r"ix_jobs_\w+", plan)) == {"ix_jobs_waiting_turns"}


NEEDING = (DEMO._replace(needs="region=eu"), DEMO._replace(needs="vram", vram=80))


@pytest.mark.parametrize(
    ("index", "function", "args"),
    [
        ("ix_jobs_waiting", waiting_ids, (DEMO, NOW, 10)),
        ("ix_jobs_waiting", next_waiting, ([DEMO],)),
        *(("ix_jobs_waiting_needs", waiting_ids, (kept, NOW, 10)) for kept in NEEDING),
        *(("ix_jobs_waiting_needs", next_waiting, ([kept],)) for kept in NEEDING),
        ("ix_jobs_waiting_needs", models_with_needs, (["demo"],)),
        ("ix_jobs_retrying", due_retry_ids, (NOW, 10)),
        ("ix_jobs_in_redis", placed_jobs, ("", 10)),
        ("ix_jobs_deadline", overdue, (NOW, 10)),
        ("ix_jobs_requested", requested, (NOW, 10)),
        ("ix_jobs_expires_at", unbegun, (NOW, 10)),
        ("ix_jobs_tenant_id_job_id", scan_jobs, ("default",)),
        ("ix_jobs_tenant_id_model_job_id", scan_jobs, ("default", JobFilter(model="demo"))),
        ("ix_jobs_tenant_id_state_job_id", scan_jobs, ("default", JobFilter(states=BOTH))),
        (LABELS, scan_jobs, ("default", JobFilter(labels={"a": "b"}))),
        (LABELS, scan_jobs, ("default", JobFilter(labels={"a": "b", "c": "d"}))),
        (LABELS, scan_jobs, ("default", JobFilter(labels={"a": "b"}, states=BOTH, model="demo"), "job")),
        ("ix_dispatches_due_at", next_due, ()),
        ("ix_dispatches_lane", strays, (10,)),
        ("ix_dispatches_lane", owing_lanes, (1, "", 10)),
        ("ix_dispatches_lane", owed_in_lane, (1, "pool tenant", NOW, 10, (NOW, "job"))),
        ("ix_jobs_finished_at", partial(prunable_jobs, now_ms=NOW), (NOW, 10)),
        ("ix_jobs_kept_until", partial(prunable_jobs, now_ms=NOW), (NOW, 10)),
        ("ix_audit_log_actor_entry_id", partial(audit_page, actor="key", before=9), ()),
        ("ix_audit_log_target_entry_id", partial(audit_page, target="key"), ()),
        ("ix_audit_log_tenant_id_entry_id", partial(audit_page, tenant_id="default"), ()),
        ("ix_audit_log_action_entry_id", partial(audit_page, action="keys.create"), ()),
        ("ix_dead_letters_closed", partial(prunable_jobs, now_ms=NOW), (NOW, 10)),
        ("ix_dead_letters_open", scan_letters, (LetterFilter(),)),
        ("ix_dead_letters_open", open_letters, (None, 10)),
        ("ix_dead_letters_open", old_letters, (NOW, 10)),
        ("ix_dead_letters_open_tenant", scan_letters, (LetterFilter(tenant_id="default"), (NOW, "job"))),
        ("ix_dead_letters_open_tenant", open_letters, ("default", 10)),
        ("ix_dead_letters_open_reason", scan_letters, (LetterFilter(tenant_id="default", reason="x"),)),
        ("ix_dead_letters_open_model", scan_letters, (LetterFilter(tenant_id="default", model="x"),)),
        ("ix_dead_letters_open_pool", scan_letters, (LetterFilter(tenant_id="default", pool="x"),)),
        ("ix_dead_letters_created_at_job_id", scan_letters, (LetterFilter(state="all"),)),
        (
            "ix_dead_letters_tenant_id_created_at_job_id",
            scan_letters,
            (LetterFilter(state="all", tenant_id="default"),),
        ),
        (UNIQUE_KEY[0], rows_with_keys, (jobs, ("job_id",), UNIQUE_KEY[1:], [("a", "b", "c")] * 3)),
    ],
)
def test_a_query_that_runs_often_has_an_index(store, index, function, args):
    plan = plan_of(store, function, *args)
    # SQLite gives the index of a unique constraint, or a primary key, a name of its own.
    assert index in plan or IN_SQLITE.get(index, index) in plan
    # A page by label, or of the audit log, is read in the order of the index: nothing is sorted.
    is_in_order = index == LABELS or index.startswith("ix_audit_log")
    assert not (is_in_order and any(word in plan for word in ("TEMP B-TREE", "Sort")))
