"""Standard jobs that interactive ones keep waiting get a share of the pool, and no more than that."""

import itertools
from collections import Counter

import pytest

from support.hand_worker import growth
from support.planted_bugs import plant
from support.pool_stage import OTHER, POOL, Stage, draw, ids
from tether.jobs import Priority

INTERACTIVE, STANDARD, BATCH = Priority
INPUT = 4


@pytest.fixture
def stage(shared_redis_server, namespace):
    opened = Stage(shared_redis_server, namespace)
    yield opened
    opened.close()


class Flood:
    """A worker with some slots, for which interactive jobs always wait."""

    def __init__(self, stage, slots=1, pools=(POOL,), lengths=None):
        self.stage, self.slots, self.pools = stage, slots, pools
        self.lengths = lengths or {INTERACTIVE: 10, STANDARD: 10, BATCH: 10}
        self.worker = stage.worker("w.1")
        self.numbers = itertools.count(1)
        self.running = []
        self.tokens = Counter()

    def run(self, steps, tokens=2):
        """In each step free slots draw, and each running job makes tokens."""
        for _ in range(steps):
            self.stage.place_all(
                [f"{INTERACTIVE}-{next(self.numbers)}" for _ in range(self.slots + 1)],
                priority=INTERACTIVE,
                cost=INPUT,
            )
            if self.slots > len(self.running):
                free = self.slots - len(self.running)
                found = draw(self.worker, free, self.pools, busy=bool(self.running))
                self.running += [[job, 0] for job in found]
                for job in found:
                    self.tokens[self.of(job)] += INPUT
            for each in list(self.running):
                job, made = each
                self.tokens[self.of(job)] += 2 * tokens
                if made + tokens >= self.lengths[self.of(job)]:
                    self.worker.finish(growth(job, tokens, offset=made), input_tokens=INPUT)
                    self.running.remove(each)
                else:
                    self.worker.append(growth(job, tokens, offset=made))
                    each[1] += tokens

    @staticmethod
    def of(job):
        return Priority(job.job_id.split("-")[0])

    def share(self, priority=STANDARD):
        return self.tokens[priority] / sum(self.tokens.values())


def wait_for_long(stage, count=100, *, priority=STANDARD, **given):
    stage.place_all([f"{priority}-{n}" for n in range(count)], priority=priority, cost=INPUT, **given)


def late(stage):
    return stage.redis.hkeys(f"{stage.keys.prefix}:core:late")


def test_a_flood_of_interactive_jobs_starves_no_standard_ones(stage):
    wait_for_long(stage)
    flood = Flood(stage)
    flood.run(100)
    assert flood.share() == 0, "none is late yet"
    stage.tick(standard_age_ms=0)
    assert late(stage) == [POOL.encode()]
    flood.tokens.clear()
    flood.run(400)
    assert 0.07 < flood.share() < 0.13


