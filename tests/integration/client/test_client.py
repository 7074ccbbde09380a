"""The enqueue API, the same for every kind of client: direct and fake, plain and for event loops."""

import queue
from datetime import UTC, datetime, timedelta
from uuid import uuid4

import pytest
from dramatiq import Worker, actor, group, pipeline
from dramatiq import broker as broker_module
from dramatiq.results import ResultFailure, ResultMissing, Results
from dramatiq.results import ResultTimeout as DramatiqTimeout
from dramatiq.results.backends import StubBackend

from support.clients import MAX_ATTEMPTS, MODELS, OTHER_TENANT, TOKENS, Direct, opened_clients
from support.waiting import PATIENCE_SECONDS
from support.wide_request import WIDE_TABLE
from tether import JobRequest, JobState, Sampling, Tether
from tether.errors import (
    InvalidRequest,
    JobCancelled,
    JobExpired,
    JobFailed,
    JobNotFound,
    KeyConflict,
    ResultTimeout,
    UnknownModel,
)
from tether.explanations import PlacementOrigin
from tether.jobs import Message, new_job_id
from tether.requests import fields

DAY_MS = 86_400_000
PATIENCE_MS = PATIENCE_SECONDS * 1000
ABSENT = new_job_id(1, bytes(10))

BAD_INPUT = {
    "no model": {"model": ""},
    "no prompt": {"prompt": ""},
    "a prompt that is no text": {"prompt": 5},
    "a prompt and messages": {"messages": [{"role": "user", "content": "x"}]},
    "no messages": {"prompt": "", "messages": []},
    "a role that nobody has": {"prompt": "", "messages": [{"role": "tool", "content": "x"}]},
    "half a surrogate pair": {"prompt": "a\ud800"},
    "a prompt too long": {"prompt": "é" * 3_000_000},
    "an unknown argument": {"temprature": 1},
    "no tokens": {"max_tokens": 0},
    "more tokens than the context": {"max_tokens": 100_000},
    "tokens that are no number": {"max_tokens": "8"},
    "a truth value for a number": {"max_tokens": True},
    "not a number": {"temperature": float("nan")},
    "no probability mass": {"top_p": 0},
    "an unknown priority": {"priority": "urgent"},
    "a priority that is no text": {"priority": ["batch"]},
    "an empty stop text": {"stop": [""]},
    "labels that are no table": {"labels": "team"},
    "a label that is no text": {"labels": {"team": 5}},
    "a key that cannot be printed": {"correlation_id": "a\nb"},
    "a key that is too long": {"retry_token": "x" * 201},
    "an unknown adapter": {"adapter": "pirate"},
    "delay and eta": {"delay": 1, "eta": datetime.now(UTC)},
    "an eta without a time zone": {"eta": datetime(2030, 1, 1)},
    "an eta that is no time": {"eta": "tomorrow"},
    "a delay before now": {"delay": -1},
    "a delay that is no number": {"delay": "soon"},
    "a time limit that is no number": {"time_limit": float("nan")},
    "no time": {"time_limit": 0},
    "a time limit before the delay": {"delay": 10, "time_limit": 5},
    "no time to begin in": {"expires_in": 0},
    "a time to begin in before the delay": {"delay": 10, "expires_in": 5},
    "a time to begin in that is no number": {"expires_in": "soon"},
    "a region that nobody can be in": {"region": "EU"},
    "a size that is none": {"min_vram": "much"},
    "a need that is preferred and not given": {"prefer": "region"},
    "a need that there is not": {"region": "eu", "prefer": "version"},
    "a word for a truth value": {"any_version": "yes"},
}


@pytest.fixture(scope="module")
def direct():
    service = Direct()
    yield service
    service.close()


@pytest.fixture(params=["direct", "direct on a loop", "http", "http on a loop", "fake", "fake on a loop"])
def open_client(request):
    """Opens clients on one service, by tenant."""
    with opened_clients(request) as opened:
        yield opened


def fresh_keys():
    return {"correlation_id": uuid4().hex, "retry_token": "1"}


def kinds(events):
    return [event.kind for event in events]


def texts(events):
    return [piece.text for event in events for piece in event.pieces]


