"""Jobs that expire unless a worker has begun them, under all that can happen to jobs."""

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import initialize, precondition, rule
from sqlalchemy import update

from support.core_machine import CoreMachine
from support.databases import store_in_memory
from support.machines import catches_bug, run_machine
from tether.broker.scripts import BROKER_SCRIPTS
from tether.store.schema import jobs

pytestmark = [pytest.mark.timeout(1_800), pytest.mark.usefixtures("quiet_logs")]


class UnbegunMachine(CoreMachine):
    """Every job may expire unbegun: once its time has come, and never once a worker was given it."""

    expires_at = 2**52

    @initialize()
    def begin(self):
        self.late_to_begin = set()
        super().begin()

    @precondition(lambda self: self.open_jobs())
    @rule(data=st.data())
    def the_time_to_begin_passes(self, data):
        job_id = data.draw(st.sampled_from(self.open_jobs()))
        self.late_to_begin.add(job_id)

        def pass_by(connection):
            may_expire = jobs.c.expires_at > 0
            connection.execute(update(jobs).where(jobs.c.job_id == job_id, may_expire).values(expires_at=1))

        self.store.write_alone(pass_by).result()
        if self.redis.hget(self.keys.job(job_id), "expires_at") not in (None, b"0"):
            self.redis.hset(self.keys.job(job_id), "expires_at", "1")

    def may_expire(self, job_id):
        return super().may_expire(job_id) or job_id in self.late_to_begin - self.begun


@pytest.fixture(scope="module")
def store():
    with store_in_memory() as opened:
        yield opened


@pytest.mark.parametrize("examples", [10, pytest.param(300, marks=pytest.mark.long)])
def test_what_has_begun_never_expires_unbegun(machine_redis_url, store, examples):
    run_machine(UnbegunMachine, {"url": machine_redis_url, "store": store}, max_examples=examples)


def plant(*changes):
    def apply(monkeypatch):
        sound = BROKER_SCRIPTS.source

        def source(name):
            text = sound(name)
            for script, original, planted in changes:
                if name == f"pool/{script}":
                    assert text.count(original) == 1
                    text = text.replace(original, planted)
            return text

        monkeypatch.setattr(BROKER_SCRIPTS, "source", source)

    return apply


PLANTED = {
    "the first draw is not noted": plant(
        ("draw", "redis.call('HSET', name, 'expires_at', '0')", ""),
        *((script, " or attempt ~= '0'", "") for script in ("draw", "cancel")),
    ),
    "whatever has begun is ended": plant(("cancel", "return 'begun'", "")),
}


@pytest.mark.mutants
@pytest.mark.parametrize("bug", PLANTED)
def test_a_planted_bug_is_caught(bug, machine_redis_url, store, monkeypatch):
    PLANTED[bug](monkeypatch)
    assert catches_bug(UnbegunMachine, {"url": machine_redis_url, "store": store}, max_examples=250)
