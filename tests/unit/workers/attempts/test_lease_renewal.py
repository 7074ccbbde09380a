"""Beats: who steps or may be silent yet keeps its lease; the answers end attempts."""

import time

import pytest
import redis
from structlog.testing import capture_logs

from support.drawn_jobs import drawn_job
from support.fake_port import FakePort
from tether.broker.pools.worker_port import WriteStatus
from tether.clocks import ClockReading, SharedClock
from tether.jobs import Piece
from tether.outcomes import Fence
from tether_workers.attempts import lease_renewal
from tether_workers.attempts.attempt import AttemptEnding, AttemptPhase
from tether_workers.attempts.lease_renewal import DEADLINE_PAUSE_SECONDS, LeaseRenewal
from tether_workers.attempts.running import Attempts

LIMIT = 10.0


class Bench:
    def __init__(self, lease=0.03, clock=None):
        self.now = 0.0
        self.port = FakePort()
        self.attempts = Attempts(
            clock=lambda: self.now,
            on_unwritten=lambda attempt: None,
            on_began=lambda attempt: self.beats.note_begun(attempt),
        )
        # This machine's clock is off by ten minutes, until Redis's is read.
        self.shared = SharedClock(
            host_ms=lambda: self.redis_ms + 600_000, monotonic=lambda: round(self.now * 1000)
        )
        self.beats = LeaseRenewal(
            self.port,
            self.attempts,
            lease=lease,
            loading_limit=LIMIT,
            shared_clock=self.shared,
            clock=clock or (lambda: self.now),
        )

    @property
    def redis_ms(self):
        return 1_800_000_000_000 + round(self.now * 1000)

    def read_clock(self):
        self.shared.follow(ClockReading(self.redis_ms, self.now * 1000, self.now * 1000))

    def draw(self, number=1, **changes):
        self.attempts.began(self.port.hold(drawn_job(number, **changes)))
        return self.attempts.find(f"boot:{number}")

    def renewed(self):
        self.beats.beat()
        return [pulse.renew for pulse in self.port.pulses]


@pytest.fixture
def bench():
    return Bench()


@pytest.mark.parametrize(
    "phase", [AttemptPhase.WAITING, AttemptPhase.LOADING, AttemptPhase.PREFILL, AttemptPhase.ENDING]
)
def test_a_silent_phase_keeps_its_lease_within_the_limit_only(bench, phase):
    bench.draw().enter(phase)
    bench.now = LIMIT - 0.1
    assert bench.renewed() == [True]
    bench.now = LIMIT
    assert bench.renewed() == [False]


def test_an_engine_that_stands_still_loses_its_lease(bench):
    attempt = bench.draw()
    attempt.push([Piece(1, "a")])
    assert bench.renewed() == [True]
    assert bench.renewed() == [False]
    attempt.push([Piece(2, "b")])
    assert bench.renewed() == [True]


def test_a_token_of_which_a_beat_that_failed_told_is_told_by_the_next_one(bench):
    bench.draw().push([Piece(1, "a")])
    bench.port.is_away.set()
    with pytest.raises(redis.ConnectionError):
        bench.beats.beat()
    bench.port.is_away.clear()
    assert bench.renewed() == [True]
    assert bench.renewed() == [False]


def test_leases_are_renewed_beside_one_whose_beat_fails(bench):
    bench.draw(1), bench.draw(2), bench.draw(3)
    sound, heard = bench.port.beat, []

    def beat(pulses):
        if any(pulse.job_id == "job-2" for pulse in pulses):
            raise redis.ResponseError("WRONGTYPE")
        heard.extend(pulse.job_id for pulse in pulses)
        return sound(pulses)

    bench.port.beat = beat
    with capture_logs() as lines:
        bench.beats.beat()
        bench.beats.beat()
    assert heard == ["job-1", "job-3"] * 2
    assert [line["job_id"] for line in lines] == ["job-2"]
    bench.port.is_away.set()
    with pytest.raises(redis.ConnectionError):
        bench.beats.beat()


