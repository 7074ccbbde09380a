"""Redis is lost in the middle of many running jobs: all of them end, and their streams are whole."""

import os

import pytest

from support.accounts import Accounts, expected_texts
from support.cluster import Cluster
from support.stream_reader import StreamReader
from support.waiting import PATIENCE_SECONDS, eventually
from tether.jobs import JobRequest

JOBS = 40
JOBS_LONG = 500
JOBS_PER_PROCESS = 125
READERS = 8
RATE, TOKENS = 3, 60
SEEN_BEFORE = 5
PRESENCE = "interval = 1000\nexpiry = 4000\n"


class Restart:
    """Killed, and back with what the append-only file kept."""

    dispatch = 1

    def __init__(self, cluster):
        self.cluster = cluster

    def prepare(self):
        """Called when all jobs run, some tokens before the loss."""

    def lose(self):
        self.cluster.server.restart()


class RestartWithoutTheNewest(Restart):
    """Killed with the host: what was not on the disk yet is gone; tokens that were read are among it."""

    def prepare(self):
        [self.log] = self.cluster.server.folder.rglob("*.aof")
        self.kept = self.log.stat().st_size

    def lose(self):
        self.cluster.server.kill()
        assert self.log.stat().st_size > self.kept
        os.truncate(self.log, self.kept)
        self.cluster.server.start()


class Flush(Restart):
    """Emptied, by an operator's mistake."""

    dispatch = 2

    def lose(self):
        self.cluster.redis.flushall()


class FlushAndRestart(Flush):
    """Back with nothing, as another server in its place."""

    def lose(self):
        self.cluster.redis.flushall()
        self.cluster.server.restart()


@pytest.mark.parametrize("count", [JOBS, pytest.param(JOBS_LONG, marks=pytest.mark.long)])
@pytest.mark.parametrize("kind", [Restart, RestartWithoutTheNewest, Flush, FlushAndRestart])
def test_jobs_that_run_while_redis_is_lost_all_succeed_and_their_streams_are_whole(kind, count):
    processes = max(2, count // JOBS_PER_PROCESS)
    with (
        Cluster(models={"counter": (RATE, TOKENS)}, presence=PRESENCE) as cluster,
        Accounts(cluster) as accounts,
    ):
        cluster.start_orchestrator()
        cluster.start_worker(processes=processes, threads=count // processes)
        client = cluster.client()
        requests = [JobRequest(model="counter", prompt=f"number {number}") for number in range(count)]
        handles = client.submit_many(requests)
        job_ids = [handle.job_id for handle in handles]
        readers = [StreamReader(handle) for handle in handles[:: count // READERS]]
        for reader in readers:
            reader.wait_for_tokens(SEEN_BEFORE)
        eventually(
            lambda: accounts.in_redis(job_ids, "state") == ["running"] * count,
            PATIENCE_SECONDS,
            "all run at the same time",
        )

        loss = kind(cluster)
        loss.prepare()
        goals = [len(reader.texts) + SEEN_BEFORE for reader in readers]
        for reader, goal in zip(readers, goals, strict=True):
            reader.wait_for_tokens(goal)
        assert accounts.ended() == 0
        loss.lose()

        accounts.wait_until_all_ended(count, within=2 * PATIENCE_SECONDS)
        texts = {
            handle.job_id: expected_texts(request.prompt, TOKENS)
            for handle, request in zip(handles, requests, strict=True)
        }
        accounts.assert_succeeded_once(texts)
        tries = accounts.attempts().values()
        assert {dispatch for each in tries for kind, dispatch, _ in each if kind == "succeeded"} == {
            loss.dispatch
        }
        for reader, handle in zip(readers, handles[:: count // READERS], strict=True):
            reader.join()
            assert reader.texts == texts[handle.job_id]
            assert reader.kinds[-1] == "finished"
