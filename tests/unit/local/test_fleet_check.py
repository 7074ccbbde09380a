"""What the doctor says of workers that announce themselves."""

from nacl.signing import SigningKey

from support.presences import OTHER_KEY, apply, presence
from tether.core.pool_backlogs import pools_without_workers
from tether.discovery.announcements.presence import WorkerState
from tether.discovery.fleet.fleet import Fleet, judged
from tether.local.doctor import CheckStatus
from tether.local.fleet_check import fleet_verdict

THIRD_KEY = SigningKey(bytes([3]) * 32)
WORKER, OTHER = presence().worker_id, presence(OTHER_KEY).worker_id
POOLS = frozenset(presence().pools)


def test_workers_that_do_what_they_announce_are_in_order():
    assert fleet_verdict(Fleet(), {}).found == "0 workers announced"
    check = fleet_verdict(apply(Fleet(), presence(), 0), {})
    assert (check.verdict, check.found, check.mend) == (CheckStatus.OK, "1 worker announced", "")


def test_workers_that_draw_nothing_are_named_and_those_that_say_why_apart():
    fleet = apply(apply(Fleet(), presence(), 0), presence(OTHER_KEY, state=WorkerState.DISCONNECTED), 0)
    check = fleet_verdict(judged(fleet, {WORKER: POOLS}), {OTHER: "big box"})
    assert check.verdict is CheckStatus.WARN
    assert check.found == (
        f"{OTHER} (big box) cannot reach Redis, and gets no jobs; "
        f"{WORKER} announced, but draws no jobs, and gets none"
    )
    assert "redis.url" in check.mend


def test_workers_that_an_operator_took_out_of_service_are_named_with_the_way_back():
    fleet = apply(apply(Fleet(), presence(), 0), presence(OTHER_KEY, state=WorkerState.CORDONED), 0)
    check = fleet_verdict(fleet, {OTHER: "big box"})
    assert check.verdict is CheckStatus.WARN
    assert check.found == f"{OTHER} (big box) takes no new jobs: an operator cordoned or drained it"
    assert "tether fleet uncordon" in check.mend
    fleet = apply(fleet, presence(THIRD_KEY, state=WorkerState.DRAINING), 0)
    assert "take no new jobs: an operator cordoned or drained them" in fleet_verdict(fleet, {}).found


def test_jobs_in_pools_that_no_live_worker_draws_from_are_counted_with_what_to_do():
    fleet = apply(Fleet(), presence(), 0)
    waiting = {"gpu.a100.eu.tiny-abababab": 3, "gpu.cpu.us.tiny-abababab": 1, presence().pools[0]: 9}
    check = fleet_verdict(fleet, {}, deserted=pools_without_workers(fleet, waiting))
    assert check.verdict is CheckStatus.WARN
    assert check.found == (
        "3 jobs wait in pool gpu.a100.eu.tiny-abababab, 1 job waits in pool gpu.cpu.us.tiny-abababab, "
        "from which no live worker draws"
    )
    assert "start a worker of that GPU class and region" in check.mend


def test_of_many_only_some_are_named():
    fleet = Fleet()
    for number in range(7):
        fleet = apply(fleet, presence(SigningKey(bytes([number + 1]) * 32)), 0)
    check = fleet_verdict(judged(fleet, dict.fromkeys(fleet.members, POOLS)), {})
    assert "and 2 more announced, but draw no jobs, and get none" in check.found


def test_who_is_ignored_is_named_with_the_reason():
    check = fleet_verdict(Fleet(), {OTHER: "big box"}, strangers=[WORKER], wrong_clocks={OTHER: -700_400})
    assert check.verdict is CheckStatus.WARN
    assert check.found == (
        f"{WORKER} announced with a key that is not trusted, or was revoked; clocks differ too much from "
        f"this machine's: of {OTHER} (big box) by 700 s behind; no jobs go there"
    )
    assert "tether fleet trust" in check.mend
    assert "NTP" in check.mend
