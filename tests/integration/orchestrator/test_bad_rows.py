"""Rows of jobs with values that no column of theirs may hold, in every loop that reads several. SQLite keeps
whatever it is given."""

import pytest
from sqlalchemy import text

from support.boundless_pools import BoundlessPools, choice_of
from support.core_steps import CoreSteps
from support.databases import DEMO, POOL, fresh_sqlite, state_of
from support.hand_worker import growth
from tether.dead_letters import LetterFilter
from tether.job_filters import EVERY_JOB, JobFilter
from tether.jobs import JobError
from tether.loops import IDLE
from tether.orchestrator import label_index, reconcile, waiting
from tether.orchestrator.label_index import IndexLabels
from tether.orchestrator.set_aside import MAX_PAUSE_MS
from tether.orchestrator.waiting import PlaceWaiting
from tether.store import Store
from tether.store.dead_letters import letters_at, scan_letters
from tether.store.job_labels import unindexed_up_to
from tether.store.job_lists import scan_jobs
from tether.store.waiting_jobs import KeptModel

OTHER = KeptModel("other", "1")
NO_UTF_8 = "CAST(x'7bff' AS TEXT)"
BAD_VALUES = [
    ("body", NO_UTF_8),
    ("body", "x'7b7d'"),
    ("options", NO_UTF_8),
    ("options", "x'7b7d'"),
    ("priority", NO_UTF_8),
    ("weight", "'heavy'"),
    ("deadline", "x'00'"),
    ("expires_at", "x'00'"),
    ("cost", "1.5"),
    ("dispatch", "'one'"),
    ("dispatch", NO_UTF_8),
]


@pytest.fixture
def core(tmp_path, shared_redis_server, namespace):
    with Store(fresh_sqlite(tmp_path / "tether.db")) as opened:
        made = CoreSteps(opened, shared_redis_server, namespace)
        yield made
        made.close()


def spoil(core, column, value, *numbers):
    # A colon begins a parameter otherwise.
    value = value.replace(":", "\\:")
    for number in numbers:
        core.sql(text(f"UPDATE jobs SET {column} = {value} WHERE job_id = 'job-{number:06}'"))


@pytest.mark.parametrize(("column", "value"), BAD_VALUES)
def test_reconcile_places_what_redis_lost_beside_rows_that_cannot_be_read(core, monkeypatch, column, value):
    monkeypatch.setattr(reconcile, "LOST_BATCH", 5)
    core.submit(*range(8))
    for number in range(8):
        core.redis.delete(core.keys.job(f"job-{number:06}"))
    spoil(core, column, value, 1, 2)
    before = core.failures("reconcile")
    assert core.reconcile() == IDLE
    placed = core.pools.known([f"job-{number:06}" for number in range(8)])
    assert [known and known.state for known in placed] == ["placed", None, None, *["placed"] * 5]
    assert core.failures("reconcile") == before + 2


@pytest.mark.parametrize(("column", "value"), [each for each in BAD_VALUES if each[0] == "dispatch"])
def test_reconcile_looks_at_all_of_redis_beside_rows_without_a_dispatch(core, column, value):
    core.submit(*range(3))
    core.sql(text("UPDATE jobs SET state = 'waiting_retry' WHERE job_id = 'job-000002'"))
    spoil(core, column, value, 1)
    core.reconcile()
    known = core.pools.known([f"job-{number:06}" for number in range(3)])
    assert [each.state for each in known] == ["placed", "placed", "withdrawn"]


OVERDUE = {
    "a time limit": "deadline = 1",
    "expires_in": "expires_at = 1",
    "a request": "requested = 'cancelled', requested_at = 1",
}


@pytest.mark.parametrize("why", OVERDUE)
@pytest.mark.parametrize("column", ["pool", "dispatch"])
def test_jobs_end_in_time_beside_a_row_that_cannot_be_read(core, column, why):
    core.submit(*range(3), pool=None)
    core.sql(text(f"UPDATE jobs SET {OVERDUE[why]}"))
    spoil(core, column, NO_UTF_8, 1)
    before = core.failures("deadlines")
    assert core.deadlines() == IDLE
    assert set(core.states(0, 2)) == {"cancelled" if why == "a request" else "expired"}
    assert core.failures("deadlines") == before + 1


