"""One reader of many streams, on a real Redis that may lose parts of them."""

import os
import queue
import signal
import threading
import uuid

import pytest
import redis

from support.waiting import PATIENCE_SECONDS, join
from tether.broker.keys import Keys
from tether.core.stream_hub.archive import Ended
from tether.core.stream_hub.hub import StreamHub
from tether.errors import ClientClosed, InvalidRequest
from tether.jobs import Piece
from tether.local.redis_server import RedisServer
from tether.streams.events import StreamEvent
from tether.streams.token_log import RUN_STEP, encode_pieces

THREADS = {"tether-streams", "tether-stream-archive"}


class Shelf:
    """An archive that the test fills."""

    def __init__(self):
        self.jobs = {}
        self.error = None
        self.asked = threading.Semaphore(0)
        self.go_on = threading.Event()
        self.go_on.set()

    def ended(self, job_ids):
        self.asked.release()
        assert self.go_on.wait(PATIENCE_SECONDS)
        if self.error is not None:
            raise self.error
        return {job_id: self.jobs[job_id] for job_id in job_ids if job_id in self.jobs}


@pytest.fixture
def client(redis_server):
    with redis.Redis.from_url(redis_server.url) as client:
        yield client


@pytest.fixture
def shelf():
    return Shelf()


@pytest.fixture
def hub(client, shelf):
    hub = StreamHub(client, Keys("tether"), shelf)
    yield hub
    hub.close()
    assert not THREADS & {thread.name for thread in threading.enumerate()}


class SlowReplies(redis.Connection):
    """Its replies reach the thread ``slow`` only once it may go on."""

    waits = threading.Event()
    go_on = threading.Event()

    def read_response(self, *args, **kwargs):
        if threading.current_thread().name == "slow" and self._sock is not None:
            self.waits.set()
            assert self.go_on.wait(PATIENCE_SECONDS)
        return super().read_response(*args, **kwargs)


def pieces(begin, end):
    return tuple(Piece(place, f"{place} ") for place in range(begin, end))


def write(client, job_id, kind, end, *, begin=None, run=0, n=1):
    data = b"{}" if begin is None else encode_pieces(pieces(begin, end))
    client.xadd(Keys("tether").stream(job_id), {"e": kind, "d": data}, id=f"{run * RUN_STEP + end}-{n}")


def follow(hub, job_id, offset=0):
    inbox = queue.SimpleQueue()
    hub.follow(job_id, offset, inbox.put)
    return inbox


def read_to_end(inbox):
    seen = []
    while not seen or not seen[-1].is_last:
        seen.append(inbox.get(timeout=PATIENCE_SECONDS))
    return seen


def tokens(seen):
    return tuple(piece for event in seen for piece in event.pieces)


def new_job():
    return uuid.uuid4().hex


def test_what_has_ended_comes_from_the_database_while_redis_says_nothing(shelf):
    """Each time, however long the client's own connections would wait for Redis."""
    with (
        RedisServer() as server,
        redis.Redis.from_url(server.url, socket_timeout=10_000) as client,
    ):
        hub = StreamHub(client, Keys("tether"), shelf)
        running = follow(hub, new_job())
        try:
            os.kill(server.pid, signal.SIGSTOP)
            for _ in range(2):
                job_id, inbox = new_job(), queue.SimpleQueue()
                shelf.jobs[job_id] = Ended(0, pieces(0, 3), StreamEvent(kind="finished", run=0, offset=3))
                hub.follow(job_id, 0, inbox.put, has_ended=True)
                assert tokens(read_to_end(inbox)) == pieces(0, 3)
            assert running.empty()
        finally:
            os.kill(server.pid, signal.SIGCONT)
            hub.close()


def test_redis_is_tried_again_however_many_ask_meanwhile_for_what_has_ended(client, hub, shelf):
    running_id, is_over = new_job(), threading.Event()

    def keep_coming():
        # A few in each pause, and the database takes long for what these want.
        while not is_over.wait(0.02):
            hub.follow(new_job(), 0, lambda _: None, has_ended=True)

    shelf.go_on.clear()
    running = follow(hub, running_id)
    write(client, running_id, "started", 0)
    assert running.get(timeout=PATIENCE_SECONDS).kind == "started"
    coming = threading.Thread(target=keep_coming)
    coming.start()
    try:
        assert shelf.asked.acquire(timeout=PATIENCE_SECONDS)
        client.client_kill_filter(_type="normal", skipme=True)
        write(client, running_id, "delta", 2, begin=0)
        assert tokens([running.get(timeout=PATIENCE_SECONDS)]) == pieces(0, 2)
    finally:
        is_over.set()
        shelf.go_on.set()
        join(coming)


