"""What attempts make is written once and whole, whatever happens to replies, Redis and fences."""

import threading

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from support.drawn_jobs import drawn_job
from support.fake_port import FakePort
from support.waiting import eventually, join
from tether.broker.pools.worker_port import WriteResult, WriteStatus
from tether.jobs import Piece
from tether.outcomes import Fence
from tether.streams.token_log import decode_pieces
from tether_workers.attempts.attempt import MAX_UNWRITTEN_TOKENS, Attempt, AttemptEnding
from tether_workers.attempts.running import Attempts
from tether_workers.attempts.token_writer import TokenWriter


@pytest.fixture
def flush(port):
    return TokenWriter(port)


@pytest.fixture
def begin(port, flush):
    def begin(number=1, **changes):
        return Attempt(port.hold(drawn_job(number, **changes)), clock=lambda: 0.0, on_unwritten=flush.note)

    return begin


@pytest.fixture
def running(flush):
    flush.start()
    yield flush
    flush.stop()
    assert not flush.loop.is_alive


def pieces(first, count):
    return [Piece(number, f" {number}") for number in range(first, first + count)]


def texts(first, count):
    return [f" {number}" for number in range(first, first + count)]


def test_tokens_of_all_attempts_go_with_one_call(port, flush, begin):
    attempts = [begin(number) for number in (1, 2, 3)]
    for attempt in attempts:
        attempt.push(pieces(0, 2))
    flush.flush(attempts)
    assert port.calls == ["append_many"]
    assert all(port.streams[f"job-{number}"].texts() == texts(0, 2) for number in (1, 2, 3))


def test_a_token_is_written_without_being_asked_for(port, running, begin):
    begin().push(pieces(0, 1))
    eventually(lambda: port.streams["job-1"].offset == 1, 60, "the token is written")


def test_a_lost_reply_doubles_no_token(port, flush, begin):
    attempt = begin()
    attempt.push(pieces(0, 3))
    port.lost_replies.append("append_many")
    flush.flush([attempt])
    attempt.push(pieces(3, 2))
    flush.flush([attempt])
    flush.flush([attempt])
    assert port.streams["job-1"].texts() == texts(0, 5)
    assert attempt.ending is None


def test_what_is_made_while_redis_is_away_is_written_when_it_is_back(port, running, begin):
    attempt = begin()
    port.is_away.set()
    attempt.push(pieces(0, 3))
    assert port.tried.acquire(timeout=60)
    attempt.push(pieces(3, 3))
    port.is_away.clear()
    eventually(lambda: port.streams["job-1"].offset == 6, 60, "all is written")
    assert port.streams["job-1"].texts() == texts(0, 6)


def test_an_engine_waits_while_too_much_is_not_written(port, flush, begin):
    attempt = begin()
    attempt.push(pieces(0, MAX_UNWRITTEN_TOKENS))
    pushed = threading.Event()

    def push():
        attempt.push(pieces(MAX_UNWRITTEN_TOKENS, 1))
        pushed.set()

    slot = threading.Thread(target=push)
    slot.start()
    assert not pushed.wait(0.05)
    flush.flush([attempt])
    join(slot)
    assert pushed.is_set()


def test_an_engine_that_waits_goes_on_when_the_attempt_shall_end(begin):
    attempt = begin()
    attempt.push(pieces(0, MAX_UNWRITTEN_TOKENS))
    slot = threading.Thread(target=attempt.push, args=(pieces(0, 1),))
    slot.start()
    attempt.end(AttemptEnding.RELEASE)
    join(slot)


@pytest.mark.parametrize("answer", [WriteStatus.CANCELLED, WriteStatus.EXPIRED])
def test_who_wants_the_job_ended_is_heard_and_its_tokens_count(port, flush, begin, answer):
    attempt = begin()
    attempt.push(pieces(0, 2))
    port.streams["job-1"].cancel = answer
    flush.flush([attempt])
    assert attempt.cancelled.is_set()
    assert attempt.ending is AttemptEnding[answer.name]
    assert port.streams["job-1"].texts() == texts(0, 2)


def test_a_fenced_attempt_is_dropped_and_writes_no_more(port, flush, begin):
    attempt = begin()
    attempt.push(pieces(0, 2))
    port.streams["job-1"].fence = Fence(1, 2, "other:1")
    flush.flush([attempt])
    attempt.push(pieces(2, 2))
    flush.flush([attempt])
    assert attempt.dropped.is_set()
    assert not attempt.close()
    assert port.calls == ["append_many"]


def test_a_job_that_redis_does_not_know_is_dropped(port, flush, begin):
    attempt = begin()
    attempt.push(pieces(0, 2))
    del port.streams["job-1"]
    flush.flush([attempt])
    assert attempt.dropped.is_set()


def test_a_changed_epoch_drops_what_was_to_be_written_and_nothing_else(port, flush, begin):
    attempt, other = begin(1), begin(2)
    attempt.push(pieces(0, 2))
    port.epoch = 2
    flush.flush([attempt])
    assert attempt.dropped.is_set()
    assert not other.dropped.is_set()


def test_where_redis_lost_tokens_the_attempt_is_handed_over_at_what_is_left(port, flush, begin):
    attempt = begin()
    attempt.push(pieces(0, 4))
    flush.flush([attempt])
    port.streams["job-1"].offset = 1
    attempt.push(pieces(4, 2))
    flush.flush([attempt])
    assert attempt.ending is AttemptEnding.RELEASE
    assert attempt.lost_tokens
    attempt.push(pieces(6, 1), is_last=True)
    assert attempt.close()
    rest = attempt.rest(is_whole=True)
    assert (rest.offset, rest.count) == (1, 0)


