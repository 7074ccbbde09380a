"""Commands over the swarm: an orchestrator relays what it finds in a Redis that the worker does not read."""

import os
import time

import pytest

from support.commands import command
from support.inference import InferenceBench
from support.swarm import LOOPBACK, PACKAGES, BootstrapNode
from support.waiting import PATIENCE_SECONDS, eventually
from tether.broker.keys import Keys
from tether.config.settings import Settings
from tether.discovery.announcements.presence import WorkerState
from tether.discovery.commands.command import Action, sign_command
from tether.discovery.commands.inbox import send_command
from tether.discovery.commands.operator_key import operator_key
from tether.discovery.discovery_sub import DiscoverySub
from tether.discovery.fleet.fleet_view import FleetView
from tether.discovery.over_redis.redis_presence import RedisPresence
from tether.discovery.topics import network_id
from tether.discovery.trust.trusted_keys import TrustedKeys

SECRET = b"a network in which commands come"


@pytest.fixture
def bench(tmp_path):
    with BootstrapNode() as node:
        bench = InferenceBench(tmp_path)
        bench.values["network"] = {
            "secret": SECRET.hex(),
            "bootstrap": [node.address],
            "host": LOOPBACK,
            "package_dir": str(PACKAGES),
        }
        bench.values["presence"].update(adapters=["swarm"], interval=500, expiry=60_000)
        yield bench
        bench.close()


def test_a_command_reaches_a_worker_over_the_swarm_alone(bench):
    elsewhere = {**bench.values, "redis": {"url": bench.server.url, "namespace": "elsewhere"}}
    settings = Settings.model_validate(elsewhere)
    keys = Keys("elsewhere")
    folder = settings.presence.identity_dir
    operator = operator_key(folder)
    trusted = TrustedKeys((), folder)
    presence_port = RedisPresence(bench.client, keys)
    swarm = DiscoverySub.from_settings(settings, trusted, presence_port, bench.client)
    view = FleetView(
        {"swarm": swarm.source}, trusted, interval_ms=500, expiry_ms=60_000, on_accepted=swarm.on_accepted
    )
    view.start()
    swarm.start()
    process = bench.start_process()
    worker = eventually(
        lambda: next(iter(view.fleet.members), None), PATIENCE_SECONDS, "the worker is heard of"
    )

    def tell(action):
        made = command(
            operator,
            command_id=os.urandom(16).hex(),
            action=action,
            target=worker,
            network=network_id(SECRET),
            issued_at=time.time_ns() // 1_000_000,
        )
        send_command(bench.client, keys, made, sign_command(made, operator))

    def is_shown(state):
        return view.fleet.members[worker].presence.state is state

    tell(Action.CORDON)
    process.wait_for_line("Cordoned", within=PATIENCE_SECONDS)
    eventually(lambda: is_shown(WorkerState.CORDONED), PATIENCE_SECONDS, "it shows in the swarm")
    tell(Action.UNCORDON)
    eventually(lambda: is_shown(WorkerState.SERVING), PATIENCE_SECONDS, "it shows in the swarm")
    bench.wait_for_state(bench.place(), "succeeded")
    assert bench.client.keys(f"{bench.keys.prefix}:inbox:*") == []
    swarm.stop()
    view.stop()
    presence_port.close()