def test_events_are_delivered_as_they_are_written(client, hub):
    job_id = new_job()
    inbox = follow(hub, job_id)
    write(client, job_id, "started", 0)
    assert inbox.get(timeout=PATIENCE_SECONDS).kind == "started"
    write(client, job_id, "delta", 2, begin=0)
    assert inbox.get(timeout=PATIENCE_SECONDS).pieces == pieces(0, 2)
    write(client, job_id, "finished", 2, n=2)
    assert inbox.get(timeout=PATIENCE_SECONDS).is_last


def test_readers_of_one_stream_begin_where_each_wants_to(client, hub):
    job_id = new_job()
    inboxes = [follow(hub, job_id, offset) for offset in range(5)]
    for end in range(1, 5):
        write(client, job_id, "delta", end, begin=end - 1)
    write(client, job_id, "finished", 4, n=2)
    for offset, inbox in enumerate(inboxes):
        assert tokens(read_to_end(inbox)) == pieces(offset, 4)


def test_many_streams_are_read_by_one_thread(client, hub):
    jobs = [new_job() for _ in range(100)]
    inboxes = [follow(hub, job_id) for job_id in jobs]
    for job_id in jobs:
        write(client, job_id, "delta", 3, begin=0)
        write(client, job_id, "finished", 3, n=2)
    assert all(tokens(read_to_end(inbox)) == pieces(0, 3) for inbox in inboxes)
    assert [thread.name for thread in threading.enumerate()].count("tether-streams") == 1


def test_a_stream_that_redis_lost_is_ended_by_the_database(client, hub, shelf):
    job_id = new_job()
    inbox = follow(hub, job_id)
    write(client, job_id, "delta", 2, begin=0)
    assert inbox.get(timeout=PATIENCE_SECONDS).offset == 2
    client.flushall()
    shelf.jobs[job_id] = Ended(0, pieces(0, 5), StreamEvent(kind="finished", offset=5))
    assert tokens(read_to_end(inbox)) == pieces(2, 5)


def test_a_stream_with_a_gap_is_ended_by_the_database_and_does_not_keep_redis_busy(client, hub, shelf):
    job_id = new_job()
    write(client, job_id, "delta", 5, begin=3)
    reads_before = reads(client)
    inbox = follow(hub, job_id)
    with pytest.raises(queue.Empty):
        inbox.get(timeout=1.5)
    assert reads(client) - reads_before < 20
    write(client, job_id, "finished", 5, n=2)
    shelf.jobs[job_id] = Ended(0, pieces(0, 5), StreamEvent(kind="finished", offset=5))
    assert tokens(read_to_end(inbox)) == pieces(0, 5)


def test_a_reader_beside_one_with_a_gap_is_not_held_up(client, hub):
    broken, whole = new_job(), new_job()
    write(client, broken, "delta", 5, begin=3)
    inboxes = [follow(hub, broken), follow(hub, whole)]
    write(client, whole, "delta", 2, begin=0)
    write(client, whole, "finished", 2, n=2)
    assert tokens(read_to_end(inboxes[1])) == pieces(0, 2)
    assert inboxes[0].empty()


def test_streams_go_on_through_a_restart_of_redis(redis_server, client, hub):
    job_id = new_job()
    inbox = follow(hub, job_id)
    write(client, job_id, "delta", 2, begin=0)
    assert inbox.get(timeout=PATIENCE_SECONDS).offset == 2
    redis_server.stop()
    redis_server.start()
    client.delete(Keys("tether").stream(job_id))
    write(client, job_id, "delta", 3, begin=1)
    write(client, job_id, "finished", 3, n=2)
    assert tokens(read_to_end(inbox)) == pieces(2, 3)


def test_a_reader_that_left_gets_nothing_more(client, hub):
    job_id = new_job()
    inbox = queue.SimpleQueue()
    hub.follow(job_id, 0, inbox.put).close()
    other = follow(hub, job_id)
    write(client, job_id, "finished", 0)
    read_to_end(other)
    assert inbox.empty()


@pytest.mark.parametrize("offset", [-1, 2**32])
def test_an_offset_that_no_stream_can_have_is_refused_and_stops_no_other(client, hub, offset):
    with pytest.raises(InvalidRequest):
        hub.follow(new_job(), offset, print)
    job_id = new_job()
    inbox = follow(hub, job_id)
    write(client, job_id, "finished", 0)
    assert read_to_end(inbox)


