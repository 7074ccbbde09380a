"""Indexes that a migration changes: up and down, with rows in the tables."""

import pytest
from sqlalchemy import inspect, update

from support.databases import NOW, accept, new_job, outcome, settle_each, waiting_at
from tether.job_filters import JobFilter
from tether.jobs import JobState
from tether.outcomes import OutcomeKind
from tether.store import Store
from tether.store.audit import OK, Act, add_entry
from tether.store.audit_pages import audit_page
from tether.store.job_lists import scan_jobs
from tether.store.migrations import downgrade, upgrade
from tether.store.pruning import prunable_jobs
from tether.store.schema import dead_letters


@pytest.fixture
def filled(database_url):
    """A database with an ended job, a dead one, and a dead one that was submitted again."""
    with Store(database_url) as store:
        accept(store, *(new_job(number) for number in range(4)))
        settle_each(store, outcome(0), outcome(1, OutcomeKind.POISONED), outcome(2, OutcomeKind.POISONED))
        retried = (
            update(dead_letters)
            .where(dead_letters.c.job_id == "job-000002")
            .values(retried_as="x", closed="retried", closed_at=NOW)
        )
        store.write_alone(lambda connection: connection.execute(retried) and None).result(30)
    return database_url


def indexes(url):
    with Store(url) as store:
        looks = [store.read(_indexes, name) for name in ("jobs", "dead_letters", "audit_log")]
    return {index["name"] for found in looks for index in found}


def test_the_audit_log_is_whole_after_going_down_and_up(filled):
    act = Act(act_id="a", actor="key_1", address="", action="keys.create", target="key_2")
    with Store(filled) as store:
        store.write_alone(add_entry, act, OK, NOW).result(30)
    downgrade(filled, "0010")
    upgrade(filled)
    assert {
        f"ix_audit_log_{name}_entry_id" for name in ("actor", "action", "target", "tenant_id")
    } <= indexes(filled)
    with Store(filled) as store:
        assert [entry.target for entry in store.read(audit_page, action="keys", actor="key_1").entries] == [
            "key_2"
        ]


def _indexes(connection, table):
    return inspect(connection).get_indexes(table)


def test_what_may_be_deleted_is_found_after_going_down_and_up(filled):
    downgrade(filled, "0005")
    upgrade(filled)
    assert {"ix_jobs_finished_at", "ix_dead_letters_closed"} <= indexes(filled)
    with Store(filled) as store:
        assert store.read(prunable_jobs, NOW + 1, 10, now_ms=0) == ["job-000000", "job-000002"]


def test_what_waited_before_jobs_had_needs_is_placed_after_going_up(filled):
    with Store(filled) as store:
        accept(store, new_job(7, pool=None), new_job(8, pool=None, region="eu"))
    downgrade(filled, "0016")
    upgrade(filled)
    assert {"ix_jobs_waiting", "ix_jobs_waiting_needs"} <= indexes(filled)
    with Store(filled) as store:
        assert [job.job_id for job in waiting_at(store, NOW)] == ["job-000007", "job-000008"]


def test_lists_are_whole_after_going_down_and_up(filled):
    downgrade(filled, "0006")
    upgrade(filled)
    assert {"ix_jobs_tenant_id_model_job_id", "ix_jobs_tenant_id_state_job_id"} <= indexes(filled)
    with Store(filled) as store:
        dead = store.read(scan_jobs, "default", JobFilter(states=(JobState.DEAD,), model="demo"))
    assert [row.job_id for row in dead.rows] == ["job-000002", "job-000001"]
