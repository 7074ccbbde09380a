"""Inference workers on a real Redis: jobs end, streams are whole, whatever happens in between."""

import functools
import signal
import sys
import threading

import pytest

from support.inference import InferenceBench, whole_answer
from support.waiting import PATIENCE_SECONDS, eventually
from tether.clocks import SharedClock, wall_clock_ms
from tether.discovery.announcements.presence import ModelState
from tether.discovery.announcements.wire import verify_envelope
from tether.discovery.over_redis.redis_presence import RedisPresence
from tether.errors import ConfigError
from tether.jobs import JobState
from tether_workers import runtime
from tether_workers.attempts import lease_renewal
from tether_workers.base import BaseWorker, ResultKind

OURS = (
    *("tether-flush", "tether-beat", "tether-health", "tether-drain", "tether-commands"),
    "tether-manifest",
)


@pytest.fixture
def make_bench(tmp_path):
    benches = []

    def make(**options):
        benches.append(InferenceBench(tmp_path, **options))
        return benches[-1]

    yield make
    for bench in benches:
        bench.close()


@pytest.fixture
def bench(make_bench):
    return make_bench()


@pytest.fixture
def slow_bench(make_bench):
    """Its jobs run long enough to be seen running."""
    return make_bench(tokens_per_second=100.0)


class Team(BaseWorker):
    def __init__(self):
        self.results = []
        self.loads = []

    def before_load(self, model):
        self.loads.append(model.name)

    def after_result(self, job, result):
        self.results.append((job.job_id, result))


def test_jobs_run_to_their_end_with_whole_streams(bench):
    team = Team()
    bench.start_worker(base=team)
    jobs = [bench.place(number, max_tokens=50 + number) for number in range(30)]
    for number, job_id in enumerate(jobs):
        bench.wait_for_state(job_id, "succeeded")
        assert bench.texts(job_id) == whole_answer(50 + number)
        assert [event.kind for event in bench.events(job_id)][-1] == "finished"
    assert {outcome["kind"] for outcome in bench.outcomes()} == {"succeeded"}
    assert len(bench.outcomes()) == 30
    eventually(lambda: len(team.results) == 30, PATIENCE_SECONDS, "all hooks ran")
    assert {result.kind for _, result in team.results} == {ResultKind.SUCCEEDED}
    assert team.loads == ["count"]


def test_a_worker_started_before_there_is_an_epoch_serves_once_there_is_one(bench):
    bench.client.delete(bench.keys.epoch)
    bench.start_worker()
    job_id = bench.place()
    bench.set_epoch(1)
    bench.wait_for_state(job_id, "succeeded")


def test_a_stopped_worker_leaves_no_thread_no_idle_place_and_no_presence(bench):
    before = {thread.name for thread in threading.enumerate()}
    worker = bench.start_worker()
    idle = f"tether:pool:{bench.pool}:idle".replace("tether", "{tether}", 1)
    eventually(lambda: bench.client.scard(idle) == 1, PATIENCE_SECONDS, "the worker stands idle")
    presence = RedisPresence(bench.client, bench.keys)
    eventually(presence.read_all, PATIENCE_SECONDS, "the worker is announced")
    bench.stop_worker(worker)
    assert bench.client.scard(idle) == 0
    assert presence.read_all() == []
    presence.close()
    left = {thread.name for thread in threading.enumerate()} - before
    assert not left.intersection(OURS)


def test_its_presence_tells_what_it_serves_and_that_it_is_loaded(bench):
    bench.start_worker()
    bench.wait_for_state(bench.place(), "succeeded")
    presence = RedisPresence(bench.client, bench.keys)

    def announced():
        found = [verify_envelope(heard.envelope, lambda key: True) for heard in presence.read_all()]
        return [told for told in found if told.supported[0].state is ModelState.WARM]

    told = eventually(announced, PATIENCE_SECONDS, "the model is announced as loaded")[0]
    assert told.pools == (bench.pool,)
    assert (told.slots, told.supported[0].name) == (4, "count")
    presence.close()


