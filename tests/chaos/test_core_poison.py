"""Who is to blame where worker processes die: a job that ends them is found, and the others live on."""

from support.accounts import Accounts, expected_texts
from support.cluster import Cluster
from support.poison_engine import POISON
from support.waiting import PATIENCE_SECONDS
from tether.store import queries
from tether.store.dead_letters import dead_letter

SLOTS = 4
LOG2_SLOTS = 2
INNOCENT = 14
RATE, TOKENS = 10, 20
CONFIG = "[jobs]\nresult_ttl = 3600000\n"
PRESENCE = "interval = 500\nexpiry = 2000\n"


def letter_of(accounts, job_id):
    letter = accounts.store.read(dead_letter, job_id)
    assert letter is not None
    return letter


def test_a_job_that_ends_its_processes_is_found_by_halves_and_its_neighbours_succeed():
    with (
        Cluster(models={"counter": (RATE, TOKENS)}, config=CONFIG, presence=PRESENCE) as cluster,
        Accounts(cluster) as accounts,
    ):
        cluster.start_orchestrator()
        cluster.start_worker("support.poison_worker:broker", threads=SLOTS)
        client = cluster.client()
        prompts = [f"number {number}" for number in range(INNOCENT)]
        innocent = {client.submit("counter", prompt).job_id: prompt for prompt in prompts[: SLOTS - 1]}
        for job_id in innocent:
            accounts.wait_for_redis(job_id, "state", "running")
        poison = client.submit("counter", POISON).job_id
        innocent |= {client.submit("counter", prompt).job_id: prompt for prompt in prompts[SLOTS - 1 :]}

        accounts.wait_until_all_ended(INNOCENT + 1, within=5 * PATIENCE_SECONDS)
        states = accounts.states()
        assert states.pop(poison) == "dead"
        assert states == dict.fromkeys(innocent, "succeeded")
        deaths = int(accounts.one_in_redis(poison, "deaths"))
        assert 3 <= deaths <= 3 + LOG2_SLOTS
        for job_id in innocent:
            assert int(accounts.one_in_redis(job_id, "deaths")) <= 1 + LOG2_SLOTS
        letter = letter_of(accounts, poison)
        assert letter.reason == "poison"
        row = accounts.store.read(queries.job, poison)
        assert row.error.message.startswith(f"the process that ran it died {deaths} times")
        assert row.error.message.count("was killed by SIGKILL") == deaths
        *_, before, last = row.error.message.split("; ")
        assert before.endswith(", alone")
        assert last.endswith(", alone")
        assert accounts.texts() == {
            job_id: expected_texts(prompt, TOKENS) for job_id, prompt in innocent.items()
        }
        assert [kind for kind, *_ in accounts.attempts()[poison]] == ["poisoned"]
        accounts.assert_nothing_left()
