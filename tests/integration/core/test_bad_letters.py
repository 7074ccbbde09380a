"""Dead letters of which something is damaged or gone, beside good ones, in whatever is done with them."""

import contextlib
import json
import sqlite3
import threading
import urllib.request
from dataclasses import replace
from typing import NamedTuple

import psycopg
import pytest
from structlog.testing import capture_logs

from support.cluster import Cluster
from support.databases import NOW, accept, decide, new_job, outcome, write
from support.gateways import RunningGateway
from support.waiting import PATIENCE_SECONDS
from tether.broker.letter_copies import LetterCopies
from tether.core.control_plane import ControlPlane
from tether.errors import LetterDamaged
from tether.jobs import JobRequest
from tether.loops import IDLE
from tether.orchestrator import letter_copying, letter_expiry
from tether.orchestrator.death_hook import TellOfDeaths
from tether.orchestrator.hook_calls import HookCalls
from tether.orchestrator.letter_copying import CopyLetters
from tether.orchestrator.letter_expiry import ExpireLetters
from tether.outcomes import OutcomeKind
from tether.requests.payload import payload_of
from tether.store.dead_letters import dead_letter
from tether.store.settlements import Settle, Settlement

PAYLOAD = json.dumps(payload_of(JobRequest(model="counter", prompt="one two")))


def id_of(number):
    return f"01a22972-38eb-7000-8000-{number:012}"


DAMAGE = {
    id_of(1): "UPDATE jobs SET body = 'no JSON' WHERE job_id = '{0}'",
    id_of(2): "UPDATE jobs SET labels = 'no JSON' WHERE job_id = '{0}'",
    id_of(3): "UPDATE jobs SET priority = 'unheard-of' WHERE job_id = '{0}'",
    id_of(4): "DELETE FROM jobs WHERE job_id = '{0}'",
    id_of(5): "UPDATE dead_letters SET closed = 'unheard-of' WHERE job_id = '{0}'",
    id_of(6): "UPDATE dead_letters SET history = 'no JSON', evidence = '7' WHERE job_id = '{0}'",
    id_of(7): "UPDATE jobs SET error = '[7]' WHERE job_id = '{0}'",
    id_of(8): "UPDATE jobs SET state = 'unheard-of' WHERE job_id = '{0}'",
}
"""By job: what has been done to it or its letter. Others are good."""

GOOD = (id_of(0), id_of(9))
TOLD_WITH_PROBLEM = (id_of(4), id_of(5), id_of(6), id_of(7))
NOT_RETRIED = (id_of(1), id_of(2), id_of(3), id_of(4), id_of(5))


def spoil(url, *statements):
    """Do what neither database allows by itself."""
    if url.startswith("sqlite"):
        with contextlib.closing(sqlite3.connect(url.removeprefix("sqlite:///"))) as connection:
            connection.execute("PRAGMA ignore_check_constraints = ON")
            for statement in statements:
                connection.execute(statement)
            connection.commit()
        return
    with psycopg.connect(url, autocommit=True) as connection:
        for table, name in (("jobs", "state"), ("dead_letters", "closed")):
            connection.execute(f"ALTER TABLE {table} DROP CONSTRAINT IF EXISTS ck_{table}_{name}")
        connection.execute("SET session_replication_role = replica")
        for statement in statements:
            connection.execute(statement)


def refuse_to_close(url, *job_ids):
    """Have the database refuse to close the letters of these jobs."""
    ids = ", ".join(f"'{job_id}'" for job_id in job_ids)
    if url.startswith("sqlite"):
        spoil(
            url,
            f"CREATE TRIGGER refused BEFORE UPDATE ON dead_letters WHEN NEW.job_id IN ({ids}) "
            "BEGIN SELECT RAISE(ABORT, 'refused'); END",
        )
        return
    spoil(
        url,
        "CREATE FUNCTION refused() RETURNS trigger LANGUAGE plpgsql "
        "AS $$ BEGIN RAISE EXCEPTION 'refused' USING ERRCODE = 'check_violation'; END $$",
        "CREATE TRIGGER refused BEFORE UPDATE ON dead_letters FOR EACH ROW "
        f"WHEN (NEW.job_id IN ({ids})) EXECUTE FUNCTION refused()",
    )


class Hook(NamedTuple):
    heard: list

    def __call__(self, letter):
        self.heard.append(letter)

    def close(self):
        pass


class Stand:
    def __init__(self, cluster, plane, url):
        self.cluster, self.plane, self.url = cluster, plane, url
        self.store = plane.store
        self.client = cluster.client()
        self.jobs = [id_of(number) for number in range(10)]
        accept(
            self.store,
            *(
                new_job(number, job_id=job_id, model="counter", model_version="", payload=PAYLOAD)
                for number, job_id in enumerate(self.jobs)
            ),
        )
        dead = (replace(outcome(kind=OutcomeKind.POISONED), job_id=job_id) for job_id in self.jobs)
        write(self.store, Settle(decide, has_hook=True), *(Settlement(each, NOW) for each in dead))
        self.tokens = {job_id: self.store.read(dead_letter, job_id).retry_token for job_id in self.jobs}

    def damage(self):
        spoil(self.url, *(statement.format(job_id) for job_id, statement in DAMAGE.items()))


