"""An orchestrator is lost: another goes on, and everything is settled once."""

import contextlib
import sqlite3

import pytest
from sqlalchemy import select

from support.accounts import Accounts, expected_texts
from support.cluster import Cluster
from support.stalling_proxy import StallingProxy
from support.waiting import PATIENCE_SECONDS, eventually
from tether.broker.pools.outcomes import GROUP
from tether.jobs import JobRequest
from tether.store.schema import loop_leases

TOKENS = 8
CONFIG = "[jobs]\nlease = 1000\n"
DELAY_SECONDS = 0.5
JOBS = 100
RATE = 1


def holders(accounts):
    """Who holds the leases of the loops."""
    query = select(loop_leases.c.holder).distinct()
    return set(accounts.store.read(lambda connection: connection.execute(query).scalars().all()))


def hold_of_one(accounts, other_than=None):
    """The orchestrator that holds all leases, once one does."""

    def one():
        found = holders(accounts)
        return found if len(found) == 1 and found != {other_than} else None

    [holder] = eventually(one, PATIENCE_SECONDS, f"one holds all leases, not {other_than}")
    return holder


def test_when_the_holder_of_the_leases_is_killed_another_takes_them_and_jobs_finish():
    with (
        Cluster(models={"counter": (0, TOKENS)}, config=CONFIG) as cluster,
        Accounts(cluster) as accounts,
    ):
        # The first to come has the leases; the next waits for them.
        running = cluster.start_orchestrator()
        holder = hold_of_one(accounts)
        cluster.start_worker()
        client = cluster.client()
        texts = {}
        for number in range(2):
            successor = cluster.start_orchestrator()
            assert holders(accounts) == {holder}
            running.close()

            # A job with a delay is placed by the outbox relay alone, which needs its lease.
            prompt = f"number {number}"
            handle = client.submit("counter", prompt, delay=DELAY_SECONDS)
            texts[handle.job_id] = expected_texts(prompt, TOKENS)
            assert handle.result(timeout=PATIENCE_SECONDS).text == "".join(texts[handle.job_id])
            running, holder = successor, hold_of_one(accounts, other_than=holder)
        accounts.wait_until_all_ended(len(texts))
        accounts.assert_succeeded_once(texts)


@contextlib.contextmanager
def nobody_writes(cluster):
    """The database's one write lock is held: whoever wants to commit waits."""
    with contextlib.closing(sqlite3.connect(cluster.folder / "tether.db")) as connection:
        connection.execute("BEGIN IMMEDIATE")
        yield
        connection.rollback()


@pytest.mark.parametrize(
    "is_committed", [False, True], ids=["before the commit", "before the acknowledgement"]
)
def test_outcomes_that_an_orchestrator_has_in_hand_when_it_is_killed_are_settled_once(is_committed):
    with (
        Cluster(models={"counter": (RATE, TOKENS)}, config=CONFIG) as cluster,
        contextlib.closing(StallingProxy(cluster.server.port)) as proxy,
        Accounts(cluster) as accounts,
    ):
        orchestrator = cluster.start_orchestrator(TETHER_REDIS__URL=proxy.url)
        cluster.start_worker(threads=JOBS)
        requests = [JobRequest(model="counter", prompt=f"number {number}") for number in range(JOBS)]
        handles = cluster.client().submit_many(requests)
        job_ids = [handle.job_id for handle in handles]

        def in_hand():
            return cluster.redis.xpending(cluster.keys.outcomes, GROUP)["pending"]

        eventually(lambda: accounts.dispatches() == 0, PATIENCE_SECONDS, "all are placed")
        assert accounts.ended() == 0, "the jobs were to run longer than this"
        with nobody_writes(cluster):
            for job_id in job_ids:
                accounts.wait_for_redis(job_id, "state", "succeeded")
            eventually(in_hand, PATIENCE_SECONDS, "the orchestrator has outcomes in hand")
            if is_committed:
                proxy.stall()
            else:
                orchestrator.close()
        if is_committed:
            eventually(accounts.ended, PATIENCE_SECONDS, "outcomes are committed")
            orchestrator.close()
            proxy.go_on(late=False)
        assert in_hand() > 0
        assert (accounts.ended() > 0) == is_committed

        cluster.start_orchestrator()
        accounts.wait_until_all_ended(JOBS)
        eventually(lambda: in_hand() == 0, PATIENCE_SECONDS, "all are acknowledged")
        accounts.assert_succeeded_once(
            {
                handle.job_id: expected_texts(request.prompt, TOKENS)
                for handle, request in zip(handles, requests, strict=True)
            }
        )
        assert {len(tries) for tries in accounts.attempts().values()} == {1}
