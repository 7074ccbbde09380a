"""What is accepted stays accepted, and is placed once, whatever comes between commit and placement."""

from concurrent.futures import Future

import pytest

from support.databases import new_job
from support.hand_worker import growth
from support.pool_stage import POOL, Stage
from tether.errors import StoreUnavailable
from tether.jobs import JobState
from tether.scheduling.reservations import ReservationManager
from tether.store.admissions import Admission, AdmissionKind, admit

RESULT_TTL_MS = 60_000


class ScriptedStore:
    """Admits every job; something happens between a commit and its answer, or the store closes after it."""

    def __init__(self):
        self.after_commit = lambda: None
        self.is_closed_after_commit = False

    def write_many(self, operation, items):
        if operation is not admit:
            if self.is_closed_after_commit:
                raise StoreUnavailable("the store is closed")
            return []
        answers = []
        for item in items:
            answers.append(Future())
            answers[-1].set_result(
                Admission(AdmissionKind.ACCEPTED, item.job.job_id, JobState.ACCEPTED, dispatch=1, pool=POOL)
            )
        self.after_commit()
        return answers


@pytest.fixture
def stage(shared_redis_server):
    made = Stage(shared_redis_server, "reservations")
    yield made
    made.close()


class Clock:
    def __init__(self):
        self.now = 0.0

    def __call__(self):
        return self.now


def reserved(stage, store, clock):
    manager = ReservationManager(store, stage.pools, result_ttl_ms=RESULT_TTL_MS, clock=clock)
    (answer,) = manager.reserve([new_job(1)])
    return answer


def test_a_store_that_closes_after_the_commit_makes_no_error_of_an_accepted_job(stage):
    store = ScriptedStore()
    store.is_closed_after_commit = True
    answer = reserved(stage, store, Clock())
    assert answer.kind is AdmissionKind.ACCEPTED


def test_a_job_is_placed_at_once(stage):
    reserved(stage, ScriptedStore(), Clock())
    assert [drawn.job_id for drawn in stage.worker("w").draw(1, [POOL], busy=False).jobs] == ["job-000001"]


def test_who_is_paused_after_the_commit_for_longer_than_ended_jobs_are_known_places_nothing(stage):
    store, clock, worker = ScriptedStore(), Clock(), stage.worker("w")

    def pause():
        # The relay places it meanwhile; it runs, ends, and leaves Redis.
        stage.place("job-000001")
        (drawn,) = worker.draw(1, [POOL], busy=False).jobs
        worker.finish(growth(drawn))
        stage.redis.delete(stage.keys.job("job-000001"), stage.keys.stream("job-000001"))
        clock.now += RESULT_TTL_MS / 1000

    store.after_commit = pause
    answer = reserved(stage, store, clock)
    assert answer.kind is AdmissionKind.ACCEPTED
    assert worker.draw(1, [POOL], busy=False).jobs == ()
