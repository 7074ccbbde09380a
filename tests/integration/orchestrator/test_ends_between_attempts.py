"""Jobs that end while no attempt runs: what earlier attempts streamed is kept with their end."""

import pytest

from support.core_steps import NOW, CoreSteps
from support.hand_worker import growth
from tether.broker.pools.worker_port import WriteStatus
from tether.jobs import JobError, Piece
from tether.orchestrator.deadlines import GRACE_MS
from tether.store import queries
from tether.store.end_requests import Request

JOB = "job-000000"
ERROR = JobError("engine_failed", "x", retryable=True)
PIECES = (Piece(0, "t0 "), Piece(1, "t1 "))


@pytest.fixture
def core(store, shared_redis_server, namespace):
    made = CoreSteps(store, shared_redis_server, namespace)
    yield made
    made.close()


def wait_for_a_retry(core):
    core.submit(0, deadline=NOW + 1)
    [job] = core.draw()
    core.worker.append(growth(job, 1))
    core.worker.fail(growth(job, 1, offset=1), kind="failed", error=ERROR)
    core.settle()
    assert core.states(0) == ["waiting_retry"]


def wait_for_another_worker(core):
    core.submit(0, deadline=NOW + 1)
    [job] = core.draw()
    core.worker.append(growth(job, 2))
    core.worker.release(growth(job, 0, offset=2))
    assert core.states(0) == ["placed"]


def cancel(core):
    assert core.ending.end([Request(None, JOB, "cancelled", core.now)]) == ["cancelled"]


def expire(core):
    core.later()
    core.deadlines()
    assert core.states(0) == ["expired"]


@pytest.mark.parametrize("wait", [wait_for_a_retry, wait_for_another_worker])
@pytest.mark.parametrize("end", [cancel, expire])
def test_tokens_of_earlier_attempts_are_kept(core, wait, end):
    wait(core)
    end(core)
    assert core.store.read(queries.result_pieces, JOB).pieces == PIECES
    assert core.store.read(queries.job, JOB).output_tokens == len(PIECES)


def test_of_a_stream_that_was_generated_anew_the_newest_run_is_kept(core):
    wait_for_a_retry(core)
    stream = core.keys.stream(JOB)
    core.redis.xadd(stream, {"e": "restarted", "d": "{}"}, id=f"{2**32}-90")
    core.redis.xadd(stream, {"e": "delta", "d": '{"t":[7],"s":["seven"]}'}, id=f"{2**32 + 1}-91")
    cancel(core)
    result = core.store.read(queries.result_pieces, JOB)
    assert (result.run, result.pieces) == (1, (Piece(7, "seven"),))


@pytest.mark.parametrize("wait", [lambda core: core.submit(0), wait_for_a_retry])
def test_a_job_without_a_stream_ends_without_tokens(core, wait):
    wait(core)
    core.redis.delete(core.keys.stream(JOB))
    cancel(core)
    assert core.store.read(queries.result_pieces, JOB) is None
    assert core.store.read(queries.job, JOB).output_tokens == 0


def test_a_key_that_is_no_stream_keeps_no_job_from_its_end(core):
    wait_for_a_retry(core)
    core.redis.delete(core.keys.stream(JOB))
    core.redis.set(core.keys.stream(JOB), "x")
    cancel(core)
    assert core.store.read(queries.result_pieces, JOB) is None


def lose_everything(core):
    """Redis loses all that it has, and an orchestrator finds that out."""
    core.redis.delete(*core.redis.scan_iter(core.keys.prefix + ":*"))
    core.reconcile()
    core.later()
    core.relay()
    core.worker.hello()


def test_a_cancellation_that_came_too_late_is_forgotten_and_the_job_succeeds_though_redis_loses_its_end(core):
    core.submit(0)
    core.finish(1)
    core.ending.end([Request(None, JOB, "cancelled", core.now)])
    lose_everything(core)
    assert core.states(0) == ["placed"]
    core.finish(1)
    core.settle()
    assert core.states(0) == ["succeeded"]


def test_a_cancellation_that_came_in_time_counts_though_redis_loses_its_end(core):
    core.submit(0)
    [job] = core.draw()
    core.ending.end([Request(None, JOB, "cancelled", core.now)])
    core.worker.append(growth(job, 1), expect=WriteStatus.CANCELLED)
    lose_everything(core)
    assert core.states(0) == ["cancelled"]


def test_whoever_died_before_a_late_cancellation_was_forgotten_leaves_that_to_the_sweep(core):
    core.submit(0)
    core.finish(1)
    core.ending.ask([Request(None, JOB, "cancelled", core.now)])
    core.later(GRACE_MS + 1)
    core.deadlines()
    lose_everything(core)
    assert core.states(0) == ["placed"]
