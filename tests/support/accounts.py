"""What the database and Redis say of jobs after a show: how they ended, how often, what they made."""

import contextlib
import json
import threading
from collections import Counter

from sqlalchemy import select

from support.databases import all_held, check
from support.waiting import PATIENCE_SECONDS, eventually
from tether.jobs import FINAL_STATES, Sampling
from tether.store import Store
from tether.store.schema import attempts, dispatches, jobs
from tether.streams.pieces import pieces_from_json
from tether_workers.engines.null.engine import NullEngine


def expected_texts(prompt, tokens):
    """The tokens that the null engine makes of a prompt, undisturbed."""
    engine = NullEngine(output_tokens=tokens)
    deltas = engine.start(engine.encode(prompt), (), Sampling(), threading.Event())
    return [text for delta in deltas for text in delta.texts]


class Accounts:
    """Reads a cluster's database and Redis; :meth:`close` gives the connections back."""

    def __init__(self, cluster):
        self.redis = cluster.redis
        self.keys = cluster.keys
        self.store = Store(cluster.settings.database.url).open()

    def states(self):
        """State by job id, as the database has it."""
        query = select(jobs.c.job_id, jobs.c.state)
        return dict(self.store.read(lambda connection: [tuple(row) for row in connection.execute(query)]))

    def attempts(self):
        """All outcomes that were settled: (kind, dispatch, offset) in order, by job id."""
        columns = (attempts.c.job_id, attempts.c.kind, attempts.c.dispatch, attempts.c.offset)
        query = (
            select(*columns).where(attempts.c.kind != "").order_by(attempts.c.dispatch, attempts.c.attempt)
        )
        found = {}
        for job_id, *attempt in self.store.read(lambda connection: connection.execute(query).all()):
            found.setdefault(job_id, []).append(tuple(attempt))
        return found

    def dispatches(self):
        """How many rows wait in the outbox."""
        return len(self.store.read(lambda connection: connection.execute(select(dispatches)).all()))

    def prompts(self):
        """What was asked, by job id."""
        rows = self.store.read(
            lambda connection: connection.execute(select(jobs.c.job_id, jobs.c.body)).all()
        )
        return {job_id: json.loads(body)["prompt"] for job_id, body in rows}

    def texts(self):
        """The tokens of all results, by job id."""
        query = select(jobs.c.job_id, jobs.c.result).where(jobs.c.result.is_not(None))
        rows = self.store.read(lambda connection: connection.execute(query).all())
        return {
            job_id: [piece.text for piece in pieces_from_json(json.loads(result))] for job_id, result in rows
        }

    def in_redis(self, job_ids, field):
        """One field of the jobs' hashes, as text or None, in order."""
        with self.redis.pipeline(transaction=False) as pipeline:
            for job_id in job_ids:
                pipeline.hget(self.keys.job(job_id), field)
            return [value and value.decode() for value in pipeline.execute()]

    def one_in_redis(self, job_id, field):
        return self.in_redis([job_id], field)[0]

    def wait_for_redis(self, job_id, field, value):
        eventually(
            lambda: self.one_in_redis(job_id, field) == value,
            PATIENCE_SECONDS,
            f"{field} of {job_id} is {value!r}, not {self.one_in_redis(job_id, field)!r}",
        )

    def ended(self):
        """How many jobs are final in the database."""
        return sum(state in FINAL_STATES for state in self.states().values())

    def wait_until_all_ended(self, count, within=PATIENCE_SECONDS):
        with contextlib.suppress(AssertionError):
            eventually(lambda: self.ended() >= count, within, "all have ended")
        states = Counter(self.states().values())
        assert self.ended() == count, f"not all of {count} have ended within {within} s: {states}"

    def assert_succeeded_once(self, texts):
        """All jobs succeeded, each by one attempt, with these tokens by job id; nothing is held any more."""
        assert Counter(self.states().values()) == Counter(succeeded=len(texts))
        successes = {
            job_id: sum(kind == "succeeded" for kind, *_ in tries)
            for job_id, tries in self.attempts().items()
        }
        assert successes == dict.fromkeys(texts, 1)
        assert self.texts() == texts
        self.assert_nothing_left()

    def assert_nothing_left(self):
        """Once all have ended: no hold, no outbox row, no lease, nobody's attempt in Redis."""
        check(self.store)
        assert all_held(self.store) == {}
        assert self.dispatches() == 0
        assert [m for m in self.redis.zrange(self.keys.leases, 0, -1) if m.startswith(b"j ")] == []

    def close(self):
        self.store.close()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()
