"""The fake, beyond what it has in common with the real thing."""

import asyncio
import re
import subprocess
import sys
import threading

import pytest
from hypothesis import given
from hypothesis import strategies as st

from support.paths import ROOT
from tether import AsyncTether, JobState, Tether
from tether.errors import (
    ClientClosed,
    InvalidRequest,
    JobExpired,
    JobFailed,
    QuotaExceeded,
    ResultTimeout,
)
from tether.jobs import NEXT, OWNER, JobRequest, Owner
from tether.scheduling.retry_policy import RetryPolicy
from tether.testing import AsyncFakeTether, FakeBackend, FakeModel, FakeTether, ForbiddenTransition
from tether.testing.jobs import FakeJob

NOW = 1_800_000_000_000


def states(tether):
    return [job.state for job in tether.fake.jobs()]


def kinds(job):
    return [event.kind for event in job.events(timeout=1)]


def test_by_default_a_model_echoes_and_jobs_run_at_once():
    tether = FakeTether()
    job = tether.submit("echo", "hello big  world\n")
    assert job.status().state is JobState.SUCCEEDED
    assert job.result(1).text == "hello big  world\n"
    assert list(job.stream()) == ["hello", " big", "  world", "\n"]


def test_a_model_is_asked_what_the_last_message_says_and_reads_all_of_them():
    tether = FakeTether()
    said = [{"role": "system", "content": "be brief"}, {"role": "user", "content": "hello"}]
    result = tether.submit("echo", messages=said).result()
    assert (result.text, result.input_tokens) == ("hello", 3)


def test_a_model_answers_with_a_text_or_with_tokens():
    tether = FakeTether({"text": lambda prompt: prompt.upper(), "tokens": lambda prompt: ["a", "", "b c"]})
    assert tether.submit("text", "one two").result(1).text == "ONE TWO"
    assert list(tether.submit("tokens", "x").stream()) == ["a", "", "b c"]


def test_a_model_without_an_answer_succeeds_with_nothing():
    result = FakeTether({"mute": lambda prompt: ""}).submit("mute", "x").result(1)
    assert (result.text, result.finish_reason) == ("", "stop")


@given(st.text(min_size=1).filter(lambda text: not any("\ud800" <= mark <= "\udfff" for mark in text)))
def test_a_text_is_cut_into_words_and_nothing_is_lost(prompt):
    assert FakeTether().submit("echo", prompt, max_tokens=8_000).result(1).text == prompt


def test_a_model_without_end_is_cut():
    def forever(prompt):
        while True:
            yield "x"

    result = FakeTether({"forever": forever}).submit("forever", "x", max_tokens=7).result(1)
    assert (result.text, result.finish_reason) == ("x" * 7, "length")


@pytest.mark.parametrize(
    ("stop", "text"), [("big", "hello "), ("o b", "hell"), (["zz", "wor"], "hello big "), ("hello", "")]
)
def test_a_stop_text_ends_the_answer_wherever_it_begins(stop, text):
    result = FakeTether().submit("echo", "hello big world", stop=stop).result(1)
    assert (result.text, result.finish_reason) == (text, "stop")


def test_a_job_may_ask_for_fewer_attempts_or_for_none_after_such_an_error():
    tether = FakeTether({"bad": lambda prompt: 1 / 0})
    for options, attempts in (({"max_attempts": 2}, 2), ({"retry_on": "model_damaged"}, 1)):
        job = tether.submit("bad", "x", **options)
        with pytest.raises(JobFailed, match="engine_failed"):
            job.result(1)
        assert (job.status().state, job.status().attempts) == (JobState.DEAD, attempts)


def test_a_model_that_raises_is_tried_again_until_the_job_is_dead():
    tether = FakeTether({"bad": lambda prompt: 1 / 0})
    job = tether.submit("bad", "x")
    with pytest.raises(JobFailed, match="engine_failed"):
        job.result(1)
    status = job.status()
    assert (status.state, status.attempts, status.dispatch) == (JobState.DEAD, 8, 8)
    assert status.error.message == "the model raised ZeroDivisionError: division by zero"


def test_an_error_of_ours_that_cannot_be_mended_is_not_tried_again():
    def refuse(prompt):
        raise InvalidRequest("not this")

    job = FakeTether({"m": refuse}).submit("m", "x")
    assert (job.status().state, job.status().attempts) == (JobState.DEAD, 1)
    assert (job.status().error.code, job.status().error.message) == ("request_invalid", "not this")


def test_a_model_that_answers_nonsense_fails():
    job = FakeTether({"m": lambda prompt: ["a", 5]}).submit("m", "x")
    assert job.status().state is JobState.DEAD
    assert "int" in job.status().error.message