@pytest.mark.parametrize("slots", [1, 8])
def test_longer_ones_get_no_more(stage, slots):
    wait_for_long(stage)
    flood = Flood(stage, slots, lengths={INTERACTIVE: 6, STANDARD: 60})
    stage.tick(standard_age_ms=0)
    flood.run(1_200 // slots)
    assert flood.tokens[STANDARD] <= 0.1 * sum(flood.tokens.values()) + slots * 2 * 60
    assert flood.share() > 0.05


def test_a_share_of_none_is_none(stage):
    wait_for_long(stage)
    flood = Flood(stage)
    stage.tick(standard_age_ms=0, standard_share=0)
    flood.run(100)
    assert flood.share() == 0


def test_a_share_can_be_another(stage):
    wait_for_long(stage)
    flood = Flood(stage)
    stage.tick(standard_age_ms=0, standard_share=0.5)
    flood.run(300)
    assert 0.4 < flood.share() < 0.6


def test_batch_jobs_that_have_aged_get_it_too(stage):
    wait_for_long(stage, 5, priority=BATCH)
    stage.tick(age_ms=0)
    stage.tick(age_ms=0, standard_age_ms=0)
    flood = Flood(stage)
    flood.run(200)
    assert flood.tokens[BATCH] > 0


def test_a_worker_of_several_pools_passes_none_of_them_over(stage):
    wait_for_long(stage, pool=OTHER)
    flood = Flood(stage, pools=(POOL, OTHER))
    stage.tick(standard_age_ms=0)
    assert late(stage) == [OTHER.encode()]
    flood.run(400)
    assert 0.07 < flood.share() < 0.13


def test_those_of_several_pools_share_it(stage):
    wait_for_long(stage, pool=OTHER)
    stage.place_all([f"{STANDARD}-here-{n}" for n in range(100)], cost=INPUT)
    flood = Flood(stage, pools=(POOL, OTHER))
    stage.tick(standard_age_ms=0)
    assert len(late(stage)) == 2
    flood.run(600)
    assert 0.05 < flood.share() < 0.14


def test_an_interactive_job_now_and_then_waits_for_none_of_an_overload_of_standard_ones(stage):
    wait_for_long(stage)
    worker = stage.worker("w.1")
    for n in range(100):
        stage.redis.hset(stage.keys.job(f"{STANDARD}-{n}"), "placed_at", 1)
    stage.redis.zadd(f"{stage.keys.prefix}:pool:{POOL}:ages", {"default": 1})
    stage.tick(standard_age_ms=60_000)
    assert late(stage) == [POOL.encode()]
    for number in range(30):
        (job,) = draw(worker)
        assert job.job_id.startswith(STANDARD)
        stage.place(f"{INTERACTIVE}-{number}", priority=INTERACTIVE, cost=INPUT)
        worker.finish(growth(job, 10), input_tokens=INPUT)
        (job,) = draw(worker)
        assert job.job_id == f"{INTERACTIVE}-{number}", "it is next"
        worker.finish(growth(job, 10), input_tokens=INPUT)
        stage.tick(standard_age_ms=60_000)


def test_what_is_not_old_is_not_late(stage):
    stage.place("gone", tenant="gone")
    assert stage.cancel("gone") == "closed"
    wait_for_long(stage, 3)
    stage.tick(standard_age_ms=60_000)
    assert late(stage) == []
    stage.tick(standard_age_ms=0)
    assert len(ids(draw(stage.worker("w.1"), 4))) == 3
    key = f"{stage.keys.prefix}:core:late"
    text = stage.redis.hget(key, POOL).decode()
    stage.redis.hset(key, POOL, " ".join(["1", *text.split()[1:]]))
    stage.tick(standard_age_ms=0)
    assert late(stage) == [], "nothing waits"
    assert not stage.redis.exists(f"{stage.keys.prefix}:pool:{POOL}:ages")


@pytest.mark.parametrize(
    "text", ["", "x", "1 2 3", "9" * 30 + " 1 100 0 0 0 0", "nan nan nan nan nan nan nan"]
)
def test_what_cannot_be_read_of_a_late_pool_says_nothing(stage, text):
    wait_for_long(stage, 3)
    stage.redis.hset(f"{stage.keys.prefix}:core:late", POOL, text)
    flood = Flood(stage)
    flood.run(20)
    assert flood.share() == 0
    stage.tick(standard_age_ms=60_000)
    assert late(stage) == []


def test_lanes_that_an_older_version_left_are_late_once_the_sweep_came_by(stage):
    wait_for_long(stage, 3)
    stage.redis.delete(f"{stage.keys.prefix}:pool:{POOL}:ages")
    stage.tick(standard_age_ms=0)
    assert late(stage) == []
    assert stage.pools.tidy("tenants", POOL, STANDARD, "default") == (0, 1)
    stage.tick(standard_age_ms=0)
    assert late(stage) == [POOL.encode()]


PLANTED = {
    "late ones come first without end": ("draw", "state.debt == 0", "true"),
    "late ones come never": ("draw", "state.debt == 0", "false"),
    "what they make is not counted": (
        "append_many",
        "  note_classes(worker_of(renewing), totals, now)\n",
        "",
    ),
    "what passes by is not counted": ("append_many", "state.debt - passed)", "state.debt)"),
}
"""Bugs: (script, what stands there, what is to stand there)."""


@pytest.mark.mutants
@pytest.mark.parametrize("bug", PLANTED)
def test_a_planted_bug_in_shares_is_caught(stage, bug, monkeypatch):
    plant(monkeypatch, PLANTED[bug])
    wait_for_long(stage)
    flood = Flood(stage, 4, lengths={INTERACTIVE: 20, STANDARD: 60})
    stage.tick(standard_age_ms=0)
    flood.run(200)
    assert not 0.05 < flood.share() < 0.15
