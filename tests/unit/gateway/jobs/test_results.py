"""The document of a job with what it has made: written in pieces, and the same as in one."""

import json

import pytest

from tether.gateway.jobs.routes import _written
from tether.ids import JobId
from tether.jobs import JobState, Piece, Priority
from tether.statuses import JobStatus
from tether.streams.events import StreamEvent

STATUS = JobStatus(
    job_id=JobId("019ab0c1-7d5e-7aaa-8bbb-0123456789ab"),
    correlation_id="c",
    retry_token="t",
    state=JobState.SUCCEEDED,
    model="m",
    priority=Priority.STANDARD,
    labels={"größe": '"}'},
    pool=None,
    dispatch=1,
    attempts=0,
    created_at=1,
    finished_at=2,
    error=None,
    input_tokens=3,
    output_tokens=4,
    offset=4,
)


@pytest.mark.parametrize("texts", [["a", " b"], ['"}', "ü", "\\"], ["\ud800"], []])
@pytest.mark.parametrize("kind", ["finished", "failed"])
def test_a_result_is_what_the_job_made(texts, kind):
    pieces = tuple(Piece(number, text) for number, text in enumerate(texts))
    last = StreamEvent(kind=kind, run=0, offset=len(pieces), details={"reason": "stop"})
    document = json.loads(_written(STATUS, pieces, last).body)
    expected = {"text": "".join(texts), "token_ids": list(range(len(texts))), "finish_reason": "stop"}
    assert document["result"] == (expected if texts or kind == "finished" else None)
    assert document == {**json.loads(_written(STATUS, (), None).body), "result": document["result"]}
    assert document["labels"] == STATUS.labels