class TwoModels(BoundlessPools):
    """A scheduler that serves two models, each with a pool."""

    def __init__(self, *served):
        self.served = served

    def served_models(self):
        return list(self.served)

    def served_needs(self, with_needs):
        return []

    def choose_pools(self, jobs):
        return [choice_of(POOL) for _ in jobs]


def states_of_all(core):
    query = text("SELECT state FROM jobs ORDER BY job_id")
    return core.store.read(lambda connection: list(connection.execute(query).scalars()))


def run(step):
    for _ in range(20):
        if pause := step():
            return pause
    raise AssertionError("the step never comes to rest")


@pytest.mark.parametrize(
    ("column", "value"), [*BAD_VALUES, ("attempts", "'few'"), ("due_at", "'soon'"), ("due_at", NO_UTF_8)]
)
def test_waiting_jobs_are_placed_beside_rows_that_cannot_be_read(core, monkeypatch, column, value):
    monkeypatch.setattr(waiting, "BATCH", 4)
    core.submit(*range(6), pool=None)
    core.submit(6, pool=None, model="other")
    spoil(core, column, value, 1, 3)
    step = PlaceWaiting(core.store, TwoModels(DEMO, OTHER), core.reservations, now_ms=core.clock)
    core.later()
    assert run(step) > 0
    good = (0, 2, 4, 5, 6)
    known = core.pools.known([f"job-{number:06}" for number in good])
    assert [each and each.state for each in known] == ["placed"] * 5
    assert states_of_all(core)[1:4:2] == ["parked"] * 2
    # They are behind others, and are tried again.
    core.later(MAX_PAUSE_MS)
    core.submit(7, pool=None, now_ms=core.now)
    run(step)
    [known] = core.pools.known(["job-000007"])
    assert known.state == "placed"


@pytest.mark.parametrize("column", ["model", "model_version", "dispatch", "body"])
def test_retries_without_a_pool_are_parked_beside_a_row_that_cannot_be_read(core, column):
    core.submit(*range(3))
    core.sql(text("UPDATE jobs SET state = 'waiting_retry'"))
    spoil(core, column, NO_UTF_8, 1)
    step = PlaceWaiting(core.store, TwoModels(), core.reservations, now_ms=core.clock)
    core.later()
    assert run(step) == IDLE
    assert core.states(0, 2) == ["parked"] * 2


def test_a_row_that_is_mended_is_placed(core):
    core.submit(0, pool=None)
    spoil(core, "body", NO_UTF_8, 0)
    step = PlaceWaiting(core.store, TwoModels(DEMO), core.reservations, now_ms=core.clock)
    core.later()
    run(step)
    assert state_of(core.store) == ("parked", 0)
    spoil(core, "body", "'{}'", 0)
    core.later(MAX_PAUSE_MS)
    run(step)
    assert state_of(core.store)[1] == 1


# Labels and lists.


NO_LABELS = [
    """'{"a":["b"]}'""",
    """'{"a":{"b":1}}'""",
    """'{"a":1}'""",
    "'" + "[" * 100_000 + "'",
    "'" + '{"a":' * 100_000 + "'",
    "'[1]'",
    "'5'",
    "x'7b7dff'",
    NO_UTF_8,
]


@pytest.mark.parametrize("labels", NO_LABELS, ids=lambda labels: labels[:20])
def test_older_jobs_are_indexed_beside_labels_that_cannot_be_read(core, monkeypatch, labels):
    monkeypatch.setattr(label_index, "BATCH", 4)
    core.submit(*range(10), labels={"a": "b"})
    core.sql(text("DELETE FROM job_labels"))
    core.sql(text("INSERT INTO backfills (name, up_to) VALUES ('job_labels', 'job-000009')"))
    # One of them is the last of a batch and the first of the next.
    spoil(core, "labels", labels, 3, 5)
    before = core.failures("label-index")
    step = IndexLabels(core.store)
    for _ in range(4):
        step()
    query = text("SELECT job_id FROM job_labels ORDER BY job_id")
    indexed = core.store.read(lambda connection: list(connection.execute(query).scalars()))
    assert indexed == [f"job-{number:06}" for number in (0, 1, 2, 4, 6, 7, 8, 9)]
    assert core.store.read(unindexed_up_to) is None
    assert core.failures("label-index") == before + 2
    found = core.store.read(scan_jobs, "default", JobFilter(labels={"a": "b"})).rows
    assert [row.job_id for row in found] == indexed[::-1]