def test_a_cancelled_job_ends_in_the_middle_of_its_stream(slow_bench):
    slow_bench.start_worker()
    job_id = slow_bench.place(max_tokens=100_000)
    slow_bench.wait_for_tokens(job_id, 3)
    assert slow_bench.pools.cancel_many([(job_id, JobState.CANCELLED)]) == ["running"]
    slow_bench.wait_for_state(job_id, "cancelled")
    texts = slow_bench.texts(job_id)
    assert texts == whole_answer(len(texts))
    assert [outcome["kind"] for outcome in slow_bench.outcomes()] == ["cancelled"]


@pytest.fixture
def never_beats(monkeypatch):
    """What is asked of an attempt that makes no token reaches it by a word alone."""
    monkeypatch.setattr(lease_renewal, "MAX_INTERVAL_SECONDS", 100 * PATIENCE_SECONDS)


def test_a_cancel_reaches_an_engine_that_makes_no_token_and_whose_lease_is_long(make_bench, never_beats):
    bench = make_bench(tokens_per_second=0.001, lease_ms=1_000 * 300 * int(PATIENCE_SECONDS))
    bench.start_worker()
    jobs = [bench.place(number, max_tokens=10) for number in range(3)]
    for job_id in jobs:
        bench.wait_for_state(job_id, "running")
    bench.pools.cancel_many([(jobs[0], JobState.CANCELLED), (jobs[1], JobState.EXPIRED)])
    bench.wait_for_state(jobs[0], "cancelled")
    bench.wait_for_state(jobs[1], "expired")
    assert bench.state(jobs[2]) == "running"
    # The slots are free.
    others = [bench.place(number) for number in (7, 8, 9)]
    for job_id in others:
        bench.wait_for_state(job_id, "running")
    bench.pools.cancel_many([(job_id, JobState.CANCELLED) for job_id in (jobs[2], *others)])
    for job_id in (jobs[2], *others):
        bench.wait_for_state(job_id, "cancelled")


def test_a_cancel_of_which_no_word_comes_is_found_with_the_next_beat(slow_bench):
    slow_bench.models[0]["options"]["tokens_per_second"] = 0.001
    slow_bench.start_worker()
    job_id = slow_bench.place()
    slow_bench.wait_for_state(job_id, "running")
    # As a program of an older version asks for it.
    slow_bench.client.hset(slow_bench.keys.job(job_id), "cancel", "cancelled")
    slow_bench.wait_for_state(job_id, "cancelled")


def test_a_cancel_while_redis_drops_connections_is_heard_afterwards(make_bench, never_beats):
    bench = make_bench(tokens_per_second=0.001, lease_ms=1_000 * 300 * int(PATIENCE_SECONDS))
    bench.start_worker()
    job_id = bench.place()
    bench.wait_for_state(job_id, "running")
    bench.client.hset(bench.keys.job(job_id), "cancel", "cancelled")
    bench.client.client_kill_filter(_type="pubsub")
    bench.wait_for_state(job_id, "cancelled")


@pytest.mark.parametrize("host_is_off_by_ms", [0, 600_000, -600_000])
def test_a_deadline_ends_an_engine_that_makes_no_token_whatever_its_hosts_clock(
    make_bench, never_beats, monkeypatch, host_is_off_by_ms
):
    def off():
        return wall_clock_ms() + host_is_off_by_ms

    monkeypatch.setattr(runtime, "SharedClock", functools.partial(SharedClock, host_ms=off))
    bench = make_bench(tokens_per_second=0.001, lease_ms=1_000 * 300 * int(PATIENCE_SECONDS))
    bench.start_worker()
    seconds, _ = bench.client.time()
    early = bench.place(1, deadline=(seconds + 2) * 1000)
    late = bench.place(2, deadline=(seconds + 3_600) * 1000)
    bench.wait_for_state(early, "expired")
    assert bench.client.time()[0] >= seconds + 2
    assert bench.state(late) == "running"
    bench.pools.cancel_many([(late, JobState.CANCELLED)])
    bench.wait_for_state(late, "cancelled")


def test_a_job_past_its_deadline_ends(slow_bench):
    slow_bench.start_worker()
    seconds, _ = slow_bench.client.time()
    job_id = slow_bench.place(max_tokens=100_000, deadline=(seconds + 2) * 1000)
    slow_bench.wait_for_state(job_id, "expired")


