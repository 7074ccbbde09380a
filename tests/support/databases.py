"""Fresh databases for tests of the metadata store, and jobs to put into them."""

import contextlib
import functools
import json
import os
import tempfile
import uuid
from collections import Counter, defaultdict
from dataclasses import replace
from pathlib import Path

import psycopg
from sqlalchemy import select, text

from tether.envelopes import Placeable
from tether.jobs import JobError, JobState, Piece, Priority
from tether.outcomes import Fence, Letter, Outcome, OutcomeKind, Verdict
from tether.store import Store
from tether.store.admissions import AdmissionKind, NewJob, admit
from tether.store.capacity import share_name
from tether.store.holds import SHARE
from tether.store.job_labels import label_digest, unindexed_up_to
from tether.store.migrations import upgrade
from tether.store.outbox import BEFORE_ALL, RANKS, due_dispatches, owed_in_lane, owing_lanes
from tether.store.schema import counters, dispatches, holds, job_labels, jobs, spending, spending_holds
from tether.store.settlements import Settle, SettledKind, Settlement
from tether.store.tenants import Tenant, change_tenant, create_tenant
from tether.store.waiting_jobs import KeptModel, waiting, waiting_ids

NOW = 1_800_000_000_000
POOL = "gpu.cpu.local.demo-00000000"
OTHER_POOL = "gpu.cpu.local.other-00000000"


def fresh_sqlite(file):
    """The address of a new SQLite database in this file, with all tables and no rows: a copy, since a test
    that makes the tables anew spends more on that than on anything else."""
    file = Path(file)
    file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    file.touch(mode=0o600, exist_ok=False)
    file.write_bytes(_sqlite_tables())
    return f"sqlite:///{file}"


@contextlib.contextmanager
def store_in_memory():
    """An open store of its own that writes to no disk, where that can be had: for tests that write all the
    while and are not about power cuts."""
    place = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None
    with (
        tempfile.TemporaryDirectory(dir=place) as folder,
        Store(fresh_sqlite(f"{folder}/tether.db")) as opened,
    ):
        yield opened


@functools.cache
def _sqlite_tables():
    with tempfile.TemporaryDirectory() as folder:
        upgrade(f"sqlite:///{folder}/tether.db")
        return (Path(folder) / "tether.db").read_bytes()


@contextlib.contextmanager
def fresh_postgres(server_url, *, with_tables=True):
    """The address of a new database of the server's, with all tables and no rows, which is removed at the
    end; `with_tables`: without them it is empty."""
    name = f"test_{uuid.uuid4().hex}"
    template = f" TEMPLATE {_postgres_tables(server_url)}" if with_tables else ""
    with psycopg.connect(server_url, autocommit=True) as connection:
        connection.execute(f"CREATE DATABASE {name}{template}")
    try:
        yield with_database(server_url, name)
    finally:
        with psycopg.connect(server_url, autocommit=True) as connection:
            connection.execute(f"DROP DATABASE {name} WITH (FORCE)")


@functools.cache
def _postgres_tables(server_url):
    name = "test_tables"
    with psycopg.connect(server_url, autocommit=True) as connection:
        connection.execute(f"CREATE DATABASE {name}")
    upgrade(with_database(server_url, name))
    return name


def with_database(server_url, name):
    head, _, tail = server_url.partition("://")
    authority, _, rest = tail.partition("/")
    _, question, query = rest.partition("?")
    return f"{head}://{authority}/{name}{question}{query}"


DEMO = KeptModel("demo", "1")
"""The model of :func:`new_job`."""


def new_job(number=0, **changes):
    """A job that differs from others by its number."""
    job = Placeable(
        job_id=f"job-{number:06}",
        tenant_id="default",
        model="demo",
        model_version="1",
        priority=Priority.STANDARD,
        weight=1.0,
        cost=7,
        max_tokens=16,
        payload='{"v":1}',
    )
    if "priority" in changes:
        changes["priority"] = Priority(changes["priority"])
    envelope = {name: changes.pop(name) for name in list(changes) if name in Placeable.__dataclass_fields__}
    new = NewJob(
        job=replace(job, **envelope),
        correlation_id=f"correlation-{number}",
        retry_token="first",
        retry_of=None,
        digest=f"digest-{number}",
        labels={},
        pool=POOL,
        now_ms=NOW,
    )
    return replace(new, **changes)