@pytest.fixture
def stand(database_url):
    with Cluster(database=database_url) as cluster, ControlPlane(cluster.settings) as plane:
        yield Stand(cluster, plane, database_url)


def test_all_are_listed_and_exported_and_counted_and_the_bad_ones_say_what_is_wrong(stand):
    stand.damage()
    letters = list(stand.client.dead_letters.list())
    assert sorted(letter.job_id for letter in letters) == stand.jobs
    assert tuple(sorted(each.job_id for each in letters if each.problem)) == TOLD_WITH_PROBLEM
    assert stand.client.dead_letters.summary().open == len(stand.jobs)
    for job_id in stand.jobs:
        assert stand.client.dead_letters.show(job_id).job_id == job_id
    with RunningGateway(stand.cluster.settings) as gateway:
        request = urllib.request.Request(
            f"{gateway.url}/v1/dead-letters:export?state=all",
            headers={"Authorization": f"Bearer {gateway.key()}"},
        )
        with urllib.request.urlopen(request, timeout=PATIENCE_SECONDS) as answer:
            exported = [json.loads(line)["job_id"] for line in answer]
    assert sorted(exported) == stand.jobs


def test_good_ones_are_retried_and_each_bad_one_has_its_error(stand):
    stand.damage()
    outcomes = {each.job_id: each for each in stand.client.dead_letters.retry_where(all=True)}
    assert sorted(outcomes) == stand.jobs
    refused = {job_id: each.error.code for job_id, each in outcomes.items() if each.error}
    assert refused == dict.fromkeys(NOT_RETRIED, "letter_damaged")
    for job_id in NOT_RETRIED:
        assert job_id in outcomes[job_id].error.message
        with pytest.raises(LetterDamaged, match=job_id):
            stand.client.dead_letters.retry(stand.tokens[job_id])
    again = stand.client.dead_letters.retry(stand.tokens[GOOD[0]])
    assert (again.is_new, again.retried_as) == (False, outcomes[GOOD[0]].retried_as)
    # What its token made cannot be read: that says nothing of others.
    spoil(stand.url, f"UPDATE jobs SET state = 'unheard-of' WHERE job_id = '{again.retried_as}'")
    with pytest.raises(LetterDamaged, match=GOOD[0]):
        stand.client.dead_letters.retry(stand.tokens[GOOD[0]])
    assert [link.job_id for link in stand.client.dead_letters.show(GOOD[0]).chain] == [GOOD[0]]


def test_all_are_purged_but_those_that_the_database_refuses_to_close_which_are_named(stand):
    stand.damage()
    refused = [id_of(3), id_of(9)]
    refuse_to_close(stand.url, *refused)
    with (
        capture_logs() as logs,
        pytest.raises(LetterDamaged, match="8 dead letters were purged, 2 could not"),
    ):
        stand.client.dead_letters.purge(all=True)
    assert sorted(each["job"] for each in logs if each["log_level"] == "error") == refused
    assert sorted(each.job_id for each in stand.client.dead_letters.list()) == refused


def test_all_expire_but_those_that_the_database_refuses_to_close(stand, monkeypatch):
    monkeypatch.setattr(letter_expiry, "EXPIRY_BATCH", 2)
    stand.damage()
    # The two oldest: a batch in which nothing can be closed is not the last one.
    refuse_to_close(stand.url, id_of(0), id_of(1))
    step = ExpireLetters(stand.store, retention_ms=1, now_ms=lambda: NOW + 1_000)
    with capture_logs() as logs:
        for _ in range(20):
            if step() == IDLE:
                break
        else:
            raise AssertionError("the step never comes to rest")
    assert sorted({each["job"] for each in logs if "job" in each}) == [id_of(0), id_of(1)]
    assert sum(each.get("count", 0) for each in logs) == 8
    assert sorted(each.job_id for each in stand.client.dead_letters.list()) == [id_of(0), id_of(1)]


def test_the_hook_hears_of_all_and_the_bad_ones_say_what_is_wrong(stand):
    stand.damage()
    heard, ended = [], threading.Event()
    calls = HookCalls(Hook(heard), on_end=ended.set, clock=lambda: 0.0, batch_seconds=1.0)
    step = TellOfDeaths(stand.store, calls, now_ms=lambda: NOW)
    try:
        step()
        assert ended.wait(PATIENCE_SECONDS)
        assert step() == IDLE
    finally:
        calls.stop()
    assert sorted(letter.job_id for letter in heard) == stand.jobs
    assert tuple(sorted(each.job_id for each in heard if each.problem)) == TOLD_WITH_PROBLEM


def test_all_have_copies_however_many_have_no_job(stand, monkeypatch):
    monkeypatch.setattr(letter_copying, "COPIES_AT_ONCE", 2)
    spoil(stand.url, f"DELETE FROM jobs WHERE job_id >= '{id_of(4)}'")
    copies = LetterCopies(stand.plane.client, stand.plane.keys)
    step = CopyLetters(stand.store, copies, lambda job_ids: [])
    for _ in range(20):
        if step() == IDLE:
            break
    else:
        raise AssertionError("the step never comes to rest")
    assert sorted(name.decode() for name in copies.present(100)[0]) == stand.jobs