class TestClient:
    def test_a_job_answers_its_text(self, client):
        job = client.submit(prompt="one two three")
        result = job.result()
        assert len(result.token_ids) == TOKENS
        assert (result.job_id, result.input_tokens, result.finish_reason) == (job.job_id, 3, "stop")
        assert len(result.text.split()) == TOKENS

    def test_equal_prompts_have_equal_answers_and_others_others(self, client):
        answers = [client.submit(prompt=prompt).result().text for prompt in ("one", "one", "two")]
        assert answers[0] == answers[1] != answers[2]

    def test_messages_are_answered_like_a_prompt(self, client):
        said = [{"role": "system", "content": "one two"}, {"role": "user", "content": "one two three"}]
        job = client.submit(prompt="", messages=said)
        result = job.result()
        assert (result.finish_reason, len(result.token_ids), result.input_tokens) == ("stop", TOKENS, 5)
        messages = tuple(Message(one["role"], one["content"]) for one in said)
        (again,) = client.submit_many([JobRequest(model="counter", messages=messages)])
        assert again.result().text == result.text

    def test_a_job_says_where_and_on_what_it_runs(self, client):
        asked = {"region": "local", "gpu_class": "cpu", "any_version": True}
        assert client.submit(**asked).result().finish_reason == "stop"
        job = client.submit(**asked, min_vram="40GB", prefer="min_vram")
        assert job.result().finish_reason == "stop"
        assert job.status().pool.startswith("gpu.cpu.local.")
        if not client.is_fake:
            job = client.submit(region="mars", min_vram=1)
            assert job.status().state is JobState.PARKED
            assert job.status().waits_for.endswith("is in region local, not mars")
            assert job.cancel() is JobState.CANCELLED

    def test_max_tokens_ends_the_answer(self, client):
        result = client.submit(max_tokens=5).result()
        assert (len(result.token_ids), result.finish_reason) == (5, "length")

    def test_a_stop_text_ends_the_answer_and_is_not_part_of_it(self, client):
        whole = client.submit().result().text
        word = whole.split()[3]
        result = client.submit(stop=word).result()
        assert word not in result.text
        assert whole.startswith(result.text)
        assert result.finish_reason == "stop"

    def test_the_stream_is_the_text_in_pieces(self, client):
        job = client.submit()
        assert "".join(job.stream()) == job.result().text

    def test_events_begin_with_started_and_end_with_finished(self, client):
        events = client.submit(prompt="one two").events()
        assert kinds(events)[0] == "started"
        assert set(kinds(events)[1:-1]) == {"delta"}
        assert kinds(events)[-1] == "finished"
        assert dict(events[0].details) == {"attempt": 1, "dispatch": 1}
        assert dict(events[-1].details) == {"reason": "stop", "input_tokens": 2}
        offset = 0
        for event in events[1:-1]:
            offset += len(event.pieces)
            assert event.offset == offset
        assert (offset, events[-1].offset) == (TOKENS, TOKENS)

    @pytest.mark.parametrize("offset", range(TOKENS + 2))
    def test_a_stream_is_resumed_from_any_offset(self, client, offset):
        job = client.submit()
        whole = job.events()
        rest = job.events(offset=offset)
        assert texts(rest) == texts(whole)[offset:]
        assert kinds(rest)[-1] == "finished"
        assert ("started" in kinds(rest)) == (offset == 0)

    def test_a_stream_is_resumed_while_the_job_runs(self, client):
        job = client.submit("slow", max_tokens=30)
        job.wait_until_running()
        first = job.open_events()
        seen = [next(first) for _ in range(3)]
        first.close()
        offset = seen[-1].offset
        assert offset > 0
        rest = job.events(offset=offset)
        assert texts(seen) + texts(rest) == texts(job.events())

    def test_two_readers_see_the_same(self, client):
        job = client.submit("slow", max_tokens=20)
        again = client.job(job.job_id)
        readers = [job.open_events(), again.open_events()]
        job.wait_until_running()
        seen = [[next(reader), next(reader)] for reader in readers]
        client.service.work()
        whole = [[*begin, *reader] for begin, reader in zip(seen, readers, strict=True)]
        assert texts(whole[0]) == texts(whole[1]) == texts(job.events())
        assert len(texts(whole[0])) == 20

    def test_the_status_follows_the_job_to_its_end(self, client):
        # So long that it still runs when a busy machine looks.
        job = client.submit("slow", max_tokens=1_000)
        job.wait_until_running()
        running = job.status()
        assert (running.state, running.finished_at, running.dispatch) == (JobState.RUNNING, None, 1)
        job.cancel()
        with pytest.raises(JobCancelled):
            job.result()
        assert job.status().state is JobState.CANCELLED

        job = client.submit("slow", max_tokens=20)
        job.result()
        done = job.status()
        assert (done.state, done.offset, done.output_tokens) == (JobState.SUCCEEDED, 20, 20)
        assert (done.job_id, done.model, done.error, done.attempts) == (job.job_id, "slow", None, 1)

    def test_every_attempt_is_told_also_the_one_that_runs(self, client):
        running = client.submit("slow", max_tokens=1_000)
        running.wait_until_running()
        history = running.history()
        (attempt,) = history.attempts
        assert (history.state, history.dispatch) == (JobState.RUNNING, 1)
        assert (attempt.cause, attempt.ended_at, attempt.start_offset) == ("running", None, 0)
        assert attempt.pool == history.pool == running.status().pool
        running.cancel(), running.events()
        (ended,) = running.history().attempts
        assert (ended.worker, ended.cause, ended.went) == (attempt.worker, "cancelled", "end")
        assert ended.started_at == attempt.started_at <= ended.ended_at

        broken = client.submit("broken", max_tokens=20)
        broken.events()
        history = broken.history()
        told = [(each.cause, each.start_offset, each.offset) for each in history.attempts]
        assert told == [("failed", 0, 2), ("failed", 2, 4), ("failed", 4, 6)]
        assert [each.outcome for each in history.attempts] == ["failed"] * 3
        assert {each.error.code for each in history.attempts} == {"engine_failed"}
        assert (history.state, history.dropped, history.due_at) == (JobState.DEAD, 0, None)

    def test_why_a_job_is_where_it_is_is_told_before_and_after(self, client):
        told = client.explain()
        assert told.pool in {each.pool for each in told.pools}
        assert told.pool in told.why
        # The first job's hand-over may have been repeated: Redis was empty before.
        client.submit().result()
        job = client.submit()
        job.result()
        (one,) = job.placements().placements
        assert (one.dispatch, one.origin, one.pool) == (1, PlacementOrigin.CHOSEN, told.pool)
        assert one.explanation.worth == told.worth
        assert one.begun_at >= one.decided_at
        assert one.waited_seconds == (one.begun_at - one.decided_at) / 1000
        assert one.wait_seconds >= 0
        with pytest.raises(UnknownModel):
            client.explain("nothere")
        with pytest.raises(InvalidRequest):
            client.explain(max_tokens=0)
        with pytest.raises(JobNotFound):
            client.job(ABSENT).placements()

    def test_jobs_are_listed_newest_first_and_by_what_is_true_of_them(self, client):
        mark = uuid4().hex
        begun = datetime.now(UTC) - timedelta(seconds=1)
        jobs = [
            client.submit(labels={"mark": mark, "n": str(n)}, delay=3_600 if n == 1 else None)
            for n in range(3)
        ]
        jobs[0].result(), jobs[2].result()
        ids = [job.job_id for job in jobs]

        def found(**filters):
            return [status.job_id for status in client.jobs(labels={"mark": mark}, **filters)]

        assert found() == ids[::-1]
        assert found(state="parked") == [ids[1]]
        assert found(state=["succeeded", "dead"]) == [ids[2], ids[0]]
        assert found(model="slow") == []
        assert found(created_after=begun) == ids[::-1]
        assert found(created_before=begun) == []
        assert [status.labels["n"] for status in client.jobs(labels={"mark": mark, "n": "2"})] == ["2"]
        assert (jobs[1].cancel(), found(state="cancelled")) == (JobState.CANCELLED, [ids[1]])

    def test_running_jobs_are_found_by_their_state(self, client):
        mark = uuid4().hex
        job = client.submit("slow", labels={"mark": mark})
        job.wait_until_running()
        waiting = client.submit(labels={"mark": mark}, delay=3_600)
        found = {s: [one.job_id for one in client.jobs(state=s, labels={"mark": mark})] for s in JobState}
        assert (found["running"], found["placed"], found["parked"]) == ([job.job_id], [], [waiting.job_id])
        job.cancel(), waiting.cancel()

    def test_more_jobs_than_a_page_are_all_listed(self, client, monkeypatch):
        monkeypatch.setattr("tether.client.api.PAGE", 3)
        mark = uuid4().hex
        requests = [JobRequest(model="counter", prompt="x", labels={"mark": mark}) for _ in range(8)]
        ids = [job.job_id for job in client.submit_many(requests)]
        assert [status.job_id for status in client.jobs(labels={"mark": mark})] == sorted(ids, reverse=True)

    @pytest.mark.parametrize(
        "filters",
        [
            {"state": "runing"},
            {"state": 5},
            {"labels": "team"},
            {"model": 5},
            {"created_after": "yesterday"},
            {"created_before": datetime(2030, 1, 1)},
        ],
    )
    def test_a_list_of_what_cannot_be_is_refused(self, client, filters):
        with pytest.raises(InvalidRequest):
            client.jobs(**filters)

    def test_models_are_listed_as_they_are_configured(self, client):
        assert [model.name for model in client.models()] == list(MODELS)
        assert all(model.workers == 1 and model.context > 0 for model in client.models())

    def test_labels_and_priority_are_kept(self, client):
        labels = {"team": "search", "größe": "ü\"'"}
        status = client.submit(labels=labels, priority="batch").status()
        assert (dict(status.labels), status.priority) == (labels, "batch")

    @pytest.mark.parametrize("priority", ["interactive", "standard", "batch"])
    def test_jobs_of_every_priority_run(self, client, priority):
        assert client.submit(priority=priority).result().text

    def test_a_waiting_job_that_is_cancelled_never_runs(self, client):
        job = client.submit(delay=3_600)
        assert job.cancel() is JobState.CANCELLED
        events = job.events()
        assert [(event.kind, dict(event.details)["state"]) for event in events] == [("failed", "cancelled")]
        with pytest.raises(JobCancelled, match=job.job_id):
            job.result()
        with pytest.raises(JobCancelled):
            job.stream()

    def test_a_running_job_that_is_cancelled_ends_and_keeps_its_tokens(self, client):
        job = client.submit("slow")
        job.wait_until_running()
        assert job.cancel() in (JobState.RUNNING, JobState.CANCELLED)
        events = job.events()
        assert events[-1].kind == "failed"
        assert events[-1].details["state"] == "cancelled"
        assert 3 <= len(texts(events)) == events[-1].offset < 1_000
        assert job.status().state is JobState.CANCELLED
        with pytest.raises(JobCancelled):
            job.result()

    def test_cancelling_twice_is_like_cancelling_once(self, client):
        job = client.submit(delay=3_600)
        assert [job.cancel(), job.cancel()] == [JobState.CANCELLED] * 2
        running = client.submit("slow")
        running.wait_until_running()
        running.cancel()
        running.cancel()
        assert running.events()[-1].details["state"] == "cancelled"

    def test_a_job_that_has_ended_cannot_be_cancelled(self, client):
        job = client.submit()
        text = job.result().text
        assert job.cancel() is JobState.SUCCEEDED
        assert job.result().text == text

    def test_a_job_that_does_not_exist_is_not_found(self, client):
        job = client.job(ABSENT)
        for ask in (job.status, job.cancel, job.result, job.events, job.stream):
            with pytest.raises(JobNotFound, match=ABSENT):
                ask()

    @pytest.mark.parametrize("job_id", ["", "no-uuid", "a\0b", "' OR 1=1 --", "x" * 10_000, "\ud800"])
    def test_what_is_no_job_id_is_not_found(self, client, job_id):
        job = client.job(job_id)
        for ask in (job.status, job.cancel, job.result):
            with pytest.raises(JobNotFound):
                ask()

    def test_another_tenants_job_is_not_found(self, client, open_client):
        job = client.submit(delay=3_600)
        theirs = open_client(OTHER_TENANT).job(job.job_id)
        for ask in (theirs.status, theirs.cancel, theirs.result, theirs.events):
            with pytest.raises(JobNotFound):
                ask()
        assert job.cancel() is JobState.CANCELLED

    def test_tenants_may_use_the_same_keys(self, client, open_client):
        keys = fresh_keys()
        jobs = [each.submit(**keys) for each in (client, open_client(OTHER_TENANT))]
        assert jobs[0].job_id != jobs[1].job_id
        assert all(job.is_new for job in jobs)

    def test_an_unknown_model_is_refused_with_the_nearest_name(self, client):
        with pytest.raises(UnknownModel, match="did you mean 'counter'"):
            client.submit("countr")
        with pytest.raises(UnknownModel, match=", ".join(sorted(MODELS))):
            client.submit("zzzzzzzzzzzz")

    def test_the_same_keys_are_the_same_job(self, client):
        keys = fresh_keys()
        first, second = client.submit(**keys), client.submit(**keys)
        assert (first.is_new, second.is_new) == (True, False)
        assert first.job_id == second.job_id
        text = first.result().text
        third = client.submit(**keys)
        assert (third.job_id, third.is_new, third.result().text) == (first.job_id, False, text)

    def test_the_same_keys_for_something_else_are_a_conflict(self, client):
        keys = fresh_keys()
        job = client.submit(**keys)
        for change in ({"prompt": "other"}, {"max_tokens": 3}, {"labels": {"a": "b"}}, {"priority": "batch"}):
            with pytest.raises(KeyConflict, match=job.job_id):
                client.submit(**keys, **change)
        assert client.submit(**{**keys, "retry_token": "2"}, prompt="other").is_new

    def test_a_delayed_job_that_is_submitted_again_is_the_same_job(self, client):
        options = {**fresh_keys(), "delay": 3_600, "time_limit": 7_200, "expires_in": 7_000}
        job = client.submit(**options)
        client.service.advance(0.05)
        assert client.submit(**options).job_id == job.job_id
        with pytest.raises(KeyConflict):
            client.submit(**{**options, "delay": 3_601})
        with pytest.raises(KeyConflict):
            client.submit(**{**options, "expires_in": 7_001})
        job.cancel()

    def test_a_delayed_job_runs_when_its_delay_is_over(self, client):
        job = client.submit(delay=timedelta(seconds=0.5))
        client.service.work()
        assert job.status().state is JobState.PARKED
        client.service.advance(0.5)
        assert job.result().finish_reason == "stop"

    def test_a_job_runs_at_its_eta(self, client):
        later = client.submit(eta=datetime.now(UTC) + timedelta(hours=1))
        past = client.submit(eta=datetime.now(UTC) - timedelta(hours=1))
        assert past.result().text
        assert later.status().state is JobState.PARKED
        later.cancel()

    def test_a_status_tells_until_when_a_job_may_run_and_may_begin(self, client):
        unlimited = client.submit(delay=3_600)
        assert (unlimited.status().deadline, unlimited.status().expires_at) == (None, None)
        unlimited.cancel()
        waiting = client.submit(delay=60, time_limit=600, expires_in=300)
        status = waiting.status()
        assert 0 < status.deadline - status.created_at <= 600_000
        assert 299_000 <= status.deadline - status.expires_at <= 301_000
        waiting.cancel()
        begun = client.submit("slow", time_limit=600, expires_in=300)
        assert begun.status().deadline is not None
        begun.wait_until_running()
        assert begun.status().expires_at is None
        begun.cancel()

    def test_a_running_job_expires_at_its_time_limit(self, client):
        job = client.submit("slow", time_limit=1)
        job.wait_until_running()
        client.service.advance(1)
        events = job.events()
        assert events[-1].details["state"] == "expired"
        assert texts(events)
        assert job.status().state is JobState.EXPIRED
        with pytest.raises(JobExpired, match="set a later one"):
            job.result()

    def test_a_result_that_is_not_there_in_time_can_be_asked_for_again(self, client):
        job = client.submit(delay=3_600)
        with pytest.raises(ResultTimeout, match="continues"):
            job.result(timeout=0.05)
        with pytest.raises(TimeoutError):
            job.result(timeout=0)
        assert job.status().state is JobState.PARKED
        job.cancel()

    def test_a_model_that_breaks_is_tried_again_and_then_the_job_is_dead(self, client):
        job = client.submit("broken")
        events = job.events()
        attempt = ["started", "delta"]
        runs = "".join(f"{kind} " for kind in kinds(events)).replace("delta delta", "delta").split()
        assert runs == [*attempt, *(["rerouted", *attempt] * (MAX_ATTEMPTS - 1)), "failed"]
        starts = [dict(event.details)["dispatch"] for event in events if event.kind == "started"]
        assert starts == [1, 2, 3]
        status = job.status()
        last = {"state": "dead", "code": "engine_failed", "message": status.error.message}
        assert dict(events[-1].details) == last
        assert texts(events) == texts(client.submit().events())[: 2 * MAX_ATTEMPTS]
        assert (status.state, status.attempts, status.error.code) == (JobState.DEAD, 3, "engine_failed")
        with pytest.raises(JobFailed, match="engine_failed"):
            job.result()

    def test_a_job_that_cannot_succeed_is_not_tried_again(self, client):
        job = client.submit("refusing")
        with pytest.raises(JobFailed, match="request_invalid"):
            job.result()
        status = job.status()
        assert (status.state, status.attempts, status.dispatch) == (JobState.DEAD, 1, 1)
        assert "does not like" in status.error.message

    @pytest.mark.parametrize("case", BAD_INPUT)
    def test_what_is_not_possible_is_refused(self, client, case):
        with pytest.raises(InvalidRequest) as refusal:
            client.submit(**BAD_INPUT[case])
        assert len(str(refusal.value)) < 600

    def test_many_jobs_are_submitted_together(self, client):
        requests = [
            JobRequest(model="counter", prompt=f"prompt {i}", labels={"i": str(i)}) for i in range(50)
        ]
        jobs = client.submit_many(requests)
        assert len({job.job_id for job in jobs}) == 50
        assert all(len(job.result().token_ids) == TOKENS for job in jobs)
        assert [job.status().labels["i"] for job in jobs] == [str(i) for i in range(50)]

    @pytest.mark.parametrize(
        ("bad", "error"),
        [
            (JobRequest(model="countr", prompt="x"), UnknownModel),
            (JobRequest(model="counter", prompt=""), InvalidRequest),
            (JobRequest(model="counter", prompt="\ud800"), InvalidRequest),
            (JobRequest(model="counter", prompt="x", labels=[1]), InvalidRequest),
            (JobRequest(model="counter", prompt="x", sampling=None), InvalidRequest),
            (JobRequest(model="counter", prompt="x", sampling=Sampling(stop=None)), InvalidRequest),
            ({"model": "counter", "prompt": "x"}, InvalidRequest),
            (None, InvalidRequest),
        ],
    )
    def test_one_that_is_refused_does_not_touch_the_others(self, client, bad, error):
        good = [JobRequest(model="counter", prompt="x", **fresh_keys()) for _ in range(4)]
        with pytest.raises(error):
            client.submit_many([*good[:2], bad, *good[2:]])
        again = client.submit_many(good)
        assert [job.is_new for job in again] == [False] * 4
        assert all(job.result().text for job in again)

    def test_none_at_all_may_be_submitted(self, client):
        assert client.submit_many([]) == []

    def test_a_priority_may_be_given_by_name(self, client):
        (job,) = client.submit_many([JobRequest(model="counter", prompt="x", priority="batch")])
        assert job.status().priority == "batch"


