"""What is told on standard error while a job is followed, over a fake."""

from dataclasses import replace

import pytest

from support.command_line import CommandLine
from tether.client.api import Tether
from tether.jobs import JobError, JobState
from tether.statuses import ModelInfo
from tether.testing import FakeBackend, FakeModel
from tether_cli.job_news import JobNews, why_waiting
from tether_cli.job_progress import events_of
from tether_cli.terminal.output import open_output


def failing(times, **options):
    return FakeBackend({"m": FakeModel(fail_times=times)}, **options)


@pytest.mark.parametrize("verb", ["submit", "watch"])
def test_failed_attempts_are_told_beside_the_text_each_once(verb):
    line = CommandLine(failing(2))
    if verb == "submit":
        result = line.run("submit", "hi", "-m", "m")
    else:
        job_id = line.run("submit", "hi", "-m", "m", "--no-wait").stdout.strip()
        result = line.run("jobs", "watch", job_id)
    assert (result.exit_code, result.stdout) == (0, "hi")
    job_id = line.fake.jobs()[0].job_id
    assert result.stderr.splitlines() == [
        f"job {job_id}: attempt {number} failed (engine_failed): attempt {number} of 2 that were set to fail"
        for number in (1, 2)
    ]


def test_the_last_attempt_of_a_dead_job_is_told_by_its_error_alone():
    line = CommandLine(failing(9))
    result = line.run("submit", "hi", "-m", "m", "--max-attempts", "2", "--retry-base", "0")
    assert (result.exit_code, result.stdout) == (1, "")
    first, last = result.stderr.splitlines()
    assert "attempt 1 failed (engine_failed)" in first
    assert last.startswith("tether: job ")
    assert "attempt 2 of 9" in last


@pytest.mark.parametrize("form", ["--json", "--events"])
def test_programs_read_no_notes(form):
    result = CommandLine(failing(2)).run("submit", "hi", "-m", "m", form)
    assert (result.exit_code, result.stderr) == (0, "")


