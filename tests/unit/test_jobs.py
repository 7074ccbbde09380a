import json
import uuid
from dataclasses import FrozenInstanceError, fields, replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tether.jobs import (
    FINAL_STATES,
    NEXT,
    OWNER,
    JobRequest,
    JobState,
    Message,
    Owner,
    Priority,
    Sampling,
    canonical_json,
    new_job_id,
)
from tether.outcomes import Fence
from tether.requests.payload import payload_of, read_payload

BEGINNINGS = {JobState.ACCEPTED, JobState.PARKED}


def reachable(states):
    found, todo = set(states), list(states)
    while todo:
        for state in NEXT[todo.pop()] - found:
            found.add(state)
            todo.append(state)
    return found


def test_every_state_can_be_reached():
    assert reachable({JobState.ACCEPTED}) == set(JobState)


def test_the_table_names_every_state_and_nothing_else():
    assert set(NEXT) == set(OWNER) == set(JobState)
    assert set().union(*NEXT.values()) <= set(JobState)


def test_final_states_have_no_successors_and_others_have():
    assert {state for state in JobState if not NEXT[state]} == FINAL_STATES
    assert {state for state in JobState if state.is_final} == FINAL_STATES
    assert {"succeeded", "dead", "cancelled", "expired"} == FINAL_STATES


@pytest.mark.parametrize("state", sorted(set(JobState) - FINAL_STATES))
def test_from_every_open_state_each_kind_of_end_can_be_reached(state):
    assert reachable({state}) >= FINAL_STATES


@pytest.mark.parametrize("state", sorted(set(JobState) - FINAL_STATES))
def test_every_open_job_can_be_cancelled_and_can_expire_at_once(state):
    assert NEXT[state] >= {JobState.CANCELLED, JobState.EXPIRED}


def test_only_a_running_job_can_succeed():
    assert {state for state in JobState if JobState.SUCCEEDED in NEXT[state]} == {JobState.RUNNING}


def test_only_a_placed_job_can_run():
    assert {state for state in JobState if JobState.RUNNING in NEXT[state]} == {JobState.PLACED}


def test_redis_owns_a_job_from_its_placement_to_the_end_of_its_attempt():
    assert {state for state in JobState if OWNER[state] is Owner.REDIS} == {JobState.PLACED, JobState.RUNNING}


def test_the_tables_cannot_be_changed():
    with pytest.raises(TypeError):
        NEXT[JobState.DEAD] = frozenset({JobState.RUNNING})
    with pytest.raises(TypeError):
        OWNER[JobState.DEAD] = Owner.REDIS


def test_fences_are_ordered_by_dispatch_then_attempt():
    first, second, third = Fence(1, 1, "z:9"), Fence(1, 2, "a:1"), Fence(2, 1, "a:1")
    assert sorted([third, first, second]) == [first, second, third]


def test_values_are_frozen():
    request = JobRequest(model="m", prompt="p")
    with pytest.raises(FrozenInstanceError):
        request.model = "other"


@given(st.integers(0, 2**48 - 1), st.binary(min_size=10, max_size=12))
def test_a_job_id_is_a_uuid_of_version_7_that_tells_its_time(now_ms, randomness):
    number = uuid.UUID(new_job_id(now_ms, randomness))
    assert (number.version, number.variant) == (7, uuid.RFC_4122)
    assert number.int >> 80 == now_ms
    assert str(number) == new_job_id(now_ms, randomness)


@given(st.integers(0, 2**48 - 2), st.binary(min_size=10, max_size=10), st.binary(min_size=10, max_size=10))
def test_later_job_ids_are_greater(now_ms, one, other):
    assert new_job_id(now_ms, one) < new_job_id(now_ms + 1, other)


SAMPLINGS = st.builds(
    Sampling,
    max_tokens=st.integers(1, 10**6),
    temperature=st.floats(0, 100),
    top_p=st.floats(0.001, 1),
    top_k=st.integers(0, 100),
    seed=st.integers(0, 2**63 - 1),
    stop=st.lists(st.text(min_size=1), max_size=3).map(tuple),
)


@given(SAMPLINGS)
def test_sampling_survives_the_way_to_the_worker(sampling):
    request = JobRequest(model="m", prompt="p", sampling=sampling)
    assert read_payload(json.loads(json.dumps(payload_of(request)))).sampling == sampling


def test_the_order_of_labels_does_not_change_a_digest():
    one = JobRequest(model="m", prompt="p", labels={"a": "1", "b": "2"})
    assert one.digest() == replace(one, labels={"b": "2", "a": "1"}).digest()