class TestDramatiq:
    """What only a direct client has: its broker, and the actor `infer`."""

    @pytest.fixture
    def tether(self, direct):
        with Tether.direct(direct.settings) as client:
            yield client

    def test_a_message_of_infer_is_a_job(self, tether):
        message = tether.infer.send(model="counter", prompt="one two", max_tokens=4, labels={"a": "b"})
        job = tether.job(message.message_id)
        assert len(job.result(30).token_ids) == 4
        assert job.status().labels == {"a": "b"}

    def test_a_field_that_stands_in_the_table_alone_is_an_argument_of_infer(self, tether, monkeypatch):
        asked = {"model": "counter", "prompt": "one", **fresh_keys()}
        with pytest.raises(InvalidRequest, match="unknown field 'whimsy'"):
            tether.infer.send(**asked, whimsy=0.25)
        monkeypatch.setattr(fields, "TABLE", WIDE_TABLE)
        first = tether.infer.send(**asked, whimsy=0.25)
        assert tether.infer.send(**asked, whimsy=0.25).message_id == first.message_id
        with pytest.raises(KeyConflict):
            tether.infer.send(**asked, whimsy=0.5)
        # A worker that does not know the field yet leaves it alone.
        assert tether.job(first.message_id).result(30).text

    def test_a_delay_of_dramatiqs_is_in_milliseconds(self, tether):
        kwargs = {"model": "counter", "prompt": "one"}
        message = tether.infer.send_with_options(kwargs=kwargs, delay=3_600_000)
        status = tether.job(message.message_id).status()
        assert status.state is JobState.PARKED
        assert tether.job(message.message_id).cancel() is JobState.CANCELLED

    def test_a_message_that_is_enqueued_again_is_the_same_job(self, tether):
        message = tether.infer.message(model="counter", prompt="one")
        ids = {tether.broker.enqueue(message).message_id for _ in range(3)}
        assert len(ids) == 1

    def test_a_group_of_messages_is_jobs(self, tether):
        messages = [tether.infer.message(model="counter", prompt=f"{i}") for i in range(5)]
        ran = group(messages, broker=tether.broker).run()
        # The same message is the same job: enqueued again, it tells which.
        ids = [tether.broker.enqueue(child).message_id for child in ran.children]
        assert len(set(ids)) == 5
        assert all(tether.job(job_id).result(30).text for job_id in ids)

    def test_infer_takes_what_the_step_before_it_answered_as_its_prompt(self, tether):
        step = tether.infer.message(model="counter")
        handed_on = step.copy(args=("one two three four",))
        job = tether.job(tether.broker.enqueue(handed_on).message_id)
        assert job.result(30).input_tokens == 4

    def test_nothing_may_follow_infer_in_a_pipeline(self, tether):
        @actor(broker=tether.broker, queue_name="after")
        def after(text):
            pass

        chain = pipeline([tether.infer.message(model="counter", prompt="x"), after.message()])
        with pytest.raises(InvalidRequest, match="put infer last"):
            tether.broker.enqueue(chain.messages[0])

    def test_results_are_where_dramatiq_looks_for_them(self, tether, monkeypatch):
        monkeypatch.setattr(broker_module, "global_broker", tether.broker)
        sent = tether.infer.send(model="counter", prompt="one", max_tokens=3)
        backend = tether.broker.get_results_backend()
        result = sent.get_result(backend=backend, block=True, timeout=PATIENCE_MS)
        assert result == tether.job(sent.message_id).result()
        assert sent.get_result() == result

        messages = [tether.infer.message(model="counter", prompt=f"{i}", max_tokens=2) for i in range(3)]
        ran = group(messages, broker=tether.broker).run()
        results = list(ran.get_results(block=True, timeout=PATIENCE_MS))
        assert [len(each.token_ids) for each in results] == [2, 2, 2]
        assert ran.completed_count == 3

    def test_a_result_that_is_not_there_is_missing_late_or_a_failure(self, tether):
        backend = tether.broker.get_results_backend()
        never_sent = tether.infer.message(model="counter", prompt="one")
        late = tether.infer.send_with_options(kwargs={"model": "counter", "prompt": "x"}, delay=DAY_MS)
        for message in (never_sent, late):
            with pytest.raises(ResultMissing):
                message.get_result(backend=backend)
            with pytest.raises(DramatiqTimeout):
                message.get_result(backend=backend, block=True, timeout=1)
        tether.job(late.message_id).cancel()
        with pytest.raises(ResultFailure, match="was cancelled") as raised:
            late.get_result(backend=backend, block=True, timeout=PATIENCE_MS)
        assert raised.value.orig_exc_type == "JobCancelled"

    def test_results_of_infer_and_of_plain_actors_stand_beside_each_other(self, tether):
        broker = tether.broker

        @actor(broker=broker, queue_name="prompts")
        def prompt_for(name):
            return f"{name} {name}"

        with pytest.raises(RuntimeError, match=r"dramatiq\.results\.Results"):
            prompt_for.message("a").get_result(backend=broker.get_results_backend())
        broker.add_middleware(Results(backend=StubBackend(), store_results=True))
        write = tether.infer.message(model="counter", max_tokens=2)
        ran = pipeline([prompt_for.message("a"), write], broker=broker).run()
        with pytest.raises(ResultMissing):
            ran.get_result()
        worker = Worker(broker, worker_threads=1, worker_timeout=100)
        worker.start()
        try:
            assert len(ran.get_result(block=True, timeout=PATIENCE_MS).token_ids) == 2
            prompt, result = ran.get_results()
        finally:
            worker.stop()
        assert (prompt, result.input_tokens) == ("a a", 2)

    def test_limits_of_dramatiq_s_are_a_job_s_deadline(self, tether):
        kwargs = {"model": "counter", "prompt": "one", **fresh_keys()}
        message = tether.infer.send_with_options(kwargs=kwargs, delay=DAY_MS, time_limit=60_000)
        again = tether.infer.send_with_options(kwargs=kwargs, delay=DAY_MS, time_limit=60_000)
        assert again.message_id == message.message_id
        with pytest.raises(KeyConflict):
            tether.infer.send_with_options(kwargs=kwargs, delay=DAY_MS, time_limit=60_001)
        tether.job(message.message_id).cancel()
        kwargs = {"model": "slow", "prompt": "one"}
        slow = tether.infer.send_with_options(kwargs=kwargs, time_limit=1_000)
        with pytest.raises(JobExpired):
            tether.job(slow.message_id).result(PATIENCE_SECONDS)

    def test_dramatiq_s_age_of_a_message_is_that_of_a_job_that_has_not_begun(self, tether):
        kwargs = {"model": "counter", "prompt": "one"}
        message = tether.infer.send_with_options(kwargs=kwargs, max_age=DAY_MS)
        assert tether.job(message.message_id).result(PATIENCE_SECONDS).text
        with pytest.raises(InvalidRequest, match="would expire before it could start"):
            tether.infer.send_with_options(kwargs=kwargs, delay=2_000, max_age=1_000)

    @pytest.mark.parametrize(
        ("args", "kwargs"),
        [
            (("counter", "x"), {}),
            (("x",), {"model": "counter", "prompt": "y"}),
            ((), {"model": "counter"}),
            ((), {"model": "counter", "prompt": "x", "eta": "tomorrow"}),
            ((), {"model": "counter", "prompt": "x", "labels": 5}),
            ((), {"model": "counter", "prompt": "x", "delay": 5}),
            (({"a": 1},), {"model": "counter"}),
        ],
    )
    def test_a_message_that_is_no_job_is_refused(self, tether, args, kwargs):
        with pytest.raises(InvalidRequest):
            tether.infer.send_with_options(args=args, kwargs=kwargs)

    def test_plain_actors_use_the_same_broker(self, tether):
        seen = queue.SimpleQueue()

        @actor(broker=tether.broker, queue_name="plain")
        def report(job_id):
            seen.put(tether.job(job_id).result(PATIENCE_SECONDS).text)

        worker = Worker(tether.broker, worker_threads=1, worker_timeout=100)
        worker.start()
        try:
            message = tether.infer.send(model="counter", prompt="one")
            assert report.send(message.message_id).queue_name == "plain"
            assert seen.get(timeout=PATIENCE_SECONDS) == tether.job(message.message_id).result().text
        finally:
            worker.stop()
        # A worker of such a program has nothing to consume there.
        assert tether.broker.get_declared_queues() == {"plain"}