@pytest.mark.parametrize("labels", NO_LABELS, ids=lambda labels: labels[:20])
def test_jobs_are_listed_beside_labels_that_cannot_be_read(core, labels):
    core.submit(*range(5), labels={"a": "b"})
    spoil(core, "labels", labels, 1, 3)
    rows = core.store.read(scan_jobs, "default").rows
    labels_of_all = {row.job_id: row.labels for row in rows}
    good = {f"job-{number:06}": {"a": "b"} for number in (0, 2, 4)}
    # What cannot even be fetched is left out.
    bad = {} if labels == NO_UTF_8 else {f"job-{number:06}": {} for number in (1, 3)}
    assert labels_of_all == good | bad
    assert list(labels_of_all) == sorted(labels_of_all, reverse=True)


@pytest.mark.parametrize("column", ["labels", "error", "priority", "model", "digest"])
def test_pages_of_a_list_go_on_behind_rows_that_cannot_be_fetched(core, column):
    core.submit(*range(9))
    spoil(core, column, NO_UTF_8, 0, 4, 5, 8)
    seen, after = [], None
    for _ in range(9):
        page = core.store.read(scan_jobs, "default", EVERY_JOB, after, 2)
        seen += [row.job_id for row in page.rows]
        after = page.after
        if after is None:
            break
    assert seen == [f"job-{number:06}" for number in (7, 6, 3, 2, 1)]


@pytest.mark.parametrize("error", ["'" + "[" * 100_000 + "'", "'7'", "'{'", "x'00'"], ids=lambda e: e[:9])
def test_jobs_are_listed_beside_an_error_that_cannot_be_read(core, error):
    core.submit(*range(3))
    spoil(core, "error", error, 1)
    rows = core.store.read(scan_jobs, "default").rows
    assert [row.error and row.error.code for row in rows] == [None, "internal", None]


@pytest.mark.parametrize("labels", NO_LABELS[:3], ids=lambda labels: labels[:20])
def test_a_job_whose_labels_are_no_texts_can_end(core, labels):
    core.submit(0, 1)
    spoil(core, "labels", labels, 0)
    core.finish(2)
    core.settle()
    assert core.states(0, 1) == ["succeeded"] * 2


@pytest.mark.parametrize(
    ("column", "value", "problem"),
    [
        ("history", "'" + "[" * 100_000 + "'", "its attempts cannot be read"),
        ("history", "'[1]'", "its attempts cannot be read"),
        ("history", "x'ff'", "its attempts cannot be read"),
        ("evidence", "'7'", "its evidence cannot be read"),
        ("history", NO_UTF_8, "its row cannot be read"),
        ("reason", NO_UTF_8, "its row cannot be read"),
        ("reason", "x'ff'", "its row cannot be read"),
    ],
    ids=lambda value: str(value)[:20],
)
def test_dead_letters_are_listed_beside_one_that_cannot_be_read(core, column, value, problem):
    core.submit(*range(3))
    for drawn in core.draw(3):
        core.worker.fail(growth(drawn), kind="failed", error=JobError("engine_failed", "x"))
    core.settle()
    core.sql(text(f"UPDATE dead_letters SET {column} = {value} WHERE job_id = 'job-000001'"))
    found = core.store.read(scan_letters, LetterFilter(tenant_id="default"))
    letters = {letter.job_id: letter for letter in core.store.read(letters_at, found.places)}
    assert {name: len(letter.attempts) for name, letter in letters.items()} == {
        "job-000000": 1,
        "job-000001": int(column == "evidence"),
        "job-000002": 1,
    }
    assert [letters[f"job-00000{number}"].problem for number in range(3)] == [None, problem, None]


@pytest.mark.parametrize(
    ("column", "value"), [("needed_vram", "'x'"), ("needed_vram", "-5"), ("needs", "x'00'")]
)
def test_retries_are_parked_beside_one_whose_needs_cannot_be_read(core, column, value):
    core.submit(*range(3), pool=None)
    core.sql(text("UPDATE jobs SET state = 'waiting_retry', due_at = 1"))
    spoil(core, column, value, 1)
    before = core.failures("waiting")
    step = PlaceWaiting(core.store, TwoModels(), core.reservations, now_ms=core.clock)
    assert run(step) > 0
    assert states_of_all(core) == ["parked", "waiting_retry", "parked"]
    assert core.failures("waiting") == before + 1