def test_a_model_may_be_told_to_fail_some_times():
    job = FakeTether({"m": FakeModel(fail_times=2)}).submit("m", "one two")
    assert kinds(job) == [*["started", "rerouted"] * 2, "started", "delta", "delta", "finished"]
    assert (job.status().attempts, job.status().error) == (3, None)


def test_an_attempt_goes_on_behind_the_tokens_of_the_one_before():
    attempts = []

    def breaks_once(prompt):
        attempts.append(prompt)
        yield from ("a", "b")
        if len(attempts) == 1:
            raise RuntimeError("broke")
        yield "c"

    job = FakeTether({"m": breaks_once}).submit("m", "x")
    assert list(job.stream()) == ["a", "b", "c"]
    assert kinds(job) == ["started", "delta", "delta", "rerouted", "started", "delta", "finished"]


def test_retries_wait_as_the_policy_says():
    policy = RetryPolicy(max_attempts=2, base_ms=10_000, cap_ms=10_000)
    tether = FakeTether({"m": FakeModel(fail_times=1)}, retry_policy=policy)
    job = tether.submit("m", "x")
    assert job.status().state is JobState.WAITING_RETRY
    with pytest.raises(ResultTimeout):
        job.result(0)
    tether.fake.advance(10)
    assert job.result(1).text == "x"


def test_a_delayed_job_runs_when_the_clock_has_come_to_it():
    tether = FakeTether(now_ms=NOW)
    job = tether.submit("echo", "x", delay=60)
    tether.fake.advance(59.999)
    assert job.status().state is JobState.PARKED
    tether.fake.advance(0.001)
    status = job.status()
    assert (status.created_at, status.finished_at) == (NOW, NOW + 60_000)


def test_a_clock_that_is_not_moved_stands():
    tether = FakeTether(now_ms=NOW)
    assert tether.submit("echo", "x").status().created_at == NOW
    assert tether.fake.now_ms() == NOW


@pytest.mark.parametrize("seconds", [-1, float("nan"), float("inf")])
def test_the_clock_goes_on_only(seconds):
    with pytest.raises(InvalidRequest):
        FakeTether().fake.advance(seconds)


def test_a_job_that_waits_expires():
    tether = FakeTether(autorun=False)
    job = tether.submit("echo", "x", time_limit=5)
    tether.fake.advance(5)
    assert job.status().state is JobState.EXPIRED
    assert kinds(job) == ["failed"]


def test_a_job_that_waits_for_too_long_expires_unbegun():
    tether = FakeTether(autorun=False)
    job = tether.submit("echo", "x", expires_in=5)
    tether.fake.advance(4.999)
    assert job.status().state is JobState.ACCEPTED
    tether.fake.advance(0.001)
    assert job.status().state is JobState.EXPIRED
    with pytest.raises(JobExpired):
        job.result(1)


def test_a_job_that_has_begun_does_not_expire_unbegun():
    wait = RetryPolicy(max_attempts=3, base_ms=60_000, cap_ms=60_000)
    tether = FakeTether({"flaky": FakeModel(fail_times=1)}, autorun=False, retry_policy=wait)
    job = tether.submit("flaky", "x", expires_in=5)
    tether.fake.step()
    tether.fake.advance(10)
    assert job.status().state is JobState.RUNNING
    tether.fake.step()
    assert job.status().state is JobState.WAITING_RETRY
    tether.fake.run_all()
    assert job.status().state is JobState.SUCCEEDED


def test_a_retried_letter_has_as_long_to_begin_in():
    def refuse(prompt):
        raise InvalidRequest("no")

    tether = FakeTether({"refuse": refuse}, autorun=False)
    job = tether.submit("refuse", "x", expires_in=5)
    tether.fake.run_all()
    tether.fake.advance(60)
    (letter,) = tether.dead_letters.list()
    again = tether.dead_letters.retry(letter.retry_token, force=True)
    tether.fake.advance(4)
    assert tether.job(again.retried_as).status().state is JobState.ACCEPTED
    tether.fake.advance(1)
    assert tether.job(again.retried_as).status().state is JobState.EXPIRED
    assert job.status().state is JobState.DEAD


def test_a_model_that_takes_too_long_expires():
    tether = FakeTether({"slow": lambda prompt: tether.fake.advance(10) or "late"})
    job = tether.submit("slow", "x", time_limit=5)
    with pytest.raises(JobExpired):
        job.result(1)


def test_steps_show_a_job_in_every_state():
    tether = FakeTether(autorun=False)
    job = tether.submit("echo", "one two")
    seen = []
    while tether.fake.step():
        seen.append((job.status().state, job.status().offset))
    assert seen == [("running", 0), ("running", 1), ("running", 2), ("succeeded", 2)]
    assert not tether.fake.step()


