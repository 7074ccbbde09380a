"""HTTP/1.1 in portions: no connection keeps the others waiting, however it cuts its body up."""

import h11
import pytest

from tether.gateway.server.protocol import CHUNK_BYTES, MAX_SMALL_CHUNKS, PORTION, PacedConnection

HEAD = b"POST / HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\n"


def chunks(count, size=1):
    return (b"%x\r\n%b\r\n" % (size, b"x" * size)) * count


def opened(data):
    connection = PacedConnection(65_536)
    connection.receive_data(HEAD + data)
    assert isinstance(connection.next_event(), h11.Request)
    return connection


def portion(connection):
    """The events of the next portion."""
    connection.begin_portion()
    events = []
    while not isinstance(events[-1] if events else None, type):
        events.append(connection.next_event())
        if isinstance(events[-1], h11.EndOfMessage):
            return events
    return events[:-1]


def rest(connection):
    """All events that are there, portion by portion."""
    events = []
    while more := portion(connection):
        events += more
        if isinstance(more[-1], h11.EndOfMessage):
            break
    return events


def test_a_body_in_many_chunks_comes_in_portions_and_whole():
    connection = opened(chunks(150) + b"0\r\n\r\n")
    first, second, third = (portion(connection) for _ in range(3))
    assert [len(first), len(second), len(third)] == [PORTION, PORTION, 150 - 2 * PORTION + 1]
    assert isinstance(third[-1], h11.EndOfMessage)
    assert not connection.is_exhausted


def test_it_says_whether_there_may_be_more():
    connection = opened(chunks(PORTION + 1))
    portion(connection)
    assert connection.is_exhausted
    assert len(portion(connection)) == 1
    assert not connection.is_exhausted


def test_too_many_small_chunks_are_refused_and_as_many_large_ones_are_not():
    connection = opened(chunks(MAX_SMALL_CHUNKS + 2))
    with pytest.raises(h11.RemoteProtocolError, match="too many chunks"):
        rest(connection)
    connection = opened(chunks(2 * MAX_SMALL_CHUNKS, CHUNK_BYTES) + b"0\r\n\r\n")
    *pieces, end = rest(connection)
    assert isinstance(end, h11.EndOfMessage)
    assert sum(len(event.data) for event in pieces) == 2 * MAX_SMALL_CHUNKS * CHUNK_BYTES


def test_each_request_of_a_connection_has_its_own_chunks():
    connection = PacedConnection(65_536)
    for _ in range(3):
        connection.receive_data(HEAD + chunks(MAX_SMALL_CHUNKS) + b"0\r\n\r\n")
        assert isinstance(connection.next_event(), h11.Request)
        while not isinstance(portion(connection)[-1], h11.EndOfMessage):
            pass
        connection.send(h11.Response(status_code=200, headers=[("content-length", "0")]))
        connection.send(h11.EndOfMessage())
        connection.start_next_cycle()
        connection.begin_portion()