def test_streams_are_read_on_whatever_the_database_answers(client, hub, shelf):
    shelf.error = RuntimeError("a row that cannot be read")
    lost, other = new_job(), new_job()
    inboxes = [follow(hub, lost), follow(hub, other)]
    for _ in range(2):
        assert shelf.asked.acquire(timeout=PATIENCE_SECONDS)
    write(client, other, "finished", 0)
    assert read_to_end(inboxes[1])
    shelf.jobs[lost] = Ended(0, pieces(0, 2), StreamEvent(kind="finished", offset=2))
    shelf.error = None
    assert tokens(read_to_end(inboxes[0])) == pieces(0, 2)


def test_a_database_that_hangs_holds_up_no_stream(client, hub, shelf):
    shelf.go_on.clear()
    job_id = new_job()
    inbox = follow(hub, job_id)
    follow(hub, new_job())
    assert shelf.asked.acquire(timeout=PATIENCE_SECONDS)
    for end in range(1, 6):
        write(client, job_id, "delta", end, begin=end - 1)
        assert inbox.get(timeout=PATIENCE_SECONDS).pieces == pieces(end - 1, end)
    assert not shelf.go_on.is_set()
    shelf.go_on.set()


def test_who_still_follows_is_told_when_the_hub_is_closed(client, hub):
    ended, going_on = new_job(), new_job()
    write(client, ended, "finished", 0)
    inboxes = [follow(hub, ended), follow(hub, going_on)]
    read_to_end(inboxes[0])
    hub.close()
    assert isinstance(inboxes[1].get(timeout=PATIENCE_SECONDS), ClientClosed)
    assert inboxes[0].empty()
    with pytest.raises(ClientClosed):
        hub.follow(going_on, 0, print)
    hub.close()


def test_a_hub_that_is_closed_while_its_thread_begins_to_wait_ends(hub):
    hub.follow(new_job(), 0, print).close()
    take = hub._take_changes

    def take_and_close_meanwhile():
        take()
        hub.loop.ask_to_stop()

    hub._take_changes = take_and_close_meanwhile
    hub._ring()
    assert hub.loop.join(PATIENCE_SECONDS)


def test_a_redis_without_room_keeps_nobody_from_following_and_closing(client, hub):
    job_id = new_job()
    write(client, job_id, "delta", 2, begin=0)
    write(client, job_id, "finished", 2, n=2)
    client.config_set("maxmemory", 1)
    try:
        with pytest.raises(redis.exceptions.OutOfMemoryError):
            client.set("room", 1)
        assert tokens(read_to_end(follow(hub, job_id))) == pieces(0, 2)
        follow(hub, new_job())
        hub.close()
    finally:
        client.config_set("maxmemory", 0)


def test_news_of_one_stream_reads_no_other(client, hub, monkeypatch):
    quiet, busy = [new_job() for _ in range(50)], new_job()
    for job_id in quiet:
        follow(hub, job_id)
    inbox = follow(hub, busy)
    write(client, busy, "started", 0)
    assert inbox.get(timeout=PATIENCE_SECONDS).kind == "started"
    read, asked = hub._watch.read, []

    def note(cursors, most):
        asked.append(set(cursors))
        return read(cursors, most)

    monkeypatch.setattr(hub._watch, "read", note)
    write(client, busy, "delta", 2, begin=0)
    assert inbox.get(timeout=PATIENCE_SECONDS).offset == 2
    bell, stream = hub._bell, Keys("tether").stream(busy).encode()
    assert {stream, bell} in asked
    assert all(keys <= {stream, bell} for keys in asked)


class DeadConnection:
    """Stands in for one whose peer is gone without a word: nothing comes, and nothing is answered."""

    def can_read(self, timeout):
        return False

    def send_command(self, *command):
        pass

    def read_response(self, **_):
        raise redis.TimeoutError("nothing came")

    def disconnect(self):
        pass


def test_a_connection_that_died_without_a_word_is_noticed(client, hub):
    job_id = new_job()
    inbox = follow(hub, job_id)
    write(client, job_id, "delta", 1, begin=0)
    assert inbox.get(timeout=PATIENCE_SECONDS).offset == 1
    hub._watch._connection = DeadConnection()
    write(client, job_id, "delta", 2, begin=1)
    assert inbox.get(timeout=PATIENCE_SECONDS).pieces == pieces(1, 2)