class TestOnPostgres:
    """A part of it on the other database."""

    @pytest.fixture
    def client(self, postgres):
        return postgres.client(on_loop=False)

    def test_jobs_run_and_are_known_again(self, client):
        keys = {"correlation_id": "a", "retry_token": "1", "labels": {"x": "é"}}
        job = client.submit(**keys)
        assert len(job.result().token_ids) == TOKENS
        assert texts(job.events(offset=3)) == texts(job.events())[3:]
        assert client.submit(**keys).job_id == job.job_id
        with pytest.raises(KeyConflict):
            client.submit(**keys, prompt="other")

    def test_jobs_are_cancelled_expire_and_die(self, client):
        waiting, running = client.submit(delay=3_600), client.submit("slow")
        late, broken = client.submit("slow", time_limit=1), client.submit("broken")
        assert waiting.cancel() is JobState.CANCELLED
        running.wait_until_running()
        running.cancel()
        ends = [dict(job.events()[-1].details)["state"] for job in (waiting, running, late, broken)]
        assert ends == ["cancelled", "cancelled", "expired", "dead"]

    @pytest.mark.parametrize("job_id", ["a\0b", "\ud800"])
    def test_what_is_no_job_id_is_not_found(self, client, job_id):
        with pytest.raises(JobNotFound):
            client.job(job_id).status()
        with pytest.raises(JobNotFound):
            client.job(job_id).cancel()
