"""Lines: an answer is never taken for another command's."""

import threading

import pytest
import redis

from support.waiting import PATIENCE_SECONDS, eventually
from tether.broker.keys import Keys
from tether.broker.redis.raw_connections import RawConnections, encode_command


class Interrupt(BaseException):
    """What Dramatiq raises in a thread that runs for too long."""


@pytest.fixture
def lines(open_broker):
    return open_broker().lines


def test_many_threads_each_get_their_own_answers(lines):
    wrong = []

    def ask(thread):
        for number in range(200):
            queue = f"jobs-{thread}-{number % 3}"
            lines.run("enqueue", queue, f"{thread}-{number}", b"{}", f"producer-{thread}")
            answer = lines.run("take", queue, f"broker-{thread}", 10)
            if answer[0] != f"{thread}-{number}".encode():
                wrong.append((thread, number, answer))

    threads = [threading.Thread(target=ask, args=(thread,), name="asking") for thread in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []


@pytest.mark.parametrize("step", ["send", "read"])
def test_a_thread_that_is_interrupted_leaves_nothing_for_the_next_one(lines, monkeypatch, step):
    line = lines.borrow()
    lines.give_back(line)
    lines.run("enqueue", "jobs", "1", b"{}", "producer")
    assert lines.borrow() is line
    lines.give_back(line)

    sound = getattr(line, step)

    def interrupted(*arguments):
        monkeypatch.undo()
        if step == "send":
            sound(*arguments)
        raise Interrupt

    monkeypatch.setattr(line, step, interrupted)
    with pytest.raises(Interrupt):
        lines.run("qsize", "jobs", "broker")
    assert line.unread == 0
    assert lines.run("take", "jobs", "broker", 1)[0] == b"1"


def test_a_command_that_fails_leaves_the_line_in_order(lines):
    with pytest.raises(redis.ResponseError):
        lines.run("take", "jobs")
    assert lines.run("take", "jobs", "broker", 1) == []


def test_a_line_of_a_server_that_was_restarted_fails_once_and_works_again(open_broker, redis_server):
    lines: RawConnections = open_broker(url=redis_server.url).lines
    lines.run("enqueue", "jobs", "1", b"{}", "producer")
    redis_server.restart()
    with pytest.raises(redis.ConnectionError):
        lines.run("take", "jobs", "broker", 1)
    assert lines.run("take", "jobs", "broker", 1)[0] == b"1"


def test_a_connection_in_use_is_closed_once_it_is_returned(redis_server):
    with redis.Redis.from_url(redis_server.url, client_name="admin") as admin:

        def others():
            return [each for each in admin.client_list() if each["name"] != "admin"]

        with redis.Redis.from_url(redis_server.url) as client:
            lines = RawConnections.like(client, Keys("tether").heartbeats)
        line = lines.borrow()
        line.send(encode_command("PING"))
        lines.close()
        assert line.read() == b"PONG", "whoever uses it goes on"
        assert len(others()) == 1
        lines.give_back(line)
        eventually(lambda: others() == [], PATIENCE_SECONDS, "it is closed")
        assert lines.run("take", "jobs", "broker", 1) == []
        eventually(lambda: others() == [], PATIENCE_SECONDS, "one that came later is closed, too")


def test_an_outage_closes_what_is_idle_and_later_connections_are_kept(redis_server):
    with redis.Redis.from_url(redis_server.url) as client:
        lines = RawConnections.like(client, Keys("tether").heartbeats)
    try:
        lines.run("qsize", "jobs", "broker")
        redis_server.restart()
        with pytest.raises(redis.ConnectionError):
            lines.run("qsize", "jobs", "broker")
        lines.run("qsize", "jobs", "broker")
        line = lines.borrow()
        line.send(encode_command("CLIENT", "ID"))
        first = line.read()
        lines.give_back(line)
        line.send(encode_command("CLIENT", "ID"))
        assert line.read() == first
    finally:
        lines.close()


def test_commands_are_packed_as_redis_reads_them():
    assert (
        encode_command("SADD", b"\xff", 7, 0.5)
        == b"*4\r\n$4\r\nSADD\r\n$1\r\n\xff\r\n$1\r\n7\r\n$3\r\n0.5\r\n"
    )
    assert encode_command("ä") == "*1\r\n$2\r\nä\r\n".encode()