def test_redis_emptied_under_readers_is_noticed(client, hub):
    """All watched streams have changed then, and what is written after that arrives."""
    inboxes = {job_id: follow(hub, job_id) for job_id in (new_job(), new_job())}
    for job_id, inbox in inboxes.items():
        write(client, job_id, "delta", 2, begin=0)
        assert inbox.get(timeout=PATIENCE_SECONDS).offset == 2
    client.flushall()
    for job_id, inbox in inboxes.items():
        write(client, job_id, "delta", 4, begin=2)
        assert inbox.get(timeout=PATIENCE_SECONDS).pieces == pieces(2, 4)


def test_a_child_of_the_process_is_told_to_make_its_own(hub):
    follow(hub, new_job())
    child = os.fork()
    if child == 0:
        try:
            hub.close()
            hub.follow(new_job(), 0, print)
        except ClientClosed as error:
            os._exit(7 if "in the child" in str(error) else 1)
        finally:
            os._exit(1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 7


def reads(client):
    return client.info("commandstats").get("cmdstat_xread", {}).get("calls", 0)


def test_what_had_ended_before_is_read_from_the_database_without_a_silence(client, shelf):
    hub = StreamHub(client, Keys("tether"), shelf, clock=lambda: 0.0)
    try:
        gone, kept = new_job(), new_job()
        for job_id in (gone, kept):
            shelf.jobs[job_id] = Ended(3, pieces(0, 5), StreamEvent(kind="finished", run=3, offset=5))
        write(client, kept, "delta", 5, begin=0, run=3)
        write(client, kept, "finished", 5, run=3, n=2)
        # By a clock that stands still no silence is ever long enough.
        for job_id in (gone, kept):
            inbox = queue.SimpleQueue()
            hub.follow(job_id, 2, inbox.put, run=3, has_ended=True)
            assert [(event.kind, event.run, event.pieces) for event in read_to_end(inbox)] == [
                ("delta", 3, pieces(2, 5)),
                ("finished", 3, ()),
            ]
    finally:
        hub.close()


def test_a_key_that_is_no_stream_keeps_no_other_reader_waiting_and_ends_by_the_database(client, hub, shelf):
    bad, good = new_job(), new_job()
    client.set(Keys("tether").stream(bad), "x")
    bad_inbox, inbox = follow(hub, bad), follow(hub, good)
    for end in range(1, 4):
        write(client, good, "delta", end, begin=end - 1)
        assert inbox.get(timeout=PATIENCE_SECONDS).pieces == pieces(end - 1, end)
    write(client, good, "finished", 3, n=2)
    assert inbox.get(timeout=PATIENCE_SECONDS).is_last
    last = StreamEvent(kind="finished", offset=2, details={"reason": "stop"})
    shelf.jobs[bad] = Ended(0, pieces(0, 2), last)
    assert tokens(read_to_end(bad_inbox)) == pieces(0, 2)


def test_tokens_behind_an_entry_that_cannot_be_read_are_delivered(client, hub):
    job_id = new_job()
    inbox = follow(hub, job_id)
    write(client, job_id, "delta", 1, begin=0)
    assert inbox.get(timeout=PATIENCE_SECONDS).pieces == pieces(0, 1)
    client.xadd(Keys("tether").stream(job_id), {"e": "delta", "d": "no json"}, id="1-7")
    write(client, job_id, "delta", 2, begin=1, n=8)
    write(client, job_id, "finished", 2, n=9)
    assert tokens(read_to_end(inbox)) == pieces(1, 2)


def test_who_begins_to_follow_while_the_hub_is_closed_is_told_that_it_was(redis_server, shelf):
    client = redis.Redis.from_pool(
        redis.ConnectionPool.from_url(redis_server.url, connection_class=SlowReplies)
    )
    hub, inbox, errors = StreamHub(client, Keys("tether"), shelf), queue.SimpleQueue(), []

    def begin():
        try:
            hub.follow(new_job(), 0, inbox.put)
        except Exception as error:
            errors.append(error)

    following = threading.Thread(target=begin, name="slow")
    following.start()
    assert SlowReplies.waits.wait(PATIENCE_SECONDS)
    hub.close()
    SlowReplies.go_on.set()
    join(following)
    assert errors == []
    assert isinstance(inbox.get(timeout=PATIENCE_SECONDS), ClientClosed)
    client.close()
