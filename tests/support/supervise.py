"""Runs a Supervisor over the children given as JSON: [{"name": ..., "command": [...], "stops_before":
[...], "overlaps": ..., "forked": [module, function, arguments] or none, "environ": {...} or none}, ...],
policy, limit of a stop, and the modules of its fork server, if it shall have one: ``later`` among them has no
process wait."""

import json
import os
import sys

from tether.processes.children import Child
from tether.processes.fork_server_program import ForkedProgram
from tether.processes.restarts import RestartPolicy
from tether.processes.supervisor import Supervisor
from tether.telemetry.logs import configure_logs

configure_logs(form="json", process="supervisor")


def forked_of(child):
    if "forked" not in child:
        return None
    module, function, arguments = child["forked"]
    return ForkedProgram(module, function, tuple(arguments))


children = [
    Child(
        child["name"],
        tuple(child["command"]),
        stops_before=tuple(child["stops_before"]),
        overlaps=child["overlaps"],
        environ=child.get("environ", {}),
        forked=forked_of(child),
    )
    for child in json.loads(sys.argv[1])
]
policy = RestartPolicy(**json.loads(sys.argv[2]))
supervisor = Supervisor(
    children,
    policy=policy,
    stop_limit=float(sys.argv[3]),
    environ=os.environ,
    preloads=[module for module in sys.argv[4:] if module != "later"],
    forks_first="later" not in sys.argv,
)
sys.exit(supervisor.run())
