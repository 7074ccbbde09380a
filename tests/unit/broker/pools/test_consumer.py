"""The consumer of pool jobs: draws for free slots only, and gives back what no thread has begun."""

import threading

import pytest
import redis
from dramatiq.errors import ConnectionClosed
from structlog.testing import capture_logs

from support.drawn_jobs import drawn_job
from support.waiting import join
from tether.broker.pools.consumer import PoolConsumer
from tether.broker.pools.slots import Slots
from tether.broker.pools.worker_port import DrawResult
from tether.errors import WorkerRevoked


@pytest.fixture
def make(port, attempts):
    def make(slots, pools=("pool",), timeout=1, clock=lambda: 0.0):
        return PoolConsumer(port, slots, lambda: pools, timeout=timeout, listener=attempts, clock=clock)

    return make


def handed_out(consumer, calls):
    return [message for message in (next(consumer) for _ in range(calls)) if message is not None]


def test_it_draws_as_many_jobs_as_there_are_free_slots(port, make, attempts):
    port.draws.extend(drawn_job(number) for number in range(5))
    consumer = make(Slots(2))
    messages = handed_out(consumer, 3)
    assert [message.kwargs["job_id"] for message in messages] == ["job-0", "job-1"]
    assert port.calls == ["draw"]
    assert {attempt.drawn.job_id for attempt in attempts.all()} == {"job-0", "job-1"}


def test_each_message_is_named_after_its_draw(port, make):
    port.draws.append(drawn_job(7))
    message = next(make(Slots(1)))
    assert (message.queue_name, message.actor_name) == ("infer", "infer")
    assert message.message_id == message.kwargs["draw_id"] == "boot:7"


@pytest.mark.parametrize(
    ("text", "options"),
    [
        (b'{"traceparent":"00-1-2-01"}', {"traceparent": "00-1-2-01"}),
        (b'{"traceparent":"00-1-2-01","team":[1]}', {"traceparent": "00-1-2-01", "team": [1]}),
        (b"", {}),
        (b"[]", {}),
        (b"\xff", {}),
        (b"[" * 100_000, {}),
    ],
)
def test_the_options_of_the_submitter_go_on(port, make, text, options):
    port.draws.append(drawn_job(1, options=text))
    assert next(make(Slots(1))).options == options


@pytest.mark.parametrize("answer", ["ack", "nack"])
def test_answering_frees_the_slot_and_writes_nothing(port, make, answer):
    port.draws.extend([drawn_job(1), drawn_job(2)])
    consumer = make(Slots(1))
    message = next(consumer)
    assert next(consumer) is None
    getattr(consumer, answer)(message)
    assert next(consumer).kwargs["job_id"] == "job-2"
    assert port.calls == ["draw", "draw"]


def test_beside_a_job_that_runs_alone_nothing_is_drawn(port, make):
    port.draws.extend([drawn_job(1, alone=True), drawn_job(2)])
    consumer = make(Slots(4))
    alone = next(consumer)
    assert next(consumer) is None
    consumer.ack(alone)
    assert next(consumer).kwargs["job_id"] == "job-2"


def test_the_slots_outlive_the_consumer(port, make):
    port.draws.extend([drawn_job(1), drawn_job(2), drawn_job(3)])
    slots = Slots(2)
    first = make(slots)
    next(first)
    first.close()
    second = make(slots)
    assert next(second).kwargs["job_id"] == "job-2"
    assert next(second) is None
    assert port.calls == ["draw"]


def test_a_worker_that_has_loaded_nothing_hears_too_that_its_key_was_revoked(port, make, caplog, monkeypatch):
    def refuse(*arguments, **options):
        raise WorkerRevoked("the key of worker boot was revoked")

    monkeypatch.setattr(port, "draw", refuse)
    assert next(make(Slots(1), pools=())) is None
    assert "the key of worker boot was revoked" in caplog.text


def test_in_pools_that_it_has_not_drawn_from_it_waits_for_no_bell(port, make):
    pools = ["pool"]
    consumer = make(Slots(1), pools=pools)
    for _ in range(2):
        assert next(consumer) is None
    pools.append("other")
    for _ in range(2):
        assert next(consumer) is None
    pools.clear()
    for _ in range(2):
        assert next(consumer) is None
    assert [wait > 0 for wait in port.waits] == [False, True] * 3


def test_a_draw_whose_answer_was_lost_is_asked_for_again_at_once(port, make):
    port.draws.append(drawn_job(1))
    port.lost_replies.append("draw")
    assert next(make(Slots(1))) is None
    assert port.calls == ["draw", "draw"]


