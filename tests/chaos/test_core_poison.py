"""Who is to blame where worker processes die: a job that ends them is found, and the others live on."""

import pytest

from support.accounts import Accounts, expected_texts
from support.cluster import Cluster
from support.poison_engine import POISON
from support.waiting import PATIENCE_SECONDS, eventually
from support.workers import children_but_fork_server
from tether.deaths import death_of_attempt, deaths_of_evidence
from tether.scheduling.blame import LONE_DEATHS, MAX_VAIN
from tether.store import queries
from tether.store.dead_letters import dead_letter

SLOTS = 4
LOG2_SLOTS = 2
INNOCENT = 24
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
        for job_id in innocent:
            assert int(accounts.one_in_redis(job_id, "deaths")) <= 1 + LOG2_SLOTS
        letter = letter_of(accounts, poison)
        assert letter.reason == "poison"
        told = deaths_of_evidence(letter.evidence)
        assert len(told) == letter.evidence["count"] == deaths
        shared = [death for death in told if not death.alone]
        assert 1 <= len(shared) <= 1 + LOG2_SLOTS
        # On a slow machine others may not have run for long enough between two deaths alone.
        assert LONE_DEATHS <= deaths - len(shared) <= LONE_DEATHS + MAX_VAIN
        assert [death.beside for death in told[-2:]] == [0, 0]
        assert all(death.alone for death in told[-2:])
        ran = [death_of_attempt(each.evidence) for each in letter.attempts]
        assert [death for death in ran if death is not None] == list(told)
        row = accounts.store.read(queries.job, poison)
        assert row.error.message.startswith(f"the process that ran it died {deaths} times")
        assert row.error.message.count("was killed by SIGABRT") == deaths
        *_, before, last = row.error.message.split("; ")
        assert before.endswith(", alone, in a trial")
        assert last.endswith(", alone, in a trial")
        assert accounts.texts() == {
            job_id: expected_texts(prompt, TOKENS) for job_id, prompt in innocent.items()
        }
        assert [kind for kind, *_ in accounts.attempts()[poison]] == ["poisoned"]
        accounts.assert_nothing_left()


@pytest.mark.parametrize("kills", [4, pytest.param(20, marks=pytest.mark.long)])
def test_a_worker_that_is_killed_again_and_again_from_outside_costs_no_job_its_life(kills):
    count = 50 * kills // 4
    with (
        Cluster(models={"counter": (RATE, TOKENS)}, config=CONFIG, presence=PRESENCE) as cluster,
        Accounts(cluster) as accounts,
    ):
        cluster.start_orchestrator()
        worker = cluster.start_worker(threads=SLOTS)
        client = cluster.client()
        prompts = {client.submit("counter", f"number {number}").job_id: number for number in range(count)}
        killed = set()

        def running():
            return {
                boot
                for boot, state in zip(
                    accounts.in_redis(prompts, "worker"), accounts.in_redis(prompts, "state"), strict=True
                )
                if state == "running"
            } - killed

        for _ in range(kills):
            ended = accounts.ended()
            eventually(
                lambda ended=ended: running() and accounts.ended() > ended,
                PATIENCE_SECONDS,
                "the next process has done some of the work",
            )
            killed |= running()
            for process in children_but_fork_server(worker.pid):
                process.kill()
        accounts.wait_until_all_ended(count, within=5 * PATIENCE_SECONDS)
        accounts.assert_succeeded_once(
            {job_id: expected_texts(f"number {number}", TOKENS) for job_id, number in prompts.items()}
        )
        assert sum(int(deaths or 0) for deaths in accounts.in_redis(prompts, "deaths")) >= kills
