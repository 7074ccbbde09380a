"""Redis loses successes between the reading of their outcomes and of their tokens: such jobs run again."""

import pytest

from support.core_steps import CoreSteps
from support.databases import POOL
from support.hand_worker import LEASE_MS, HandWorker, growth
from support.pool_stage import note_recent_tick
from tether.broker.pools.outcomes import Outcomes
from tether.jobs import Piece
from tether.store import queries

JOB = "job-000000"
TOKENS = 4


@pytest.fixture
def core(store, shared_redis_server, namespace):
    made = CoreSteps(store, shared_redis_server, namespace)
    yield made
    made.close()


def copied(core):
    """Everything that Redis holds."""
    return {key: core.redis.dump(key) for key in core.redis.scan_iter(core.keys.prefix + ":*")}


def set_back(core, copy):
    for key in core.redis.scan_iter(core.keys.prefix + ":*"):
        core.redis.delete(key)
    for key, value in copy.items():
        core.redis.restore(key, 0, value)


def end_lease(core):
    core.pools.tick(LEASE_MS, LEASE_MS)
    core.redis.zadd(core.keys.leases, {f"j {JOB}": 1}, xx=True)
    note_recent_tick(core.redis, core.keys)
    core.pools.tick(LEASE_MS, LEASE_MS)


@pytest.mark.parametrize("moment", ["never", "waiting", "running"])
def test_a_success_that_redis_lost_is_run_again_and_never_settled_without_its_tokens(
    core, moment, monkeypatch
):
    core.submit(0)
    copies = {"never": {}, "waiting": copied(core)}
    (job,) = core.draw()
    core.worker.append(growth(job, TOKENS // 2))
    copies["running"] = copied(core)
    core.worker.finish(growth(job, TOKENS // 2, offset=TOKENS // 2))
    with_pieces = Outcomes.with_pieces

    def lose(outcomes, entries):
        set_back(core, copies[moment])
        return with_pieces(outcomes, entries)

    with monkeypatch.context() as patch:
        patch.setattr(Outcomes, "with_pieces", lose)
        core.settle()
    assert core.states(0) not in (["succeeded"], ["dead"])

    core.reconcile()
    core.later()
    core.relay()
    end_lease(core)
    other = HandWorker(core.redis, core.keys, "others.1")
    other.hello()
    (again,) = other.draw(1, [POOL], busy=False).jobs
    other.finish(growth(again, TOKENS - again.offset))
    other.close()
    core.settle()
    row = core.store.read(queries.job, JOB)
    assert (row.state, row.error, row.output_tokens) == ("succeeded", None, TOKENS)
    assert core.store.read(queries.result_pieces, JOB).pieces == tuple(
        Piece(number, f"t{number} ") for number in range(TOKENS)
    )
    assert core.pending() == 0