def test_an_outage_is_said_once_and_sat_out_and_the_next_draw_waits_for_no_bell(port, make):
    consumer = make(Slots(2))
    for _ in range(2):
        assert next(consumer) is None
    with capture_logs() as logs:
        port.is_away.set()
        for _ in range(3):
            assert next(consumer) is None
        port.is_away.clear()
        port.draws.append(drawn_job(1))
        assert next(consumer).kwargs["job_id"] == "job-1"
    assert [line["log_level"] for line in logs] == ["warning", "info"]
    # Whoever came back is registered anew before it blocks.
    assert port.waits[-1] == 0


def test_a_worker_that_stops_in_an_outage_is_not_held_up_by_it(port, make):
    slots = Slots(1)
    consumer = make(slots)
    port.is_away.set()
    assert next(consumer) is None
    slots.stop_drawing()
    assert next(consumer) is None
    with pytest.raises(ConnectionClosed):
        consumer.close()


def test_a_changed_epoch_drops_all_attempts_and_goes_on(port, make, attempts):
    port.draws.append(drawn_job(1))
    consumer = make(Slots(2))
    next(consumer)
    port.epoch = 2
    port.draws.append(drawn_job(2))
    assert handed_out(consumer, 2)[0].kwargs["job_id"] == "job-2"
    assert attempts.find("boot:1").dropped.is_set()
    assert not attempts.find("boot:2").dropped.is_set()
    assert "hello" in port.calls


def test_a_revoked_worker_says_so_once_and_draws_again_once_it_is_trusted_again(
    port, make, caplog, monkeypatch
):
    caplog.set_level("INFO")
    port.draws.extend([drawn_job(1), drawn_job(2)])
    consumer = make(Slots(8))
    next(consumer)
    draw, waits = port.draw, []

    def refuse(*arguments, wait_seconds, **options):
        waits.append(wait_seconds)
        raise WorkerRevoked("the key of worker boot was revoked")

    for life in (1, 2):
        monkeypatch.setattr(port, "draw", refuse)
        assert [message.kwargs["job_id"] for message in handed_out(consumer, 4)] == ["job-2"][life - 1 :]
        monkeypatch.setattr(port, "draw", draw)
        port.draws.append(drawn_job(2 + life))
        assert [message.kwargs["job_id"] for message in handed_out(consumer, 1)] == [f"job-{2 + life}"]
    told = [record.getMessage() for record in caplog.records if record.levelname in ("ERROR", "INFO")]
    assert (
        told
        == [
            "the key of worker boot was revoked.",
            "This worker's key is trusted again: drawing again.",
        ]
        * 2
    )
    # It asked again and again, and relied on no bell after the first time.
    assert len(waits) == 7
    assert set(waits[1:3] + waits[4:]) == {0.0}


def test_before_the_first_epoch_it_waits_for_a_stop_at_most_its_time(port, make):
    port.epoch, port.said_epoch = 0, 1
    slots = Slots(1)
    consumer = make(slots, timeout=60_000)
    answers = []
    waiting = threading.Thread(target=lambda: answers.append(next(consumer)))
    waiting.start()
    slots.stop_drawing()
    join(waiting)
    assert answers == [None]


def test_it_draws_again_when_it_was_told_to(port, make, monkeypatch):
    now = [0.0]
    answers = [DrawResult((), 40), DrawResult(()), DrawResult(())]
    waits = []

    def draw(count, pools, *, busy, wait_seconds=0.0, limits):
        waits.append(wait_seconds)
        return answers.pop(0)

    monkeypatch.setattr(port, "draw", draw)
    consumer = make(Slots(1), timeout=100_000, clock=lambda: now[0])
    next(consumer)
    now[0] = 0.01
    next(consumer)
    next(consumer)
    assert waits == [0.0, pytest.approx(0.03), 5.0]


def test_a_stop_gives_back_what_was_not_handed_out_and_leaves_the_idle_sets(port, make, attempts):
    port.draws.extend([drawn_job(1), drawn_job(2), drawn_job(3)])
    slots = Slots(3)
    consumer = make(slots)
    begun = next(consumer)
    slots.stop_drawing()
    assert next(consumer) is None
    assert port.calls == ["draw", "release", "release", "draw"]
    assert {job for job, stream in port.streams.items() if stream.state == "placed"} == {"job-2", "job-3"}
    assert [attempt.drawn.job_id for attempt in attempts.all()] == [begun.kwargs["job_id"]]
    consumer.close()
    assert port.calls.count("draw") == 2