def test_a_wait_for_the_next_attempt_is_told_with_its_reason_and_length(capsys):
    fake = failing(1, autorun=False)
    client = Tether(backend=fake)
    handle = client.submit("m", "hi", retry_base=3600)
    news = JobNews(client, handle, open_output()[1])
    while handle.status().state is not JobState.WAITING_RETRY:
        fake.step()
    news.tell_silence()
    news.tell_silence()
    history = handle.history()
    seconds = -(-(history.due_at - history.since) // 1000)
    assert capsys.readouterr().err == (
        f"job {handle.job_id}: attempt 1 failed (engine_failed): attempt 1 of 1 that were set to fail. "
        f"The next one comes after a wait of {seconds} s\n"
    )


def test_a_silence_between_tokens_is_no_reason_to_tell(capsys):
    fake = FakeBackend(autorun=False)
    client = Tether(backend=fake)
    handle = client.submit("echo", "two words")
    news = JobNews(client, handle, open_output()[1])
    fake.step()
    fake.step()
    assert handle.status().state is JobState.RUNNING
    for event in handle.events():
        news.hear(event)
        if event.kind == "delta":
            break
    news.tell_silence()
    assert capsys.readouterr().err == ""


def test_a_wait_tells_why_until_something_comes():
    fake = FakeBackend(autorun=False)
    handle = Tether(backend=fake).submit("echo", "hi")

    class Listening:
        patience = 60.0
        silences = 0

        def hear(self, event):
            assert event.kind != "failed"

        def tell_silence(self):
            self.silences += 1
            if self.silences == 3:
                fake.run_all()

    news = Listening()
    kinds = [event.kind for event in events_of(handle, news=news, silence=0.001)]
    assert (kinds[-1], news.silences) == ("finished", 3)


def test_a_wait_is_told_again_where_its_reason_has_changed(capsys):
    fake = FakeBackend(autorun=False)
    client = Tether(backend=fake)
    handle = client.submit("echo", "hi")
    news = JobNews(client, handle, open_output()[1])
    news.tell_silence()
    news.tell_silence()
    fake.step()
    news.tell_silence()
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == len(set(lines)) == 2
    assert all(line.startswith(f"job {handle.job_id}: ") for line in lines)


@pytest.mark.parametrize(
    ("changes", "workers", "silent", "why"),
    [
        ({}, 0, 0, "waits: no worker serves model 'echo' now"),
        ({}, 0, 1, "waits: no worker serves model 'echo' now; 1 announced, but draws no jobs"),
        ({"state": JobState.RUNNING}, 1, 0, "running; no token has come yet"),
        (
            {"pool": "here", "state": JobState.PLACED},
            1,
            0,
            "waits: the workers of model 'echo' are busy, or are loading it",
        ),
        (
            {"pool": "here"},
            1,
            0,
            "waits in the database: it may not start yet, since it was submitted with a delay, or Redis has "
            "no room for more jobs of its priority or tenant",
        ),
        (
            {"pool": "gone", "state": JobState.PLACED},
            1,
            0,
            "waits: no worker draws from pool 'gone' now. Another pool that serves model 'echo' gets the "
            "job, unless a worker comes back soon",
        ),
        (
            {"pool": "gone", "state": JobState.PARKED},
            1,
            0,
            "waits: it is parked, and placed again shortly: within a minute where its pools lose their "
            "workers again and again",
        ),
        ({"pool": "gone", "state": JobState.PARKED}, 0, 0, "waits: no worker serves model 'echo' now"),
        (
            {"state": JobState.PARKED, "waits_for": "pool here is in region us, not eu"},
            1,
            0,
            "waits: pool here is in region us, not eu",
        ),
        (
            {"model": "former"},
            1,
            0,
            "waits: model 'former' is no longer configured. It goes on once it is again",
        ),
        (
            {"state": JobState.WAITING_RETRY, "error": JobError("model_unusable", "no such folder")},
            1,
            0,
            "waits to be tried again. The last attempt failed: no such folder",
        ),
    ],
)
def test_why_a_job_waits(changes, workers, silent, why):
    fake = FakeBackend(autorun=False)
    status = Tether(backend=fake).submit("echo", "hi").status()
    pools = ("here",) if workers else ()
    models = [
        ModelInfo(name="echo", version="1", context=100, workers=workers, silent_workers=silent, pools=pools)
    ]
    assert why_waiting(replace(status, **changes), models) == why


@pytest.mark.parametrize(
    ("seconds", "is_told"),
    [
        (12, "expected to begin in about 12 s"),
        (0, "expected to begin now"),
        (-5, "was expected to begin 5 s ago"),
    ],
)
def test_a_wait_is_told_once_with_what_the_gateway_knows_and_when_it_is_expected_to_end(
    monkeypatch, capsys, seconds, is_told
):
    client = Tether(backend=FakeBackend(autorun=False))
    handle = client.submit("echo", "hi")
    words = f"pool {handle.status().pool} has 12 jobs for 4 slots"
    status = replace(
        handle.status(), state=JobState.PLACED, waits_for=words, expected_at=100_000 + seconds * 1000
    )
    monkeypatch.setattr(type(handle), "status", lambda handle: status)
    times = iter((100_000, 101_000))
    news = JobNews(client, handle, open_output()[1], now_ms=lambda: next(times))
    news.tell_silence()
    news.tell_silence()
    assert capsys.readouterr().err == (
        f"job {handle.job_id}: waits: {words}; {is_told}. Why there: tether explain --job {handle.job_id}\n"
    )


def test_who_is_absent_is_told_beside_what_the_gateway_says_of_a_pool_without_workers():
    status = Tether(backend=FakeBackend(autorun=False)).submit("echo", "hi").status()
    status = replace(status, state=JobState.PLACED, waits_for="no worker serves model 'echo' now")
    models = [ModelInfo(name="echo", version="1", context=100, silent_workers=1)]
    assert why_waiting(status, models) == (
        "waits: no worker serves model 'echo' now; 1 announced, but draws no jobs"
    )


@pytest.mark.parametrize(
    ("places", "why"),
    [
        ({"gpu_class": "a100"}, "on GPU class a100 alone"),
        ({"region": "eu"}, "in region eu alone"),
        ({"gpu_class": "a100", "region": "eu"}, "on GPU class a100 in region eu alone"),
    ],
)
def test_a_job_whose_model_may_run_in_one_place_alone_waits_for_a_worker_there(places, why):
    status = Tether(backend=FakeBackend(autorun=False)).submit("echo", "hi").status()
    models = [ModelInfo(name="echo", version="1", context=100, **places)]
    assert why_waiting(status, models) == f"waits: no worker serves model 'echo' now; it may be served {why}"


def test_a_job_waits_in_the_pool_of_its_own_version():
    fake = FakeBackend(autorun=False)
    status = Tether(backend=fake).submit("echo", "hi").status()
    status = replace(status, pool="of-two", state=JobState.PLACED)
    models = [
        ModelInfo(name="echo", version=version, context=100, workers=1, pools=(pool,))
        for version, pool in (("1", "of-one"), ("2", "of-two"))
    ]
    assert why_waiting(status, models) == "waits: the workers of model 'echo' are busy, or are loading it"


@pytest.mark.parametrize(
    ("state", "orchestrator", "is_told"),
    [
        (JobState.ACCEPTED, "absent", True),
        (JobState.PARKED, "absent", True),
        (JobState.WAITING_RETRY, "absent", True),
        (JobState.PLACED, "absent", False),
        (JobState.ACCEPTED, "ok", False),
        (JobState.ACCEPTED, None, False),
    ],
)
def test_a_job_that_only_an_orchestrator_can_place_waits_for_one(state, orchestrator, is_told):
    status = replace(Tether(backend=FakeBackend(autorun=False)).submit("echo", "hi").status(), state=state)
    health = {"redis": "ok"} | ({"orchestrator": orchestrator} if orchestrator else {})
    why = why_waiting(status, [ModelInfo(name="echo", version="1", context=100)], health)
    assert ("no orchestrator runs" in why and "`tether orchestrator` starts one" in why) is is_told


@pytest.mark.parametrize("words", ["", "pool here has 12 jobs for 4 slots"])
@pytest.mark.parametrize(("orchestrator", "is_told"), [("absent", True), ("ok", False)])
def test_a_placed_job_may_wait_for_the_first_orchestrator_of_an_empty_redis(orchestrator, is_told, words):
    status = Tether(backend=FakeBackend(autorun=False)).submit("echo", "hi").status()
    status = replace(status, pool="here", state=JobState.PLACED, waits_for=words)
    models = [ModelInfo(name="echo", version="1", context=100, workers=1, pools=("here",))]
    why = why_waiting(status, models, {"redis": "ok", "orchestrator": orchestrator})
    assert ("Redis was empty" in why and "`tether orchestrator` starts one" in why) is is_told


@pytest.mark.parametrize(("is_loaded", "is_told"), [(False, True), (True, False)])
def test_a_job_whose_model_cannot_be_loaded_waits_for_that(is_loaded, is_told):
    status = Tether(backend=FakeBackend(autorun=False)).submit("echo", "hi").status()
    failing = {"b96e7cb22d0f2c7a": "no room for it", "c96e7cb22d0f2c7a": "no such folder"}
    model = ModelInfo(name="echo", version="1", context=100, workers=2, pools=(status.pool,))
    why = why_waiting(status, [replace(model, is_loaded=is_loaded, failing_workers=failing)])
    assert (
        why == "waits: worker b96e7cb22d0f2c7a cannot load model 'echo', and tries again by itself: "
        "no room for it; 1 more cannot either"
    ) == is_told


@pytest.mark.parametrize(("workers", "is_told"), [(1, True), (2, False)])
def test_a_job_whose_model_only_held_workers_serve_waits_for_these(workers, is_told):
    status = Tether(backend=FakeBackend(autorun=False)).submit("echo", "hi").status()
    held = {"b96e7cb22d0f2c7a": "5 attempts in a row failed"}
    models = [
        ModelInfo(
            name="echo", version="1", context=100, workers=workers, held_workers=held, pools=(status.pool,)
        )
    ]
    why = why_waiting(status, models)
    assert (
        why == "waits: all workers of model 'echo' are held back, as worker b96e7cb22d0f2c7a: "
        "5 attempts in a row failed"
    ) == is_told


@pytest.mark.parametrize(
    ("is_ended", "then"), [(False, "the job is kept, and goes on,"), (True, "its text comes")]
)
def test_while_redis_is_away_nothing_is_said_of_workers(is_ended, then, capsys):
    fake = FakeBackend(autorun=is_ended)
    client = Tether(backend=fake)
    handle = client.submit("echo", "hi")
    news = JobNews(client, handle, open_output()[1], lambda: {"redis": "unavailable"})
    news.tell_silence()
    news.tell_silence()
    assert capsys.readouterr().err == (
        f"job {handle.job_id}: waits: the gateway's Redis does not respond; {then} once it does\n"
    )
