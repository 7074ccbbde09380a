"""HTTP/1.1 as the client speaks it, however its bytes are cut."""

import pytest

from tether.client.http.wire import (
    MAX_HEAD_BYTES,
    MAX_LINE_BYTES,
    BadResponse,
    BodyReader,
    split_head,
    write_request,
)


def read(data, step=None):
    """Status and body of a response that comes in pieces, what came after it, and whether its connection can
    be used again."""
    pieces = [data[at : at + (step or len(data))] for at in range(0, len(data), step or len(data))]
    received, body, reader, head = b"", b"", None, None
    for piece in pieces:
        if reader is not None:
            body += reader.feed(piece)
            continue
        received += piece
        found = split_head(received)
        if found is not None:
            head, rest = found
            reader = BodyReader(head)
            body += reader.feed(rest) if rest else b""
    assert head is not None
    if not reader.is_complete:
        body += reader.feed(b"")
    return head.status, body, reader.rest, head.is_reusable


OK = b"HTTP/1.1 200 OK\r\n"
CHUNKED = OK + b"Transfer-Encoding: Chunked\r\n\r\n"
INTERIM = b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early\r\na: b\r\n\r\n"


@pytest.mark.parametrize("step", [None, 1, 2, 7])
@pytest.mark.parametrize(
    ("data", "body", "is_reusable"),
    [
        (OK + b"content-length: 5\r\n\r\nhello", b"hello", True),
        (OK + b"Content-Length: 5, 5\r\n\r\nhello", b"hello", True),
        (OK + b"content-length: 0\r\n\r\n", b"", True),
        (b"HTTP/1.1 204\r\n\r\n", b"", True),
        (OK + b"\r\nto the end", b"to the end", False),
        (OK + b"connection: x, Close\r\ncontent-length: 1\r\n\r\na", b"a", False),
        (b"HTTP/1.0 200 OK\r\ncontent-length: 1\r\n\r\na", b"a", False),
        (b"HTTP/1.0 200 OK\r\nconnection: keep-alive\r\ncontent-length: 1\r\n\r\na", b"a", True),
        (CHUNKED + b"3\r\nabc\r\n00A\r\n0123456789\r\n0\r\n\r\n", b"abc0123456789", True),
        (CHUNKED + b"1;x=y\r\na\r\n0\r\nlater: x\r\n\r\n", b"a", True),
        (INTERIM + OK + b"content-length: 1\r\n\r\na", b"a", True),
    ],
)
def test_a_response_is_read_however_it_is_cut(data, body, is_reusable, step):
    status, found, rest, can_be_used = read(data, step)
    assert status in (200, 204)
    assert (found, rest, can_be_used) == (body, b"", is_reusable)


@pytest.mark.parametrize("step", [None, 1])
def test_what_comes_after_a_response_is_no_part_of_it(step):
    assert read(OK + b"content-length: 2\r\n\r\nabHTTP", step)[1:3] == (b"ab", b"HTTP")
    assert read(OK + b"transfer-encoding: chunked\r\n\r\n1\r\na\r\n0\r\n\r\nHTTP", step)[1:3] == (
        b"a",
        b"HTTP",
    )


@pytest.mark.parametrize("step", [None, 1])
@pytest.mark.parametrize(
    "data",
    [
        b"SSH-2.0-other\r\n\r\n",
        b"H3",
        b"HTTP/2.0 200 OK\r\n\r\n",
        b"HTTP/1.1 2000 OK\r\n\r\n",
        b"HTTP/1.1 20 OK\r\n\r\n",
        b"HTTP/1.1 \xb2\xb2\xb2 OK\r\n\r\n",
        b"HTTP/1.1 101 Switching\r\n\r\n",
        b"HTTP/1.1 099 Odd\r\n\r\n",
        OK + b"no colon\r\n\r\n",
        OK + b" folded: x\r\n\r\n",
        OK + b"name : x\r\n\r\n",
        OK + b": x\r\n\r\n",
        OK + b"a: b\nc: d\r\n\r\n",
        OK + b"a: \0\r\n\r\n",
        OK + b"x" * (MAX_HEAD_BYTES + 1) + b"\r\n\r\n",
        OK + b"content-length: -1\r\n\r\n",
        OK + b"content-length: 1, 2\r\n\r\n",
        OK + b"content-length: " + b"9" * 5_000 + b"\r\n\r\n",
        OK + b"transfer-encoding: gzip, chunked\r\n\r\n",
        OK + b"transfer-encoding: chunked\r\n\r\n-1\r\n",
        OK + b"transfer-encoding: chunked\r\n\r\n0x1\r\n",
        OK + b"transfer-encoding: chunked\r\n\r\n\r\n",
        OK + b"transfer-encoding: chunked\r\n\r\n" + b"f" * 16 + b"\r\n",
        OK + b"transfer-encoding: chunked\r\n\r\n1\r\nabc\r\n",
        OK + b"transfer-encoding: chunked\r\n\r\n1;" + b"x" * (MAX_LINE_BYTES + 1),
    ],
)
def test_what_is_no_response_is_refused(data, step):
    if step and len(data) > 2_000:
        step = 1_000
    with pytest.raises(BadResponse):
        read(data, step)


def test_a_head_that_never_ends_is_refused():
    with pytest.raises(BadResponse, match="more than"):
        split_head(OK + b"a: b\r\n" * (MAX_HEAD_BYTES // 6 + 1))


def test_interim_responses_that_never_end_are_refused():
    with pytest.raises(BadResponse, match="more than"):
        split_head(b"HTTP/1.1 102 Processing\r\n\r\n" * (MAX_HEAD_BYTES // 27 + 1) + b"HTTP/1.1 200")


@pytest.mark.parametrize("data", [OK + b"content-length: 2\r\n\r\na", CHUNKED + b"2\r\na", CHUNKED])
def test_a_connection_that_ends_amid_a_body_is_told(data):
    with pytest.raises(EOFError):
        read(data)


def test_headers_have_lower_case_names_and_values_of_the_same_name_are_joined():
    head, _ = split_head(OK + b"A: 1\r\na:2\r\nContent-Type: Text/HTML; charset=x\r\n\r\n")
    assert head.headers == {"a": "1, 2", "content-type": "Text/HTML; charset=x"}
    assert head.content_type == "text/html"


def test_a_request_is_written_as_it_is():
    written = write_request("POST", "/v1?a=b", [("host", "h:1"), ("x", "y")], b"body")
    assert written == b"POST /v1?a=b HTTP/1.1\r\nhost: h:1\r\nx: y\r\ncontent-length: 4\r\n\r\n"
