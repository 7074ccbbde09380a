"""A job's events as an answer in the form of OpenAI's."""

import json
import re

import pytest

from tether.errors import StreamDiverged
from tether.gateway.openai.chunks import ChatChunkEncoder, GatheredChat, error_frame
from tether.gateway.openai.documents import ChatHead, end_error
from tether.gateway.sse.encoding import MAX_TOKENS_PER_FRAME
from tether.jobs import JobError, Piece, new_job_id
from tether.models.registry import ModelVersion
from tether.streams.events import StreamEvent

NOW = 1_800_000_000_123
MODEL = ModelVersion(name="demo", version="1", digest="0" * 64, context=100)
HEAD = ChatHead(new_job_id(NOW, bytes(10)), MODEL)
FINISHED = StreamEvent(kind="finished", offset=2, details={"reason": "length", "input_tokens": 5})


def delta(*texts, offset):
    return StreamEvent(kind="delta", offset=offset, pieces=tuple(Piece(1, text) for text in texts))


def begun(frames):
    frames.begin(HEAD)
    return frames


def sent(frames, *events):
    """The data of all frames."""
    assert all(frames.unfit(event) is None for event in events)
    text = b"".join(frame for event in events for frame in frames.of_event(event)).decode()
    blocks = [block.removeprefix("data: ") for block in text.split("\n\n")[:-1]]
    return [block if block == "[DONE]" else json.loads(block) for block in blocks]


def test_an_answer_in_chunks_has_a_role_texts_a_reason_and_an_end():
    frames = begun(ChatChunkEncoder(wants_usage=False))
    started = StreamEvent(kind="started")
    chunks = sent(frames, started, delta("a", "b", offset=2), FINISHED)
    assert chunks.pop() == "[DONE]"
    assert [chunk["choices"][0]["delta"] for chunk in chunks] == [
        {"role": "assistant", "content": ""},
        {"content": "ab"},
        {},
    ]
    assert [chunk["choices"][0]["finish_reason"] for chunk in chunks] == [None, None, "length"]
    assert all(chunk["id"] == f"chatcmpl-{HEAD.job_id}" for chunk in chunks)
    assert all(chunk["created"] == NOW // 1000 and "usage" not in chunk for chunk in chunks)
    assert frames.has_ended


def test_who_asks_for_the_usage_gets_it_as_the_last_chunk():
    *chunks, last, done = sent(begun(ChatChunkEncoder(wants_usage=True)), delta("a", "b", offset=2), FINISHED)
    assert all(chunk["usage"] is None for chunk in chunks)
    assert last["choices"] == []
    assert last["usage"] == {"prompt_tokens": 5, "completion_tokens": 2, "total_tokens": 7}
    assert done == "[DONE]"


def test_an_answer_without_tokens_is_one_all_the_same():
    chunks = sent(begun(ChatChunkEncoder(wants_usage=False)), FINISHED)
    assert chunks[0]["choices"][0]["delta"] == {"role": "assistant", "content": ""}
    assert chunks[1]["choices"][0]["finish_reason"] == "length"


def test_another_worker_goes_on_without_a_word():
    frames = begun(ChatChunkEncoder(wants_usage=False))
    events = [
        delta("a", offset=1),
        StreamEvent(kind="rerouted", offset=1),
        StreamEvent(kind="started", offset=1),
    ]
    assert len(sent(frames, *events)) == 2


def test_a_restart_before_any_text_is_not_seen_and_one_after_it_ends_the_answer():
    frames = begun(ChatChunkEncoder(wants_usage=False))
    restarted = StreamEvent(kind="restarted", run=1, offset=0)
    assert sent(frames, restarted) == []
    sent(frames, delta("a", offset=1))
    refusal = frames.unfit(restarted)
    assert isinstance(refusal, StreamDiverged)
    assert frames.of_error(refusal) == b""
    assert (frames.has_ended, frames.failed) == (False, None)
    assert "begin anew" in str(frames.interruption)
    assert "Idempotency-Key" in str(frames.interruption)
    told = json.loads(error_frame(frames.interruption).decode().removeprefix("data: "))
    assert told["error"]["code"] == "stream_diverged"


def test_a_long_beginning_is_sent_in_several_chunks():
    count = 2 * MAX_TOKENS_PER_FRAME + 1
    chunks = sent(begun(ChatChunkEncoder(wants_usage=False)), delta(*"x" * count, offset=count))
    assert [len(chunk["choices"][0]["delta"]["content"]) for chunk in chunks] == [0, 512, 512, 1]


def test_gathered_events_are_one_document_and_restarts_are_heeded():
    gathered = begun(GatheredChat())
    restarted = StreamEvent(kind="restarted", run=1, offset=1)
    assert sent(gathered, delta("a", "x", offset=2), restarted, delta("b", offset=2), FINISHED) == []
    document = gathered.document()
    assert document["choices"][0]["message"] == {"role": "assistant", "content": "ab", "refusal": None}
    assert document["usage"]["completion_tokens"] == 2


BROKE = JobError("engine_failed", "it broke", retryable=True)
TOO_LONG = JobError("request_invalid", "too long")


@pytest.mark.parametrize(
    ("state", "error", "status", "code", "words"),
    [
        ("cancelled", BROKE, 409, "job_cancelled", "was cancelled"),
        ("expired", None, 504, "job_expired", "deadline"),
        ("succeeded", JobError("output_lost", "x"), 500, "output_lost", "its output is lost"),
        ("dead", BROKE, 500, "job_failed", r"permanently \(engine_failed\): it broke"),
        ("dead", TOO_LONG, 422, "request_invalid", "^too long$"),
        ("dead", JobError("quota_exceeded", "x"), 500, "job_failed", "quota_exceeded"),
        ("dead", JobError("nonsense", "x"), 500, "job_failed", "nonsense"),
        ("dead", None, 500, "job_failed", r"permanently \(unknown\)"),
    ],
)
def test_a_job_that_has_no_answer_says_why_and_is_not_to_be_tried_again(state, error, status, code, words):
    last = StreamEvent(kind="failed", offset=1, details={"state": state})
    found = end_error(HEAD.job_id, last, error)
    assert (found.http_status, found.code, found.retryable) == (status, code, False)
    assert re.search(words, str(found))


def test_of_a_job_that_failed_nothing_is_sent_by_itself():
    last = StreamEvent(kind="failed", offset=1, details={"state": "dead"})
    for frames in (begun(ChatChunkEncoder(wants_usage=False)), begun(GatheredChat())):
        assert sent(frames, last) == []
        assert (frames.has_ended, frames.failed) == (True, last)
