"""Something is killed while a circuit breaker is open, or while a job tries: the breaker neither stays open
for ever nor lets a flood through, and no job is lost."""

import contextlib

import pytest

from support.accounts import Accounts, expected_texts
from support.cluster import Cluster
from support.waiting import PATIENCE_SECONDS, eventually
from support.workers import children_but_fork_server
from tether import Tether
from tether.broker.pools.pools import Pools
from tether.models.registry import Registry
from tether.scheduling.breaker import BreakerState
from tether.scheduling.known_breakers import breaker_rules
from tether.scheduling.shared_breakers import SharedBreakers

TOKENS = 8
JOBS = 12
SLOTS = 4
CONFIG = """
[breaker]
window = "20s"
min_samples = 4
open_time = "1s"
max_open_time = "1s"
[jobs]
lease = 1000
retry_base = 10
retry_cap = 100
[retries]
worker_failures = 100
"""
PRESENCE = "interval = 500\nexpiry = 2000\n"


class Stricken:
    """A gateway, an orchestrator and a worker that fails, all processes of their own, and jobs that wait."""

    def __init__(self, stack):
        self.cluster = stack.enter_context(
            Cluster(models={"counter": (0, TOKENS)}, config=CONFIG, presence=PRESENCE)
        )
        settings = self.cluster.settings
        pools = stack.enter_context(contextlib.closing(Pools(self.cluster.redis, self.cluster.keys)))
        rules = breaker_rules(settings.breaker)
        self.breakers = SharedBreakers(pools, Registry.from_settings(settings), rules)
        self.mood, self.log = self.cluster.folder / "mood", self.cluster.folder / "begun"
        self.feel("fails")
        self.log.touch()
        self.orchestrator = self.cluster.start_orchestrator()
        environ = {"MOOD": str(self.mood), "BEGUN": str(self.log)}
        self.worker = self.cluster.start_worker("support.moody_worker:broker", threads=SLOTS, **environ)
        self.gateway = self.cluster.start_gateway()

    def feel(self, mood):
        fresh = self.mood.with_suffix(".new")
        fresh.write_text(mood)
        fresh.replace(self.mood)

    def begun(self):
        return self.log.stat().st_size

    def breaker(self):
        """The breaker that is not closed, as Redis has it."""
        return next(iter(self.breakers.told().values()), None)

    def trips(self):
        breaker = self.breaker()
        return 0 if breaker is None else breaker.trips

    def state(self):
        seconds, microseconds = self.cluster.redis.time()
        breaker = self.breaker()
        return breaker and breaker.state(seconds * 1000 + microseconds // 1000)

    # What is lost.

    def lose_gateway(self):
        kill_children(self.gateway)

    def lose_orchestrator(self):
        kill_children(self.orchestrator)

    def lose_worker(self):
        kill_children(self.worker)

    def lose_redis(self):
        self.cluster.server.restart()


def kill_children(supervisor):
    for child in children_but_fork_server(supervisor.pid):
        child.kill()


LOSSES = (Stricken.lose_gateway, Stricken.lose_orchestrator, Stricken.lose_worker, Stricken.lose_redis)


def let_one_hang(stricken):
    """Half-open, and the job that tries runs."""
    stricken.feel("hangs")
    before = stricken.begun()
    eventually(lambda: stricken.begun() > before, PATIENCE_SECONDS, "a job tries")


def wait_until_open(stricken):
    eventually(lambda: stricken.state() is BreakerState.OPEN, PATIENCE_SECONDS, "it is open")


@pytest.mark.parametrize("prepare", [let_one_hang, pytest.param(wait_until_open, marks=pytest.mark.long)])
def test_a_breaker_survives_the_loss_of_each_part(prepare):
    with contextlib.ExitStack() as stack:
        stricken = Stricken(stack)
        client = stack.enter_context(Tether(stricken.gateway.url, stricken.gateway.key))
        accounts = stack.enter_context(Accounts(stricken.cluster))
        prompts = [f"number {number}" for number in range(JOBS)]
        jobs = [client.submit("counter", prompt, max_tokens=TOKENS, max_attempts=100) for prompt in prompts]
        # Once one has tried, what had begun before has ended.
        eventually(lambda: stricken.trips() > 1, PATIENCE_SECONDS, "one has tried")
        for lose in LOSSES:
            prepare(stricken)
            before, tripped = stricken.begun(), stricken.trips()
            lose(stricken)
            stricken.feel("fails")
            eventually(
                lambda tripped=tripped: stricken.trips() > tripped + 1, PATIENCE_SECONDS, "others have tried"
            )
            # One each time, and the one that was cut off or unheard once more.
            assert stricken.begun() - before <= stricken.trips() - tripped + 2, lose.__name__
        stricken.feel("works")
        texts = {job.job_id: expected_texts(p, TOKENS) for job, p in zip(jobs, prompts, strict=True)}
        accounts.wait_until_all_ended(JOBS)
        accounts.assert_succeeded_once(texts)
        eventually(lambda: stricken.breaker() is None, PATIENCE_SECONDS, "it is closed")
