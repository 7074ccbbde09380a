"""A job that kills its workers ends, and takes no other along."""

from support.accounts import Accounts, expected_texts
from support.cluster import Cluster
from support.poison_engine import POISON
from tether.store import queries

INNOCENT = 6
RATE, TOKENS = 10, 20
CONFIG = "[jobs]\nlease = 1000\n"
PRESENCE = "interval = 500\nexpiry = 2000\n"


def test_a_job_that_kills_its_workers_is_dead_after_its_third_death_and_its_neighbours_succeed():
    with (
        Cluster(models={"counter": (RATE, TOKENS)}, config=CONFIG, presence=PRESENCE) as cluster,
        Accounts(cluster) as accounts,
    ):
        cluster.start_orchestrator()
        cluster.start_worker("support.poison_worker:broker")
        client = cluster.client()
        prompts = [f"number {number}" for number in range(INNOCENT)]
        innocent = {client.submit("counter", prompt).job_id: prompt for prompt in prompts}
        for job_id in innocent:
            accounts.wait_for_redis(job_id, "state", "running")
        poison = client.submit("counter", POISON).job_id

        accounts.wait_until_all_ended(INNOCENT + 1)
        states = accounts.states()
        assert states.pop(poison) == "dead"
        assert states == dict.fromkeys(innocent, "succeeded")
        letter = accounts.store.read(queries.dead_letter, poison)
        assert letter is not None
        assert letter.reason == "poison"
        assert accounts.one_in_redis(poison, "deaths") == "3"
        assert accounts.one_in_redis(poison, "attempt") == "3"
        texts = accounts.texts()
        assert texts == {job_id: expected_texts(prompt, TOKENS) for job_id, prompt in innocent.items()}
        assert [kind for kind, *_ in accounts.attempts()[poison]] == ["poisoned"]
        accounts.assert_nothing_left()
