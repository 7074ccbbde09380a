"""A submitter dies after its job is durable, and before Redis has it."""

import contextlib
import subprocess
import sys

import pytest

from support.accounts import Accounts, expected_texts
from support.cluster import Cluster
from support.stalling_proxy import StallingProxy
from support.waiting import PATIENCE_SECONDS, eventually
from support.workers import TESTS

KILLS = 10
KILLS_LONG = 50
AT_ONCE = 5
TOKENS = 8


@pytest.mark.parametrize("kills", [KILLS, pytest.param(KILLS_LONG, marks=pytest.mark.long)])
def test_jobs_whose_submitter_is_killed_between_commit_and_place_run_once_each(kills):
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

        for batch in range(kills // AT_ONCE):
            # Of every other batch, what was on its way to Redis arrives late.
            is_late = batch % 2 == 1
            numbers = range(batch * AT_ONCE, (batch + 1) * AT_ONCE)
            job_ids = kill_between_commit_and_place(cluster, proxy, accounts, numbers, is_sent=is_late)
            states = accounts.states()
            assert [states[job_id] for job_id in job_ids] == ["accepted"] * AT_ONCE
            assert accounts.in_redis(job_ids, "state") == [None] * AT_ONCE
            proxy.go_on(late=is_late)
            if is_late:
                for job_id in job_ids:
                    accounts.wait_for_redis(job_id, "state", "succeeded")
            assert accounts.in_redis(job_ids, "dispatch") == ["1" if is_late else None] * AT_ONCE
        prompts = accounts.prompts()
        assert sorted(prompts.values()) == sorted(
            f"{which} {number}" for which in ("first", "second") for number in range(kills)
        )

        cluster.start_orchestrator()
        accounts.wait_until_all_ended(2 * kills)
        accounts.assert_succeeded_once(
            {job_id: expected_texts(prompt, TOKENS) for job_id, prompt in prompts.items()}
        )
        assert {len(tries) for tries in accounts.attempts().values()} == {1}


def kill_between_commit_and_place(cluster, proxy, accounts, numbers, *, is_sent):
    """Submit a job from a process for each number, and kill these once the jobs' rows are committed.

    `is_sent`: and once they have sent what places the jobs. Answers the ids of the jobs.
    """
    programs = [start_submitter(cluster, proxy, number) for number in numbers]
    try:
        for program in programs:
            assert program.stdout.readline() == b"ready\n"
        before = accounts.states()
        proxy.stall()
        for program in programs:
            program.stdin.write(b"submit\n")
            program.stdin.flush()
        all_rows = len(before) + len(programs)
        eventually(lambda: len(accounts.states()) == all_rows, PATIENCE_SECONDS, "all rows are committed")
        job_ids = [job_id for job_id in accounts.states() if job_id not in before]
        if is_sent:
            eventually(
                lambda: all(proxy.holds(job_id.encode()) for job_id in job_ids),
                PATIENCE_SECONDS,
                "all are on their way to Redis",
            )
        assert [program.poll() for program in programs] == [None] * len(programs)
    finally:
        for program in programs:
            program.kill()
        said = [program.communicate()[0] for program in programs]
    assert said == [b""] * len(programs), "a submitter was through before it was killed"
    return job_ids


def start_submitter(cluster, proxy, number):
    return subprocess.Popen(
        [sys.executable, "-m", "support.submit_program", "counter", f"first {number}", f"second {number}"],
        env=cluster.environ | {"TETHER_REDIS__URL": proxy.url},
        cwd=TESTS,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
