"""What Redis remembers of where a job began when it moves to another pool."""

import pytest

from support.hand_worker import growth
from support.pool_stage import POOL, Stage, draw

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


def test_a_job_that_was_never_drawn_began_nowhere(stage):
    stage.place("a")
    stage.place("a", dispatch=2, pool=OTHER)
    (job,) = draw(stage.worker("v"), pools=(OTHER,))
    assert job.began_in == ""
