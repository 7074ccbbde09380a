"""Jobs wait for workers."""

from support.accounts import Accounts, expected_texts
from support.cluster import Cluster
from tether.jobs import JobRequest

JOBS = 1_000
TOKENS = 8


def test_jobs_submitted_while_all_workers_are_stopped_run_once_each_when_one_is_started():
    with Cluster(models={"counter": (0, TOKENS)}) as cluster:
        cluster.start_orchestrator()
        cluster.start_worker().stop()
        requests = [JobRequest(model="counter", prompt=f"number {number}") for number in range(JOBS)]
        handles = cluster.client().submit_many(requests)
        with Accounts(cluster) as accounts:
            assert len(accounts.states()) == JOBS
            assert accounts.ended() == 0

            cluster.start_worker()
            accounts.wait_until_all_ended(JOBS)
            accounts.assert_succeeded_once(
                {
                    handle.job_id: expected_texts(request.prompt, TOKENS)
                    for handle, request in zip(handles, requests, strict=True)
                }
            )
            assert {len(tries) for tries in accounts.attempts().values()} == {1}
