"""The index of labels: jobs that are older than it, and what a tenant with very many of them costs others."""

import pytest
from sqlalchemy import event, text, update

from support.databases import (
    NOW,
    accept,
    check_labels,
    indexed_labels,
    new_job,
    outcome,
    settle_each,
    write,
)
from tether.job_filters import JobFilter
from tether.loops import IDLE
from tether.orchestrator.label_index import IndexLabels
from tether.store import Store
from tether.store.job_labels import index_older_jobs, label_digest, unindexed_up_to
from tether.store.job_lists import scan_jobs
from tether.store.migrations import downgrade, upgrade
from tether.store.pruning import prune
from tether.store.schema import jobs
from tether.store.tenants import Tenant, create_tenant


@pytest.fixture
def older(database_url):
    """A store in which 11 jobs are older than the index: every second one has the label."""
    with Store(database_url) as store:
        accept(store, *(new_job(n, labels={"a": "1", "n": str(n)} if n % 2 else {}) for n in range(11)))
        settle_each(store, outcome(1), outcome(3))
        unreadable = update(jobs).where(jobs.c.job_id == "job-000000").values(labels='["a"]')
        store.write_alone(lambda connection: connection.execute(unreadable) and None).result()
    downgrade(database_url, "0007")
    upgrade(database_url)
    with Store(database_url) as store:
        yield store


def listed(store, *, limit=50, max_scanned=2_000, **labels):
    """Numbers of the jobs with these labels, page by page."""
    numbers, after = [], None
    while True:
        job_filter = JobFilter(labels=labels)
        page = store.read(scan_jobs, "default", job_filter, after, limit, max_scanned)
        assert page.scanned <= max_scanned
        numbers += [int(row.job_id[-6:]) for row in page.rows]
        after = page.after
        if after is None:
            return numbers


def test_lists_are_whole_while_older_jobs_get_into_the_index(older):
    accept(older, new_job(11, labels={"a": "1"}), new_job(12, labels={"a": "2"}))
    assert older.read(unindexed_up_to) == "job-000010"
    assert len(older.read(indexed_labels)) == 2
    expected = [11, 9, 7, 5, 3, 1]
    is_left = True
    for _ in range(9):
        for limit, max_scanned in ((50, 50), (1, 50), (2, 3), (50, 1)):
            assert listed(older, limit=limit, max_scanned=max_scanned, a="1") == expected
        assert listed(older, n="3") == [3]
        if not is_left:
            break
        is_left = older.write_alone(index_older_jobs, 2).result().has_more
    assert not is_left
    assert older.read(unindexed_up_to) is None
    assert len(older.read(indexed_labels)) == 12
    older.read(check_labels)


def test_a_job_that_is_deleted_before_its_turn_leaves_nothing_in_the_index(older):
    older.write_alone(index_older_jobs, 4).result()
    assert write(older, prune, "job-000003", "job-000001") == [True, True]
    while older.write_alone(index_older_jobs, 4).result().has_more:
        pass
    assert {job_id for _, _, job_id in older.read(indexed_labels)} == {
        f"job-{number:06}" for number in (5, 7, 9)
    }


def test_a_new_database_has_nothing_to_bring_into_the_index(store):
    assert store.read(unindexed_up_to) is None
    accept(store, new_job(1, labels={"a": "1"}))
    assert IndexLabels(store)() == IDLE


def test_the_orchestrators_step_indexes_what_is_there_and_rests(older):
    step = IndexLabels(older)
    assert step() == IDLE
    assert len(older.read(indexed_labels)) == 10
    assert step() == IDLE


def test_names_and_values_are_told_apart():
    pairs = [("a", "bc"), ("ab", "c"), ("", "abc"), ("1:", ""), ("", "1:"), ("\0", "\ud800")]
    assert len({label_digest(*pair) for pair in pairs}) == len(pairs)
    # What is in databases already.
    assert label_digest("team", "search") == 1084936081529232786
    assert all(-(2**63) <= label_digest(*pair) < 2**63 for pair in pairs)


MANY = 20_000


