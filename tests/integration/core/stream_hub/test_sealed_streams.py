"""Streams of jobs that had ended before Redis went back to an older state of them, and was told so."""

import queue

import pytest

from support.hand_worker import growth
from support.pieces import read_pieces
from support.pool_stage import Stage, draw
from support.waiting import PATIENCE_SECONDS
from tether.core.stream_hub.archive import Ended
from tether.core.stream_hub.hub import StreamHub
from tether.jobs import JobState, Piece
from tether.streams.events import StreamEvent

LIFE_MS = 60_000
LAST = {"reason": "stop", "input_tokens": 3}


class Shelf:
    """The database: it has what was made, and why that ended."""

    def __init__(self):
        self.jobs = {}

    def ended(self, job_ids):
        return {job_id: self.jobs[job_id] for job_id in job_ids if job_id in self.jobs}


@pytest.fixture
def shelf():
    return Shelf()


@pytest.fixture
def stage(shared_redis_server, namespace):
    opened = Stage(shared_redis_server, namespace)
    yield opened
    opened.close()


@pytest.fixture
def hub(stage, shelf):
    hub = StreamHub(stage.redis, stage.keys, shelf)
    yield hub
    hub.close()


def read(hub, offset, has_ended):
    inbox = queue.SimpleQueue()
    hub.follow("a", offset, inbox.put, has_ended=has_ended)
    seen = [inbox.get(timeout=PATIENCE_SECONDS)]
    while not seen[-1].is_last:
        seen.append(inbox.get(timeout=PATIENCE_SECONDS))
    return seen


@pytest.mark.parametrize("has_ended", [True, False])
@pytest.mark.parametrize(("kept", "offset"), [(0, 0), (2, 0), (2, 2), (2, 4)])
def test_who_reads_on_gets_what_redis_lost_and_the_end_as_the_database_has_it(
    stage, hub, shelf, kept, offset, has_ended
):
    stage.place("a")
    worker = stage.worker("w")
    (job,) = draw(worker)
    if kept:
        worker.append(growth(job, kept))
    made = list(read_pieces(stage.redis.xrange(stage.keys.stream("a")), 0))
    made += [Piece(number, f"{number} ") for number in range(kept, 4)]
    last = StreamEvent(kind="finished", offset=4, details=LAST)
    shelf.jobs["a"] = Ended(0, tuple(made), last)
    stage.pools.seal_many([("a", JobState.SUCCEEDED, None)], LIFE_MS)
    seen = read(hub, offset, has_ended)
    assert [piece for event in seen for piece in event.pieces] == made[offset:]
    assert (seen[-1].kind, seen[-1].details) == ("finished", LAST)
