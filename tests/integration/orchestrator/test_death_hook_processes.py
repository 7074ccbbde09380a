"""The hook of dead letters under two real orchestrators, which it would take along if it could."""

from collections import Counter

import pytest
from dramatiq import Worker

from support.clients import make_engine
from support.cluster import Cluster
from support.databases import accept, decide, fresh_postgres, new_job, outcome, write
from support.waiting import PATIENCE_SECONDS, eventually
from tether.clocks import wall_clock_ms
from tether.errors import JobFailed
from tether.orchestrator.death_hook import HOOK_BATCH
from tether.outcomes import OutcomeKind
from tether.store import Store
from tether.store.letter_hooks import next_hook_at
from tether.store.settlements import Settle, Settlement
from tether_workers.pool_worker import make_worker

LETTERS = 40
CONFIG = """
[jobs]
retry_base = 10
retry_cap = 20
max_attempts = 1
[hooks]
on_dead = "pager:page"
time_limit = 1000
"""
PAGER = """
import os, time

def page(letter):
    assert letter.retry_token == ""
    with open({calls!r}, "a") as file:
        file.write(f"{{letter.job_id}} {{os.getpid()}}\\n")
    with open({calls!r}) as file:
        number = len(file.readlines())
    if number == 5:
        raise ValueError("the pager is away")
    if number == 10:
        os._exit(7)
    if number == 15:
        time.sleep(600)
"""


@pytest.fixture
def cluster(postgres_url, tmp_path):
    (tmp_path / "pager.py").write_text(PAGER.format(calls=str(tmp_path / "calls")))
    models = {"broken": (0, 8)}
    with fresh_postgres(postgres_url) as url, Cluster(database=url, models=models, config=CONFIG) as opened:
        yield opened


def test_each_letter_is_told_and_none_over_and_over_whatever_the_hook_does(cluster, tmp_path):
    with Store(cluster.settings.database.url) as store:
        now_ms = wall_clock_ms()
        accept(store, *(new_job(number, now_ms=now_ms) for number in range(LETTERS)))
        dead = (outcome(number, OutcomeKind.POISONED) for number in range(LETTERS))
        write(store, Settle(decide, has_hook=True), *(Settlement(each, now_ms) for each in dead))
        orchestrators = [cluster.start_orchestrator(PYTHONPATH=str(tmp_path)) for _ in range(2)]
        # One that dies under their eyes.
        client = cluster.client()
        broker = make_worker(cluster.settings, factories={"null": make_engine})
        worker = Worker(broker, worker_threads=2, worker_timeout=100)
        worker.start()
        try:
            job = client.submit("broken", "one two")
            with pytest.raises(JobFailed):
                job.result(PATIENCE_SECONDS)
        finally:
            worker.stop(timeout=20_000)
            broker.close()
        eventually(lambda: store.read(next_hook_at) is None, PATIENCE_SECONDS, "nothing is owed")
        calls = [line.split() for line in (tmp_path / "calls").read_text().splitlines()]
        told = Counter(job_id for job_id, _ in calls)
        assert set(told) == {job.job_id, *(f"job-{number:06}" for number in range(LETTERS))}
        # Three failed. Another orchestrator may have told of what the first had no time to note.
        assert len(calls) <= LETTERS + 1 + 3 + HOOK_BATCH
        assert not {int(pid) for _, pid in calls} & {process.pid for process in orchestrators}
    lines = [line for process in orchestrators for line in process.lines]
    failed = [line for line in lines if "The hook on_dead failed" in line]
    for what in ("ValueError: the pager is away", "exit 7", "took longer than 1 s, and was ended"):
        assert [what in line for line in failed].count(True) == 1, failed
    assert not [line for line in lines if "A child exited" in line]
