"""The inference worker as a Dramatiq program, with a hook that tells the ledger when a slot has a job."""

from __future__ import annotations

import core_jobs
import core_sampling
import dramatiq

from tether_workers.base import BaseWorker
from tether_workers.job import Job
from tether_workers.pool_worker import make_worker


class Telling(BaseWorker):
    """Its first hook is the first line of a team's own that runs for a job."""

    def authorize(self, job: Job) -> None:
        core_jobs.carry_out(job.prompt)


core_sampling.start("worker")
broker = make_worker(core_jobs.SETTINGS, base=Telling())
dramatiq.set_broker(broker)
