"""What this bench's processes have in common: settings, jobs, and what a job does where it runs.

A job's prompt is a kind and a name. The kinds are those of the other benchmark's jobs; ``count`` here does
nothing at all, since the database tells when it is done.
"""

from __future__ import annotations

import os

import bench_jobs

from tether.broker.keys import Keys
from tether.broker.pools.dispatches import Dispatch
from tether.config.loading import load_settings
from tether.jobs import JobRequest, Priority, Sampling, canonical_json
from tether.requests.payload import payload_of

MODEL = "counter"
SHORT_SECONDS = 0.02

SETTINGS = load_settings(environ=os.environ)
KEYS = Keys(SETTINGS.redis.namespace, SETTINGS.redis.hash_tag)


def carry_out(prompt: str) -> None:
    """Do what the job is for, and tell the ledger. This is its first line on a worker."""
    kind, _, name = prompt.partition(" ")
    if kind == "stamp":
        bench_jobs.stamp(name)
    elif kind == "short":
        bench_jobs.short(name, SHORT_SECONDS)
    elif kind == "hold":
        bench_jobs.hold(name)


def dispatch(job_id: str, kind: str, pool: str) -> Dispatch:
    """A job of this kind, to be placed without a database."""
    request = JobRequest(model=MODEL, prompt=f"{kind} {job_id}", sampling=Sampling(max_tokens=1))
    body = {**payload_of(request), "model": MODEL, "version": "1"}
    return Dispatch(
        job_id=job_id,
        dispatch=1,
        pool=pool,
        tenant="default",
        priority=Priority.STANDARD,
        weight=1.0,
        deadline=0,
        cost=4,
        body=canonical_json(body),
    )