@pytest.fixture
def crowded(store):
    """A store in which a tenant has very many jobs with the same two labels, and others have few."""
    labels = {"team": "crowd", "kind": "nightly"}
    for name in ("crowd", "small"):
        store.write_alone(create_tenant, Tenant(name, name, 1.0, None, NOW)).result()
    accept(
        store,
        new_job(0, tenant_id="crowd", labels=labels),
        *(new_job(n, tenant_id="small", labels={"team": "crowd"}) for n in range(1, 6)),
    )

    def seed(connection):
        columns = [column.name for column in jobs.c]
        made = {
            "job_id": "'job-1' || lpad(n, 6, '0')",
            "correlation_id": "'c' || n",
            "state": "'succeeded'",
            "finished_at": "1",
        }
        is_sqlite = connection.dialect.name == "sqlite"
        if is_sqlite:
            made["job_id"] = "'job-1' || substr('000000' || n, -6)"
            numbers = (
                "WITH RECURSIVE numbers(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM numbers WHERE n < :many)"
            )
        else:
            numbers = "WITH numbers(n) AS (SELECT generate_series(1, :many)::text)"
        values = ", ".join(made.get(name, f"seed.{name}") for name in columns)
        connection.execute(
            text(
                f"{numbers} INSERT INTO jobs ({', '.join(columns)}) SELECT {values} FROM numbers "
                "JOIN jobs AS seed ON seed.job_id = 'job-000000'"
            ),
            {"many": MANY},
        )
        for name, value in labels.items():
            connection.execute(
                text(
                    "INSERT INTO job_labels (tenant_id, label, job_id) "
                    "SELECT tenant_id, :label, job_id FROM jobs "
                    "WHERE tenant_id = 'crowd' AND job_id > 'job-1'"
                ),
                {"label": label_digest(name, value)},
            )
        if not is_sqlite:
            connection.execute(text("ANALYZE"))

    store.write_alone(seed).result(120)
    return store


def work_of(store, *args):
    """A page of a list, and its work: thousands of steps of SQLite, tens of pages of Postgres."""
    is_sqlite = store.place.startswith("sqlite")
    counted = []

    def look(connection):
        if is_sqlite:
            connection.connection.driver_connection.set_progress_handler(lambda: counted.append(1) and 0, 100)
        try:
            return scan_jobs(connection, *args)
        finally:
            if is_sqlite:
                connection.connection.driver_connection.set_progress_handler(None, 0)

    asked = []

    def note(connection, cursor, statement, parameters, *_):
        asked.append((statement, parameters))

    event.listen(store._readers, "before_cursor_execute", note)
    page = store.read(look)
    event.remove(store._readers, "before_cursor_execute", note)
    if is_sqlite:
        return page, len(counted) / 10

    def buffers(connection):
        total = 0
        for statement, parameters in asked:
            plan = connection.exec_driver_sql(
                f"EXPLAIN (ANALYZE, BUFFERS, FORMAT JSON) {statement}", parameters
            ).scalar_one()[0]["Plan"]
            total += plan["Shared Hit Blocks"] + plan["Shared Read Blocks"]
        return total

    # A page of Postgres holds about a hundred entries of an index.
    return page, store.read(buffers) / 10


def test_what_a_tenant_with_very_many_labelled_jobs_costs(crowded):
    """No list takes longer because somebody has very many jobs: neither another tenant's, nor its own."""
    one, both = {"team": "crowd"}, {"team": "crowd", "kind": "nightly"}
    page, small = work_of(crowded, "small", JobFilter(labels=one), None, 5)
    assert len(page.rows) == 5
    page, crowd = work_of(crowded, "crowd", JobFilter(labels=one), None, 5)
    assert (len(page.rows), page.scanned, page.rows[0].job_id) == (5, 5, f"job-1{MANY:06}")
    assert crowd < small + 2
    # In the middle as at the beginning.
    _, crowd = work_of(crowded, "crowd", JobFilter(labels=one), f"job-1{MANY // 2:06}", 5)
    assert crowd < small + 2
    # Where no index has what is asked for, it is bounded by what a call may look at.
    for labels, model in ((both, None), (one, "demo"), (one, "other"), ({**one, "rare": "x"}, None)):
        page, work = work_of(crowded, "crowd", JobFilter(labels=labels, model=model), None, 5)
        assert page.scanned <= 2_000
        assert work < 100
