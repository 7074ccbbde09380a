"""What Redis remembers of where a job began when it moves to another pool."""

from dataclasses import replace

import pytest

from support.hand_worker import growth
from support.pool_stage import POOL, Stage, draw

RUNS_PER_DISPATCH = 256
OTHER = "gpu.h100.eu.other-0123abcd"


@pytest.fixture
def stage(shared_redis_server, namespace):
    opened = Stage(shared_redis_server, namespace)
    yield opened
    opened.close()


def began_in(stage, job_id="a"):
    return stage.field(job_id, "began_in")


def test_a_job_that_moves_says_from_where_its_tokens_are(stage):
    stage.place("a")
    (job,) = draw(stage.worker("w"))
    assert job.began_in == ""
    stage.worker("w").append_many([growth(job, 3)])
    stage.place("a", dispatch=2, pool=OTHER)
    (moved,) = draw(stage.worker("v"), pools=(OTHER,))
    assert (moved.began_in, moved.offset) == (POOL, 3)


def test_a_pool_that_never_drew_it_made_no_tokens(stage):
    stage.place("a")
    draw(stage.worker("w"))
    stage.place("a", dispatch=2, pool=OTHER)
    stage.place("a", dispatch=3, pool="third")
    (job,) = draw(stage.worker("v"), pools=("third",))
    assert job.began_in == POOL


def test_a_pool_that_drew_it_and_wrote_nothing_made_no_tokens(stage):
    stage.place("a")
    (job,) = draw(stage.worker("w"))
    stage.worker("w").append_many([growth(job, 3)])
    stage.place("a", dispatch=2, pool=OTHER)
    draw(stage.worker("v"), pools=(OTHER,))
    stage.place("a", dispatch=3, pool=OTHER)
    (job,) = draw(stage.worker("u"), pools=(OTHER,))
    assert (job.began_in, job.offset) == (POOL, 3)


def test_a_pool_that_began_the_tokens_anew_is_where_they_are_from(stage):
    stage.place("a")
    (job,) = draw(stage.worker("w"))
    stage.worker("w").append_many([growth(job, 3)])
    stage.place("a", dispatch=2, pool=OTHER)
    (moved,) = draw(stage.worker("v"), pools=(OTHER,))
    again = replace(growth(moved, offset=0), run=RUNS_PER_DISPATCH + 1, restarted=True, data=b'{"offset":0}')
    stage.worker("v").append_many([again])
    stage.place("a", dispatch=3)
    (job,) = draw(stage.worker("u"))
    assert (job.began_in, job.offset, job.run) == (OTHER, 0, RUNS_PER_DISPATCH + 1)


def test_tokens_that_redis_lost_stay_lost_until_they_are_made_anew(stage):
    stage.place("a")
    (job,) = draw(stage.worker("w"))
    stage.worker("w").append_many([growth(job, 3)])
    stage.redis.delete(stage.keys.job("a"))
    stage.place("a", dispatch=2)
    assert stage.field("a", "lossy") == "1"
    draw(stage.worker("v"))
    stage.place("a", dispatch=3)
    assert stage.field("a", "lossy") == "1"
    (job,) = draw(stage.worker("u"))
    again = replace(
        growth(job, offset=0), run=2 * RUNS_PER_DISPATCH + 1, restarted=True, data=b'{"offset":0}'
    )
    stage.worker("u").append_many([again])
    stage.place("a", dispatch=4)
    assert stage.field("a", "lossy") == "0"


def test_a_job_that_was_never_drawn_began_nowhere(stage):
    stage.place("a")
    stage.place("a", dispatch=2, pool=OTHER)
    (job,) = draw(stage.worker("v"), pools=(OTHER,))
    assert job.began_in == ""