def test_what_is_drawn_while_the_worker_stops_is_given_back(port, make, attempts, monkeypatch):
    slots = Slots(1)
    draw = port.draw

    def draw_during_the_stop(*arguments, **options):
        port.draws.append(drawn_job(1))
        slots.stop_drawing()
        return draw(*arguments, **options)

    monkeypatch.setattr(port, "draw", draw_during_the_stop)
    assert next(make(slots)) is None
    assert port.streams["job-1"].state == "placed"
    assert attempts.all() == ()


def test_requeued_messages_are_given_back(port, make, attempts):
    port.draws.append(drawn_job(1))
    slots = Slots(1)
    consumer = make(slots)
    message = next(consumer)
    consumer.requeue([message])
    assert port.streams["job-1"].state == "placed"
    assert slots.outstanding == 0
    assert attempts.all() == ()


def test_a_job_whose_hand_over_got_no_reply_is_handed_over_again_and_so_are_the_others(port, make, attempts):
    port.draws.extend([drawn_job(1), drawn_job(2), drawn_job(3)])
    slots = Slots(3)
    consumer = make(slots)
    begun = next(consumer)
    port.lost_replies.append("release")
    consumer.requeue([begun])
    slots.stop_drawing()
    assert next(consumer) is None
    assert {stream.state for stream in port.streams.values()} == {"placed"}
    assert attempts.all() == ()


def test_what_cannot_be_handed_over_frees_its_slot_and_stays_with_who_runs_attempts(port, make, attempts):
    port.draws.extend([drawn_job(1), drawn_job(2)])
    slots = Slots(2)
    consumer = make(slots)
    messages = [next(consumer), next(consumer)]
    port.is_away.set()
    with pytest.raises(ConnectionClosed):
        consumer.requeue(messages)
    assert slots.outstanding == 0
    assert [attempt.drawn.job_id for attempt in attempts.all()] == ["job-1", "job-2"]


def test_a_hand_over_that_is_refused_does_not_hold_up_the_others(port, make, attempts, monkeypatch):
    port.draws.extend([drawn_job(1), drawn_job(2)])
    consumer = make(Slots(2))
    messages = [next(consumer), next(consumer)]
    release = port.release

    def refuse(growth):
        if growth.job_id == "job-1":
            raise redis.ResponseError("wrong type")
        return release(growth)

    monkeypatch.setattr(port, "release", refuse)
    consumer.requeue(messages)
    assert port.streams["job-2"].state == "placed"
    assert attempts.all() == ()


def test_a_pause_gives_back_what_was_not_handed_out_leaves_the_idle_sets_once_and_draws_again(
    port, make, attempts
):
    port.draws.extend([drawn_job(1), drawn_job(2), drawn_job(3)])
    slots = Slots(2)
    consumer = make(slots)
    begun = next(consumer)
    slots.pause()
    assert handed_out(consumer, 3) == []
    assert port.calls == ["draw", "release", "draw"]
    assert port.streams["job-2"].state == "placed"
    assert [attempt.drawn.job_id for attempt in attempts.all()] == [begun.kwargs["job_id"]]
    slots.resume()
    assert next(consumer).kwargs["job_id"] == "job-3"
    assert port.calls == ["draw", "release", "draw", "draw"]
    slots.clear("boot:3")
    slots.pause()
    assert next(consumer) is None
    assert port.calls == ["draw", "release", "draw", "draw", "draw"]


def test_what_is_drawn_while_the_worker_is_paused_is_given_back(port, make, attempts, monkeypatch):
    slots = Slots(1)
    draw = port.draw

    def draw_during_the_pause(*arguments, **options):
        port.draws.append(drawn_job(1))
        slots.pause()
        return draw(*arguments, **options)

    monkeypatch.setattr(port, "draw", draw_during_the_pause)
    assert next(make(slots)) is None
    assert port.streams["job-1"].state == "placed"
    assert attempts.all() == ()


def test_a_stop_while_paused_leaves_nothing_more_to_say(port, make):
    slots = Slots(1)
    consumer = make(slots)
    slots.pause()
    next(consumer)
    slots.stop_drawing()
    next(consumer)
    consumer.close()
    assert port.calls == ["draw"]


def test_a_consumer_that_ends_while_paused_leaves_the_slots_to_the_next(port, make):
    port.draws.extend([drawn_job(1), drawn_job(2)])
    slots = Slots(2)
    consumer = make(slots)
    next(consumer)
    slots.pause()
    consumer.close()
    assert port.calls == ["draw"]
    assert next(make(slots)) is None
    assert port.streams["job-2"].state == "placed"
