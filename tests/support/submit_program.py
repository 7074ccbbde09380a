"""Submits a job from a process of its own, and another when it is told to.

submit_program.py MODEL PROMPT OTHER_PROMPT
"""

import sys

from support.waiting import PATIENCE_SECONDS, eventually
from tether import Tether

with Tether.direct() as client:
    # On a busy machine the first look at the fleet may come late, and a job that nobody serves is parked.
    eventually(lambda: client.models()[0].workers > 0, PATIENCE_SECONDS, "a live worker is seen")
    # From then on there is a connection on which the other is placed at once.
    client.submit(sys.argv[1], sys.argv[2])
    print("ready", flush=True)
    sys.stdin.readline()
    client.submit(sys.argv[1], sys.argv[3])
    print("submitted", flush=True)
