"""A retry token that is used at the same time in several gateways, each a process of its own."""

import itertools
import json
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest
from sqlalchemy import select

from support.cluster import Cluster
from support.databases import accept, new_job, outcome, settle_each
from support.waiting import PATIENCE_SECONDS
from tether import Tether
from tether.dead_letters import LetterState
from tether.jobs import JobRequest
from tether.outcomes import OutcomeKind
from tether.requests.payload import payload_of
from tether.store import Store
from tether.store.dead_letters import dead_letter
from tether.store.schema import jobs

LETTERS = 12
USES_IN_EACH = 3
PAYLOAD = json.dumps(payload_of(JobRequest(model="counter", prompt="one two")))


def retries_of(connection, job_id):
    return list(connection.execute(select(jobs.c.job_id).where(jobs.c.retry_of == job_id)).scalars())


@pytest.fixture
def cluster(database_url):
    with Cluster(database=database_url) as opened:
        yield opened


def test_a_token_used_at_once_in_two_gateways_makes_one_job_and_all_get_it(cluster):
    gateways = [cluster.start_gateway(), cluster.start_gateway()]
    with Store(cluster.settings.database.url) as store:
        dead = [
            new_job(number, model="counter", model_version="", payload=PAYLOAD) for number in range(LETTERS)
        ]
        accept(store, *dead)
        settle_each(store, *(outcome(number, OutcomeKind.POISONED) for number in range(LETTERS)))
        tokens = {job.job_id: store.read(dead_letter, job.job_id).retry_token for job in dead}
        callers = [
            (gateway, number)
            for gateway, number in itertools.product(range(len(gateways)), range(USES_IN_EACH))
        ]
        clients = [Tether(gateway.url, gateway.key) for gateway in gateways]
        together = threading.Barrier(len(callers), timeout=PATIENCE_SECONDS)

        def use_all(caller):
            answers = {}
            for job_id, token in tokens.items():
                together.wait()
                answers[job_id] = clients[caller[0]].dead_letters.retry(token)
            return answers

        with ThreadPoolExecutor(len(callers)) as threads:
            answers = list(threads.map(use_all, callers))
        for client in clients:
            client.close()
        for job_id in tokens:
            mine = [answer[job_id] for answer in answers]
            assert len({each.retried_as for each in mine}) == 1
            assert [each.is_new for each in mine].count(True) == 1
            assert store.read(retries_of, job_id) == [mine[0].retried_as]
            letter = store.read(dead_letter, job_id)
            assert (letter.state, letter.retried_as) == (LetterState.RETRIED, mine[0].retried_as)
