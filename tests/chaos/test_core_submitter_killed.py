"""A submitter dies after its job is durable, and before Redis has it."""

import contextlib
import subprocess
import sys

import pytest

from support.accounts import PATIENCE_SECONDS, Accounts, expected_texts
from support.cluster import Cluster
from support.stalling_proxy import StallingProxy
from support.waiting import eventually
from support.workers import TESTS

KILLS = 50
AT_ONCE = 10
TOKENS = 8


@pytest.mark.timeout(240)
def test_jobs_whose_submitter_is_killed_between_commit_and_place_run_once_each():
    with (
        Cluster(models={"counter": (0, TOKENS)}) as cluster,
        contextlib.closing(StallingProxy(cluster.server.port)) as proxy,
        Accounts(cluster) as accounts,
    ):
        # Workers begin when an orchestrator has been there. During the kills there is none: nobody else can
        # place what the submitters did not.
        orchestrator = cluster.start_orchestrator()
        cluster.start_worker()
        eventually(lambda: cluster.redis.exists(cluster.keys.epoch), PATIENCE_SECONDS, "an epoch")
        orchestrator.stop()

        for batch in range(KILLS // AT_ONCE):
            # Of every other batch, what was on its way to Redis arrives late.
            before = set(accounts.states())
            numbers = range(batch * AT_ONCE, (batch + 1) * AT_ONCE)
            kill_between_commit_and_place(cluster, proxy, accounts, numbers)
            accepted = [job_id for job_id in accounts.states() if job_id not in before]
            assert len(accepted) == AT_ONCE
            assert accounts.in_redis(accepted, "state") == [None] * AT_ONCE
            proxy.go_on(late=batch % 2 == 1)
        prompts = accounts.prompts()
        assert sorted(prompts.values()) == sorted(f"number {number}" for number in range(KILLS))

        cluster.start_orchestrator()
        accounts.wait_until_all_ended(KILLS)
        accounts.assert_succeeded_once(
            {job_id: expected_texts(prompt, TOKENS) for job_id, prompt in prompts.items()}
        )
        assert {len(tries) for tries in accounts.attempts().values()} == {1}


def kill_between_commit_and_place(cluster, proxy, accounts, numbers):
    """Submit a job from a process for each number, and kill these once the jobs' rows are committed."""
    programs = [start_submitter(cluster, proxy, f"number {number}") for number in numbers]
    try:
        for program in programs:
            assert program.stdout.readline() == b"ready\n"
        proxy.stall()
        for program in programs:
            program.stdin.write(b"submit\n")
            program.stdin.flush()
        committed = max(numbers) + 1
        eventually(lambda: len(accounts.states()) == committed, PATIENCE_SECONDS, "all rows are committed")
        assert [program.poll() for program in programs] == [None] * len(programs)
    finally:
        for program in programs:
            program.kill()
        said = [program.communicate()[0] for program in programs]
    assert said == [b""] * len(programs), "a submitter was through before it was killed"


def start_submitter(cluster, proxy, prompt):
    return subprocess.Popen(
        [sys.executable, "-m", "support.submit_program", "counter", prompt],
        env=cluster.environ | {"TETHER_REDIS__URL": proxy.url},
        cwd=TESTS,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )


def kill_between_commit_and_place(cluster, proxy, accounts, numbers):
    """Submit a job from a process for each number, and kill these once the jobs' rows are committed."""
    programs = [start_submitter(cluster, proxy, f"number {number}") for number in numbers]
    try:
        for program in programs:
            assert program.stdout.readline() == b"ready\n"
        proxy.stall()
        for program in programs:
            program.stdin.write(b"submit\n")
            program.stdin.flush()
        committed = max(numbers) + 1
        eventually(lambda: len(accounts.states()) == committed, PATIENCE_SECONDS, "all rows are committed")
        assert [program.poll() for program in programs] == [None] * len(programs)
    finally:
        for program in programs:
            program.kill()
        said = [program.communicate()[0] for program in programs]
    assert said == [b""] * len(programs), "a submitter was through before it was killed"


def start_submitter(cluster, proxy, prompt):
    return subprocess.Popen(
        [sys.executable, "-m", "support.submit_program", "counter", prompt],
        env=cluster.environ | {"TETHER_REDIS__URL": proxy.url},
        cwd=TESTS,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