def outcome(number=0, kind=OutcomeKind.SUCCEEDED, *, dispatch=1, attempt=1, draw="worker:1", **fields):
    """How an attempt of ``new_job(number)`` ended."""
    if kind is OutcomeKind.SUCCEEDED:
        fields = {
            "offset": 2,
            "input_tokens": 5,
            "finish_reason": "stop",
            "pieces": (Piece(11, "a"), Piece(12, "b\0")),
        } | fields
    elif kind in (OutcomeKind.FAILED, OutcomeKind.POISONED):
        fields = {"error": JobError("engine_failed", "it broke", retryable=True)} | fields
    return Outcome(
        job_id=f"job-{number:06}", kind=kind, fence=Fence(dispatch, attempt, draw), worker="worker", **fields
    )


def decide(outcome, row):
    """A simple policy: a failed job is tried three times; a request to end comes first."""
    if outcome.kind in (OutcomeKind.SUCCEEDED, OutcomeKind.CANCELLED, OutcomeKind.EXPIRED):
        return Verdict(JobState(outcome.kind))
    if row.requested is not None:
        return Verdict(row.requested)
    if outcome.kind is OutcomeKind.WITHDRAWN:
        return Verdict(JobState.PARKED, due_at=NOW)
    if outcome.kind is OutcomeKind.POISONED or row.attempts >= 2:
        return Verdict(JobState.DEAD, letter=Letter("attempts_exhausted", True, f"letter-{row.job_id}"))
    return Verdict(JobState.WAITING_RETRY, due_at=NOW + 100)


def write(store, operation, *items):
    """What an operation answers to these items, in one transaction."""
    return store.write_alone(operation, list(items)).result()


def accept(store, *jobs):
    """Admit jobs, each of which must be accepted."""
    answers = write(store, admit, *jobs)
    assert [answer.kind for answer in answers] == [AdmissionKind.ACCEPTED] * len(jobs), answers


SETTLE = Settle(decide)


def settle(store, *outcomes, now_ms=NOW):
    return write(store, SETTLE, *(Settlement(each, now_ms) for each in outcomes))


def settle_each(store, *outcomes, now_ms=NOW):
    """Settle outcomes, each of which must change its row."""
    answers = settle(store, *outcomes, now_ms=now_ms)
    assert [answer.kind for answer in answers] == [SettledKind.SETTLED] * len(outcomes), answers


def make_tenants(store, *tenant_ids):
    for tenant_id in tenant_ids:
        store.write_alone(create_tenant, Tenant(tenant_id, tenant_id, 1.0, None, NOW)).result()


def give_quota(store, quota, tenant_id="small"):
    """Make the tenant, if need be, and let it have so many open jobs."""
    store.write_alone(create_tenant, Tenant(tenant_id, tenant_id, 1.0, None, NOW)).result()
    store.write_alone(change_tenant, tenant_id, {"quota": quota}).result()


def one_snapshot(connection):
    """All statements of this transaction see the same: what is still being written is in all or in none.
    SQLite's transactions do so anyway."""
    if connection.dialect.name == "postgresql":
        connection.execute(text("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ"))


def all_held(store):
    """Every counter that is not 0, by (kind, name), but those of tenants' shares; all are checked against the
    holds."""

    def look(connection):
        one_snapshot(connection)
        held = {(row.kind, row.name): row.held for row in connection.execute(select(counters)) if row.held}
        sums = {}
        for hold in connection.execute(select(holds)):
            names = [(hold.kind, hold.name)]
            if hold.tenant_id:
                names.append((SHARE, share_name(hold.name, hold.tenant_id)))
            for name in names:
                sums[name] = sums.get(name, 0) + hold.amount
        assert held == sums
        return {(kind, name): amount for (kind, name), amount in held.items() if kind != SHARE}

    return store.read(look)


def outbox(store):
    """The outbox rows, as (job id, dispatch, pool, due time), by job id."""
    columns = (dispatches.c.job_id, dispatches.c.dispatch, dispatches.c.pool, dispatches.c.due_at)
    query = select(*columns).order_by(dispatches.c.job_id, dispatches.c.dispatch)
    return store.read(lambda connection: [tuple(row) for row in connection.execute(query)])