def test_a_running_job_hears_of_its_end_in_its_next_step():
    tether = FakeTether(autorun=False)
    job = tether.submit("echo", "one two three")
    tether.fake.step()
    tether.fake.step()
    assert job.cancel() is JobState.RUNNING
    tether.fake.step()
    assert job.status().state is JobState.CANCELLED
    assert kinds(job) == ["started", "delta", "failed"]


def test_run_pending_makes_one_attempt_of_each_job_that_is_due():
    tether = FakeTether({"m": FakeModel(fail_times=1), "ok": FakeModel()}, autorun=False)
    for model in ("m", "ok"):
        tether.submit(model, "x")
    tether.submit("ok", "x", delay=5)
    assert tether.fake.run_pending() == 2
    assert states(tether) == ["waiting_retry", "succeeded", "parked"]
    assert tether.fake.run_pending() == 1
    assert tether.fake.run_pending() == 0


def test_run_all_moves_the_clock_to_the_end_of_every_job():
    policy = RetryPolicy(max_attempts=4, base_ms=60_000)
    tether = FakeTether({"m": FakeModel(fail_times=3)}, autorun=False, retry_policy=policy)
    for delay in (0, 3_600, 60):
        tether.submit("m", "x", delay=delay)
    tether.fake.run_all()
    assert states(tether) == ["succeeded"] * 3
    assert tether.fake.now_ms() >= tether.fake.jobs()[0].created_at + 3_600_000


def test_jobs_run_by_priority_and_then_in_order():
    ran = []
    tether = FakeTether({"m": lambda prompt: ran.append(prompt) or "x"}, autorun=False)
    for number, priority in enumerate(["batch", "standard", "interactive", "standard", "interactive"]):
        tether.submit("m", str(number), priority=priority)
    tether.fake.run_pending()
    assert ran == ["2", "4", "1", "3", "0"]


def test_a_tenant_has_a_quota_of_open_jobs():
    tether = FakeTether(quota=2, autorun=False)
    other = Tether(backend=tether.fake.for_tenant("other"))
    for _ in range(2):
        tether.submit("echo", "x")
    with pytest.raises(QuotaExceeded, match="has 2 open jobs"):
        tether.submit("echo", "x")
    other.submit("echo", "x")
    tether.fake.run_pending()
    tether.submit("echo", "x")


def test_a_model_may_submit_jobs_and_wait_for_them():
    tether = FakeTether(
        {"outer": lambda prompt: tether.submit("inner", prompt).result(1).text, "inner": str.upper}
    )
    assert tether.submit("outer", "x").result(1).text == "X"
    assert states(tether) == ["succeeded", "succeeded"]


def test_a_model_may_cancel_its_own_job_and_others():
    def cancel_all(prompt):
        for job in tether.fake.jobs():
            tether.job(job.job_id).cancel()
        return prompt

    tether = FakeTether({"m": cancel_all}, autorun=False)
    for _ in range(3):
        tether.submit("m", "x")
    assert tether.fake.run_pending() == 1
    assert states(tether) == ["cancelled"] * 3


def test_a_test_sees_what_was_asked_for():
    tether = FakeTether()
    job = tether.submit("echo", "x", max_tokens=5, labels={"a": "b"})
    request = tether.fake.request(job.job_id)
    assert (request.prompt, request.sampling.max_tokens, request.labels) == ("x", 5, {"a": "b"})
    assert request.retry_token == job.retry_token


def test_its_ids_repeat_with_its_seed_and_clock():
    ids = [FakeTether(now_ms=NOW, seed=seed).submit("echo", "x").job_id for seed in (1, 1, 2)]
    assert ids[0] == ids[1] != ids[2]


def test_both_kinds_of_client_share_one_backend():
    async def ask():
        async with AsyncTether(backend=tether.fake) as client:
            job = await client.submit("echo", "hello world")
            return [text async for text in client.job(job.job_id).stream(timeout=1)]

    tether = FakeTether()
    assert asyncio.run(ask()) == ["hello", " world"]
    assert len(tether.fake.jobs()) == 1


def test_a_client_on_a_loop_has_its_own_fake():
    async def ask():
        client = AsyncFakeTether({"m": str.upper})
        return (await (await client.submit("m", "x")).result(1)).text, len(client.fake.jobs())

    assert asyncio.run(ask()) == ("X", 1)


def test_a_reader_follows_a_job_that_another_thread_drives():
    tether = FakeTether(autorun=False)
    job = tether.submit("echo", "one two three")
    events = job.events(timeout=20)
    driver = threading.Thread(target=tether.fake.run_all, name="driver")
    driver.start()
    assert [event.kind for event in events] == ["started", "delta", "delta", "delta", "finished"]
    driver.join()