def test_closing_waits_for_the_write_under_way_and_takes_the_rest(begin):
    attempt = begin()
    attempt.push(pieces(0, 2))
    first = attempt.take()
    attempt.push(pieces(2, 1), is_last=True)
    closed = []
    slot = threading.Thread(target=lambda: closed.append(attempt.close()))
    slot.start()
    slot.join(0.05)
    assert slot.is_alive()
    assert not attempt.written(WriteResult(WriteStatus.OK, first.offset + first.count))
    join(slot)
    assert closed == [True]
    rest = attempt.rest(is_whole=True)
    assert (rest.offset, rest.count) == (2, 1)
    assert attempt.take() is None


def test_the_last_tokens_are_written_with_the_end_of_the_answer_or_not_at_all(begin):
    attempt = begin()
    attempt.push(pieces(0, 2))
    attempt.push(pieces(2, 1), is_last=True)
    assert attempt.take() is None
    assert attempt.close()
    assert decode_pieces(attempt.rest(is_whole=True).data) == tuple(pieces(0, 3))
    # Where the answer does not end with this attempt, the next one makes them again.
    assert decode_pieces(attempt.rest(is_whole=False).data) == tuple(pieces(0, 2))


def test_a_write_of_which_nothing_is_known_is_repeated_though_the_last_tokens_are_there(port, flush, begin):
    attempt = begin()
    attempt.push(pieces(0, 2))
    port.lost_replies.append("append_many")
    assert flush.flush([attempt]) is not None
    attempt.push(pieces(2, 1), is_last=True)
    assert flush.flush([attempt]) is None
    assert port.streams["job-1"].texts() == texts(0, 2)
    assert attempt.close()
    rest = attempt.rest(is_whole=True)
    assert (rest.offset, rest.count) == (2, 1)


def test_the_last_tokens_wait_for_no_room(begin):
    attempt = begin()
    attempt.push(pieces(0, MAX_UNWRITTEN_TOKENS))
    attempt.push(pieces(MAX_UNWRITTEN_TOKENS, 2), is_last=True)
    assert attempt.close()
    assert attempt.rest(is_whole=True).count == MAX_UNWRITTEN_TOKENS + 2


def test_a_restart_is_written_before_the_tokens_of_its_run_and_once(port, flush, begin):
    attempt = begin(made=pieces(0, 3), run=0)
    attempt.restart(1)
    attempt.push(pieces(100, 2))
    port.lost_replies.append("append_many")
    for _ in range(4):
        flush.flush([attempt])
    stream = port.streams["job-1"]
    assert (stream.run, stream.offset, stream.texts()) == (1, 2, texts(100, 2))


def test_one_attempt_that_cannot_be_written_does_not_hold_up_the_others(port, flush, begin):
    bad, good = begin(1), begin(2)
    append = port._append

    def refuse(growth):
        if growth.job_id == "job-1":
            raise ValueError("not to be written")
        return append(growth)

    port._append = refuse
    bad.push(pieces(0, 1))
    good.push(pieces(0, 1))
    flush.flush([bad, good])
    assert bad.dropped.is_set()
    assert port.streams["job-2"].texts() == texts(0, 1)


def test_tokens_that_cannot_be_encoded_do_not_hold_up_the_others(port, flush, begin):
    bad, good = begin(1), begin(2)
    bad.push([Piece(b"1", "a")])
    good.push(pieces(0, 1))
    flush.flush([bad, good])
    assert bad.dropped.is_set()
    assert port.streams["job-2"].texts() == texts(0, 1)


def test_a_stronger_reason_to_end_takes_the_place_of_a_weaker_one(begin):
    attempt = begin()
    for ending in (
        AttemptEnding.RELEASE,
        AttemptEnding.CANCELLED,
        AttemptEnding.RELEASE,
        AttemptEnding.DROP,
        AttemptEnding.CANCELLED,
    ):
        attempt.end(ending)
    assert attempt.ending is AttemptEnding.DROP


def test_the_registry_tells_when_all_have_ended(flush):
    attempts = Attempts(clock=lambda: 0.0, on_unwritten=flush.note)
    attempts.began(drawn_job(1))
    attempts.find("boot:1").push(pieces(0, 3))
    assert not attempts.wait_until_none(0.001)
    attempts.forget("boot:1")
    attempts.forget("boot:1")
    assert attempts.wait_until_none(10)


@settings(max_examples=60, deadline=None)
@given(st.lists(st.sampled_from(["push", "flush", "flush and lose the reply", "away"]), max_size=25))
def test_whatever_is_lost_the_stream_is_whole(steps):
    port = FakePort()
    flush = TokenWriter(port)
    attempt = Attempt(port.hold(drawn_job()), clock=lambda: 0.0, on_unwritten=flush.note)
    made = 0
    for step in steps:
        if step == "push":
            attempt.push(pieces(made, 2))
            made += 2
        elif step == "away":
            port.is_away.set()
            flush.flush([attempt])
            port.is_away.clear()
        else:
            if step == "flush and lose the reply" and attempt.take() is not None:
                port.lost_replies.append("append_many")
            flush.flush([attempt])
        assert port.streams["job-1"].texts() == texts(0, port.streams["job-1"].offset)
    flush.flush([attempt])
    assert attempt.close()
    rest = attempt.rest(is_whole=True)
    assert rest.offset + rest.count == made
    port.finish(rest, input_tokens=0, reason="stop")
    assert port.streams["job-1"].texts() == texts(0, made)
