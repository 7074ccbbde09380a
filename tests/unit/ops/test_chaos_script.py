"""The seeded script of a chaos run, its clients' jobs, and how long streams stood still."""

import importlib
from collections import Counter

import pytest

from support.paths import ROOT


@pytest.fixture(autouse=True)
def bench(monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT / "ops" / "bench"))


@pytest.fixture
def script(bench):
    return importlib.import_module("chaos_script")


@pytest.fixture
def failover(bench):
    return importlib.import_module("chaos_failover")


@pytest.fixture
def log(bench):
    return importlib.import_module("chaos_log")


@pytest.fixture
def plan(script):
    kinds = script.FaultType
    return script.ScriptPlan(
        seconds=100.0,
        deaths=20,
        others=12,
        targets={
            kinds.WORKER_KILLED: ("worker-1", "worker-2"),
            kinds.GATEWAY_KILLED: ("gateway-1",),
            kinds.REDIS_FLUSHED: ("redis",),
            kinds.CONNECTIONS_CUT: ("one", "two", "three"),
            kinds.CLOCK_AHEAD: ("gateway-1",),
        },
    )


def test_a_seed_makes_the_same_script_again_and_another_seed_another(script, plan):
    assert script.make_script(7, plan) == script.make_script(7, plan)
    assert script.make_script(7, plan) != script.make_script(8, plan)


@pytest.mark.parametrize("seed", range(20))
def test_every_kind_with_a_target_strikes_and_every_target_of_a_kind(script, plan, seed):
    faults = script.make_script(seed, plan)
    assert {fault.type for fault in faults} == set(plan.targets)
    cut = {fault.target for fault in faults if fault.type == script.FaultType.CONNECTIONS_CUT}
    assert cut == {"one", "two", "three"}
    assert Counter(fault.track for fault in faults) == Counter(deaths=20, others=12)
    assert [fault.number for fault in faults] == list(range(32))
    assert all(0 <= fault.at <= plan.seconds for fault in faults)
    assert [fault.at for fault in faults] == sorted(fault.at for fault in faults)


def test_faults_that_last_are_as_long_as_their_kind_lasts(script, plan):
    for fault in script.make_script(3, plan):
        shortest, longest = script.SECONDS.get(fault.type, (0.0, 0.0))
        assert shortest <= fault.seconds <= longest


def test_fewer_faults_than_kinds_are_refused(script, plan):
    with pytest.raises(ValueError, match="too few"):
        script.make_script(1, script.ScriptPlan(100.0, 1, 12, plan.targets))
    with pytest.raises(ValueError, match="too few"):
        script.make_script(1, script.ScriptPlan(100.0, 20, 2, plan.targets))


def test_jobs_of_clients_are_the_same_for_a_seed_and_their_prompts_unique():
    requests = importlib.import_module("chaos_requests")
    mix = requests.ClientMix("counter", 5, 9)
    made = [requests.make_job("s", client, number, mix) for client in "ab" for number in range(200)]
    assert made == [requests.make_job("s", client, number, mix) for client in "ab" for number in range(200)]
    assert len({job.request["prompt"] for job in made}) == len({job.key for job in made}) == 400
    assert all(5 <= job.request["max_tokens"] <= 9 for job in made)
    assert {job.cancel for job in made} == set(requests.CancelMoment)
    assert any(job.drops for job in made)
    assert any("time_limit_ms" in job.request for job in made)
    assert any("delay_ms" in job.request for job in made)


@pytest.fixture
def received(log):
    def at(moment, kind, job_id="one"):
        return log.Received(
            at=moment, client="c", reader="r", job_id=job_id, kind=kind, event_id="", run=0, offset=0
        )

    return at


def test_a_gap_lasts_from_the_kill_to_the_first_token_after_the_job_was_rerouted(failover, received):
    loss = failover.Loss(1, "worker killed", 10.0, "one")
    # The second delta was on its way when the worker was killed.
    events = [
        received(9.9, "delta"),
        received(10.1, "delta"),
        received(10.6, "rerouted"),
        received(10.9, "delta"),
    ]
    (gap,) = failover.failover_gaps([loss], events)
    assert (gap.type, gap.job_id, pytest.approx(gap.seconds)) == ("worker killed", "one", 0.9)


def test_a_job_that_loses_its_next_worker_before_a_token_has_one_gap(failover, received):
    losses = [failover.Loss(1, "worker killed", 10.0, "one"), failover.Loss(2, "worker killed", 11.0, "one")]
    events = [received(10.5, "rerouted"), received(11.5, "rerouted"), received(12.0, "delta")]
    assert [gap.seconds for gap in failover.failover_gaps(losses, events)] == [2.0]


def test_a_job_that_nobody_reads_or_that_made_no_further_token_has_no_gap(failover, received):
    losses = [failover.Loss(1, "worker killed", 10.0, name) for name in ("one", "two")]
    events = [received(10.5, "rerouted", "two"), received(10.6, "finished", "two")]
    assert failover.failover_gaps(losses, events) == []
    assert failover.distribution([]) == {}