def test_a_job_that_cannot_be_read_fails_and_the_worker_goes_on(bench):
    bench.start_worker()
    bad, good = bench.place(1, body=b"{"), bench.place(2)
    bench.wait_for_state(bad, "failed")
    bench.wait_for_state(good, "succeeded")
    assert '"request_invalid"' in next(o["error"] for o in bench.outcomes() if o["job"] == bad)


def test_more_jobs_than_slots_all_run_and_never_more_at_once(slow_bench):
    slow_bench.start_worker(threads=2)
    jobs = [slow_bench.place(number, max_tokens=10) for number in range(6)]
    most = 0

    def all_done():
        nonlocal most
        states = slow_bench.states_at_once(jobs)
        most = max(most, states.count("running"))
        return set(states) == {"succeeded"}

    eventually(all_done, PATIENCE_SECONDS, "all ended")
    assert most <= 2


def test_tokens_go_on_through_a_restart_of_redis(slow_bench):
    slow_bench.start_process()
    job_id = slow_bench.place(max_tokens=300)
    slow_bench.wait_for_tokens(job_id, 20)
    slow_bench.server.stop()
    slow_bench.server.start()
    slow_bench.wait_for_state(job_id, "succeeded", ticking=True)
    assert slow_bench.texts(job_id) == whole_answer(300)
    started = [event for event in slow_bench.events(job_id) if event.kind == "started"]
    assert len(started) == 1
    slow_bench.wait_for_state(slow_bench.place(2), "succeeded")


def test_after_a_loss_of_everything_attempts_are_dropped_and_new_jobs_run(slow_bench):
    slow_bench.start_worker()
    lost = slow_bench.place(1, max_tokens=100_000)
    slow_bench.wait_for_tokens(lost, 3)
    slow_bench.client.flushall()
    slow_bench.set_epoch(2)
    again = slow_bench.place(2)
    slow_bench.wait_for_state(again, "succeeded")
    assert slow_bench.state(lost) == ""
    assert slow_bench.events(lost) == []


def test_a_stopping_process_hands_its_job_over_and_another_goes_on_with_it(make_bench):
    bench = make_bench(tokens_per_second=100.0, drain_ms=100)
    process = bench.start_process()
    job_id = bench.place(max_tokens=400)
    bench.wait_for_tokens(job_id, 20)
    process.signal(signal.SIGTERM)
    process.wait_for_end(PATIENCE_SECONDS)
    assert bench.state(job_id) == "placed"
    assert 20 <= bench.offset(job_id) < 400
    bench.start_process()
    bench.wait_for_state(job_id, "succeeded")
    assert bench.texts(job_id) == whole_answer(400)
    assert bench.client.hget(bench.keys.job(job_id), "deaths") == b"0"
    assert len({o["worker"] for o in bench.outcomes()}) == 1


def test_a_stopping_process_finishes_what_ends_in_time(slow_bench):
    process = slow_bench.start_process()
    job_id = slow_bench.place(max_tokens=100)
    slow_bench.wait_for_tokens(job_id, 5)
    process.signal(signal.SIGTERM)
    process.wait_for_end(PATIENCE_SECONDS)
    assert slow_bench.state(job_id) == "succeeded"
    assert slow_bench.texts(job_id) == whole_answer(100)


def test_a_killed_process_loses_no_token_and_doubles_none(slow_bench):
    process = slow_bench.start_process()
    job_id = slow_bench.place(max_tokens=300)
    slow_bench.wait_for_tokens(job_id, 20)
    slow_bench.kill_children(process)
    slow_bench.wait_for_state(job_id, "succeeded", ticking=True)
    assert slow_bench.texts(job_id) == whole_answer(300)
    assert slow_bench.client.hget(slow_bench.keys.job(job_id), "deaths") == b"1"


def test_dramatiqs_own_command_runs_it_too(bench):
    process = bench.start_process(
        sys.executable, "-m", "dramatiq", "tether_workers.app", "-p", "1", "-t", "2"
    )
    job_id = bench.place()
    bench.wait_for_state(job_id, "succeeded")
    assert bench.texts(job_id) == whole_answer(20)
    assert process.stop() == 0


def test_a_worker_without_models_does_not_start(make_bench):
    bench = make_bench()
    bench.models = []
    process = bench.begin_process()
    process.wait_for_end(PATIENCE_SECONDS)
    assert process.stop() == ConfigError.exit_status
    assert any("no models are configured; add a [[models]] table" in line for line in process.lines)