def due(store, now_ms):
    """All hand-overs that are due, with their payloads, in the order in which their lanes give them."""

    def look(connection):
        found = []
        for rank in RANKS.values():
            for lane in owing_lanes(connection, rank, BEFORE_ALL, 1_000):
                owed = owed_in_lane(connection, rank, lane.name, now_ms, 1_000)
                rows = {row.job_id: row for row in due_dispatches(connection, [item.job_id for item in owed])}
                found += [rows[item.job_id] for item in owed]
        return found

    return store.read(look)


def waiting_at(store, now_ms, kept=DEMO):
    """The jobs that wait for a model and may be placed, with their payloads."""
    rows, errors = store.read_each(waiting, store.read(waiting_ids, kept, now_ms, 10))
    assert not errors
    return rows


def state_of(store, number=0):
    query = select(jobs.c.state, jobs.c.dispatch).where(jobs.c.job_id == f"job-{number:06}")
    return store.read(lambda connection: tuple(connection.execute(query).one()))


def check(store):
    """What must be true between any two transactions."""

    def look(connection):
        one_snapshot(connection)
        held, owed = defaultdict(dict), defaultdict(list)
        for hold in connection.execute(select(holds)):
            held[hold.job_id][hold.kind] = hold
        for job_id, dispatch in connection.execute(select(dispatches.c.job_id, dispatches.c.dispatch)):
            owed[job_id].append(dispatch)
        letters = Counter(connection.scalars(text("SELECT job_id FROM dead_letters")))
        columns = (jobs.c.job_id, jobs.c.state, jobs.c.pool, jobs.c.dispatch, jobs.c.finished_at)
        for row in connection.execute(select(*columns)):
            mine = held[row.job_id]
            state = JobState(row.state)
            expected = set() if state.is_final else {"quota"}
            if state in (JobState.ACCEPTED, JobState.PLACED, JobState.RUNNING):
                expected |= {"capacity"}
                assert mine["capacity"].name == row.pool
                assert mine["capacity"].dispatch == row.dispatch
            assert set(mine) == expected, (row.job_id, state)
            assert owed[row.job_id] == ([row.dispatch] if state is JobState.ACCEPTED else [])
            assert (row.finished_at is not None) == state.is_final
            assert letters[row.job_id] == (state is JobState.DEAD)

        if unindexed_up_to(connection) is None:
            check_labels(connection)
        check_spending(connection)

    store.read(look)
    all_held(store)


def check_spending(connection):
    """Windows hold what open jobs hold of them, and no ended job holds anything."""
    held = defaultdict(lambda: (0, 0))
    for hold in connection.execute(select(spending_holds)):
        state = connection.scalar(select(jobs.c.state).where(jobs.c.job_id == hold.job_id))
        assert state is not None, hold.job_id
        assert not JobState(state).is_final, (hold.job_id, state)
        for window in ((hold.tenant_id, "day", hold.day), (hold.tenant_id, "month", hold.month)):
            requests, tokens = held[window]
            held[window] = (requests + 1, tokens + hold.tokens)
    windows = {tuple(row[:3]): tuple(row[3:]) for row in connection.execute(select(spending))}
    assert {key: row[:2] for key, row in windows.items() if row[:2] != (0, 0)} == held
    assert all(amount >= 0 for row in windows.values() for amount in row)


def indexed_labels(connection):
    """What the index of labels has, as (tenant, digest of the label, job), in order."""
    return sorted(map(tuple, connection.execute(select(job_labels))))


def check_labels(connection):
    """The index of labels has those of all jobs, and no others. What it has of a job whose labels can no
    longer be read does not matter: no list finds it."""
    expected, unreadable = [], set()
    for row in connection.execute(select(jobs.c.tenant_id, jobs.c.job_id, jobs.c.labels)):
        try:
            pairs = json.loads(row.labels).items()
        except (ValueError, AttributeError):
            unreadable.add(row.job_id)
        else:
            expected += [(row.tenant_id, label_digest(*pair), row.job_id) for pair in pairs]
    assert [entry for entry in indexed_labels(connection) if entry[2] not in unreadable] == sorted(expected)