def test_the_answers_end_attempts(bench):
    cancelled, expired, fenced, unknown, well = (bench.draw(number) for number in range(5))
    bench.port.streams["job-0"].cancel = WriteStatus.CANCELLED
    bench.port.streams["job-1"].cancel = WriteStatus.EXPIRED
    bench.port.streams["job-2"].fence = Fence(9, 9, "other")
    del bench.port.streams["job-3"]
    bench.beats.beat()
    assert cancelled.ending is AttemptEnding.CANCELLED
    assert expired.ending is AttemptEnding.EXPIRED
    assert fenced.ending is unknown.ending is AttemptEnding.DROP
    assert well.ending is None


def test_it_beats_at_once_where_an_end_may_have_been_asked_for(monkeypatch):
    monkeypatch.setattr(lease_renewal, "MAX_INTERVAL_SECONDS", 100.0)
    bench = Bench(lease=1_000.0)
    attempt = bench.draw()
    loop = bench.beats.loop
    signals = loop.observe()
    bench.beats.start()
    try:
        signals.idle.wait()
        bench.port.streams["job-1"].cancel = WriteStatus.CANCELLED
        bench.beats.beat_now()
        assert attempt.cancelled.wait(60)
        assert attempt.ending is AttemptEnding.CANCELLED
    finally:
        bench.beats.stop()


def test_a_deadline_is_asked_about_when_it_comes():
    bench = Bench(lease=300.0)
    bench.read_clock()
    bench.beats._step()
    attempt = bench.draw(deadline=bench.redis_ms + 300)
    bench.draw(2)
    calls = len(bench.port.calls)
    assert bench.beats._step() == pytest.approx(0.3)
    assert len(bench.port.calls) == calls
    bench.now += 0.3
    bench.port.streams["job-1"].cancel = WriteStatus.EXPIRED
    assert bench.beats._step() == 1.0
    assert attempt.ending is AttemptEnding.EXPIRED
    assert bench.attempts.find("boot:2").ending is None


def test_where_redis_has_another_time_after_all_it_is_asked_soon_and_then_as_usual():
    bench = Bench(lease=300.0)
    bench.read_clock()
    attempt = bench.draw(deadline=bench.redis_ms + 300)
    bench.now += 0.31
    assert bench.beats._step() == DEADLINE_PAUSE_SECONDS
    bench.now += 1.0
    assert bench.beats._step() == 1.0
    assert attempt.ending is None


def test_what_begins_with_a_deadline_wakes_it(monkeypatch):
    monkeypatch.setattr(lease_renewal, "MAX_INTERVAL_SECONDS", 100.0)
    bench = Bench(lease=300.0)
    signals = bench.beats.loop.observe()
    bench.beats.start()
    try:
        signals.idle.wait()
        bench.draw(deadline=bench.redis_ms + 10**9)
        # Sooner than in the hundred seconds of its interval.
        signals.stepped.wait(60)
    finally:
        bench.beats.stop()


@pytest.mark.parametrize("was_read", [True, False])
def test_while_redis_is_away_a_deadline_ends_what_runs_where_its_clock_is_known(bench, was_read):
    if was_read:
        bench.read_clock()
    late, other = bench.draw(deadline=bench.redis_ms + 100), bench.draw(2, deadline=bench.redis_ms + 10_000)
    bench.port.is_away.set()
    for seconds, ending in ((0.0, None), (0.2, AttemptEnding.EXPIRED if was_read else None)):
        bench.now += seconds
        with pytest.raises(redis.ConnectionError):
            bench.beats.beat()
        assert late.ending is ending
    assert other.ending is None


def test_dropped_attempts_are_not_asked_about(bench):
    bench.draw(1).end(AttemptEnding.DROP)
    bench.beats.beat()
    assert bench.port.calls == []


def test_a_changed_epoch_drops_the_attempts(bench):
    attempt = bench.draw()
    bench.port.epoch = 2
    bench.beats.beat()
    assert attempt.dropped.is_set()


def test_the_thread_beats_through_an_outage_and_ends_when_it_is_stopped():
    bench = Bench(clock=time.monotonic)
    bench.draw()
    bench.port.is_away.set()
    bench.beats.start()
    for _ in range(2):
        assert bench.port.tried.acquire(timeout=60)
    bench.port.is_away.clear()
    for _ in range(2):
        assert bench.port.tried.acquire(timeout=60)
    bench.beats.stop()
    assert "beat" in bench.port.calls
    assert not bench.beats.loop.is_alive