OTHERS = {
    "model": "other",
    "prompt": "other",
    "messages": (Message("user", "p"),),
    "sampling": Sampling(seed=1),
    "priority": Priority.BATCH,
    "adapter": "other",
    "labels": {"a": "b"},
    "not_before": 1,
    "deadline": 1,
    "delay_ms": 1,
    "time_limit_ms": 1,
    "expires_in_ms": 1,
    "expires_at": 1,
    "chat_template_kwargs": {"enable_thinking": False},
    "max_attempts": 2,
    "retry_base_ms": 1,
    "retry_on": ("engine_error",),
    "region": "eu",
    "gpu_class": "h100",
    "min_vram": 1,
    "any_version": True,
    "prefer": ("region",),
}
KEYS = {"correlation_id": "c", "retry_token": "r", "traceparent": "t"}


@pytest.mark.parametrize("name", OTHERS)
def test_what_is_asked_for_changes_the_digest(name):
    request = JobRequest(model="m", prompt="p")
    assert replace(request, **{name: OTHERS[name]}).digest() != request.digest()


def test_a_delay_and_a_limit_are_the_same_whenever_they_are_asked_for():
    one = JobRequest(model="m", prompt="p", delay_ms=5, not_before=105, time_limit_ms=9, deadline=109)
    assert replace(one, not_before=205, deadline=209).digest() == one.digest()
    assert replace(one, delay_ms=6).digest() != one.digest()
    assert replace(one, time_limit_ms=8).digest() != one.digest()
    expiring = replace(one, expires_in_ms=7, expires_at=107)
    assert replace(expiring, expires_at=207).digest() == expiring.digest()
    assert replace(expiring, expires_in_ms=8).digest() != expiring.digest()


@pytest.mark.parametrize("name", KEYS)
def test_the_keys_it_is_known_by_do_not_change_the_digest(name):
    request = JobRequest(model="m", prompt="p")
    assert replace(request, **{name: KEYS[name]}).digest() == request.digest()


def test_each_field_of_a_request_is_a_key_or_counts_for_the_digest():
    compared = {field.name for field in fields(JobRequest) if field.compare}
    assert compared == OTHERS.keys() | KEYS.keys()


def test_who_said_a_message_and_in_which_order_counts_for_the_digest():
    said = (Message("system", "a"), Message("user", "b"))
    asked = [
        JobRequest(model="m", messages=messages).digest()
        for messages in (said, said[::-1], said[1:], (Message("user", "a"), said[1]))
    ]
    assert len(set(asked)) == len(asked)


KNOWN_DIGESTS = {
    "0caa9153d94849c1bf0ba723b5917f9c2eb3fef698ddfecdf4c5248c6de6c32b": JobRequest(model="m", prompt="p"),
    "d70077cfa566671bd22cb85b6580044f87d8a59250f459ba1a025e18f22a012e": JobRequest(
        model="m", messages=(Message("system", "a"), Message("user", "ü"))
    ),
    "d72fdcf225cadafa6b94b9e0541203016c199877f5d3efc2220b54dfb4525807": JobRequest(
        model="m@2",
        prompt="p",
        sampling=Sampling(max_tokens=3, temperature=1, top_p=0.5, top_k=4, seed=2**63 - 1, stop=("a", "b")),
        priority=Priority.BATCH,
        adapter="x",
        labels={"b": "1", "a": "ü"},
        not_before=5,
        deadline=9,
        correlation_id="c",
        retry_token="r",
        traceparent="t",
    ),
    "47fb03d24a7a440bcf92f0dcc8c4a40630c347245ba24cb335e9c4e32b0db54a": JobRequest(
        model="m", prompt="p", delay_ms=5, not_before=105, time_limit_ms=9, deadline=109
    ),
}


@pytest.mark.parametrize("known", KNOWN_DIGESTS)
def test_digests_of_jobs_that_are_stored_never_change(known):
    assert KNOWN_DIGESTS[known].digest() == known


def test_all_that_a_model_has_to_read_is_counted():
    assert JobRequest(model="m", prompt="abc").characters == 3
    assert JobRequest(model="m", messages=(Message("system", "ab"), Message("user", "c"))).characters == 3


def test_canonical_json_is_one_line_of_utf_8_with_sorted_keys():
    assert canonical_json({"b": "é", "a": [1, None]}) == '{"a":[1,null],"b":"é"}'.encode()