def test_many_threads_submit_at_once():
    tether = FakeTether()
    ids = []
    threads = [
        threading.Thread(target=lambda: ids.extend(tether.submit("echo", "x").job_id for _ in range(50)))
        for _ in range(8)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(set(ids)) == 400
    assert set(states(tether)) == {"succeeded"}


def test_every_example_of_the_guide_runs():
    guide = ROOT / "docs" / "guide" / "testing.md"
    names = {}
    for example in re.findall(r"```python\n(.*?)```", guide.read_text(), re.DOTALL):
        exec(compile(example, str(guide), "exec"), names)
    names["test_summaries_are_short"]()


def test_the_fake_needs_no_server_library():
    code = "import sys, tether.testing; print({*sys.modules} & {'redis', 'sqlalchemy', 'psycopg'})"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60
    )
    assert done.stdout.strip() == "set()"


@pytest.mark.parametrize("after", JobState)
@pytest.mark.parametrize("before", JobState)
@pytest.mark.parametrize("by", Owner)
def test_a_transition_that_is_not_in_the_table_raises(before, after, by):
    request = JobRequest(model="echo", prompt="x")
    job = FakeJob("id", 0, "default", request, created_at=NOW, due_at=NOW, state=before)
    if after in NEXT[before] and OWNER[before] is by:
        job.move(after, by)
        assert job.state is after
    else:
        with pytest.raises(ForbiddenTransition, match=f"is {before}"):
            job.move(after, by)
        assert job.state is before


ACTIONS = st.lists(
    st.one_of(
        st.tuples(
            st.just("submit"),
            st.sampled_from(["echo", "flaky", "bad", "refuse"]),
            st.sampled_from([None, 1, 5]),
            st.sampled_from([None, 2, 7]),
        ),
        st.tuples(st.sampled_from(["step", "run_pending"])),
        st.tuples(st.just("advance"), st.integers(0, 6)),
        st.tuples(st.just("cancel"), st.integers(0, 9)),
    ),
    max_size=25,
)


@given(ACTIONS, st.booleans())
def test_whatever_is_done_every_job_ends_once_with_a_whole_stream(actions, autorun):
    def refuse(prompt):
        raise InvalidRequest("no")

    def bad(prompt):
        yield from "ab"
        raise RuntimeError("broke")

    models = {"echo": str, "flaky": FakeModel(fail_times=2), "bad": bad, "refuse": refuse}
    fake = FakeBackend(models, autorun=autorun, retry_policy=RetryPolicy(3, 2_000, 4_000))
    tether = Tether(backend=fake)
    jobs = []
    for action, *details in actions:
        if action == "submit":
            model, delay, limit = details
            if limit is None or (delay or 0) < limit:
                jobs.append(tether.submit(model, "one two three", delay=delay, time_limit=limit))
        elif action == "cancel":
            if jobs:
                jobs[details[0] % len(jobs)].cancel()
        else:
            getattr(fake, action)(*details)
    fake.run_all()
    for job in jobs:
        status, events = job.status(), list(job.events(timeout=0))
        assert status.state.is_final
        assert [event.is_last for event in events].count(True) == 1
        assert (events[-1].kind == "finished") == (status.state is JobState.SUCCEEDED)
        offset = 0
        for event in events:
            offset += len(event.pieces)
            assert event.offset == offset
        assert offset == status.output_tokens


def test_a_stream_cannot_be_followed_from_an_offset_that_no_stream_has():
    fake = FakeTether({"m": "one two"})
    job = fake.submit("m", "p")
    for offset in (-1, "0", 2**32):
        with pytest.raises(InvalidRequest):
            next(job.events(offset=offset))


def test_who_follows_a_stream_is_told_when_the_client_is_closed():
    backend = FakeBackend({"m": "one two"}, autorun=False)
    job = Tether(backend=backend).submit("m", "p")
    heard = []
    backend.stream_port.follow(job.job_id, 0, heard.append)
    backend.close()
    backend.run_all()
    assert [type(what) for what in heard] == [ClientClosed]
    with pytest.raises(ClientClosed):
        backend.stream_port.follow(job.job_id, 0, heard.append)


def test_the_fake_meets_whatever_is_asked_of_a_pool():
    tether = FakeTether()
    job = tether.submit("echo", "x", region="eu", gpu_class="h100", min_vram="80GB", any_version=True)
    assert job.result().text == "x"
    assert job.status().pool == "gpu.h100.eu.echo"
    assert tether.fake.request(job.job_id).min_vram == 80 * 10**9
