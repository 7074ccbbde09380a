"""What Dramatiq's own Redis broker loses or doubles: each test fails on it, and passes on ours.

The stock broker's failures are expected strictly: should it learn to pass one, the long run tells.
"""

import pytest

from support.waiting import PATIENCE_SECONDS, eventually
from support.workers import Program

OUTAGE_NOTICED = "connection error"


def on_each_broker(*, loses, stock="stock"):
    """Run a test on our broker, and on the stock one with the expectation that it fails."""
    expected = pytest.mark.xfail(strict=True, raises=AssertionError, reason=f"the stock broker {loses}")
    return pytest.mark.parametrize(
        "program", ["tether", pytest.param(stock, marks=[expected, pytest.mark.long])], indirect=True
    )


@pytest.fixture
def program(request):
    program = Program(request.param)
    yield program
    program.close()


@on_each_broker(loses="leaves a dead worker's messages for at least 60 s")
def test_a_killed_workers_messages_are_run_by_another_within_seconds(program):
    doomed = program.start_worker(threads=1)
    for number in range(3):
        program.send("hold", number)
    assert program.next_word(within=PATIENCE_SECONDS) == "started 0"
    program.start_worker(threads=1)
    doomed.kill()

    program.let_go(count=3)
    assert set(program.words(6, within=program.patience)) == {
        f"{what} {number}" for what in ("started", "ran") for number in range(3)
    }
    eventually(lambda: program.copies() == 0, within=PATIENCE_SECONDS, what="all acknowledged")


@on_each_broker(
    loses="runs it again for ever, and only because it is set to recover at once", stock="stock-eager"
)
def test_a_message_that_kills_its_worker_runs_out_of_attempts(program):
    program.start_supervised()
    program.send("die", 0)
    for _ in range(3):
        assert program.next_word(within=program.patience) == "started 0"
    eventually(
        lambda: program.redis.zcard("program:default.XQ") == 1, within=program.patience, what="a dead letter"
    )
    assert program.ledger.llen("said") == 0


@on_each_broker(loses="forgets delayed messages that it holds when their Redis restarts")
def test_delayed_messages_are_run_after_an_outage_of_redis(program):
    worker = program.start_worker()
    for number in range(10):
        program.send("record", number, delay=3_000)
    eventually(
        lambda: program.redis.llen("program:default.DQ") == 0,
        within=PATIENCE_SECONDS,
        what="the worker holds all messages",
    )
    program.server.kill()
    worker.wait_for_line(OUTAGE_NOTICED, within=PATIENCE_SECONDS, count=2)
    program.server.start()
    assert sorted(program.words(10, within=program.patience)) == [f"ran {number}" for number in range(10)]


@on_each_broker(loses="acknowledges a failed message whose retry it could not enqueue")
def test_an_actor_that_fails_while_redis_is_away_is_retried(program):
    worker = program.start_worker()
    program.send("fail_once", 0)
    assert program.next_word(within=PATIENCE_SECONDS) == "started 0"
    program.server.kill()
    program.let_go(count=2)
    worker.wait_for_line("Failed to post_process_message", within=PATIENCE_SECONDS)
    program.server.start()
    assert program.words(2, within=program.patience) == ["started 0", "ran 0"]


@on_each_broker(loses="acknowledges a message whose follower in the pipeline it could not enqueue")
def test_a_pipeline_goes_on_after_an_outage_of_redis_between_two_of_its_messages(program):
    worker = program.start_worker()
    follower = {
        "queue_name": "default",
        "actor_name": "record",
        "args": [1],
        "kwargs": {},
        "options": {"pipe_ignore": True},
        "message_id": "follower",
        "message_timestamp": 0,
    }
    program.send("hold", 0, pipe_target=follower)
    assert program.next_word(within=PATIENCE_SECONDS) == "started 0"
    program.server.kill()
    program.let_go()
    worker.wait_for_line("Failed to post_process_message", within=PATIENCE_SECONDS)
    program.server.start()
    assert program.words(2, within=program.patience) == ["ran 0", "ran 1"]


@on_each_broker(loses="enqueues the copy that is due before it acknowledges the delayed message")
def test_a_worker_that_dies_as_a_delayed_message_comes_due_does_not_double_it(program):
    worker = program.start_worker(PROGRAM_DIES_BEFORE_ACK_ON="default.DQ", threads=1)
    program.send("hold", 0, delay=100)
    worker.wait_for_end(within=PATIENCE_SECONDS)
    assert program.copies() == 1


@on_each_broker(loses="enqueues the retry before it acknowledges the failed message")
def test_a_worker_that_dies_as_it_schedules_a_retry_does_not_double_the_message(program):
    worker = program.start_worker(PROGRAM_DIES_BEFORE_ACK_ON="default", threads=1)
    program.send("fail", 0)
    worker.wait_for_end(within=PATIENCE_SECONDS)
    assert program.copies() == 1


@on_each_broker(loses="deletes dead letters with the queue")
def test_dead_letters_survive_a_purge(program):
    make_dead_letter(program)
    program.broker.flush("default")
    assert program.redis.zcard("program:default.XQ") == 1
    assert program.redis.hlen("program:default.XQ.msgs") == 1


@on_each_broker(loses="deletes dead letters after 7 days without a word", stock="stock-eager")
def test_dead_letters_do_not_expire(program):
    make_dead_letter(program)
    [letter] = program.redis.zrange("program:default.XQ", 0, -1)
    a_month = 30 * 86_400_000
    program.redis.zincrby("program:default.XQ", -a_month, letter)
    program.start_worker()
    program.send("record", 1)
    assert program.next_word(within=PATIENCE_SECONDS) == "ran 1"
    eventually(
        lambda: program.redis.hlen("program:default.msgs") == 0, within=PATIENCE_SECONDS, what="acknowledged"
    )
    assert program.redis.hlen("program:default.XQ.msgs") == 1


def make_dead_letter(program):
    program.broker.declare_queue("default")
    program.send("record", 0)
    consumer = program.broker.consume("default", timeout=1_000)
    message = next(message for message in consumer if message is not None)
    consumer.nack(message)
    consumer.close()
