"""Values as JSON and back by their own fields."""

import json
from dataclasses import dataclass, fields

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tether.client.documents import model_from_json, model_to_json, status_from_json, status_to_json
from tether.codec import value_from_json, value_to_json
from tether.gateway.jobs.documents import JobDocument, JobErrorBody, SubmittedDocument
from tether.jobs import JobError, JobState, Priority, Submitted
from tether.statuses import JobStatus, ModelInfo, status_of

ERROR = JobError("engine_failed", "out of memory", True, 5)
STATUS = JobStatus(
    job_id="j",
    correlation_id="c",
    retry_token="r",
    state=JobState.WAITING_RETRY,
    model="tiny",
    priority=Priority.BATCH,
    labels={"team": "search"},
    pool=None,
    dispatch=2,
    attempts=1,
    offset=7,
    created_at=1,
    finished_at=None,
    error=ERROR,
    input_tokens=0,
    output_tokens=7,
)


@given(st.sampled_from([JobError, JobStatus, ModelInfo, Submitted]).flatmap(st.from_type))
def test_a_value_is_the_same_after_a_way_through_json(value):
    assert value_from_json(type(value), json.loads(json.dumps(value_to_json(value)))) == value


def test_documents_are_read_as_they_are_written():
    assert status_from_json(json.loads(json.dumps(status_to_json(STATUS)))) == STATUS
    model = ModelInfo(name="tiny", version="1", context=64, adapters=("a",), workers=2)
    assert model_from_json(json.loads(json.dumps(model_to_json(model)))) == model


def test_what_a_newer_writer_adds_is_left_out():
    assert value_from_json(JobError, {**value_to_json(ERROR), "hint": "try later"}) == ERROR


@pytest.mark.parametrize(
    ("change", "field"),
    [({"state": "odd"}, "state"), ({"attempts": "1"}, "attempts"), ({"error": {"code": "x"}}, "error")],
)
def test_what_a_field_cannot_hold_is_refused_by_name(change, field):
    with pytest.raises(ValueError, match=field):
        status_from_json({**status_to_json(STATUS), **change})


def test_a_field_without_a_default_must_be_there():
    document = status_to_json(STATUS)
    del document["created_at"]
    with pytest.raises(ValueError, match="created_at"):
        status_from_json(document)


@pytest.mark.parametrize(
    ("value", "document"),
    [(JobStatus, JobDocument), (JobError, JobErrorBody), (Submitted, SubmittedDocument)],
)
def test_the_document_of_the_gateway_has_every_field_of_the_value(value, document):
    assert set(document.model_fields) - {"object"} == {field.name for field in fields(value)}


@dataclass
class Row:
    job_id: str
    attempts: int


def test_a_status_is_gathered_from_what_is_given_and_then_from_the_first_that_has_it():
    status = status_of(Row("mine", 3), STATUS, attempts=4)
    assert (status.job_id, status.attempts, status.model) == ("mine", 4, "tiny")
    with pytest.raises(AttributeError, match="correlation_id"):
        status_of(Row("mine", 3))
