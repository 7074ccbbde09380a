"""Dramatiq's own command runs the workers: nobody watches how its processes end, and the next ones say it."""

from pathlib import Path

import psutil

from support.accounts import Accounts, expected_texts
from support.cluster import Cluster
from support.waiting import PATIENCE_SECONDS, eventually
from tether.deaths import deaths_from_text
from tether.discovery.trust.process_life import lives_in

SLOTS = 3
JOBS = 9
RATE, TOKENS = 10, 60
FOR_EVER_MS = 600_000
PROGRAM = "tether_workers.app"


def test_what_a_killed_process_of_dramatiqs_command_ran_goes_on_as_soon_as_the_command_runs_again():
    with (
        Cluster(models={"counter": (RATE, TOKENS)}, config=f"[jobs]\nlease = {FOR_EVER_MS}\n") as cluster,
        Accounts(cluster) as accounts,
    ):
        cluster.start_orchestrator()
        command = cluster.start_dramatiq(PROGRAM, processes=2, threads=SLOTS)
        client = cluster.client()
        prompts = {client.submit("counter", f"number {n}").job_id: f"number {n}" for n in range(JOBS)}

        def running():
            """Jobs that run and have made tokens, by the worker of their process."""
            fields = [accounts.in_redis(prompts, name) for name in ("state", "worker", "offset")]
            found = {}
            for job_id, state, worker, offset in zip(prompts, *fields, strict=True):
                if state == "running" and int(offset) > 0:
                    found.setdefault(worker, set()).add(job_id)
            return found

        eventually(
            lambda: sorted(map(len, running().values())) == [SLOTS, SLOTS],
            PATIENCE_SECONDS,
            f"both processes run jobs: {running()}",
        )
        victim = next(lives_in(Path(cluster.settings.presence.identity_dir)))
        psutil.Process(victim.pid).kill()
        # The command ends with it, and lets the other process hand over what it runs.
        command.wait_for_end(PATIENCE_SECONDS)
        ((boot_id, ran_there),) = running().items()
        assert (boot_id in victim.boot_ids, len(ran_there)) == (True, SLOTS)

        cluster.start_dramatiq(PROGRAM, processes=2, threads=SLOTS)
        accounts.wait_until_all_ended(JOBS)
        accounts.assert_succeeded_once(
            {job_id: expected_texts(prompt, TOKENS) for job_id, prompt in prompts.items()}
        )
        for job_id in prompts:
            deaths = int(accounts.one_in_redis(job_id, "deaths") or 0)
            assert deaths == (job_id in ran_there)
            assert not accounts.one_in_redis(job_id, "group")
            told = deaths_from_text(accounts.one_in_redis(job_id, "evidence") or "")
            assert [(death.how, death.beside) for death in told] == [("unknown", SLOTS - 1)] * deaths
