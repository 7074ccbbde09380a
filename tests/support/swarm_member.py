"""A member of a swarm in a process of its own: announces itself, and says what it sees, as JSON lines.

Its argument is JSON, see :class:`support.swarm.Member`. A line ``status`` on its input asks for what its
sidecar said last; it leaves when its input ends.
"""

import json
import sys
import threading
from pathlib import Path

from tether.discovery.announcements.presence import ModelState, Supported
from tether.discovery.fleet.fleet_view import FleetView
from tether.discovery.swarm.options import SwarmOptions
from tether.discovery.swarm.transport import SwarmTransport
from tether.discovery.trust.identity import Identity
from tether.discovery.trust.trusted_keys import TrustedKeys
from tether.telemetry.logs import configure_logs
from tether_workers.presence.health import HealthReporter, WorkerStatus

saying = threading.Lock()


def say(kind, value):
    with saying:
        print(json.dumps({kind: value}), flush=True)


def say_fleet(fleet):
    members = {
        worker: [*member.presence.order, member.presence.state] for worker, member in fleet.members.items()
    }
    say("fleet", members)


def main():
    told = json.loads(sys.argv[1])
    configure_logs(form="json", process=told["name"])
    identity = Identity.claim(Path(told["identity_dir"]))
    trusted = TrustedKeys((), Path(told["trusted_dir"]))
    options = SwarmOptions(
        secret=bytes.fromhex(told["secret"]),
        bootstrap=tuple(told["bootstrap"]),
        role="worker",
        package_dir=Path(told["package_dir"]),
        host=told["host"],
        interval_ms=told["interval_ms"],
        expiry_ms=told["expiry_ms"],
    )
    transport = SwarmTransport(
        options,
        identity.key,
        trusted,
        operators=lambda: frozenset(told["operators"]),
        on_command=lambda envelope: say("command", json.loads(envelope[64:])["id"]),
    )
    transport.join(told["joins"])
    view = FleetView(
        {"swarm": transport.source(told["follows"])},
        trusted,
        interval_ms=options.interval_ms,
        expiry_ms=options.expiry_ms,
        network=transport.network,
        topics=lambda topic: topic in told["follows"],
    )
    view.on_change(say_fleet)
    supported = tuple(Supported(model, "1", "ab" * 32, ModelState.WARM) for model in told["models"])
    status = WorkerStatus(gpu_class="cpu", region=told["region"], slots=2, free=2, supported=supported)
    reporter = HealthReporter(
        identity, transport, lambda: status, options.interval_ms / 1000, network=transport.network
    )
    view.start()
    transport.start()
    reporter.start()
    say("ready", identity.boot_id)
    for line in sys.stdin:
        if line.strip() == "status":
            say("status", {**transport.status, "pid": transport.pid})
    reporter.stop()
    transport.stop()
    view.stop()
    say("left", [thread.name for thread in threading.enumerate() if thread.name.startswith("tether-")])


if __name__ == "__main__":
    main()
