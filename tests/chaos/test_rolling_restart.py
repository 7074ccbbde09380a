"""All of an installation is restarted under load, part by part, and no client is the wiser."""

import contextlib
import signal
from types import SimpleNamespace

from support.accounts import Accounts
from support.balancer import Balancer
from support.cluster import Cluster
from support.databases import fresh_postgres
from support.rolling_clients import PROMPT, Load
from support.waiting import PATIENCE_SECONDS, eventually
from tether import Tether

RATE, TOKENS = 20, 30
# One job is there throughout.
WATCHED_RATE, WATCHED_TOKENS = 2, 4_000
MODELS = {"counter": (RATE, TOKENS), "watched": (WATCHED_RATE, WATCHED_TOKENS)}
CONFIG = """
[worker]
drain_timeout = 300
[gateway]
drain_timeout = 4000
"""
PRESENCE = "interval = 500\nexpiry = 2000\n"


class Installation:
    """Redis, Postgres, a gateway, an orchestrator, a worker of two processes, and clients that ask."""

    def __init__(self, stack, postgres_url):
        database = stack.enter_context(fresh_postgres(postgres_url))
        self.cluster = stack.enter_context(
            Cluster(database=database, models=MODELS, config=CONFIG, presence=PRESENCE)
        )
        self.accounts = stack.enter_context(Accounts(self.cluster))
        self.orchestrator = self.cluster.start_orchestrator()
        self.worker = self.cluster.start_worker(processes=2)
        self.gateway = self.cluster.start_gateway()
        self.balancer = Balancer(self.gateway.port)
        stack.callback(self.balancer.close)
        self.load, self.direct = Load(TOKENS), Load(TOKENS)

    def ask_through_the_balancer(self):
        url, key, load = self.balancer.url, self.gateway.key, self.load
        load.start("sdk", load.sdk(url, key), 2)
        load.start("async sdk", load.async_sdk(url, key))
        load.start("sse", load.sse(SimpleNamespace(port=self.balancer.port, key=lambda: key)), 2)
        load.start("chat", load.chat(url, key, is_streamed=False))
        load.start("streamed chat", load.chat(url, key, is_streamed=True))

    def watch_one_job(self):
        url, key, load = self.balancer.url, self.gateway.key, self.load
        self.watched = Tether(url, key).submit("watched", PROMPT, max_tokens=WATCHED_TOKENS)
        gateway = SimpleNamespace(port=self.balancer.port, key=lambda: key)
        load.start("watched", load.watch(gateway, self.watched.job_id, WATCHED_TOKENS))
        eventually(lambda: load.seen["watched delta"], PATIENCE_SECONDS, "the watched job runs")

    def ask_the_gateway_itself(self):
        for pause in (0.02, 0.1, 0.5):
            self.direct.start("plain", self.direct.plain(self.gateway.port, self.gateway.key, pause))

    def wait_for_more(self, name):
        """So that there is load before, amid and after."""
        before = self.load.seen[name]
        eventually(lambda: self.load.seen[name] > before + 1, PATIENCE_SECONDS, f"more of {name}")

    @contextlib.contextmanager
    def expecting(self, kind):
        """What is done must have this effect on somebody: else it shows nothing."""
        before = self.load.seen[kind]
        yield
        eventually(lambda: self.load.seen[kind] > before, PATIENCE_SECONDS, f"an event {kind}")

    def assert_all_ran_once(self):
        """Every job succeeded, by one attempt and those that handed it over, but the one that was cancelled;
        and nobody is blamed."""
        job_ids = [*self.load.job_ids, *self.direct.job_ids]
        self.accounts.wait_until_all_ended(len(self.accounts.states()))
        states, attempts = self.accounts.states(), self.accounts.attempts()
        assert states.pop(self.watched.job_id) == "cancelled"
        assert {kind for kind, *_ in attempts.pop(self.watched.job_id)} <= {"cancelled", "released"}
        assert set(job_ids) <= set(states)
        assert set(states.values()) == {"succeeded"}
        assert all([kind for kind, *_ in tries].count("succeeded") == 1 for tries in attempts.values())
        kinds = {kind for tries in attempts.values() for kind, *_ in tries}
        assert kinds <= {"succeeded", "released"}, "an attempt was counted"
        for field in ("deaths", "evidence"):
            assert set(self.accounts.in_redis([*job_ids, self.watched.job_id], field)) <= {None, "0"}
        self.accounts.assert_nothing_left()


def reload(process, children):
    """SIGHUP, until all of so many children are replaced."""
    before = sum("A child is ready" in line for line in process.lines)
    process.signal(signal.SIGHUP)
    process.wait_for_line("A child is ready", within=PATIENCE_SECONDS, count=before + children)


def test_all_are_reloaded_and_then_replaced_under_load_and_nobody_notices(postgres_url):
    with contextlib.ExitStack() as stack:
        one = Installation(stack, postgres_url)
        one.ask_through_the_balancer()
        one.ask_the_gateway_itself()
        one.watch_one_job()
        one.wait_for_more("sse")

        # The same supervisors and the same socket: clients need no balancer.
        with one.expecting("watched rerouted"):
            reload(one.worker, children=2)
        with one.expecting("watched interrupted"):
            reload(one.gateway, children=1)
        reload(one.orchestrator, children=1)
        one.wait_for_more("sse")
        one.direct.stop()
        assert one.direct.errors == []
        assert one.load.errors == []

        # Whole supervisors: the new one first, then the end of the former one.
        one.cluster.start_worker(processes=2)
        with one.expecting("watched rerouted"):
            assert one.worker.stop() == 0
        one.balancer.ports.append(one.cluster.start_gateway().port)
        with one.expecting("watched interrupted"):
            assert one.gateway.stop() == 0
        one.cluster.start_orchestrator()
        assert one.orchestrator.stop() == 0
        one.wait_for_more("sse")
        one.watched.cancel()
        one.load.stop()
        assert one.load.errors == []
        one.assert_all_ran_once()
