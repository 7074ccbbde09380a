"""More is queued than Redis may hold: all of it ends, and what runs goes on meanwhile."""

from support.accounts import Accounts, expected_texts
from support.cluster import Cluster
from support.waiting import PATIENCE_SECONDS
from tether.jobs import JobRequest

JOBS, TOKENS = 150, 8
PROMPT = "word " * 4_000
LIMIT_BYTES = 1_000_000
"""Beyond what Redis holds when it is idle: for 50 of the jobs' prompts."""


def test_a_backlog_that_does_not_fit_into_redis_is_worked_off():
    with Cluster(models={"counter": (0, TOKENS)}) as cluster, Accounts(cluster) as accounts:
        cluster.redis.config_set("maxmemory-policy", "noeviction")
        cluster.start_orchestrator()
        cluster.start_worker(threads=4)
        limit = cluster.redis.info("memory")["used_memory"] + LIMIT_BYTES
        cluster.redis.config_set("maxmemory", limit)
        prompts = [f"{number} {PROMPT}" for number in range(JOBS)]
        assert sum(map(len, prompts)) > 2 * LIMIT_BYTES
        client = cluster.client()
        handles = client.submit_many([JobRequest(model="counter", prompt=prompt) for prompt in prompts])
        accounts.wait_until_all_ended(JOBS, within=3 * PATIENCE_SECONDS)
        accounts.assert_succeeded_once(
            {
                handle.job_id: expected_texts(prompt, TOKENS)
                for handle, prompt in zip(handles, prompts, strict=True)
            }
        )
