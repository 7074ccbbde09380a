"""Runs a Supervisor over the children given as JSON: [{"name": ..., "command": [...],
"stops_before": [...], "overlaps": ...}, ...], policy."""

import json
import os
import sys

from tether.processes.children import Child
from tether.processes.restarts import RestartPolicy
from tether.processes.supervisor import Supervisor
from tether.telemetry.logs import configure_logs

configure_logs(form="json", process="supervisor")
children = [
    Child(
        child["name"],
        tuple(child["command"]),
        stops_before=tuple(child["stops_before"]),
        overlaps=child["overlaps"],
    )
    for child in json.loads(sys.argv[1])
]
policy = RestartPolicy(**json.loads(sys.argv[2]))
supervisor = Supervisor(children, policy=policy, stop_limit=float(sys.argv[3]), environ=os.environ)
sys.exit(supervisor.run())
