"""Of several processes with one worker's key one draws, by rule, and another goes on when it is gone."""

import pytest

from support.hand_worker import HandWorker
from support.pool_stage import LEASE_MS, Stage, draw, ids
from tether.broker.pools.worker_port import Pulse
from tether.broker.pools.worker_rank import WorkerRank
from tether.discovery.fleet.liveness import copied_keys
from tether.discovery.over_redis.queue_evidence import QueueEvidence
from tether.errors import WorkerOutranked
from tether.ids import BootId


class Copies(Stage):
    def __init__(self, server, namespace):
        super().__init__(server, namespace)
        self.evidence = QueueEvidence(self.redis, self.keys)

    def process(self, boot):
        """A process with the key of the worker w."""
        counters = [boot]

        def rise(above):
            counters.append(max(above, counters[-1]) + 1)
            return BootId(f"w.{counters[-1]}")

        port = HandWorker(self.redis, self.keys, BootId(f"w.{boot}"), LEASE_MS)
        port.rank = WorkerRank(rise)
        port.hello()
        self.ports.append(port)
        return port

    def is_silent_for_long(self):
        """Whoever had the lead has not drawn for so long that it is gone."""
        assert self.redis.delete(f"{self.keys.prefix}:lead:w") == 1

    def told(self):
        return copied_keys(self.evidence.read())

    def close(self):
        self.evidence.close()
        super().close()


@pytest.fixture
def copies(shared_redis_server, namespace):
    opened = Copies(shared_redis_server, namespace)
    yield opened
    opened.close()


def test_of_two_with_one_boot_counter_the_other_does_not_keep_the_bell_of_the_one_that_draws_silent(copies):
    first, second = copies.process(6), copies.process(6)
    assert draw(first) == []
    assert is_refused(second)
    copies.place("a")
    assert copies.redis.llen(copies.keys.wake(first.boot_id)) == 1
    another = copies.worker("another.1")
    assert draw(another, count=0) == []
    assert is_refused(second)
    assert copies.redis.zscore(copies.keys.leases, f"w {first.boot_id}"), "it is still expected"


def test_a_worker_that_cannot_count_on_says_so_and_goes_on_trying(copies):
    first, second = copies.process(6), copies.process(5)
    draw(first)
    assert is_refused(second)
    copies.is_silent_for_long()
    rise = second.rank.rise_above
    second.rank.rise_above = lambda above: None
    for _ in range(2):
        with pytest.raises(WorkerOutranked, match=r"and is gone; this one gets .* cannot be written"):
            draw(second)
    assert second.rank.is_outranked
    second.rank.rise_above = rise
    copies.place("a")
    assert ids(draw(second)) == ["a"]


def is_refused(port, **options):
    with pytest.raises(WorkerOutranked, match="Give each host an identity folder of its own"):
        draw(port, **options)
    return port.rank.is_outranked


@pytest.mark.parametrize("boots", [(5, 6), (6, 6), (6, 5)], ids=["higher", "equal", "lower"])
def test_the_greater_boot_counter_draws_and_of_equal_ones_the_first(copies, boots):
    first, second = (copies.process(boot) for boot in boots)
    assert draw(first) == []
    assert copies.told() == ()
    if boots[1] > boots[0]:
        assert draw(second) == []
        assert is_refused(first)
        winner = second
    else:
        assert is_refused(second)
        winner = first
    assert copies.told() == ("w",)
    copies.place("a")
    assert ids(draw(winner)) == ["a"]
    assert not winner.rank.is_outranked


@pytest.mark.parametrize("is_graceful", [True, False])
@pytest.mark.parametrize("boots", [(5, 6), (6, 6)], ids=["higher", "equal"])
def test_whoever_is_left_goes_on_by_itself_with_a_greater_boot_counter(copies, boots, is_graceful):
    loser, winner = copies.process(boots[0]), copies.process(boots[1])
    draw(winner)
    assert is_refused(loser)
    if is_graceful:
        draw(winner, count=0)
    else:
        copies.is_silent_for_long()
    copies.place("a")
    assert [job.fence.draw_id.partition(":")[0] for job in draw(loser)] == ["w.7"]
    assert (loser.boot_id, loser.rank.is_outranked) == ("w.7", False)
    assert is_refused(winner), "it comes back, and has the lower number now"


def test_who_announces_a_greater_number_and_does_not_draw_is_passed(copies):
    copies.redis.hset(copies.keys.fleet_order, "w", "9:4")
    worker = copies.process(5)
    assert draw(worker) == []
    assert worker.boot_id == "w.10"
    assert copies.told() == ()


def test_a_process_that_runs_something_keeps_the_lead_by_its_beats(copies):
    winner, other = copies.process(6), copies.process(5)
    copies.place("a")
    (job,) = draw(winner)
    copies.redis.pexpire(f"{copies.keys.prefix}:lead:w", 5_000)
    winner.beat([Pulse("a", job.fence, renew=True)])
    assert copies.redis.pttl(f"{copies.keys.prefix}:lead:w") > 5_000
    assert is_refused(other)


def test_a_lower_one_that_runs_something_does_not_come_back_where_redis_has_no_memory_left(copies):
    first, second = copies.process(5), copies.process(6)
    draw(first)
    draw(second)
    assert is_refused(first, busy=True)
    copies.redis.config_set("maxmemory", 1)
    try:
        assert is_refused(first, busy=True)
    finally:
        copies.redis.config_set("maxmemory", 0)


def test_what_the_lower_one_runs_it_ends(copies):
    first, second = copies.process(5), copies.process(6)
    copies.place("a")
    (job,) = draw(first)
    draw(second)
    assert is_refused(first)
    first.beat([Pulse("a", job.fence, renew=True)])


def test_a_restart_is_no_copy(copies):
    draw(copies.process(5))
    draw(copies.process(6))
    assert copies.told() == ()
